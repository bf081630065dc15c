//! The behaviours over a real sshd, and what only SSH has: host keys, logins, lost connections, sudo.

use std::fs;
use std::net::TcpListener as StdListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use gorgo::remote::ssh::{SshRemote, SshSettings, SshTarget, forget_host_key};
use gorgo::remote::{Remote, RemoteCommand, RemoteErrorKind, ServiceAction, Source, Upload};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::conformance::{self, Place};
use super::sshd::Sshd;
use super::support::{command, eventually, noise, put, run, skipped, stdout, unit};

/// One test per behaviour, each with an sshd of its own.
macro_rules! over_ssh {
    ($($behaviour:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $behaviour() {
            let Some(sshd) = Sshd::start() else { return };
            let folder = tempfile::tempdir().expect("temporary folder");
            let place = Place { remote: &sshd.remote(), folder: folder.path().to_str().expect("text").to_owned() };
            conformance::$behaviour(&place).await;
        }
    )+};
}

over_ssh!(commands, streams, limits, crowd, uploads, large_upload, replacement, full_disk, tunnels);

/// Whether the machine that the tests run on is one with systemd; then its sshd leads to a node that is not refused.
fn has_systemd() -> bool {
    std::path::Path::new("/run/systemd/system").exists()
}

#[tokio::test]
async fn a_node_without_systemd_is_refused_and_not_written_to() {
    let Some(sshd) = Sshd::start() else { return };
    if has_systemd() {
        skipped("this machine runs systemd");
        return;
    }
    let remote = sshd.remote();
    let name = format!("gorgo-refused-{}", std::process::id());
    for action in [ServiceAction::Status, ServiceAction::Start, ServiceAction::Install(unit("/bin/true"))] {
        let error = remote.service(&name, &action).await.expect_err("no systemd");
        assert_eq!(error.kind, RemoteErrorKind::Unsuitable);
        assert!(error.message.contains("systemd") && error.hint.is_some(), "{error:?}");
    }
    assert!(!run(&remote, &["test", "-e", &format!("/etc/systemd/system/{name}.service")]).await.ok());
    for follow in [false, true] {
        let error = remote.logs(&name, 5, follow).await.expect_err("no systemd");
        assert_eq!(error.kind, RemoteErrorKind::Unsuitable);
    }
}

#[tokio::test]
async fn the_first_key_is_kept_and_another_one_refused() {
    let Some(mut sshd) = Sshd::start() else { return };
    assert_eq!(stdout(&sshd.remote(), &["echo", "first"]).await, "first\n");
    let known = fs::read_to_string(sshd.path("known_hosts")).expect("was made");
    assert!(known.starts_with("i-1 ssh-ed25519 ") && known.lines().count() == 1, "by alias: {known}");
    assert_eq!(stdout(&sshd.remote(), &["echo", "again"]).await, "again\n");

    sshd.change_host_key();
    let error = sshd.remote().run(&command(&["true"])).await.expect_err("another key");
    assert_eq!(error.kind, RemoteErrorKind::HostKey, "{error}");
    let hint = error.hint.expect("a hint");
    assert!(hint.contains("i-1") && hint.contains("known_hosts"), "{hint}");
    assert_eq!(fs::read_to_string(sshd.path("known_hosts")).expect("reads"), known, "the known key stays");

    // Another machine at the same address is another alias: nothing to complain about.
    let other = SshTarget { host_key_alias: "i-2".into(), ..sshd.target() };
    assert_eq!(stdout(&SshRemote::new(other, sshd.settings()), &["echo", "other"]).await, "other\n");
    forget_host_key(&sshd.path("known_hosts"), "i-1").expect("forgets");
    assert_eq!(stdout(&sshd.remote(), &["echo", "trusted"]).await, "trusted\n");
}

#[tokio::test]
async fn a_preset_key_is_checked_from_the_first_packet() {
    let Some(mut sshd) = Sshd::start() else { return };
    let key = fs::read_to_string(sshd.path("host.pub")).expect("reads");
    let preset = SshTarget { host_key: Some(key), ..sshd.target() };
    assert_eq!(stdout(&SshRemote::new(preset.clone(), sshd.settings()), &["echo", "yes"]).await, "yes\n");
    fs::remove_file(sshd.path("known_hosts")).expect("removes");
    sshd.change_host_key();
    let error = SshRemote::new(preset, sshd.settings()).run(&command(&["true"])).await.expect_err("not that machine");
    assert_eq!(error.kind, RemoteErrorKind::HostKey, "{error}");
}

