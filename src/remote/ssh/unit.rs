//! systemd units over SSH.

use super::super::error::{RemoteError, RemoteErrorKind};
use super::super::service::{ServiceAction, ServiceState};
use super::SshRemote;
use super::exec::Input;
use super::script::{NO_SYSTEMD, NOT_INSTALLED, SERVICE};

/// Longest start or stop, seconds: systemd's own default limits for either are 90.
const LIMIT_S: u32 = 200;

/// The script's word for it.
pub(super) fn word(action: &ServiceAction) -> &'static str {
    match action {
        ServiceAction::Install(_) => "install",
        ServiceAction::Start => "start",
        ServiceAction::Stop => "stop",
        ServiceAction::Restart => "restart",
        ServiceAction::Remove => "remove",
        ServiceAction::Status => "status",
    }
}

impl SshRemote {
    pub(super) async fn unit_action(&self, action: &str, unit: &str) -> Result<ServiceState, RemoteError> {
        let output = self.script(SERVICE, &[action, unit], action != "status", Input::Bytes(b""), LIMIT_S).await?;
        match output.status {
            Some(0) => Ok(parse(&String::from_utf8_lossy(&output.stdout))),
            Some(NO_SYSTEMD) => Err(no_systemd(self.node())),
            Some(NOT_INSTALLED) => Err(RemoteError::failed(self.node(), format_args!("{unit} is not installed"))),
            _ => Err(RemoteError::failed(self.node(), format_args!("cannot {action} {unit}: {}", output.complaint()))
                .with_hint(format!("`journalctl -u {unit}` on the node may tell why"))),
        }
    }
}

/// The refusal of a node that cannot supervise.
pub(super) fn no_systemd(node: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Unsuitable, node, "the machine does not run systemd, which supervises the services")
        .with_hint("use a distribution with systemd as its init (not a container), or `--provider local` for processes on this machine")
}

/// `systemctl show` and, if the unit file exists, its checksum.
fn parse(text: &str) -> ServiceState {
    let mut state = ServiceState::default();
    for line in text.lines() {
        match line.split_once('=') {
            Some(("ActiveState", value)) => state.running = matches!(value, "active" | "reloading"),
            Some(("MainPID", value)) => state.pid = value.parse().ok().filter(|pid| *pid != 0),
            Some(("NRestarts", value)) => state.restarts = value.parse().unwrap_or(0),
            _ => {
                let sum = line.split_whitespace().next().filter(|word| is_sum(word));
                state.definition_sha256 = sum.map(str::to_owned).or(state.definition_sha256);
            }
        }
    }
    state.installed = state.definition_sha256.is_some();
    state.pid = state.pid.filter(|_| state.running);
    state
}

fn is_sum(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::super::super::service::ServiceState;
    use super::parse;

    #[test]
    fn reads_what_systemctl_shows() {
        let sum = "a".repeat(64);
        let running = format!("NRestarts=2\nMainPID=71\nActiveState=active\n{sum}  -\n");
        let wanted = ServiceState {
            installed: true,
            running: true,
            pid: Some(71),
            restarts: 2,
            definition_sha256: Some(sum.clone()),
        };
        assert_eq!(parse(&running), wanted);
        let waiting = format!("NRestarts=5\nMainPID=0\nActiveState=activating\n{sum}  -\n");
        assert_eq!(parse(&waiting), ServiceState { running: false, pid: None, restarts: 5, ..wanted });
        assert_eq!(parse("NRestarts=0\nMainPID=0\nActiveState=inactive\n"), ServiceState::default());
        assert_eq!(parse("MainPID=0\nActiveState=inactive\n"), ServiceState::default(), "systemd before 235");
    }
}
