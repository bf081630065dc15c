//! What ssh's words mean to the caller. Pure.

use super::super::error::{RemoteError, RemoteErrorKind};
use super::target::{SshSettings, SshTarget};

/// A connection that could not be made, by ssh's log of it.
pub(super) fn connect(target: &SshTarget, settings: &SshSettings, log: &str) -> RemoteError {
    let has = |sign: &str| log.contains(sign);
    let (node, address, alias) = (&target.node, &target.address, &target.host_key_alias);
    let error = |kind, what: &str| RemoteError::new(kind, node, format_args!("{what}: {}", last_line(log)));
    let known_hosts = settings.known_hosts.display();
    if has("HOST IDENTIFICATION HAS CHANGED") {
        let what = format_args!("the host key of {address} is not the one that is known for {alias}");
        return RemoteError::new(RemoteErrorKind::HostKey, node, what).with_hint(match target.host_key {
            Some(_) => not_the_given_one(),
            None => format!(
                "somebody may be between you and the machine; if it was reinstalled on purpose, remove the line of {alias} from {known_hosts}"
            ),
        });
    }
    if has("Host key verification failed") || has("host key is known for") || has("REVOKED HOST KEY") {
        return error(RemoteErrorKind::HostKey, "the host key cannot be trusted").with_hint(match target.host_key {
            Some(_) => not_the_given_one(),
            None => {
                format!("compare it with the machine's own, then put it into {known_hosts} under the name {alias}")
            }
        });
    }
    if has("UNPROTECTED PRIVATE KEY FILE") || has("bad permissions") {
        let key = target.key.as_deref().map_or_else(|| "the key file".to_owned(), |key| key.display().to_string());
        return error(RemoteErrorKind::Denied, "the private key may be read by others, so ssh ignores it")
            .with_hint(format!("`chmod 600 {key}`"));
    }
    if has("Too many authentication failures") {
        return error(RemoteErrorKind::Denied, "the login was refused")
            .with_hint("name the key to use; the agent offers too many");
    }
    if has("Permission denied") {
        let user = target.user.as_deref().unwrap_or("the default user");
        let hint = if has("not accessible") {
            "the key file does not exist; check its path".to_owned()
        } else {
            format!(
                "is {user} the right login, and is your public key on the machine? `ssh -v` to {address} tells more"
            )
        };
        return error(RemoteErrorKind::Denied, "the login was refused").with_hint(hint);
    }
    if has("Bad configuration option") || has("terminating, ") || has("Bad owner or permissions") {
        return error(RemoteErrorKind::Failed, "ssh does not accept its configuration")
            .with_hint(format!("check {} and /etc/ssh/ssh_config", settings.user_config.display()));
    }
    let hint = if has("Could not resolve") {
        "check the address"
    } else if has("Connection refused") {
        "is the machine still booting, and is this the right port?"
    } else {
        "is the machine up, and does a firewall on the way let SSH through?"
    };
    error(RemoteErrorKind::Unreachable, &format!("cannot reach {address}")).with_hint(hint)
}

/// A machine that was given its host key at launch and shows another.
fn not_the_given_one() -> String {
    "it is not the key that the machine was given at launch: somebody may be between you and it, or its image does not let cloud-init set \
     host keys; in the second case terminate it and launch it again with `--trust-first-key`"
        .to_owned()
}

/// The last line that says something; ssh's log begins with warnings.
fn last_line(log: &str) -> &str {
    log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("ssh gave no reason")
}

/// sudo's own failure, if that is what the status and the words mean.
pub(super) fn sudo(node: &str, status: Option<i32>, stderr: &[u8]) -> Option<RemoteError> {
    let text = String::from_utf8_lossy(stderr);
    let signs = [
        "sudo: a password is required",
        "sudo: a terminal is required",
        "sudo: no tty present",
        "sudo: sorry, you must have a tty",
        "is not in the sudoers file",
        "is not allowed to execute",
        "may not run sudo",
    ];
    let refused = status == Some(1)
        && text
            .lines()
            .all(|line| line.starts_with("sudo:") || line.starts_with("Sorry, user") || line.contains("sudo"))
        && signs.iter().any(|sign| text.contains(sign));
    let missing = status == Some(127) && text.contains("sudo: not found");
    let (what, hint) = if refused {
        (
            "sudo does not work without a password",
            "allow it on the node: a file in /etc/sudoers.d with `USER ALL=(ALL) NOPASSWD:ALL`",
        )
    } else if missing {
        ("sudo is not installed", "install sudo on the node, or log in as root")
    } else {
        return None;
    };
    Some(RemoteError::new(RemoteErrorKind::Sudo, node, what).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::super::super::error::RemoteErrorKind;
    use super::super::target::tests::target;
    use super::super::target::{SshSettings, SshTarget};
    use super::{connect, sudo};

    #[test]
    fn words_of_ssh_have_a_kind() {
        let settings = SshSettings::new("/kh".into(), "/c".into());
        let cases = [
            (
                "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                RemoteErrorKind::HostKey,
            ),
            (
                "No ED25519 host key is known for i-0123 and you have requested strict checking.\nHost key verification failed.",
                RemoteErrorKind::HostKey,
            ),
            ("u@h: Permission denied (publickey).", RemoteErrorKind::Denied),
            ("Load key \"k\": bad permissions\nu@h: Permission denied (publickey).", RemoteErrorKind::Denied),
            ("Received disconnect: Too many authentication failures", RemoteErrorKind::Denied),
            ("/c: line 3: Bad configuration option: foo", RemoteErrorKind::Failed),
            ("connect to host h port 22: Connection refused", RemoteErrorKind::Unreachable),
            ("Could not resolve hostname h: Name or service not known", RemoteErrorKind::Unreachable),
            ("", RemoteErrorKind::Unreachable),
        ];
        for (log, kind) in cases {
            let error = connect(&target("h"), &settings, log);
            assert_eq!(error.kind, kind, "{log}");
            assert!(error.message.starts_with("east: ") && error.hint.is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_key_that_was_given_at_launch_has_its_own_advice() {
        let settings = SshSettings::new("/kh".into(), "/c".into());
        let given = SshTarget { host_key: Some("ssh-ed25519 AAAA".into()), ..target("h") };
        for log in ["REMOTE HOST IDENTIFICATION HAS CHANGED!", "No RSA host key is known for i-0123"] {
            let hint = |target| connect(target, &settings, log).hint.expect("a hint");
            assert!(hint(&given).contains("--trust-first-key") && hint(&target("h")).contains("/kh"), "{log}");
        }
    }

    #[test]
    fn sudo_failures_are_told_from_failures_of_the_command() {
        let cases: [(Option<i32>, &str, bool); 7] = [
            (Some(1), "sudo: a password is required\n", true),
            (Some(1), "sudo: unable to resolve host x\nsudo: a terminal is required to read the password\n", true),
            (Some(1), "Sorry, user u is not allowed to execute '/usr/bin/id' as root on h.\n", true),
            (Some(127), "sh: 1: exec: sudo: not found\n", true),
            (Some(1), "grep: sudo: a password is required\nno\n", false),
            (Some(0), "sudo: a password is required\n", false),
            (Some(127), "sh: foo: not found\n", false),
        ];
        for (status, stderr, is_sudo) in cases {
            let error = sudo("n", status, stderr.as_bytes());
            assert_eq!(error.map(|error| error.kind), is_sudo.then_some(RemoteErrorKind::Sudo), "{stderr}");
        }
    }
}
