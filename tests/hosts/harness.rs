//! Hosts from `scripts/test-hosts` for the length of a test, commands on them over SSH, and waiting with a bound.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Exit status of the script where hosts cannot be had.
const CANNOT: i32 = 77;

/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One host.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) user: String,
    /// Path of the private key.
    pub(crate) key: PathBuf,
    /// Debian's name of the release.
    pub(crate) distribution: String,
    /// Network interface of this machine that leads to it.
    pub(crate) interface: String,
}

/// The script's inventory file.
#[derive(Debug, Deserialize)]
struct Inventory {
    run: String,
    known_hosts: PathBuf,
    hosts: Vec<Host>,
}

/// A set of hosts. Those that it has booted end with it, also when the test panics or its process is killed: the script holds them only
/// as long as the pipe to its standard input is open.
#[derive(Debug)]
pub(crate) struct Hosts {
    inventory: Inventory,
    keeper: Option<Child>,
    /// Tests take turns: with a set that somebody keeps up they would be on the same hosts, and with sets of their own they would measure
    /// each other.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Hosts {
    /// Boots `count` hosts with `GORGO_TEST_HOSTS=up`, or takes those of the inventory file that `GORGO_TEST_HOSTS` names. Otherwise, and
    /// where hosts cannot be had, `None` with a printed line that says why.
    #[expect(clippy::print_stdout, reason = "says why a test is skipped")]
    pub(crate) fn start(count: usize) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        match env::var("GORGO_TEST_HOSTS").as_deref() {
            Err(_) | Ok("") => {
                println!(
                    "skipped: set GORGO_TEST_HOSTS=up (as root), or to an inventory file of `scripts/test-hosts up`"
                );
                None
            }
            Ok("up") => Self::boot(count, turn),
            Ok(path) => {
                let inventory = read_inventory(Path::new(path));
                let found = inventory.hosts.len();
                assert!(found >= count, "{path} has {found} hosts, this test wants {count}");
                Some(Self { inventory, keeper: None, _turn: turn })
            }
        }
    }

    #[expect(clippy::print_stdout, reason = "says why a test is skipped")]
    fn boot(count: usize, turn: MutexGuard<'static, ()>) -> Option<Self> {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = format!("test-{}-{}", process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let mut keeper = script(&run)
            .args(["run", &count.to_string(), "--", "sh", "-c", "echo \"$GORGO_TEST_HOSTS\"; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C ends the test, and the end of the test ends the hosts, in this order
            .spawn()
            .expect("scripts/test-hosts can be run");
        let mut talk = keeper.stderr.take().expect("a pipe");
        let talk = thread::spawn(move || {
            let mut text = String::new();
            talk.read_to_string(&mut text).map(|_| text)
        });
        let mut path = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut path).expect("text");
        if path.is_empty() {
            let status = keeper.wait().expect("a child of ours");
            let talk = talk.join().expect("no panic").expect("text");
            assert_eq!(status.code(), Some(CANNOT), "scripts/test-hosts failed: {talk}");
            println!("skipped: {}", talk.trim_end());
            return None;
        }
        Some(Self { inventory: read_inventory(Path::new(path.trim_end())), keeper: Some(keeper), _turn: turn })
    }

    /// All hosts, in order of name; every third is the old distribution.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.inventory.hosts
    }

    /// Name of the run.
    pub(crate) fn run(&self) -> &str {
        &self.inventory.run
    }

    /// Takes a host off the network.
    pub(crate) fn cut(&self, host: &Host) {
        self.script("cut", host);
    }

    /// Brings it back.
    pub(crate) fn heal(&self, host: &Host) {
        self.script("heal", host);
    }

    /// Stops it in order, unless it is gone already, and boots it again; returns when SSH answers.
    pub(crate) fn restart(&self, host: &Host) {
        self.script("restart", host);
    }

    fn script(&self, command: &str, host: &Host) {
        let output = script(self.run()).args([command, &host.name]).output().expect("scripts/test-hosts can be run");
        assert!(output.status.success(), "{command} {}: {}", host.name, String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a shell line on a host, checking its key. A host that is cut off gives status 255 within some seconds.
    pub(crate) fn ssh(&self, host: &Host, line: &str) -> Output {
        let known_hosts = format!("UserKnownHostsFile={}", self.inventory.known_hosts.display());
        Command::new("ssh")
            .args(["-F", "none", "-o", &known_hosts, "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"])
            .args([
                "-o",
                "LogLevel=ERROR",
                "-o",
                "ConnectTimeout=3",
                "-o",
                "ServerAliveInterval=2",
                "-o",
                "IdentitiesOnly=yes",
            ])
            .arg("-i")
            .arg(&host.key)
            .arg(format!("{}@{}", host.user, host.address))
            .arg(line)
            .stdin(Stdio::null())
            .output()
            .expect("ssh can be run")
    }

    /// Runs a shell line that has to succeed and returns what it says, without the white space around it.
    pub(crate) fn say(&self, host: &Host, line: &str) -> String {
        let output = self.ssh(host, line);
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` on {}: {:?}: {stdout}{stderr}", host.name, output.status);
        stdout.trim().to_owned()
    }

    /// Does a shell line succeed?
    pub(crate) fn succeeds(&self, host: &Host, line: &str) -> bool {
        self.ssh(host, line).status.success()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        drop(keeper.stdin.take());
        let ended = keeper.wait();
        // not while panicking: the second panic would hide the first
        if !thread::panicking() {
            assert!(
                ended.is_ok_and(|status| status.success()),
                "scripts/test-hosts could not take down run {}",
                self.run()
            );
        }
    }
}

/// The script, working on one run.
pub(crate) fn script(run: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-hosts"));
    command.args(["--run", run]);
    command
}

fn read_inventory(path: &Path) -> Inventory {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Waits until a condition holds, looking often; panics after `bound`.
#[expect(clippy::disallowed_methods, reason = "a test's bound on real hosts is wall time")]
pub(crate) fn wait_until(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < bound, "waited {bound:?} in vain until {what}");
        thread::sleep(LOOK_EVERY);
    }
}
