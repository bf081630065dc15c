//! The host keys of one cluster, by host-key alias (the instance id).
//!
//! ssh itself adds a key at first contact; this file adds keys that were preset at launch, and forgets machines that are gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use openssh::KnownHosts;

/// How strictly the next connection checks: strict once a key is known, else accept this one first key. ssh writes that one down, for
/// which the folder has to be there: without it, it would accept any key at every contact.
///
/// # Errors
/// The file cannot be read, or its folder cannot be made.
pub(super) fn check_for(file: &Path, alias: &str) -> io::Result<KnownHosts> {
    if knows(&read(file)?, alias) {
        return Ok(KnownHosts::Strict);
    }
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    Ok(KnownHosts::Add)
}

/// Writes down a key that was preset, unless one is known for the alias: a known key is never replaced silently.
///
/// # Errors
/// The file cannot be written, or the key is not one line of type and base64.
pub(super) fn preset(file: &Path, alias: &str, key: &str) -> io::Result<()> {
    if knows(&read(file)?, alias) {
        return Ok(());
    }
    let mut words = key.split_whitespace();
    let (Some(kind), Some(data)) = (words.next(), words.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the preset host key is not `TYPE BASE64`"));
    };
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    // One write: ssh processes of other nodes append to the same file.
    file.write_all(format!("{alias} {kind} {data}\n").as_bytes())?;
    file.sync_all()
}

/// Forgets the keys of a machine that is gone (terminated) or whose new key a person has checked. Unknown aliases are fine.
///
/// # Errors
/// The file cannot be rewritten.
pub fn forget_host_key(file: &Path, alias: &str) -> io::Result<()> {
    let text = read(file)?;
    if !knows(&text, alias) {
        return Ok(());
    }
    let kept: String = text.lines().filter(|line| !is_for(line, alias)).flat_map(|line| [line, "\n"]).collect();
    let new = file.with_extension(format!("new-{}", std::process::id()));
    let mut to = File::create(&new)?;
    to.write_all(kept.as_bytes())?;
    to.sync_all()?;
    fs::rename(&new, file)
}

fn read(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn knows(text: &str, alias: &str) -> bool {
    text.lines().any(|line| is_for(line, alias))
}

/// Whether the line's first word names the alias. Lines with a marker (`@revoked`) count by their second.
fn is_for(line: &str, alias: &str) -> bool {
    let names = line.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or("");
    names.split(',').any(|name| name == alias)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use openssh::KnownHosts;

    use super::{check_for, forget_host_key, preset};

    #[test]
    fn strict_once_a_key_is_known() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("of/a/cluster/known_hosts");
        assert!(matches!(check_for(&file, "i-1").expect("reads"), KnownHosts::Add));
        assert!(file.parent().is_some_and(Path::is_dir), "ssh can write the key down");
        preset(&file, "i-1", "ssh-ed25519 AAAA comment").expect("writes");
        preset(&file, "i-1", "ssh-ed25519 BBBB").expect("a known key stays");
        preset(&file, "i-10", "ssh-ed25519 CCCC").expect("writes");
        assert_eq!(fs::read_to_string(&file).expect("reads"), "i-1 ssh-ed25519 AAAA\ni-10 ssh-ed25519 CCCC\n");
        assert!(matches!(check_for(&file, "i-1").expect("reads"), KnownHosts::Strict));
        forget_host_key(&file, "i-1").expect("forgets");
        forget_host_key(&file, "i-1").expect("twice");
        assert_eq!(fs::read_to_string(&file).expect("reads"), "i-10 ssh-ed25519 CCCC\n");
        preset(&file, "i-2", "nonsense").expect_err("one word");
    }
}
