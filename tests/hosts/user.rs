//! A user of the real binary: a folder of their own, and a gorgo.toml that names test hosts.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::harness::Host;

/// Regions of the hosts, by position.
const REGIONS: [&str; 3] = ["us-east-1", "us-west-1", "europe-central-1"];

/// A user.
pub(crate) struct User {
    home: TempDir,
    /// Control sockets need a short path.
    sockets: TempDir,
    program: PathBuf,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` = by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Ran {
    /// Everything that was shown.
    pub(crate) fn shown(&self) -> String {
        format!("{}{}[{}]", self.out, self.err, self.code.unwrap_or(-1))
    }
}

impl User {
    /// A cluster of these hosts, entered under the users that they have.
    pub(crate) fn new(hosts: &[Host]) -> Self {
        let mut config = "[cluster]\nname = \"lab\"\nengine = \"emulator\"\n[provider]\nkind = \"hosts\"\n".to_owned();
        for (host, region) in hosts.iter().zip(REGIONS.iter().cycle()) {
            let Host { name, address, user, key, .. } = host;
            write!(
                config,
                "[[provider.hosts]]\nname = \"{name}\"\naddress = \"{address}\"\nuser = \"{user}\"\nkey = \"{}\"\nregion = \"{region}\"\n",
                key.display()
            )
            .expect("text");
        }
        let home = tempfile::tempdir().expect("a folder");
        fs::write(home.path().join("gorgo.toml"), config).expect("writes");
        let sockets = tempfile::Builder::new().prefix("gt").tempdir_in("/tmp").expect("a folder");
        Self { home, sockets, program: program() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The gorgo that is run, and that goes onto the hosts.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(line.split_whitespace()).current_dir(self.home.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", self.home.path());
        command.env("GORGO_STATE_DIR", self.path("state")).env("XDG_RUNTIME_DIR", self.sockets.path());
        command
    }

    pub(crate) fn gorgo(&self, line: &str) -> Ran {
        ran(self.command(line))
    }

    /// A command that has to succeed.
    pub(crate) fn does(&self, line: &str) -> Ran {
        let ran = self.gorgo(line);
        assert_eq!(ran.code, Some(0), "`gorgo {line}`: {}", ran.shown());
        ran
    }
}

#[expect(clippy::disallowed_methods, reason = "how long commands on real hosts take is measured")]
pub(crate) fn ran(mut command: Command) -> Ran {
    let begun = Instant::now();
    let output = super::bounded::output(&mut command);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr), took: begun.elapsed() }
}

/// The one that `GORGO_TEST_BINARY` names, which `scripts/release --for-tests` makes for the oldest host; else the one that cargo built.
fn program() -> PathBuf {
    match env::var_os("GORGO_TEST_BINARY").filter(|path| !path.is_empty()) {
        Some(path) => fs::canonicalize(&path).unwrap_or_else(|error| panic!("GORGO_TEST_BINARY {path:?}: {error}")),
        None => env!("CARGO_BIN_EXE_gorgo").into(),
    }
}
