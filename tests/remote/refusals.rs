//! `gorgo cluster …` as a user runs it against machines that cannot be worked on: each is told in one paragraph with a hint, and nothing
//! is done.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use tempfile::TempDir;

use super::sshd::Sshd;
use super::support::{skipped, sockets};

/// Longest connection attempt of gorgo (ssh's 10 s, then 10 for the login), and as much again for a busy machine.
const CONNECT_BOUND: Duration = Duration::from_secs(40);

/// A user with a folder and one machine called `east`.
struct User {
    home: TempDir,
    /// Control sockets need a short path.
    sockets: TempDir,
    port: u16,
}

impl User {
    fn new(port: u16, key: &Path) -> Self {
        let user = Self { home: tempfile::tempdir().expect("a folder"), sockets: sockets(), port };
        let config = format!(
            "[cluster]\nname = \"lab\"\nengine = \"emulator\"\n[provider]\nkind = \"hosts\"\n[[provider.hosts]]\nname = \"east\"\n\
             address = \"127.0.0.1\"\nport = {port}\nkey = \"{}\"\nregion = \"us-east-1\"\n",
            key.display()
        );
        fs::write(user.path("gorgo.toml"), config).expect("writes");
        user
    }

    /// The user of an sshd.
    fn of(sshd: &Sshd) -> Self {
        Self::new(sshd.port, &sshd.path("client"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
        command.args(line.split_whitespace()).current_dir(self.home.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.home.path());
        command.env("GORGO_STATE_DIR", self.path("state")).env("XDG_RUNTIME_DIR", self.sockets.path());
        command
    }

    fn gorgo(&self, line: &str) -> String {
        self.shown(&self.command(line).output().expect("the binary runs"))
    }

    /// Everything that was shown, without what differs from run to run.
    fn shown(&self, output: &Output) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = format!("{}{}[{}]", text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1));
        let home = self.home.path().display().to_string();
        let login = format!(" {}@", login());
        shown.replace(&home, "HOME").replace(&format!("port {}", self.port), "port PORT").replace(&login, " USER@")
    }
}

