//! The commands of the control plane as a user sees them: the real binary against a small account.

mod account;
mod bad_input;
#[path = "../bounded/mod.rs"]
mod bounded;
mod cluster;
mod crash;
mod instances;
mod lab;
mod local;
mod machines;
mod proxy;
mod shared;

use std::path::Path;
use std::process::Command;

use account::{Account, KEY};
use tempfile::TempDir;

/// A user with a folder and an account.
pub(crate) struct User {
    pub(crate) home: TempDir,
    pub(crate) account: Account,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Everything that was shown, without what differs from run to run.
    pub(crate) fn shown(&self, user: &User) -> String {
        let home = user.home.path().display().to_string();
        format!("{}{}[{}]", self.out, self.err, self.code.unwrap_or(-1)).replace(&home, "HOME")
    }
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a folder"), account: Account::start() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.home.path()
    }

    /// A command with this user's folder and account, ready to be changed.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gorgo"));
        command.args(line.split_whitespace()).current_dir(self.path()).env_clear();
        command.env("HOME", self.path()).env("USER", "ana").env("GORGO_STATE_DIR", self.path().join("state"));
        command.env("LAMBDA_API_URL", &self.account.url).env("LAMBDA_API_KEY", KEY).env("GORGO_LAMBDA_PACE_MS", "1,1");
        command.stdin(std::process::Stdio::null());
        command
    }

    pub(crate) fn gorgo(&self, line: &str) -> Ran {
        ran(self.command(line))
    }
}

pub(crate) fn ran(mut command: Command) -> Ran {
    let output = bounded::output(&mut command);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    for secret in [KEY, "never-show-this"] {
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "a secret was shown: {ran:?}");
    }
    ran
}