#[tokio::test]
async fn logins_that_cannot_work_say_why() {
    let Some(sshd) = Sshd::start() else { return };
    let fails = async |target: SshTarget, settings: SshSettings| {
        let run = async { SshRemote::new(target, settings).run(&command(&["true"])).await };
        timeout(Duration::from_secs(60), run).await.expect("within a bound").expect_err("cannot work")
    };
    let wrong_user = SshTarget { user: Some("gorgo-nobody".into()), ..sshd.target() };
    let error = fails(wrong_user, sshd.settings()).await;
    assert_eq!(error.kind, RemoteErrorKind::Denied, "{error}");
    assert!(error.message.starts_with("east: ") && error.hint.expect("a hint").contains("gorgo-nobody"));

    let no_key = SshTarget { key: Some("/no/such/key".into()), ..sshd.target() };
    let error = fails(no_key, sshd.settings()).await;
    assert_eq!(error.kind, RemoteErrorKind::Denied, "{error}");

    let open = sshd.path("open-key");
    fs::copy(sshd.path("client"), &open).expect("copies");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("sets the mode");
    let error = fails(SshTarget { key: Some(open), ..sshd.target() }, sshd.settings()).await;
    assert_eq!(error.kind, RemoteErrorKind::Denied, "{error}");
    assert!(error.hint.expect("a hint").contains("chmod 600"));

    let closed = StdListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let error = fails(SshTarget { port: Some(closed), ..sshd.target() }, sshd.settings()).await;
    assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");

    // Accepts and never says a word.
    let silent = StdListener::bind("127.0.0.1:0").expect("listens");
    let port = silent.local_addr().expect("an address").port();
    let quick = SshSettings { connect_timeout: Duration::from_secs(1), ..sshd.settings() };
    let error = fails(SshTarget { port: Some(port), ..sshd.target() }, quick).await;
    assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");

    let error = fails(SshTarget { address: "no-such-host.invalid".into(), ..sshd.target() }, sshd.settings()).await;
    assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");
    let error = fails(SshTarget { address: String::new(), ..sshd.target() }, sshd.settings()).await;
    assert_eq!(error.kind, RemoteErrorKind::Failed, "an empty address is not this machine: {error}");

    let shared = tempfile::Builder::new().prefix("gt").tempdir_in("/tmp").expect("temporary folder");
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777)).expect("sets the mode");
    let error = fails(sshd.target(), SshSettings { control_dir: shared.path().to_owned(), ..sshd.settings() }).await;
    assert!(error.message.contains("0700"), "others could take the connection over: {error}");
}

#[tokio::test]
async fn the_users_own_configuration_counts() {
    let Some(sshd) = Sshd::start() else { return };
    let config = format!(
        "Host my-box\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  \
         UserKnownHostsFile /dev/null\n  RemoteCommand /bin/false\n",
        sshd.port,
        sshd.path("client").display()
    );
    fs::write(sshd.path("ssh_config"), config).expect("writes");
    let target = SshTarget { address: "my-box".into(), port: None, key: None, ..sshd.target() };
    assert_eq!(stdout(&SshRemote::new(target, sshd.settings()), &["echo", "hello"]).await, "hello\n");
    let known = fs::read_to_string(sshd.path("known_hosts")).expect("ours, not /dev/null");
    assert!(known.starts_with("i-1 "), "{known}");
}

#[tokio::test]
async fn a_connection_that_ended_is_made_again() {
    let Some(mut sshd) = Sshd::start() else { return };
    let settings = SshSettings { idle_limit: Duration::from_secs(1), ..sshd.settings() };
    let sockets = settings.control_dir.clone();
    let remote = SshRemote::new(sshd.target(), settings);
    let master = || {
        let mut entries = fs::read_dir(&sockets).expect("lists").flatten();
        entries.any(|entry| entry.path().join("master").exists())
    };
    assert_eq!(stdout(&remote, &["echo", "1"]).await, "1\n");
    assert!(master());
    eventually("the end of the idle connection", async || (!master()).then_some(())).await;
    assert_eq!(stdout(&remote, &["echo", "2"]).await, "2\n");
    eventually("the end of the idle connection", async || (!master()).then_some(())).await;
    // Down and up again, as in a reboot.
    sshd.change_host_key();
    forget_host_key(&sshd.path("known_hosts"), "i-1").expect("forgets");
    assert_eq!(stdout(&remote, &["echo", "3"]).await, "3\n");
}

