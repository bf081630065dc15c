//! Putting a file in place below the node's folder, as the ssh script does it on a node.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

/// A temporary file that goes away unless it gets its place.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already, when it was moved into place.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes the content to `target`; the name never stands for a part of it.
pub(super) fn put(content: impl Read, target: &Path, mode: u32, keep_old: bool) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = target.parent().ok_or_else(|| io::Error::other("the path has no folder"))?;
    fs::create_dir_all(folder)?;
    if target.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    let name = format!(".gorgo-put.{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let temporary = Temporary(folder.join(name));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary.0)?;
    let sum = copy(content, &mut file)?;
    // Not at creation, where the umask would have its say.
    file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    file.sync_all()?;
    if keep_old && target.is_file() && copy(File::open(target)?, &mut io::sink())? != sum {
        keep(target, &temporary.0)?;
    }
    fs::rename(&temporary.0, target)?;
    File::open(folder)?.sync_all()
}

/// Gives the present content its second name, in one step.
fn keep(target: &Path, beside: &Path) -> io::Result<()> {
    let link = Temporary(beside.with_extension("old"));
    fs::hard_link(target, &link.0)?;
    let mut old = target.as_os_str().to_owned();
    old.push(".old");
    fs::rename(&link.0, old)
}

/// Copies all of it and returns its checksum.
fn copy(mut from: impl Read, to: &mut impl io::Write) -> io::Result<Vec<u8>> {
    let mut sum = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            to.flush()?;
            return Ok(sum.finalize().to_vec());
        }
        sum.update(&block[..read]);
        to.write_all(&block[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Read};

    use super::put;

    /// Breaks off after some bytes, like a full disk does.
    struct Broken(u8);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 -= 1;
            if self.0 == 0 {
                return Err(io::Error::from_raw_os_error(28));
            }
            buffer[0] = b'x';
            Ok(1)
        }
    }

    #[test]
    fn a_broken_upload_leaves_the_old_content_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let target = folder.path().join("deep/er/file");
        put(&b"old"[..], &target, 0o640, true).expect("writes");
        put(Broken(3), &target, 0o640, true).expect_err("breaks off");
        assert_eq!(fs::read(&target).expect("reads"), b"old");
        let names: Vec<_> = fs::read_dir(target.parent().expect("folder")).expect("lists").collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
}
