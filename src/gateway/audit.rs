//! The audit log: one JSON object per line, written by a thread of its own so that no request waits for a disk.
//!
//! What comes faster than it can be written is counted, and the log says itself where lines are missing. A file is opened for appending
//! and again when another has taken its place, so that logrotate may rename it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::metrics::counter::Counter;

use super::clock::wall_micros;
use crate::model::date::iso;
use crate::wire::{AuditEvent, AuditLine};

/// Lines that may wait to be written: seconds of a busy router.
const WAITING: usize = 8_192;
/// Longest wait at the end for what has not been written yet.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Where audit lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditTarget {
    /// Nowhere.
    #[default]
    Off,
    /// To stderr, which systemd's journal takes.
    Stderr,
    /// To the end of this file, made with mode 0600 if it is not there.
    File(PathBuf),
}

enum Message {
    Line(Box<AuditLine>),
    /// Everything before this has been written when it is answered.
    Flush(SyncSender<()>),
}

/// The near end of the log.
pub(super) struct Audit {
    /// `None` = off.
    sender: Option<SyncSender<Message>>,
    /// Dropped since the last line that got through.
    missing: Arc<AtomicU64>,
    dropped: Counter,
}

impl Audit {
    /// Opens the log and starts its writer, which ends with this value. `dropped` counts the lines that got lost.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(target: &AuditTarget, dropped: Counter) -> anyhow::Result<Self> {
        let out = match target {
            AuditTarget::Off => return Ok(Self { sender: None, missing: Arc::default(), dropped }),
            AuditTarget::Stderr => Out::Stderr,
            AuditTarget::File(path) => Out::File(path.clone(), append(path)?),
        };
        Self::to(out, dropped)
    }

    fn to(mut out: Out, dropped: Counter) -> anyhow::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let missing = Arc::new(AtomicU64::new(0));
        let (lost, counter) = (missing.clone(), dropped.clone());
        let writer = thread::Builder::new().name("audit".to_owned());
        writer
            .spawn(move || write_all(&receiver, &mut out, &lost, &counter))
            .context("failed to start the audit log's thread")?;
        Ok(Self { sender: Some(sender), missing, dropped })
    }

    /// Is anything written at all?
    #[must_use]
    pub(super) fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Writes a line, now or never.
    pub(super) fn log(&self, event: AuditEvent) {
        let Some(sender) = &self.sender else { return };
        let line = Box::new(AuditLine { at: iso(wall_micros()), event });
        if sender.try_send(Message::Line(line)).is_err() {
            self.missing.fetch_add(1, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    /// Returns once everything is written, or time is up.
    pub(super) fn flush(&self) {
        let Some(sender) = &self.sender else { return };
        let (done, written) = sync_channel(1);
        if sender.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

/// The writer's thread.
fn write_all(receiver: &Receiver<Message>, out: &mut Out, missing: &AtomicU64, dropped: &Counter) {
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
            Message::Line(line) => {
                let lines = missing.swap(0, Ordering::Relaxed);
                let gap = (lines > 0).then(|| AuditLine { at: line.at.clone(), event: AuditEvent::Dropped { lines } });
                if let Err(error) = gap.iter().chain([&*line]).try_for_each(|line| out.write(line)) {
                    tracing::error!(%error, "failed to write to the audit log");
                    missing.fetch_add(lines + 1, Ordering::Relaxed);
                    dropped.inc();
                }
            }
        }
    }
}

/// The far end.
enum Out {
    Stderr,
    File(PathBuf, File),
    #[cfg(test)]
    Slow(SyncSender<String>),
}

impl Out {
    fn write(&mut self, line: &AuditLine) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        match self {
            Self::Stderr => io::stderr().lock().write_all(&text),
            Self::File(path, file) => {
                if moved(path, file) {
                    *file = append(path).map_err(io::Error::other)?;
                }
                file.write_all(&text)
            }
            #[cfg(test)]
            Self::Slow(sender) => sender.send(String::from_utf8_lossy(&text).into_owned()).map_err(io::Error::other),
        }
    }
}

/// Is the file of this name another than the one that is open, or none?
fn moved(path: &Path, file: &File) -> bool {
    let there = std::fs::metadata(path).map(|there| (there.dev(), there.ino())).ok();
    let open = file.metadata().map(|open| (open.dev(), open.ino())).ok();
    there != open
}

fn append(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.with_context(|| format!("failed to open the audit log `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::mpsc::sync_channel;

    use prometheus_client::metrics::counter::Counter;

    use super::{Audit, AuditTarget, Out, WAITING};
    use crate::wire::{AuditEvent, AuditLine};

    fn event(i: u64) -> AuditEvent {
        AuditEvent::Dropped { lines: i }
    }

    fn lines(path: &std::path::Path) -> Vec<AuditEvent> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<AuditLine>(line).unwrap().event).collect()
    }

    #[test]
    fn a_file_is_private_appended_to_and_may_be_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
        let target = AuditTarget::File(path.clone());
        let first = Audit::open(&target, Counter::default()).unwrap();
        first.log(event(1));
        first.flush();
        drop(first);
        let audit = Audit::open(&target, Counter::default()).unwrap();
        audit.log(event(2));
        audit.flush();
        fs::rename(&path, &old).unwrap();
        audit.log(event(3));
        audit.flush();
        assert_eq!((lines(&old), lines(&path)), (vec![event(1), event(2)], vec![event(3)]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Audit::open(&AuditTarget::File(folder.path().to_owned()), Counter::default()).is_err());
    }

    #[test]
    fn what_comes_too_fast_is_dropped_counted_and_told() {
        let (sender, receiver) = sync_channel(0);
        let dropped = Counter::default();
        let audit = Audit::to(Out::Slow(sender), dropped.clone()).unwrap();
        let sent = WAITING as u64 + 50;
        let base = 1_000_000;
        for i in 1..=sent {
            audit.log(event(base + i));
        }
        let lost = dropped.get();
        assert!((48..=50).contains(&lost), "the writer holds one line, the queue the others: {lost}");
        // All that got through, and one line about the rest.
        let written: Vec<AuditEvent> = (0..=(sent - lost))
            .map(|_| serde_json::from_str::<AuditLine>(&receiver.recv().unwrap()).unwrap().event)
            .collect();
        assert_eq!(written.iter().filter(|written| **written == event(lost)).count(), 1, "the gap is told");
    }

    #[test]
    fn off_means_nothing() {
        let audit = Audit::open(&AuditTarget::Off, Counter::default()).unwrap();
        audit.log(event(1));
        audit.flush();
        assert!(!audit.is_on());
    }
}
