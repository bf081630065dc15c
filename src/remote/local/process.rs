//! Which process is meant: a pid alone may belong to somebody else by now, so its start time and the machine's boot go with it.
//!
//! Reads `/proc`, so it knows Linux only.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

/// A process that leads a process group of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks from boot to its start (proc(5), stat field 22).
    start_ticks: u64,
    boot_id: String,
}

impl Process {
    /// The process that has this pid now.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let (_, start_ticks) = stat(pid)?;
        Ok(Self { pid, start_ticks, boot_id: boot_id()? })
    }

    /// Whether it still runs. One that has ended and waits for its parent does not.
    pub(super) fn is_alive(&self) -> bool {
        let same = stat(self.pid).is_ok_and(|(state, start)| start == self.start_ticks && !matches!(state, 'Z' | 'X'));
        same && boot_id().is_ok_and(|id| id == self.boot_id)
    }

    /// Signals it and what it started, if it is still the process that was meant.
    pub(super) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            signal_group(self.pid, signal);
        }
    }
}

/// Signals a process group whose leader is known to be ours. An empty group is fine.
pub(super) fn signal_group(leader: u32, signal: Signal) {
    // 0 and 1 would mean "our own group" and "everybody".
    if let Some(pid) = i32::try_from(leader).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// State letter and start time. The name in parentheses may itself hold blanks and parentheses, so fields count from the last one.
fn stat(pid: u32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unknown form")))
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 3 was the state; 22 is the 18th after it.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Process, parse_stat};

    #[test]
    fn reads_stat_lines_with_odd_names() {
        let tail = "S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(&format!("7 (a) b (c) {tail}")), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (x) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_pid_that_means_another_process_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let process = Process::of(child.id()).expect("it runs");
        assert!(process.is_alive());
        let earlier = Process { start_ticks: process.start_ticks - 1, ..process.clone() };
        assert!(!earlier.is_alive(), "same pid, other start");
        let other_boot = Process { boot_id: "x".into(), ..earlier };
        assert!(!other_boot.is_alive(), "same pid, other boot");
        child.kill().expect("kills");
        while process.is_alive() {
            std::thread::yield_now();
        }
        child.wait().expect("waits");
        assert!(Process::of(child.id()).is_err());
    }
}
