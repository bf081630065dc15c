//! A user with an account at `gorgo emulate lambda`, a process of its own, and machines that are sshd processes of the test.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{KEY, Ran, ran};

const SSHD: &str = "/usr/sbin/sshd";
/// Pause between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(20);
/// Most looks: a minute, or more where the looks themselves take time. Generous, because the machine may be busy.
const LOOKS: u32 = 3000;

/// The user, the folder and the account.
pub(crate) struct Lab {
    home: TempDir,
    emulator: Child,
    url: String,
    sshds: Vec<Child>,
}

impl Lab {
    /// An account with one SSH key, at a stand-in with these further arguments.
    pub(crate) fn new(arguments: &str) -> Self {
        Self::strict(&format!("--no-limits {arguments}"))
    }

    /// The same with the service's limits of calls and launches, on the stand-in's own clock.
    pub(crate) fn strict(arguments: &str) -> Self {
        let home = tempfile::Builder::new().prefix("gl").tempdir_in("/tmp").expect("a folder with a short path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
        command.args("emulate lambda --listen 127.0.0.1:0".split(' ')).args(arguments.split_whitespace());
        let mut emulator = command.stdout(Stdio::piped()).spawn().expect("the stand-in starts");
        let mut url = String::new();
        let out = emulator.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut url).expect("it says where it listens");
        let lab = Self { home, emulator, url: url.trim().to_owned(), sshds: Vec::new() };
        keygen(&lab.path("client"));
        lab
    }

    /// Stores the user's key, which a launch needs. Apart from [`Self::new`], because faults may strike it.
    pub(crate) fn with_key(self) -> Self {
        let added = self.gorgo("ssh-keys add client.pub --name mine --yes");
        assert_eq!(added.code, Some(0), "{}", added.err);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A command of this user, ready to be changed.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
        command.args(words).current_dir(self.home.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.home.path()).env("GORGO_STATE_DIR", self.path("state"));
        command.env("XDG_RUNTIME_DIR", self.home.path());
        command.env("LAMBDA_API_URL", &self.url).env("LAMBDA_API_KEY", KEY).env("GORGO_LAMBDA_PACE_MS", "1,1");
        command
    }

