//! Where a node is and how to get in, and the ssh configuration that says so. Pure.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::RemoteError;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// Its name in messages.
    pub node: String,
    /// Address, host name, or a `Host` of the user's own ssh configuration.
    pub address: String,
    /// Port; `None` = what the user's configuration says, else 22.
    pub port: Option<u16>,
    /// Login; `None` = what the user's configuration says, else the own name.
    pub user: Option<String>,
    /// Private key; `None` = agent and default keys.
    pub key: Option<PathBuf>,
    /// Name under which the host's key is known: the instance id, because addresses are used again by other machines.
    pub host_key_alias: String,
    /// The host's public key (`ssh-ed25519 AAAA…`) if it was given to the machine at launch; `None` = trust on first use.
    pub host_key: Option<String>,
}

/// What all nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSettings {
    /// Known host keys of this cluster; made when missing.
    pub known_hosts: PathBuf,
    /// Folder for control sockets, 0700, short (a socket's path may have about 104 bytes).
    pub control_dir: PathBuf,
    /// The user's ssh configuration, read after our own lines; normally `~/.ssh/config`.
    pub user_config: PathBuf,
    /// Longest time for TCP connect and key exchange; whole seconds.
    pub connect_timeout: Duration,
    /// A connection without any sign of life is probed after this time; whole seconds.
    pub alive_interval: Duration,
    /// Unanswered probes after which it counts as lost.
    pub alive_count: u32,
    /// A connection that nobody uses ends itself after this time, also when gorgo was killed.
    pub idle_limit: Duration,
}

impl SshSettings {
    /// Defaults around a known-hosts file and a control folder: connect 10 s, alive 5 s × 3, idle 60 s.
    #[must_use]
    pub fn new(known_hosts: PathBuf, control_dir: PathBuf) -> Self {
        Self {
            known_hosts,
            control_dir,
            user_config: "~/.ssh/config".into(),
            connect_timeout: Duration::from_secs(10),
            alive_interval: Duration::from_secs(5),
            alive_count: 3,
            idle_limit: Duration::from_secs(60),
        }
    }
}

/// Longest control folder, bytes. A socket's path has at most 104 (macOS; 108 on Linux); `/.ssh-connectionXXXXXX/master` and the
/// suffix that ssh gives it while it is being made take 47.
pub(super) const CONTROL_DIR_MAX: usize = 57;

/// Refuses what ssh would read as an option, a pattern or several words. An empty address above all: ssh may take it for this machine.
pub(super) fn check(target: &SshTarget, settings: &SshSettings) -> Result<(), RemoteError> {
    let bad = |what: &str, value: &str| {
        let error = RemoteError::failed(&target.node, format_args!("{value:?} cannot be {what}"));
        Err(error.with_hint("letters, digits and `.`, `-`, `_`, `:` are fine"))
    };
    if !is_word(&target.address) {
        return bad("an address for ssh", &target.address);
    }
    if !is_word(&target.host_key_alias) {
        return bad("the name of a host key", &target.host_key_alias);
    }
    if let Some(user) = target.user.as_deref().filter(|user| !is_word(user)) {
        return bad("a login name", user);
    }
    for path in [&settings.known_hosts, &settings.user_config, &settings.control_dir] {
        if !path.to_str().is_some_and(is_tame_path) {
            return bad("a path for ssh", &path.to_string_lossy());
        }
    }
    if settings.control_dir.as_os_str().len() > CONTROL_DIR_MAX {
        let problem = format_args!(
            "the folder for control sockets is longer than {CONTROL_DIR_MAX} bytes: {}",
            settings.control_dir.display()
        );
        return Err(
            RemoteError::failed(&target.node, problem).with_hint("set XDG_RUNTIME_DIR to a folder with a shorter path")
        );
    }
    Ok(())
}

/// One word without meaning to ssh: no option, no pattern, no separator.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:%".contains(c))
}

/// A path that stays itself between double quotes in an ssh configuration, where `%` and `$` are expanded.
fn is_tame_path(path: &str) -> bool {
    !path.is_empty() && !path.chars().any(|c| c.is_control() || "\"%$\\".contains(c))
}

