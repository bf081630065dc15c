//! Which of the account's SSH keys a machine is to have: Lambda installs exactly one.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::anyhow;

use crate::cli::account::ssh_keys::essence;
use crate::cli::exit::Failure;
use crate::cloud::lambda::wire::SshKey;

/// The one that is named, else the only one, else the one whose private half is likely here.
pub(super) fn choose(named: Option<&str>, stored: &[SshKey], own: &[String]) -> Result<String, Failure> {
    let names: Vec<&str> = stored.iter().map(|key| key.name.as_str()).collect();
    if let Some(name) = named {
        let known = if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) };
        let missing = || Failure::usage(anyhow!("the account has no SSH key `{name}`")).with_hint(known);
        return names.contains(&name).then(|| name.to_owned()).ok_or_else(missing);
    }
    if let [only] = stored {
        return Ok(only.name.clone());
    }
    let is_own = |key: &&SshKey| own.iter().any(|text| essence(text) == essence(&key.public_key));
    if let Some(key) = stored.iter().find(is_own) {
        return Ok(key.name.clone());
    }
    Err(if stored.is_empty() {
        Failure::usage(anyhow!("the account has no SSH key, and a machine without one cannot be reached"))
            .with_hint("store yours with `gorgo ssh-keys add ~/.ssh/id_ed25519.pub`")
    } else {
        Failure::usage(anyhow!("the account has {} SSH keys, and none is that of a file in ~/.ssh", stored.len()))
            .with_hint(format!("name one with `--ssh-key`: {}", names.join(", ")))
    })
}

/// The public keys in `~/.ssh`, by name of file. A folder that cannot be read has none.
pub(super) fn own_public_keys() -> Vec<String> {
    let Some(folder) = env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh")) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::cloud::lambda::wire::SshKey;

    fn key(name: &str) -> SshKey {
        SshKey {
            id: format!("id-{name}"),
            name: name.into(),
            public_key: format!("ssh-ed25519 AAAA{name} {name}@there"),
        }
    }

    #[test]
    fn the_key_is_named_or_the_only_one_or_ones_own() {
        let own = ["ssh-ed25519 AAAAb me@here".to_owned()];
        type Case<'a> = (Option<&'a str>, &'a [SshKey], &'a [String], Result<&'a str, &'a str>);
        let all = ["a", "b", "c"].map(key);
        let cases: [Case<'_>; 7] = [
            (Some("c"), &all, &own, Ok("c")),
            (Some("x"), &all, &own, Err("the account has no SSH key `x`")),
            (None, &all[..1], &own, Ok("a")),
            (None, &all, &own, Ok("b")),
            (None, &all, &[], Err("the account has 3 SSH keys, and none is that of a file in ~/.ssh")),
            (None, &[], &own, Err("the account has no SSH key, and a machine without one cannot be reached")),
            (Some("a"), &[], &own, Err("the account has no SSH key `a`")),
        ];
        for (named, stored, own, expected) in cases {
            let found = choose(named, stored, own).map_err(|failure| failure.error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{named:?}");
        }
    }
}