/// Who ssh logs in as when nobody is named.
fn login() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[test]
fn nobody_listens() {
    let user = User::new(free_port(), Path::new("/dev/null"));
    assert_snapshot!(user.gorgo("cluster setup"), @"
    east: looking at it
    error: east: cannot reach 127.0.0.1: connect to host 127.0.0.1 port PORT: Connection refused

    hint: is the machine still booting, and is this the right port?
    [1]
    ");
    assert_snapshot!(user.gorgo("cluster logs"), @"
    error: east: cannot reach 127.0.0.1: connect to host 127.0.0.1 port PORT: Connection refused

    hint: is the machine still booting, and is this the right port?
    [1]
    ");
}

/// Also: while one gorgo waits, another one is told who has the cluster.
#[test]
#[expect(clippy::disallowed_methods, reason = "the bound of a connection attempt is wall time")]
fn an_address_that_never_answers_is_given_up_and_meanwhile_nobody_else_gets_the_cluster() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let user = User::new(silent.local_addr().expect("a port").port(), Path::new("/dev/null"));
    let begun = Instant::now();
    let first = user.command("cluster setup").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let lock = user.path("state/clusters/lab/lock");
    while !fs::read_to_string(&lock).is_ok_and(|text| text.ends_with('}')) {
        assert!(begun.elapsed() < CONNECT_BOUND, "it takes the lock");
        thread::sleep(Duration::from_millis(10));
    }
    let second = user.gorgo("cluster setup").replace(&first.id().to_string(), "PID");
    assert!(second.starts_with("error: another gorgo works on this cluster: `"), "{second}");
    for part in ["cluster setup`, process PID on ", ", since ", "HOME/state/clusters/lab/lock", "wait for it", "[1]"] {
        assert!(second.contains(part), "{part}: {second}");
    }
    let ended = first.wait_with_output().expect("ends");
    assert!(begun.elapsed() < CONNECT_BOUND, "{:?}", begun.elapsed());
    assert_snapshot!(user.shown(&ended), @"
    east: looking at it
    error: east: cannot reach 127.0.0.1: Connection to 127.0.0.1 port PORT timed out

    hint: is the machine up, and does a firewall on the way let SSH through?
    [1]
    ");
}

#[test]
fn the_host_key_is_another_one() {
    let Some(mut sshd) = Sshd::start() else { return };
    let user = User::of(&sshd);
    assert!(user.gorgo("cluster setup --dry-run").ends_with("[0]"));
    sshd.change_host_key();
    assert_snapshot!(user.gorgo("cluster setup"), @"
    east: looking at it
    error: east: the host key of 127.0.0.1 is not the one that is known for east

    hint: somebody may be between you and the machine; if it was reinstalled on purpose, remove the line of east from HOME/state/clusters/lab/known_hosts
    [1]
    ");
    fs::remove_file(user.path("state/clusters/lab/known_hosts")).expect("it was written");
    assert!(user.gorgo("cluster setup --dry-run").ends_with("[0]"), "the hint helps");
}

#[test]
fn the_private_key_is_open_to_others_missing_or_unknown() {
    let Some(sshd) = Sshd::start() else { return };
    let open = sshd.path("open");
    fs::copy(sshd.path("client"), &open).expect("copies");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("sets the mode");
    let shown = User::new(sshd.port, &open).gorgo("cluster setup");
    assert_snapshot!(shown.replace(&sshd.path("").display().to_string(), "KEYS/"), @"
    east: looking at it
    error: east: the private key may be read by others, so ssh ignores it: USER@127.0.0.1: Permission denied (publickey).

    hint: `chmod 600 KEYS/open`
    [1]
    ");
    assert_snapshot!(User::new(sshd.port, Path::new("/nowhere/key")).gorgo("cluster setup"), @"
    east: looking at it
    error: east: there is no key file /nowhere/key

    hint: correct its path, or leave it out to use the keys of your ssh agent and configuration
    [1]
    ");
    assert_snapshot!(User::new(sshd.port, &sshd.path("host")).gorgo("cluster setup"), @"
    east: looking at it
    error: east: the login was refused: USER@127.0.0.1: Permission denied (publickey).

    hint: is the default user the right login, and is your public key on the machine? `ssh -v` to 127.0.0.1 tells more
    [1]
    ");
}

#[test]
fn the_machine_has_no_systemd() {
    let Some(sshd) = Sshd::start() else { return };
    if Path::new("/run/systemd/system").is_dir() {
        return skipped("this machine runs systemd, and the sshd of the test is on it");
    }
    let user = User::of(&sshd);
    let shown = user.gorgo("cluster setup");
    assert!(shown.contains("east: the machine does not run systemd"), "{shown}");
    assert!(shown.contains("hint: use a distribution with systemd") && shown.ends_with("[1]"), "{shown}");
    assert!(!Path::new("/opt/gorgo").exists(), "nothing was written");
}

#[test]
fn the_inventory_is_nonsense() {
    let user = User::new(free_port(), Path::new("/dev/null"));
    let folder = user.path("state/clusters/lab");
    fs::create_dir_all(&folder).expect("makes it");
    fs::write(folder.join("inventory.json"), "{\"schema\":\"gorgo.cluster/1\",\"cluster\":\"lab\",\"provi")
        .expect("writes");
    let shown = user.gorgo("cluster setup");
    assert_snapshot!(shown, @"
    error: the inventory HOME/state/clusters/lab/inventory.json cannot be understood; nothing was changed
      not JSON: EOF while parsing a string at line 1 column 50
      hint: correct these places, or put back a copy; if all is lost, find the machines by their tag with `gorgo list`
    [2]
    ");
    for command in ["cluster setup --dry-run", "cluster down --yes", "cluster upload", "cluster rollback"] {
        assert_eq!(user.gorgo(command), shown, "{command}");
    }
}
