//! Doing things on a node: over SSH with systemd, or on this machine with a supervisor process. Commands are values before they run.

mod command;
mod error;
pub mod local;
mod output;
mod quote;
mod service;
pub mod ssh;

pub use command::{Output, RemoteCommand};
pub use error::{RemoteError, RemoteErrorKind};
pub use quote::{quote, quoted_line};
pub use service::{ServiceAction, ServiceState, ServiceUnit};

use std::net::SocketAddr;
use std::path::Path;

use async_trait::async_trait;

/// Most bytes of standard output, and of standard error, that one command may give. More is an error, so that a node cannot fill our memory.
pub const OUTPUT_LIMIT: usize = 64 << 20;

/// A node that can be worked on. Two implementations (`ssh`, `local`) pass the same tests.
///
/// Dropping a future stops the waiting; what was started on the node goes on there until its own time limit.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Runs a command to its end; a non-zero exit is an `Ok` with that status.
    async fn run(&self, command: &RemoteCommand) -> Result<Output, RemoteError>;
    /// Writes a file: to a temporary name beside it, checksum verified there, mode set, synced, moved into place. With `keep_old`
    /// the previous content stays as `PATH.old` for a rollback. Missing folders on the way are made; a file that already has this
    /// content keeps its `.old`.
    async fn put(&self, upload: &Upload<'_>) -> Result<(), RemoteError>;
    /// Reads a file; one that the login user may not read is read as root.
    async fn get(&self, path: &str) -> Result<Vec<u8>, RemoteError>;
    /// An address on this machine that reaches `port` on the node's loopback, for as long as the guard lives.
    async fn forward(&self, port: u16) -> Result<Forward, RemoteError>;
    /// Installs, starts, stops, restarts, removes or looks at a service and returns its state afterwards. `.service` at the end of
    /// `unit` may be left out.
    async fn service(&self, unit: &str, action: &ServiceAction) -> Result<ServiceState, RemoteError>;
    /// The last `lines` lines of a service's log; with `follow` goes on until the receiver is dropped.
    async fn logs(
        &self,
        unit: &str,
        lines: u32,
        follow: bool,
    ) -> Result<tokio::sync::mpsc::Receiver<String>, RemoteError>;
}

/// Where the bytes of an upload come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A file on this machine.
    File(&'a Path),
    /// Bytes in memory; secret ones never reach argv or logs this way.
    Bytes(&'a [u8]),
}

/// Shows how many bytes there are, never the bytes.
impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// One file to put in place.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// Content.
    pub source: Source<'a>,
    /// Absolute path on the node.
    pub path: &'a str,
    /// Permission bits, e.g. 0o600.
    pub mode: u32,
    /// Owned by root (through sudo) instead of the login user.
    pub root: bool,
    /// Keep the previous content as `PATH.old`.
    pub keep_old: bool,
}

/// A tunnel that closes when dropped.
pub struct Forward {
    /// Where to connect on this machine.
    pub address: SocketAddr,
    /// Keeps the tunnel open.
    pub guard: Box<dyn Send + Sync>,
}

/// A path that a node can have: absolute, without `.` or `..` parts, empty parts or control characters.
///
/// # Errors
/// Says what is wrong with it.
fn check_path(node: &str, path: &str) -> Result<(), RemoteError> {
    let tame = path.starts_with('/')
        && !path.ends_with('/')
        && !path.chars().any(char::is_control)
        && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if tame {
        return Ok(());
    }
    Err(RemoteError::failed(node, format!("{path:?} is not a plain absolute path to a file")))
}

#[cfg(test)]
mod tests {
    use super::{Source, check_path};

    #[test]
    fn paths_are_absolute_and_plain() {
        for good in ["/a", "/etc/gorgo/agent.toml", "/odd name/$x'"] {
            check_path("n", good).expect(good);
        }
        for bad in ["", "/", "a", "../a", "/a/../b", "/a//b", "/a/", "/a/./b", "/a\nb", "/a\0b"] {
            let error = check_path("n", bad).expect_err(bad);
            assert!(error.message.starts_with("n: "), "{error}");
        }
    }

    #[test]
    fn bytes_to_upload_are_not_shown() {
        assert_eq!(format!("{:?}", Source::Bytes(b"hf_secret")), "Bytes(9 bytes)");
    }
}
