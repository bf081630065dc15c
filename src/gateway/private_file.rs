//! Files that strangers must not read or change, and when they change.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_util::sync::CancellationToken;

use crate::model::Secret;

/// How often files are looked at: the longest time that a revoked key or a renewed certificate waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A token is some dozens of characters; whatever is longer than this is another file.
const LONGEST_TOKEN_BYTES: u64 = 1024;

/// Who else may have rights to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nobody: the secret itself stands there.
    Owner,
    /// The group may read it.
    Group,
}

impl Mode {
    const fn forbidden(self) -> u32 {
        match self {
            Self::Owner => 0o077,
            Self::Group => 0o026,
        }
    }
}

/// Reads a file after a look at its mode. Both are done on the open file, so that it cannot be exchanged between them.
///
/// # Errors
/// It cannot be read, others have more rights to it than `mode` allows, or it is longer than `limit` bytes.
pub(super) fn read(path: &Path, mode: Mode, limit: u64) -> anyhow::Result<String> {
    let shown = path.display();
    let mut file = File::open(path).with_context(|| format!("failed to open `{shown}`"))?;
    let metadata = file.metadata().with_context(|| format!("failed to look at `{shown}`"))?;
    ensure!(metadata.is_file(), "`{shown}` is not a plain file");
    let bits = metadata.permissions().mode() & 0o7777;
    let wanted = if mode == Mode::Owner { 600 } else { 640 };
    ensure!(
        bits & mode.forbidden() == 0,
        "`{shown}` has mode {bits:04o}, so others can read or change it; run `chmod {wanted} {shown}`"
    );
    ensure!(metadata.len() <= limit, "`{shown}` has {} bytes, at most {limit} were expected", metadata.len());
    let mut text = String::new();
    file.by_ref().take(limit).read_to_string(&mut text).with_context(|| format!("failed to read `{shown}`"))?;
    Ok(text)
}

/// A token that stands alone in a file of mode 0600.
///
/// # Errors
/// The file cannot be read, is not private, or holds no token. The error does not show the content.
pub fn token(path: &Path) -> anyhow::Result<Secret> {
    let text = read(path, Mode::Owner, LONGEST_TOKEN_BYTES)?;
    let text = text.trim();
    let plausible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(plausible, "`{}` does not hold one token of printable characters", path.display());
    Ok(Secret::new(text.to_owned()))
}

/// What changes with a file's content, however it was replaced. `None` = it cannot be seen.
fn stamp(path: &Path) -> Option<[i64; 4]> {
    let metadata = std::fs::metadata(path).ok()?;
    Some([metadata.ino() as i64, metadata.size() as i64, metadata.ctime(), metadata.ctime_nsec()])
}

/// A look at some files, to be compared with the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look(Vec<Option<[i64; 4]>>);

impl Look {
    /// As they are now. To be taken before they are read, so that no change falls between.
    #[must_use]
    pub(super) fn at(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| stamp(path)).collect())
    }
}

/// Calls `changed` whenever one of the files is not as it was at the last look, until `stopped`.
pub(super) async fn follow(paths: Vec<PathBuf>, mut last: Look, stopped: CancellationToken, mut changed: impl FnMut()) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stopped.cancelled() => return,
        }
        let now = Look::at(&paths);
        if now != last {
            last = now;
            changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Look, Mode, read, token};

    #[test]
    fn files_that_others_can_read_or_change_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "s3cret\n").unwrap();
        let cases = [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, false, true),
            (0o660, false, false),
            (0o604, false, false),
            (0o644, false, false),
            (0o622, false, false),
        ];
        for (mode, owner, group) in cases {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, Mode::Owner, 100).is_ok(), owner, "{mode:o}");
            assert_eq!(read(&path, Mode::Group, 100).is_ok(), group, "{mode:o}");
        }
        let said = read(&path, Mode::Owner, 100).unwrap_err().to_string();
        assert!(said.contains("mode 0622") && said.contains("chmod 600") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_token_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, wanted) in [("abc\n", Some("abc")), (" abc ", Some("abc")), ("", None), ("a b", None), ("ä", None)]
        {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(token(&path).ok().as_ref().map(|token| token.reveal()), wanted, "{text:?}");
        }
        assert!(token(folder.path()).is_err() && token(&folder.path().join("none")).is_err());
        fs::write(&path, "x".repeat(2000)).unwrap();
        assert!(token(&path).is_err(), "too long");
    }

    #[test]
    fn a_change_shows_however_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let paths = [path.clone()];
        let mut looks = vec![Look::at(&paths)];
        fs::write(&path, "1").unwrap();
        looks.push(Look::at(&paths));
        fs::write(&path, "22").unwrap();
        looks.push(Look::at(&paths));
        fs::write(&other, "22").unwrap();
        fs::rename(&other, &path).unwrap();
        looks.push(Look::at(&paths));
        for pair in looks.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        assert_eq!(Look::at(&paths), looks[3]);
    }
}
