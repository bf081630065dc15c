//! The file of API keys: TOML, one `[[key]]` each, written by `gorgo proxy keys` and read by routers.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use super::token::{Hash, Token};
use crate::gateway::private_file::{self, Mode};

/// Largest file, bytes: tens of thousands of keys.
const MAX_BYTES: u64 = 16 << 20;
/// Longest name, characters.
const MAX_NAME: usize = 64;

/// All keys of a file, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The keys.
    #[serde(rename = "key", default)]
    pub keys: Vec<KeyEntry>,
}

/// One key as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Who has it; unique among the keys that are not revoked.
    pub name: String,
    /// What it is looked up by.
    pub id: String,
    /// SHA-256 of its text, hexadecimal.
    pub sha256: String,
    /// Residency classes of all its requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residency: Vec<String>,
    /// Class of service of all its requests; `None` = the one that each names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// When it was made, UTC.
    pub created: String,
    /// Since when it is not taken any more, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<String>,
}

/// What a key brings to all of its requests.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Residency classes.
    pub residency: Vec<String>,
    /// Class of service, if it is fixed.
    pub class: Option<String>,
}

impl KeyEntry {
    /// Its hash.
    ///
    /// # Errors
    /// The file does not hold one.
    pub(super) fn hash(&self) -> anyhow::Result<Hash> {
        Hash::parse(&self.sha256).ok_or_else(|| anyhow!("`sha256` of key `{}` is not 64 hexadecimal digits", self.name))
    }
}

impl KeyFile {
    /// Adds a key. `now`: UTC, as [`crate::model::date::iso`] writes it.
    ///
    /// # Errors
    /// A bad name, or one that another key in force has.
    pub fn add(&mut self, name: &str, grant: &Grant, token: &Token, now: &str) -> anyhow::Result<&KeyEntry> {
        check_name(name)?;
        ensure!(
            self.active(name).is_none(),
            "there is a key `{name}` already; revoke it first, or choose another name"
        );
        self.keys.push(KeyEntry {
            name: name.to_owned(),
            id: token.id().to_owned(),
            sha256: token.hash().to_string(),
            residency: grant.residency.clone(),
            class: grant.class.clone(),
            created: now.to_owned(),
            revoked: None,
        });
        Ok(self.keys.last().expect("just pushed"))
    }

    /// Revokes the key of that name, which stays in the file as a record.
    ///
    /// # Errors
    /// There is none in force; the known names are listed.
    pub fn revoke(&mut self, name: &str, now: &str) -> anyhow::Result<&KeyEntry> {
        let Some(at) = self.active(name) else {
            let known: Vec<&str> = self.in_force().map(|key| key.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!("no key `{name}` is in force; those in force: {known}");
        };
        self.keys[at].revoked = Some(now.to_owned());
        Ok(&self.keys[at])
    }

    /// The keys that are not revoked.
    pub fn in_force(&self) -> impl Iterator<Item = &KeyEntry> {
        self.keys.iter().filter(|key| key.revoked.is_none())
    }

    fn active(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.revoked.is_none() && key.name == name)
    }

    fn check(&self) -> anyhow::Result<()> {
        for (i, key) in self.keys.iter().enumerate() {
            check_name(&key.name)?;
            key.hash()?;
            ensure!(!self.keys[..i].iter().any(|other| other.id == key.id), "two keys have the id `{}`", key.id);
        }
        Ok(())
    }
}

/// Names go into logs and lists as they are.
fn check_name(name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let fits = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain);
    ensure!(fits, "`{name}` is no name for a key; wanted 1 to {MAX_NAME} letters, digits, `-`, `_`, `.` or `@`");
    Ok(())
}

/// Reads a file of keys. The hashes are of no use to a thief, but who can change the file can let himself in.
///
/// # Errors
/// The file cannot be read, others can change or read it, or it is no file of keys.
pub fn read(path: &Path) -> anyhow::Result<KeyFile> {
    let text = private_file::read(path, Mode::Group, MAX_BYTES)?;
    let file = toml::from_str::<KeyFile>(&text).map_err(|error| anyhow!("{}", error.message().to_owned()));
    file.and_then(|file| file.check().map(|()| file))
        .with_context(|| format!("`{}` is no file of API keys", path.display()))
}

/// Changes a file of keys, or makes it. One change at a time; readers see the file before it or after it.
///
/// # Errors
/// Those of `change`, of [`read()`], and of writing. The file is as before then.
pub fn change<T>(path: &Path, change: impl FnOnce(&mut KeyFile) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let _lock = lock(path)?;
    let mut file = if path.try_exists()? { read(path)? } else { KeyFile::default() };
    let answer = change(&mut file)?;
    write(path, &file).with_context(|| format!("failed to write `{}`", path.display()))?;
    Ok(answer)
}

