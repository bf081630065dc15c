//! What every kind of node does alike. Each function is one behaviour; the other files run them against their nodes.

use std::time::Duration;

use gorgo::remote::{Remote, RemoteCommand, RemoteErrorKind, ServiceAction, ServiceState, Source, Upload};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::{command, eventually, noise, put, run, skipped, stdout, unit};

/// A node and a folder on it that may be used freely.
pub(crate) struct Place<'a> {
    pub(crate) remote: &'a dyn Remote,
    pub(crate) folder: String,
}

impl Place<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn names(&self) -> String {
        stdout(self.remote, &["ls", "-A", &self.folder]).await
    }
}

/// Arguments arrive as they are, statuses and both outputs come back.
pub(crate) async fn commands(place: &Place<'_>) {
    let remote = place.remote;
    let odd =
        ["", " ", "a b", "it's", "\"", "$HOME $(id) `id`", "-n", "\\", "*", "ü\n\t", "a;b&&c|d>e", "#", "!x", "~"];
    let mut argv = vec!["printf", "%s\\n--\\n"];
    argv.extend(odd);
    let wanted: String = odd.iter().flat_map(|word| [*word, "\n--\n"]).collect();
    assert_eq!(stdout(remote, &argv).await, wanted);

    for status in [0, 1, 3, 124, 126, 137, 255] {
        let output = run(remote, &["sh", "-c", &format!("echo out; echo err >&2; exit {status}")]).await;
        let seen = (output.status, output.stdout.as_slice(), output.stderr.as_slice());
        assert_eq!(seen, (Some(status), b"out\n".as_slice(), b"err\n".as_slice()));
    }
    let missing = run(remote, &["gorgo-no-such-program"]).await;
    assert_eq!(missing.status, Some(127));
    assert!(missing.complaint().contains("gorgo-no-such-program"), "{missing:?}");
    assert_eq!(run(remote, &["sh", "-c", "kill -9 $$"]).await.status, None, "killed by a signal");

    for bad in [command(&[]), command(&["echo", "a\0b"])] {
        let error = remote.run(&bad).await.expect_err("cannot be run");
        assert_eq!(error.kind, RemoteErrorKind::Failed);
    }
}

/// Input of any size reaches the command, or as much of it as it reads; large output comes back whole.
pub(crate) async fn streams(place: &Place<'_>) {
    let bytes = noise(3 << 20);
    let output = place.remote.run(&RemoteCommand { stdin: bytes.clone(), ..command(&["cat"]) }).await.expect("runs");
    assert!(output.ok() && output.stdout == bytes, "{} bytes came back", output.stdout.len());
    let ignored = place.remote.run(&RemoteCommand { stdin: bytes, ..command(&["true"]) }).await.expect("runs");
    assert!(ignored.ok());
    assert_eq!(stdout(place.remote, &["cat"]).await, "", "no input is an empty input");
    let large = run(place.remote, &["sh", "-c", "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"]).await;
    assert_eq!((large.status, large.stdout.len(), large.stderr.len()), (Some(0), 5_000_000, 3_000_000));
}