/// Carries connections to the sshd and cuts each after this many bytes on the way there.
async fn cut_after(port: u16, limit: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let here = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", port)).await.expect("sshd is there");
                let ((from, mut to_client), (mut from_server, mut to)) = (client.into_split(), server.into_split());
                let mut limited = from.take(limit);
                tokio::select! {
                    _ = tokio::io::copy(&mut limited, &mut to) => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
                let _ = to.shutdown().await;
            });
        }
    });
    here
}

#[tokio::test]
async fn a_connection_cut_during_an_upload_leaves_the_old_content_only() {
    let Some(sshd) = Sshd::start() else { return };
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("binary");
    let path = path.to_str().expect("text");
    put(&sshd.remote(), path, b"old").await;
    let cut = SshTarget { port: Some(cut_after(sshd.port, 4 << 20).await), ..sshd.target() };
    let remote = SshRemote::new(cut, sshd.settings());
    assert_eq!(stdout(&remote, &["echo", "small things pass"]).await, "small things pass\n");
    let bytes = noise(16 << 20);
    let upload = Upload { source: Source::Bytes(&bytes), path, mode: 0o755, root: false, keep_old: true };
    let error = timeout(Duration::from_secs(60), remote.put(&upload)).await.expect("noticed").expect_err("was cut");
    assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");
    eventually("the temporary file's end", async || {
        let names: Vec<_> =
            fs::read_dir(folder.path()).expect("lists").flatten().map(|entry| entry.file_name()).collect();
        (names == ["binary"]).then_some(())
    })
    .await;
    assert_eq!(fs::read(path).expect("reads"), b"old");
}

#[tokio::test]
async fn secrets_stay_out_of_argv() {
    let Some(sshd) = Sshd::start() else { return };
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("token");
    let secret = format!("hf_{}", std::process::id());
    // Everything that runs while the secret is on its way is listed; a slow reader keeps it there.
    let remote = sshd.remote();
    let listing = RemoteCommand {
        stdin: secret.clone().into_bytes(),
        ..command(&[
            "sh",
            "-c",
            "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done 2>/dev/null; cat >/dev/null",
        ])
    };
    let seen = remote.run(&listing).await.expect("runs");
    assert!(!String::from_utf8_lossy(&seen.stdout).contains(&secret));
    put(&remote, path.to_str().expect("text"), secret.as_bytes()).await;
    let shown = format!("{listing:?}");
    assert!(!shown.contains(&secret), "{shown}");
}

/// A `sudo` and an `id` of our own, so that the refusal can be seen even where the tests run as root.
#[tokio::test]
async fn sudo_that_asks_is_told_with_a_hint() {
    let fake = tempfile::tempdir().expect("temporary folder");
    let write = |name: &str, text: &str| {
        let path = fake.path().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("sets the mode");
    };
    write("id", "#!/bin/sh\necho 1000\n");
    let Some(sshd) = Sshd::start_with(&format!("SetEnv PATH={}:/usr/bin:/bin", fake.path().display())) else { return };
    let remote = sshd.remote();
    let as_root = RemoteCommand { sudo: true, ..command(&["echo", "a b"]) };
    write("sudo", "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n");
    let error = remote.run(&as_root).await.expect_err("asks");
    assert_eq!(error.kind, RemoteErrorKind::Sudo, "{error}");
    assert!(error.hint.expect("a hint").contains("NOPASSWD"));
    let path = fake.path().join("file");
    let upload = Upload {
        source: Source::Bytes(b"x"),
        path: path.to_str().expect("text"),
        mode: 0o600,
        root: true,
        keep_old: false,
    };
    assert_eq!(remote.put(&upload).await.expect_err("asks").kind, RemoteErrorKind::Sudo);
    assert!(!path.exists());

    write("sudo", "#!/bin/sh\n[ \"$1\" = -n ] && shift && exec \"$@\"\n");
    let output = remote.run(&as_root).await.expect("runs");
    assert_eq!(output.stdout, b"a b\n", "one that works gets the words as they are");
}