    pub(crate) fn gorgo(&self, line: &str) -> Ran {
        self.words(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn words(&self, words: &[&str]) -> Ran {
        ran(self.command(words))
    }

    /// What the account has, gone machines left out, as the stand-in tells without the API.
    pub(crate) fn machines(&self) -> Vec<Value> {
        let address = self.url.strip_prefix("http://").expect("plain http");
        let mut stream = TcpStream::connect(address).expect("the stand-in listens");
        stream.write_all(b"GET /emulator/machines HTTP/1.1\r\nhost: gorgo\r\nconnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let all: Vec<Value> = serde_json::from_str(body).expect("a list of machines");
        all.into_iter().filter(|it| it["status"] != "terminating" && it["status"] != "terminated").collect()
    }

    /// The inventory as written, or nothing.
    pub(crate) fn inventory(&self) -> String {
        fs::read_to_string(self.path("state/clusters/gorgo/inventory.json")).unwrap_or_default()
    }

    pub(crate) fn known_hosts(&self) -> String {
        fs::read_to_string(self.path("state/clusters/gorgo/known_hosts")).unwrap_or_default()
    }

    /// Everything that gorgo keeps, as one text.
    pub(crate) fn state(&self) -> String {
        let mut folders = vec![self.path("state")];
        let mut text = String::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                match entry.file_type().expect("a type") {
                    kind if kind.is_dir() => folders.push(entry.path()),
                    kind if kind.is_file() => text += &fs::read_to_string(entry.path()).unwrap_or_default(),
                    _ => {}
                }
            }
        }
        text
    }

    /// A port that is free at all of these addresses, told to gorgo with the login; `None`, with a line that says why, where there can be no sshd.
    pub(crate) fn prepare_sshd(&self, addresses: &[&str]) -> Option<u16> {
        if !Path::new(SSHD).exists() {
            return skipped(&format!("there is no {SSHD}; install openssh-server to test against it"));
        }
        let user = Command::new("id").arg("-un").output().expect("id runs").stdout;
        let user = String::from_utf8(user).expect("a name");
        // Where it runs as root it wants this folder, which only its own service file would make.
        if user.trim() == "root" {
            fs::create_dir_all("/run/sshd").expect("root can make it");
        }
        let free = |_: u32| {
            let first = TcpListener::bind((addresses[0], 0)).ok()?;
            let port = first.local_addr().ok()?.port();
            addresses[1..].iter().all(|address| TcpListener::bind((*address, port)).is_ok()).then_some(port)
        };
        let Some(port) = (0..50).find_map(free) else {
            return skipped(&format!("{addresses:?} are no addresses of this machine"));
        };
        self.configure(user.trim(), port);
        Some(port)
    }

    fn configure(&self, user: &str, port: u16) {
        let text =
            format!("[provider]\nuser = \"{user}\"\nport = {port}\nkey = \"{}\"\n", self.path("client").display());
        fs::write(self.path("gorgo.toml"), text).expect("writes");
    }

    /// Starts the sshd of a machine at its address; its `python3` has CUDA once there is a file called `cuda`.
    pub(crate) fn boot(&mut self, address: &str, port: u16, host_key: &str) {
        let folder = self.path(&format!("{address}-{}", self.sshds.len()));
        fs::create_dir(&folder).expect("makes");
        write(&folder.join("host"), host_key, 0o600);
        fs::copy(self.path("client.pub"), folder.join("authorized")).expect("copies");
        let at = folder.display();
        let cuda = self.path("cuda");
        write(
            &folder.join("python3"),
            &format!("#!/bin/sh\n[ -e {} ] || {{ echo 'CUDA error 802' >&2; exit 1; }}\n", cuda.display()),
            0o755,
        );
        // The path is set behind the login shell, whose own start-up files may put another python3 first.
        let config = format!(
            "ListenAddress {address}:{port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\nForceCommand PATH={at}:/usr/bin:/bin exec sh -c \"$SSH_ORIGINAL_COMMAND\"\n"
        );
        write(&folder.join("config"), &config, 0o600);
        let mut command = Command::new(SSHD);
        command.args(["-D", "-E"]).arg(folder.join("log")).arg("-f").arg(folder.join("config"));
        self.sshds.push(command.stdin(Stdio::null()).spawn().expect("sshd starts"));
        eventually("an sshd that listens", || TcpStream::connect((address, port)).is_ok().then_some(()));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.sshds.iter_mut().chain([&mut self.emulator]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The host key that a machine was given, as cloud-init would write it.
pub(crate) fn given_host_key(machine: &Value) -> String {
    let text = machine["user_data"].as_str().expect("the machine has a cloud-init text");
    assert!(text.starts_with("#cloud-config\n"), "cloud-init knows its texts by this line");
    text.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

/// A host key of somebody else.
pub(crate) fn other_host_key(lab: &Lab) -> String {
    let path = lab.path("stranger");
    if !path.exists() {
        keygen(&path);
    }
    fs::read_to_string(path).expect("reads")
}

/// Waits until `done` gives something.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(value) = done() {
            return value;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{what}: not seen in {LOOKS} looks");
}

/// A command that runs while the test goes on; what it says goes to files.
pub(crate) struct Running {
    child: Child,
    folder: PathBuf,
}

impl Running {
    pub(crate) fn start(lab: &Lab, name: &str, words: &[&str]) -> Self {
        let folder = lab.path(name);
        fs::create_dir(&folder).expect("makes");
        let file = |name: &str| fs::File::create(folder.join(name)).expect("makes");
        let child = lab.command(words).stdout(file("out")).stderr(file("err")).spawn().expect("starts");
        Self { child, folder }
    }

    pub(crate) fn says(&self, what: &str) {
        eventually(what, || self.read("err").contains(what).then_some(()));
    }

    /// `kill -SIGNAL`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn end(mut self) -> Ran {
        let status = eventually("the end of a command", || self.child.try_wait().expect("looks"));
        Ran { code: status.code(), out: self.read("out"), err: self.read("err") }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).expect("reads")
    }
}

/// A command that a failed test leaves behind ends with it.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets the mode");
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen runs").success());
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skipped<T>(why: &str) -> Option<T> {
    eprintln!("SKIPPED: {why}");
    None
}