/// The time limit ends what runs on the node, not only the waiting for it.
pub(crate) async fn limits(place: &Place<'_>) {
    let pid_file = place.path("pid");
    put(place.remote, &pid_file, b"").await;
    let script = format!("echo $$ > '{pid_file}'; exec sleep 600");
    let slow = RemoteCommand { timeout_s: 1, ..command(&["sh", "-c", &script]) };
    let error = place.remote.run(&slow).await.expect_err("too slow");
    assert_eq!(error.kind, RemoteErrorKind::Timeout, "{error}");
    let pid = stdout(place.remote, &["cat", &pid_file]).await;
    eventually("the end of the command", async || {
        (!run(place.remote, &["kill", "-0", pid.trim()]).await.ok()).then_some(())
    })
    .await;
    let stubborn =
        RemoteCommand { timeout_s: 1, ..command(&["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]) };
    let error = place.remote.run(&stubborn).await.expect_err("too slow");
    assert_eq!(error.kind, RemoteErrorKind::Timeout, "{error}");
}

/// Many commands at once all get through.
pub(crate) async fn crowd(place: &Place<'_>) {
    let numbers: Vec<String> = (0..30).map(|i| i.to_string()).collect();
    let runs = numbers.iter().map(|number| async move {
        assert_eq!(stdout(place.remote, &["sh", "-c", "sleep 0.2; echo $0", number]).await.trim(), number);
    });
    futures_util::future::join_all(runs).await;
}

/// Content, mode, old content, and what stays when it goes wrong.
pub(crate) async fn uploads(place: &Place<'_>) {
    let (remote, path) = (place.remote, place.path("deep/er/it's a file"));
    let mode = async || stdout(remote, &["stat", "-c", "%a", &path]).await.trim().to_owned();
    let upload =
        |bytes, mode, keep_old| Upload { source: Source::Bytes(bytes), path: &path, mode, root: false, keep_old };
    let old = format!("{path}.old");

    remote.put(&upload(b"one", 0o600, true)).await.expect("puts");
    assert_eq!((remote.get(&path).await.expect("gets"), mode().await), (b"one".to_vec(), "600".to_owned()));
    assert!(!run(remote, &["test", "-e", &old]).await.ok(), "there was nothing to keep");
    remote.put(&upload(b"two", 0o755, true)).await.expect("puts");
    remote.put(&upload(b"two", 0o750, true)).await.expect("puts the same again");
    assert_eq!((remote.get(&path).await.expect("gets"), mode().await), (b"two".to_vec(), "750".to_owned()));
    assert_eq!(remote.get(&old).await.expect("gets"), b"one", "the same content does not push the old one out");
    remote.put(&upload(b"", 0o644, false)).await.expect("puts");
    assert_eq!(remote.get(&path).await.expect("gets"), b"", "empty is content too");
    assert_eq!(remote.get(&old).await.expect("gets"), b"one");

    let folder = place.path("deep");
    for bad in [folder.as_str(), "relative", "/a/../b", "/", "/nul\0"] {
        let upload = Upload { path: bad, ..upload(b"x", 0o644, false) };
        let error = remote.put(&upload).await.expect_err(bad);
        assert_eq!(error.kind, RemoteErrorKind::Failed, "{error}");
    }
    let nothing = Upload { source: Source::File("/no/such/file/here".as_ref()), ..upload(b"", 0o644, false) };
    remote.put(&nothing).await.expect_err("no such file here");
    assert_eq!(place.names().await, "deep\n", "nothing is left over");
    let error = remote.get(&place.path("absent")).await.expect_err("there is none");
    assert!(error.message.contains("absent") && error.message.contains("No such file"), "{error}");
}

/// A large file arrives whole.
pub(crate) async fn large_upload(place: &Place<'_>) {
    let here = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(here.path(), noise(30 << 20)).expect("writes");
    let path = place.path("large");
    let upload = Upload { source: Source::File(here.path()), path: &path, mode: 0o755, root: false, keep_old: true };
    place.remote.put(&upload).await.expect("puts");
    let there = stdout(place.remote, &["sha256sum", &path]).await;
    let local = std::process::Command::new("sha256sum").arg(here.path()).output().expect("sha256sum runs").stdout;
    assert_eq!(there.as_bytes()[..64], local[..64]);
}

/// Who reads while it is replaced sees all of one content.
pub(crate) async fn replacement(place: &Place<'_>) {
    let path = place.path("swapped");
    let contents = [vec![b'a'; 400_000], vec![b'b'; 500_000]];
    put(place.remote, &path, &contents[0]).await;
    let write = async {
        for round in 1..8 {
            put(place.remote, &path, &contents[round % 2]).await;
        }
    };
    let read = async {
        loop {
            let seen = place.remote.get(&path).await.expect("there is always a file");
            assert!(contents.contains(&seen), "a mixture of {} bytes", seen.len());
        }
    };
    tokio::select! {
        () = write => {}
        () = read => unreachable!(),
    }
}

/// A full disk is told as such and leaves what was there. Needs a node where we may mount.
pub(crate) async fn full_disk(place: &Place<'_>) {
    let small = place.path("small");
    stdout(place.remote, &["mkdir", "-p", &small]).await;
    let mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", &small];
    let mounted = place.remote.run(&RemoteCommand { sudo: true, ..command(&mount) }).await;
    if !mounted.is_ok_and(|output| output.ok()) {
        skipped("full disk: cannot mount a small file system on the node");
        return;
    }
    let path = format!("{small}/file");
    put(place.remote, &path, b"before").await;
    let bytes = noise(2 << 20);
    let upload = Upload { source: Source::Bytes(&bytes), path: &path, mode: 0o644, root: false, keep_old: true };
    let result = place.remote.put(&upload).await;
    let names = stdout(place.remote, &["ls", "-A", &small]).await;
    let kept = place.remote.get(&path).await;
    let unmount = RemoteCommand { sudo: true, ..command(&["umount", &small]) };
    place.remote.run(&unmount).await.expect("unmounts");
    let error = result.expect_err("the disk is full");
    assert_eq!(error.kind, RemoteErrorKind::Unsuitable, "{error}");
    assert!(error.message.contains("no space") && error.hint.is_some(), "{error:?}");
    assert_eq!((names.as_str(), kept.expect("gets").as_slice()), ("file\n", b"before".as_slice()));
}

/// A program on the node's loopback can be reached from here. Only for nodes that share this machine's loopback.
pub(crate) async fn tunnels(place: &Place<'_>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("has an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let tunnel = place.remote.forward(port).await.expect("a tunnel");
    assert!(tunnel.address.ip().is_loopback());
    let second = place.remote.forward(port).await.expect("another");
    for address in [tunnel.address, second.address, tunnel.address] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let bytes = noise(300_000);
        let (mut read, mut write) = stream.split();
        let mut echo = vec![0; bytes.len()];
        let (sent, got) = tokio::join!(write.write_all(&bytes), read.read_exact(&mut echo));
        sent.expect("sends");
        got.expect("receives");
        assert!(echo == bytes);
    }
    let address = tunnel.address;
    drop(tunnel);
    if address.port() != port {
        eventually("the tunnel's end", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    }
    TcpStream::connect(second.address).await.expect("the other tunnel is still there");
}

/// From installation to removal.
pub(crate) async fn services(place: &Place<'_>) {
    let (remote, name) = (place.remote, format!("gorgo-test-{}", std::process::id()));
    let act = async |action: ServiceAction| remote.service(&name, &action).await;
    let script = place.path("service.sh");
    let definition = unit(&script);
    assert_eq!(act(ServiceAction::Status).await.expect("looks"), ServiceState::default(), "not there yet");
    for action in [ServiceAction::Start, ServiceAction::Stop, ServiceAction::Restart] {
        let error = act(action.clone()).await.expect_err("not installed");
        assert!(error.message.contains("not installed"), "{action:?}: {error}");
    }
    put(remote, &script, b"echo started $WORD; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done\n").await;
    let installed = act(ServiceAction::Install(definition.clone())).await.expect("installs");
    assert_eq!(installed.definition_sha256, Some(definition.definition_sha256()));
    assert!(installed.installed && !installed.running);

    let started = act(ServiceAction::Start).await.expect("starts");
    let pid = started.pid.expect("a process");
    assert_eq!(act(ServiceAction::Start).await.expect("starts").pid, Some(pid), "running already");
    log_has(place, &name, "started from-the-unit", 1).await;
    kill(remote, pid).await;
    let again = eventually("the restart", async || {
        let state = act(ServiceAction::Status).await.expect("looks");
        (state.running && state.pid != Some(pid)).then_some(state)
    })
    .await;
    assert!(again.restarts >= 1, "{again:?}");
    log_has(place, &name, "started from-the-unit", 2).await;

    let restarted = act(ServiceAction::Restart).await.expect("restarts");
    assert!(restarted.running && restarted.pid != again.pid && restarted.restarts == 0, "{restarted:?}");
    log_has(place, &name, "started from-the-unit", 3).await;
    let stopped = act(ServiceAction::Stop).await.expect("stops");
    assert!(stopped.installed && !stopped.running && stopped.pid.is_none(), "{stopped:?}");
    log_has(place, &name, "bye", 2).await;

    let mut other = definition;
    other.unit_text.push_str("# changed\n");
    let replaced = act(ServiceAction::Install(other.clone())).await.expect("installs another definition");
    assert_eq!(replaced.definition_sha256, Some(other.definition_sha256()));
    act(ServiceAction::Start).await.expect("starts");
    assert_eq!(act(ServiceAction::Remove).await.expect("removes"), ServiceState::default());
    assert_eq!(act(ServiceAction::Remove).await.expect("removes twice"), ServiceState::default());
    let error = remote.service("../x", &ServiceAction::Status).await.expect_err("no name of a service");
    assert_eq!(error.kind, RemoteErrorKind::Failed);
}

async fn kill(remote: &dyn Remote, pid: u32) {
    let kill = RemoteCommand { sudo: true, ..command(&["kill", "-9", &pid.to_string()]) };
    assert!(remote.run(&kill).await.expect("runs").ok());
}

/// Waits until the log holds that many lines with the text.
async fn log_has(place: &Place<'_>, unit: &str, text: &str, times: usize) {
    eventually(&format!("{text:?} {times} times in the log"), async || {
        let mut lines = place.remote.logs(unit, 500, false).await.expect("reads the log");
        let mut seen = 0;
        while let Some(line) = lines.recv().await {
            seen += usize::from(line.contains(text));
        }
        (seen >= times).then_some(())
    })
    .await;
}

/// The end of a log, and a log that goes on.
pub(crate) async fn logs(place: &Place<'_>) {
    let (remote, name) = (place.remote, format!("gorgo-test-log-{}", std::process::id()));
    let script = place.path("count.sh");
    put(remote, &script, b"i=0; while :; do i=$((i+1)); echo line $i.; sleep 0.1; done\n").await;
    remote.service(&name, &ServiceAction::Install(unit(&script))).await.expect("installs");
    let mut following = remote.logs(&name, 10, true).await.expect("follows a log before there is one");
    remote.service(&name, &ServiceAction::Start).await.expect("starts");
    // journald may pass over the first lines of a log that was empty when the reader came; from the first one seen none is missing.
    let mut before: Option<u32> = None;
    for _ in 0..4 {
        let number = next_number(&mut following).await;
        assert!(before.is_none_or(|before| number == before + 1), "{before:?}, then {number}");
        before = Some(number);
    }
    drop(following);
    let mut last = remote.logs(&name, 2, false).await.expect("reads");
    let mut lines = Vec::new();
    while let Some(line) = last.recv().await {
        lines.push(line);
    }
    assert_eq!(lines.len(), 2, "{lines:?}");
    remote.service(&name, &ServiceAction::Remove).await.expect("removes");
    let mut nothing = remote.logs("gorgo-test-never", 5, false).await.expect("no log is an empty log");
    assert_eq!(nothing.recv().await, None);
}

/// The number in the next line of the counting service; a supervisor's own words may stand between.
async fn next_number(lines: &mut tokio::sync::mpsc::Receiver<String>) -> u32 {
    loop {
        let line = tokio::time::timeout(Duration::from_secs(60), lines.recv()).await;
        let line = line.expect("a line comes").expect("the log goes on");
        let number = line.rsplit_once("line ").and_then(|(_, rest)| rest.strip_suffix('.')?.parse().ok());
        if let Some(number) = number {
            return number;
        }
    }
}
