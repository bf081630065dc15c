//! What all of these tests need: commands, units, and waiting for something without hoping.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use gorgo::remote::{Output, Remote, RemoteCommand, ServiceUnit, Source, Upload};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Longest wait for anything; generous, because the machine may be busy.
const BOUND: Duration = Duration::from_secs(60);

pub(crate) fn command(argv: &[&str]) -> RemoteCommand {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    RemoteCommand { argv, sudo: false, stdin: Vec::new(), timeout_s: 30 }
}

pub(crate) async fn run(remote: &dyn Remote, argv: &[&str]) -> Output {
    remote.run(&command(argv)).await.expect("the command runs")
}

/// Standard output of a command that has to succeed.
pub(crate) async fn stdout(remote: &dyn Remote, argv: &[&str]) -> String {
    let output = run(remote, argv).await;
    assert!(output.ok(), "{argv:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) async fn put(remote: &dyn Remote, path: &str, bytes: &[u8]) {
    let upload = Upload { source: Source::Bytes(bytes), path, mode: 0o644, root: false, keep_old: false };
    remote.put(&upload).await.expect("the file is put");
}

/// A service that runs this script file.
pub(crate) fn unit(script: &str) -> ServiceUnit {
    let unit_text = format!(
        "[Unit]\nDescription=gorgo test\n[Service]\nEnvironment=WORD=from-the-unit\nExecStart=/bin/sh {script}\nRestart=always\nRestartSec=100ms\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    ServiceUnit {
        description: "gorgo test".into(),
        argv: vec!["/bin/sh".into(), script.into()],
        environment: BTreeMap::from([("WORD".into(), "from-the-unit".into())]),
        unit_text,
    }
}

/// Waits until `done` gives something.
pub(crate) async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(value) = done().await {
                return value;
            }
            sleep(Duration::from_millis(30)).await;
        }
    };
    timeout(BOUND, look).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

/// Bytes without a pattern that anything could compress or repeat.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A folder for control sockets: ours alone, with a short path.
pub(crate) fn sockets() -> TempDir {
    let folder = tempfile::Builder::new().prefix("gt").tempdir_in("/tmp").expect("temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("sets the mode");
    folder
}

/// Says why something was not tested.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
