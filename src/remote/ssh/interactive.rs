//! The command line of a shell on a node, for a person to sit at.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use openssh::KnownHosts;

use super::super::error::RemoteError;
use super::known_hosts;
use super::target::{self, SshSettings, SshTarget};

/// `ssh` with the same addresses, keys and checks of the host key as every other connection has. Writes `config`, 0600, and names it.
///
/// # Errors
/// ssh would take a part of the target for something else, or the files cannot be written.
pub fn interactive(target: &SshTarget, settings: &SshSettings, config: &Path) -> Result<Vec<String>, RemoteError> {
    target::check(target, settings)?;
    let failed = |error: io::Error| {
        RemoteError::failed(&target.node, format_args!("cannot write {}: {error}", config.display()))
    };
    write(config, &target::config_text(target, settings)).map_err(failed)?;
    let check = format!("StrictHostKeyChecking={}", strictness(target, settings)?);
    let config = config.display().to_string();
    let mut line: Vec<String> = ["ssh", "-F", &config, "-o", &check].map(str::to_owned).into();
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.extend([name.to_owned(), value]);
        }
    };
    option("-o", target.key.as_ref().map(|_| "IdentitiesOnly=yes".to_owned()));
    option("-i", target.key.as_ref().map(|key| key.display().to_string()));
    option("-p", target.port.map(|port| port.to_string()));
    option("-l", target.user.clone());
    line.push(target.address.clone());
    Ok(line)
}

/// An entry for an ssh configuration, by which the node goes by `name`: for editors and whatever else calls ssh by itself.
///
/// # Errors
/// ssh would take a part of the target for something else, or the known host keys cannot be read or written.
pub fn config_entry(name: &str, target: &SshTarget, settings: &SshSettings) -> Result<String, RemoteError> {
    target::check(target, settings)?;
    let mut text = format!("Host {name}\n  HostName {}\n", target.address);
    let mut option = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("  {key} {value}\n");
        }
    };
    option("Port", target.port.map(|port| port.to_string()));
    option("User", target.user.clone());
    option("IdentityFile", target.key.as_ref().map(|key| format!("\"{}\"", key.display())));
    option("IdentitiesOnly", target.key.as_ref().map(|_| "yes".to_owned()));
    option("HostKeyAlias", Some(target.host_key_alias.clone()));
    option("UserKnownHostsFile", Some(format!("\"{}\"", settings.known_hosts.display())));
    option("StrictHostKeyChecking", Some(strictness(target, settings)?.to_owned()));
    Ok(text)
}

/// Strict once a key is known, and the given one is known from the start.
fn strictness(target: &SshTarget, settings: &SshSettings) -> Result<&'static str, RemoteError> {
    let (file, alias) = (&settings.known_hosts, &target.host_key_alias);
    let failed =
        |error: io::Error| RemoteError::failed(&target.node, format_args!("cannot use {}: {error}", file.display()));
    if let Some(key) = &target.host_key {
        known_hosts::preset(file, alias, key).map_err(failed)?;
    }
    Ok(match known_hosts::check_for(file, alias).map_err(failed)? {
        KnownHosts::Strict => "yes",
        _ => "accept-new",
    })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::target::{SshSettings, SshTarget};
    use super::{config_entry, interactive};

    #[test]
    fn a_person_gets_the_same_checks_as_every_other_connection() {
        let folder = tempfile::tempdir().unwrap();
        let target = SshTarget {
            node: "east".into(),
            address: "198.51.100.7".into(),
            port: Some(2222),
            user: Some("ubuntu".into()),
            key: Some("/home/me/key".into()),
            host_key_alias: "i-1".into(),
            host_key: None,
        };
        let settings = SshSettings::new(folder.path().join("known_hosts"), "/tmp/c".into());
        let config = folder.path().join("ssh/east.conf");
        let line = || interactive(&target, &settings, &config).unwrap().join(" ");
        let rest = "-o IdentitiesOnly=yes -i /home/me/key -p 2222 -l ubuntu 198.51.100.7";
        let start = format!("ssh -F {}", config.display());
        assert_eq!(line(), format!("{start} -o StrictHostKeyChecking=accept-new {rest}"));
        assert!(fs::read_to_string(&config).unwrap().contains("HostKeyAlias i-1\n"));
        fs::write(&settings.known_hosts, "i-1 ssh-ed25519 AAAA\n").unwrap();
        assert_eq!(line(), format!("{start} -o StrictHostKeyChecking=yes {rest}"));
        assert_eq!(
            config_entry("east", &target, &settings).unwrap(),
            format!(
                "Host east\n  HostName 198.51.100.7\n  Port 2222\n  User ubuntu\n  IdentityFile \"/home/me/key\"\n  IdentitiesOnly yes\n  \
                 HostKeyAlias i-1\n  UserKnownHostsFile \"{}\"\n  StrictHostKeyChecking yes\n",
                settings.known_hosts.display()
            )
        );
        let odd = SshTarget { address: "-oProxyCommand=x".into(), ..target.clone() };
        assert!(interactive(&odd, &settings, &config).is_err());
    }
}