/// Held until it is dropped. It is beside the file, which is replaced as a whole.
fn lock(path: &Path) -> anyhow::Result<File> {
    let path = beside(path, ".lock");
    let failed = || format!("failed to lock `{}`", path.display());
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.with_context(failed)?;
    file.lock().with_context(failed)?;
    Ok(file)
}

/// Writes a new file and puts it in the place of the old, whose mode it takes.
fn write(path: &Path, keys: &KeyFile) -> anyhow::Result<()> {
    let mode = fs::metadata(path).map_or(0o600, |old| old.permissions().mode() & 0o777);
    let text = format!(
        "# API keys of gorgo clients, as hashes. Change it with `gorgo proxy keys`.\n\n{}",
        toml::to_string(keys)?
    );
    let new = beside(path, ".new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(folder)?.sync_all()?)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use insta::assert_snapshot;

    use super::super::token::Token;
    use super::{Grant, KeyFile, change, read};

    const NOON: &str = "2026-11-20T12:00:00.000000Z";

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        (folder, path)
    }

    fn add(path: &std::path::Path, name: &str, residency: &[String]) -> anyhow::Result<Token> {
        let token = Token::generate()?;
        let grant = Grant { residency: residency.to_vec(), class: (name == "ann").then(|| "gold".to_owned()) };
        change(path, |file| file.add(name, &grant, &token, NOON).map(|_| ()))?;
        Ok(token)
    }

    #[test]
    fn the_file_keeps_hashes_and_is_private() {
        let (_folder, path) = place();
        let token = add(&path, "ann", &["eu-only".to_owned()]).unwrap();
        add(&path, "bob", &[]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(token.text().reveal()) && text.contains(&token.hash().to_string()));
        let shown: Vec<&str> =
            text.lines().filter(|line| !line.starts_with("id") && !line.starts_with("sha")).collect();
        assert_snapshot!(shown.join("\n"), @r#"
        # API keys of gorgo clients, as hashes. Change it with `gorgo proxy keys`.

        [[key]]
        name = "ann"
        residency = ["eu-only"]
        class = "gold"
        created = "2026-11-20T12:00:00.000000Z"

        [[key]]
        name = "bob"
        created = "2026-11-20T12:00:00.000000Z"
        "#);
    }

    #[test]
    fn a_revoked_key_stays_as_a_record_and_frees_its_name() {
        let (_folder, path) = place();
        let first = add(&path, "ann", &[]).unwrap();
        assert_snapshot!(add(&path, "ann", &[]).unwrap_err(), @"there is a key `ann` already; revoke it first, or choose another name");
        change(&path, |file| file.revoke("ann", NOON).map(|_| ())).unwrap();
        let again = change(&path, |file| file.revoke("ann", NOON).map(|_| ())).unwrap_err();
        assert_snapshot!(again, @"no key `ann` is in force; those in force: none");
        let second = add(&path, "ann", &[]).unwrap();
        let file = read(&path).unwrap();
        let kept: Vec<_> = file.keys.iter().map(|key| (key.id.as_str(), key.revoked.as_deref())).collect();
        assert_eq!(kept, [(first.id(), Some(NOON)), (second.id(), None)]);
        assert_eq!(file.in_force().count(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_changes_nothing() {
        let (_folder, path) = place();
        for name in ["", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert!(add(&path, name, &[]).is_err(), "{name:?}");
        }
        assert!(!path.exists());
        let entry = "[[key]]\nname = \"a\"\nid = \"1\"\ncreated = \"\"\n";
        let hash = "0".repeat(64);
        for bad in [
            "key = 1".to_owned(),
            "[[keys]]\n".to_owned(),
            entry.to_owned(),
            format!("{entry}sha256 = \"12\"\n"),
            format!("{entry}sha256 = \"{hash}\"\nsecret = \"x\"\n"),
            format!("{entry}sha256 = \"{hash}\"\n{entry}sha256 = \"{hash}\"\n"),
        ] {
            fs::write(&path, &bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(read(&path).is_err(), "{bad}");
            assert!(add(&path, "b", &[]).is_err(), "{bad}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad, "as it was");
        }
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 640"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read(&path).unwrap(), KeyFile::default());
        add(&path, "b", &[]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "the group keeps its right");
    }

    #[test]
    fn changes_at_the_same_time_all_count() {
        let (_folder, path) = place();
        std::thread::scope(|scope| {
            for i in 0..8 {
                let path = &path;
                scope.spawn(move || add(path, &format!("k{i}"), &[]).unwrap());
            }
        });
        assert_eq!(read(&path).unwrap().in_force().count(), 8);
    }
}
