//! An sshd of our own: on a loopback port, for the current user, with keys made for it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gorgo::remote::ssh::{SshRemote, SshSettings, SshTarget};
use tempfile::TempDir;

use super::support::{skipped, sockets};

const SSHD: &str = "/usr/sbin/sshd";

/// A running sshd and the files around it; ends when dropped.
pub(crate) struct Sshd {
    folder: TempDir,
    /// Control sockets need a short path.
    sockets: TempDir,
    pub(crate) port: u16,
    child: Child,
}

impl Sshd {
    /// Starts it, or says why it cannot be and gives nothing.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same with more lines for its configuration.
    pub(crate) fn start_with(more: &str) -> Option<Self> {
        if !Path::new(SSHD).exists() {
            skipped(&format!("there is no {SSHD}; install openssh-server to test against it"));
            return None;
        }
        // Where it runs as root it wants this folder, which only its own service file would make.
        if rustix::process::getuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("root can make it");
        }
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["host", "client"] {
            keygen(&folder.path().join(name));
        }
        fs::copy(folder.path().join("client.pub"), folder.path().join("authorized")).expect("copies");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let at = folder.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n{more}\n"
        );
        fs::write(folder.path().join("config"), config).expect("writes");
        let child = run(folder.path());
        let sockets = sockets();
        let mut sshd = Self { folder, sockets, port, child };
        sshd.wait();
        Some(sshd)
    }

    fn wait(&mut self) {
        for _ in 0..3000 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("looks") {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                panic!("sshd ended with {status}: {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sshd does not listen");
    }

    /// Starts it again with another host key.
    pub(crate) fn change_host_key(&mut self) {
        self.end();
        for name in ["host", "host.pub"] {
            fs::remove_file(self.path(name)).expect("removes");
        }
        keygen(&self.path("host"));
        self.child = run(self.folder.path());
        self.wait();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn target(&self) -> SshTarget {
        SshTarget {
            node: "east".into(),
            address: "127.0.0.1".into(),
            port: Some(self.port),
            user: None,
            key: Some(self.path("client")),
            host_key_alias: "i-1".into(),
            host_key: None,
        }
    }

    pub(crate) fn settings(&self) -> SshSettings {
        let mut settings = SshSettings::new(self.path("known_hosts"), self.sockets.path().to_owned());
        // Not the configuration of whoever runs the tests.
        settings.user_config = self.path("ssh_config");
        settings
    }

    pub(crate) fn remote(&self) -> SshRemote {
        SshRemote::new(self.target(), self.settings())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(folder: &Path) -> Child {
    let mut command = Command::new(SSHD);
    command.args(["-D", "-E"]).arg(folder.join("log")).arg("-f").arg(folder.join("config"));
    command.stdin(Stdio::null()).spawn().expect("sshd starts")
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen runs").success());
}
