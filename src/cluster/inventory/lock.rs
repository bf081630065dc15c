//! One gorgo at a time per cluster. The operating system's file lock decides, so that a process that dies leaves nothing behind; the
//! file's content says who holds it.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::InventoryError;

/// Who works on a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// When that process began, in the kernel's own ticks: with the pid it names one process for good. `None` = not known here.
    pub started: Option<u64>,
    /// The machine.
    pub host: String,
    /// The command.
    pub command: String,
    /// Since when, seconds since 1970.
    pub since: u64,
}

impl Owner {
    /// This process, doing that, since then.
    #[must_use]
    pub fn this_process(command: &str, since: u64) -> Self {
        let pid = std::process::id();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "this machine" } else { host.trim() };
        Self { pid, started: started(pid), host: host.to_owned(), command: command.to_owned(), since }
    }

    /// It cannot be told to be gone: it runs on this machine, or it ran on another.
    fn may_live(&self, me: &Self) -> bool {
        self.host != me.host || (self.started.is_some() && started(self.pid) == self.started)
    }
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything, so counting begins behind its closing bracket.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Somebody else has the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Busy {
    /// The lock file.
    pub path: PathBuf,
    /// Who; `None` = the file does not say.
    pub owner: Option<Owner>,
    /// The operating system holds the lock for nobody: only this note, of a machine with another name, says that it is taken.
    pub only_noted: bool,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let Some(owner) = &self.owner else {
            return write!(
                f,
                "another gorgo works on this cluster (lock {path}); wait for it, or end it, and run the command again"
            );
        };
        let since = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(owner.since));
        let Owner { pid, host, command, .. } = owner;
        write!(
            f,
            "another gorgo works on this cluster: `{command}`, process {pid} on {host}, since {since} (lock {path}); \
             wait for it, or end it, and run the command again: what it has finished is kept"
        )?;
        if self.only_noted {
            write!(
                f,
                "; if that machine was renamed or is gone and nothing runs there, empty the lock file: `: > {path}`"
            )?;
        }
        Ok(())
    }
}

/// The cluster is ours until this is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    pub(super) fn take(path: &Path, me: &Owner) -> Result<Self, InventoryError> {
        let failed = |source| InventoryError::Io { what: "lock", path: path.to_owned(), source };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = open.map_err(failed)?;
        let held = match file.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let owner: Option<Owner> = serde_json::from_str(&text).ok();
        // A lock that was not refused and yet has a living owner: a file system that does not lock, e.g. some network ones.
        let alive = owner.as_ref().is_some_and(|owner| owner.may_live(me));
        if held || alive {
            let only_noted = !held && owner.as_ref().is_some_and(|owner| owner.host != me.host);
            return Err(Busy { path: path.to_owned(), owner, only_noted }.into());
        }
        let lock = Self { file };
        lock.write(me).map_err(failed)?;
        Ok(lock)
    }

    fn write(&self, me: &Owner) -> std::io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(me)?)?;
        file.sync_all()
    }
}

/// The file stays, empty: removing it could remove the lock of somebody who has just opened it.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}
