//! Files that commands leave behind.

use std::io;
use std::path::{Path, PathBuf};

/// Beside the target first, then renamed: a reader never sees half a file. What is no regular file (a pipe, a device) is written to.
pub(crate) fn write_file(path: &Path, text: &str) -> io::Result<()> {
    if path.metadata().is_ok_and(|known| !known.is_file()) {
        return std::fs::write(path, text);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path)).inspect_err(|_| {
        // What is left of a failed attempt is of no use; if it cannot be removed either, it stays.
        let _ = std::fs::remove_file(&partial);
    })
}