/// The configuration file for one connection. ssh takes the first value that it finds, so ours win over the user's, and `Host` limits
/// them to this node: jump hosts on the way are the user's own business.
pub(super) fn config_text(target: &SshTarget, settings: &SshSettings) -> String {
    let mut text = format!("Host {}\n", target.address);
    let known_hosts = quoted(&settings.known_hosts);
    let seconds = |duration: Duration| duration.as_secs().max(1).to_string();
    let options: [(&str, &str); 18] = [
        ("HostKeyAlias", &target.host_key_alias),
        ("UserKnownHostsFile", &known_hosts),
        ("GlobalKnownHostsFile", "/dev/null"),
        ("HashKnownHosts", "no"),
        ("UpdateHostKeys", "no"),
        ("VerifyHostKeyDNS", "no"),
        ("CheckHostIP", "no"),
        ("NoHostAuthenticationForLocalhost", "no"),
        ("ServerAliveInterval", &seconds(settings.alive_interval)),
        ("ServerAliveCountMax", &settings.alive_count.max(1).to_string()),
        ("ConnectTimeout", &seconds(settings.connect_timeout)),
        ("ConnectionAttempts", "1"),
        ("ForwardAgent", "no"),
        ("ForwardX11", "no"),
        ("ClearAllForwardings", "yes"),
        ("PermitLocalCommand", "no"),
        ("RemoteCommand", "none"),
        ("LogLevel", "INFO"),
    ];
    for (key, value) in options {
        let _ = writeln!(text, "  {key} {value}");
    }
    let _ = writeln!(text, "Host *\n  Include {}\n  Include /etc/ssh/ssh_config", quoted(&settings.user_config));
    text
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[cfg(test)]
pub(super) mod tests {
    use insta::assert_snapshot;

    use super::{SshSettings, SshTarget, check, config_text};

    pub(in super::super) fn target(address: &str) -> SshTarget {
        SshTarget {
            node: "east".into(),
            address: address.into(),
            port: None,
            user: None,
            key: None,
            host_key_alias: "i-0123".into(),
            host_key: None,
        }
    }

    fn settings() -> SshSettings {
        SshSettings::new("/state/my lab/known_hosts".into(), "/run/user/1000/gorgo".into())
    }

    #[test]
    fn the_configuration_puts_ours_before_the_users() {
        assert_snapshot!(config_text(&target("10.0.0.7"), &settings()), @r#"
        Host 10.0.0.7
          HostKeyAlias i-0123
          UserKnownHostsFile "/state/my lab/known_hosts"
          GlobalKnownHostsFile /dev/null
          HashKnownHosts no
          UpdateHostKeys no
          VerifyHostKeyDNS no
          CheckHostIP no
          NoHostAuthenticationForLocalhost no
          ServerAliveInterval 5
          ServerAliveCountMax 3
          ConnectTimeout 10
          ConnectionAttempts 1
          ForwardAgent no
          ForwardX11 no
          ClearAllForwardings yes
          PermitLocalCommand no
          RemoteCommand none
          LogLevel INFO
        Host *
          Include "~/.ssh/config"
          Include /etc/ssh/ssh_config
        "#);
    }

    #[test]
    fn words_that_mean_something_to_ssh_are_refused() {
        for address in ["10.0.0.7", "my-box", "fe80::1%eth0", "::1"] {
            check(&target(address), &settings()).expect(address);
        }
        for address in ["", "-oProxyCommand=reboot", "a b", "*", "!a", "a,b", "a\nHost *", "u@h"] {
            check(&target(address), &settings()).expect_err(address);
        }
        let user = SshTarget { user: Some("-v".into()), ..target("a") };
        check(&user, &settings()).expect_err("a user that is an option");
        let alias = SshTarget { host_key_alias: String::new(), ..target("a") };
        check(&alias, &settings()).expect_err("no alias");
        let long = SshSettings { control_dir: format!("/{}", "x".repeat(60)).into(), ..settings() };
        assert!(check(&target("a"), &long).expect_err("too long").hint.is_some());
        let odd = SshSettings { known_hosts: "/a%b".into(), ..settings() };
        check(&target("a"), &odd).expect_err("percent");
    }
}
