//! Keeps the service's two limits across all gorgo processes of this user: calls overall, and launches.
//!
//! A small file holds when the last call and the last launch were made, under an operating-system lock that dies with its holder. Nobody
//! sleeps while holding it: whoever finds that it is not yet time unlocks, sleeps that long and looks again. A file that is torn, empty or
//! nonsense counts as "just called". A clock that was set back costs one interval at most.
//! Limit: calls by other users, machines or the console are not seen; for those there is the retry after a 429.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cloud::{CloudError, CloudErrorKind};

/// How often somebody who finds the file locked looks again; it is locked for well under a millisecond at a time.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The limits that we keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Least time between two calls.
    pub call: Duration,
    /// Least time between two launches.
    pub launch: Duration,
    /// Longest wait for one's turn; with more, the call fails and says so.
    pub longest_wait: Duration,
}

impl Default for Pace {
    /// About 1 call per second and one launch per 12 s (documented by the service). The longest wait is that of the
    /// last of 50 machines launched at once.
    fn default() -> Self {
        Self { call: Duration::from_secs(1), launch: Duration::from_secs(12), longest_wait: Duration::from_secs(600) }
    }
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Any call but a launch.
    Call,
    /// A launch, which is a call too.
    Launch,
}

/// When the last ones were made, ms since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stamps {
    call_ms: u64,
    launch_ms: u64,
}

/// What to do now, and the stamps to save first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Go(Stamps),
    Wait(Duration, Stamps),
}

/// The arithmetic. Stamps from the future (the clock was set back) become `now`, so that the wait is an interval and no more.
fn decide(stamps: Stamps, now_ms: u64, turn: Turn, pace: &Pace) -> Decision {
    let seen = Stamps { call_ms: stamps.call_ms.min(now_ms), launch_ms: stamps.launch_ms.min(now_ms) };
    let call = left(seen.call_ms, now_ms, pace.call);
    let launch = left(seen.launch_ms, now_ms, pace.launch);
    let (wait, after) = match turn {
        Turn::Call => (call, Stamps { call_ms: now_ms, ..seen }),
        Turn::Launch => (call.max(launch), Stamps { call_ms: now_ms, launch_ms: now_ms }),
    };
    if wait.is_zero() { Decision::Go(after) } else { Decision::Wait(wait, seen) }
}

fn left(last_ms: u64, now_ms: u64, interval: Duration) -> Duration {
    interval.saturating_sub(Duration::from_millis(now_ms - last_ms))
}

/// One account's limiter, shared through its file.
#[derive(Debug)]
pub(super) struct Limiter {
    path: PathBuf,
    pace: Pace,
    /// First come, first served among this process's own calls; launches queue apart, because they wait longer.
    calls: tokio::sync::Mutex<()>,
    launches: tokio::sync::Mutex<()>,
}

impl Limiter {
    /// A limiter with its stamps in `path`, whose folder is made when it is first needed.
    pub(super) fn new(path: PathBuf, pace: Pace) -> Self {
        Self { path, pace, calls: tokio::sync::Mutex::default(), launches: tokio::sync::Mutex::default() }
    }

    /// Waits for one's turn and takes it.
    ///
    /// # Errors
    /// The turn does not come within the longest wait, or the file cannot be used.
    pub(super) async fn turn(&self, turn: Turn) -> Result<(), CloudError> {
        let waiting = async {
            let _queue = match turn {
                Turn::Call => self.calls.lock().await,
                Turn::Launch => self.launches.lock().await,
            };
            while let Some(wait) = self.try_take(turn)? {
                tokio::time::sleep(wait).await;
            }
            Ok(())
        };
        tokio::time::timeout(self.pace.longest_wait, waiting).await.unwrap_or_else(|_| Err(self.too_long()))
    }

    /// Takes the turn if it is time (`None`), else says how long to wait before looking again. Blocks for two small file operations.
    fn try_take(&self, turn: Turn) -> Result<Option<Duration>, CloudError> {
        let mut file = open(&self.path).map_err(|error| self.unusable(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Some(LOCK_POLL)),
            Err(TryLockError::Error(error)) => return Err(self.unusable(&error)),
        }
        // The lock ends when `file` is closed, also by a crash.
        take(&mut file, wall_ms(), turn, &self.pace).map_err(|error| self.unusable(&error))
    }

    fn too_long(&self) -> CloudError {
        let waited = self.pace.longest_wait.as_secs_f64();
        CloudError {
            kind: CloudErrorKind::Transient,
            code: None,
            message: format!("waited {waited:.0} s for a turn to call Lambda: other gorgo processes are using `{}`", self.path.display()),
            hint: Some("wait for them to end; if there are none, a stopped process may hold the lock: see `fuser` on that file".to_owned()),
        }
    }

    fn unusable(&self, error: &io::Error) -> CloudError {
        CloudError {
            kind: CloudErrorKind::Invalid,
            code: None,
            message: format!("cannot use the file that paces calls to Lambda, `{}`: {error}", self.path.display()),
            hint: Some("set `GORGO_STATE_DIR` to a folder that you can write to".to_owned()),
        }
    }
}

/// One look at the open, locked file.
fn take(file: &mut File, now_ms: u64, turn: Turn, pace: &Pace) -> io::Result<Option<Duration>> {
    let stamps = read(file, now_ms)?;
    match decide(stamps, now_ms, turn, pace) {
        Decision::Go(after) => write(file, after).map(|()| None),
        Decision::Wait(wait, seen) => {
            if seen != stamps {
                write(file, seen)?;
            }
            Ok(Some(wait))
        }
    }
}

/// The stamps; a new file has none, and anything unreadable was written by somebody who died just now, for all we know.
fn read(file: &mut File, now_ms: u64) -> io::Result<Stamps> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    (&*file).take(1024).read_to_end(&mut text)?;
    if text.is_empty() && file.metadata()?.len() == 0 {
        return Ok(Stamps::default());
    }
    match serde_json::from_slice(&text) {
        Ok(stamps) => Ok(stamps),
        // Saved at once, so that the wait counts from now and ends.
        Err(_) => {
            let stamps = Stamps { call_ms: now_ms, launch_ms: now_ms };
            write(file, stamps)?;
            Ok(stamps)
        }
    }
}

/// In place: a rename would leave others holding the lock of a file that is gone. A crash in between is what `read` is lenient about.
fn write(file: &mut File, stamps: Stamps) -> io::Result<()> {
    let text = serde_json::to_vec(&stamps)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Wall-clock time, because it is the only one that processes share; `decide` copes with its jumps.
#[expect(clippy::disallowed_methods, reason = "the edge: stamps must mean the same in every process")]
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
