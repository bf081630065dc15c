//! What a service prints: a file that it appends to itself (so it survives its supervisor), kept bounded by the supervisor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

/// A log of this size becomes `.1`, whose former content goes; bytes.
const LIMIT: u64 = 8 << 20;
/// How often a follower looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines that wait for a slow reader.
const AHEAD: usize = 256;

fn previous(log: &Path) -> PathBuf {
    log.with_extension("service.1")
}

/// The file for a service's output. Appending keeps writers right when it is cut.
pub(super) fn open(log: &Path) -> io::Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(log)
}

/// Copies a large log to `.1` and cuts it. Lines written between the two steps are lost, as with every log that is cut in place;
/// the alternative, a pipe through the supervisor, would take the service's output with the supervisor.
pub(super) fn rotate(log: &Path, limit: u64) -> io::Result<()> {
    let size = match fs::metadata(log) {
        Ok(found) => found.size(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if size > limit {
        fs::copy(log, previous(log))?;
        OpenOptions::new().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

/// [`rotate`] at the usual size.
pub(super) fn bound(log: &Path) -> io::Result<()> {
    rotate(log, LIMIT)
}

/// The last lines, and with `follow` those that come.
pub(super) fn read(log: PathBuf, lines: u32, follow: bool) -> io::Result<mpsc::Receiver<String>> {
    let mut tail = Tail::default();
    let mut last = match fs::read(previous(&log)) {
        Ok(bytes) => split(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    last.extend(tail.grow(&log)?);
    if !follow {
        last.extend(tail.rest());
    }
    let skip = last.len().saturating_sub(lines as usize);
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        for line in last.drain(skip..) {
            if sender.send(line).await.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            for line in tail.grow(&log).unwrap_or_default() {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

/// How far a log was read.
#[derive(Default)]
struct Tail {
    read: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Tail {
    /// Whole lines that are new. A log that became shorter was cut and is read from its start.
    fn grow(&mut self, log: &Path) -> io::Result<Vec<String>> {
        let mut file = match File::open(log) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        if file.metadata()?.size() < self.read {
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = std::mem::take(&mut self.partial);
        self.read += file.read_to_end(&mut bytes)? as u64;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.partial = bytes.split_off(whole);
        Ok(split(&bytes))
    }

    /// The last line, if it has no end.
    fn rest(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.partial);
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn split(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::{open, read, rotate};

    #[tokio::test]
    async fn the_last_lines_come_across_a_cut() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let log = folder.path().join("a.service");
        let mut file = open(&log).expect("opens");
        file.write_all(b"1\n2\n3\n").expect("writes");
        rotate(&log, 5).expect("cuts");
        file.write_all(b"4\n5").expect("writes");
        assert_eq!(fs::read(&log).expect("reads"), b"4\n5", "appended after the cut");
        for (lines, wanted) in
            [(3, vec!["3", "4", "5"]), (1, vec!["5"]), (0, vec![]), (99, vec!["1", "2", "3", "4", "5"])]
        {
            let mut receiver = read(log.clone(), lines, false).expect("reads");
            let mut got = Vec::new();
            while let Some(line) = receiver.recv().await {
                got.push(line);
            }
            assert_eq!(got, wanted, "{lines} lines");
        }
    }

    #[tokio::test]
    async fn following_sees_whole_lines_and_cuts() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let log = folder.path().join("a.service");
        let mut receiver = read(log.clone(), 10, true).expect("reads");
        let mut file = open(&log).expect("opens");
        file.write_all(b"one\ntw").expect("writes");
        assert_eq!(receiver.recv().await.as_deref(), Some("one"));
        file.write_all(b"o\n").expect("writes");
        assert_eq!(receiver.recv().await.as_deref(), Some("two"));
        rotate(&log, 0).expect("cuts");
        file.write_all(b"3\n").expect("writes");
        assert_eq!(receiver.recv().await.as_deref(), Some("3"));
    }
}
