//! Doing things on a node: over SSH with systemd, or on this machine with a supervisor process. Commands are values before they run.

mod command;
mod error;
mod service;

pub use command::{Output, RemoteCommand};
pub use error::{RemoteError, RemoteErrorKind};
pub use service::{ServiceAction, ServiceState, ServiceUnit};

use std::net::SocketAddr;
use std::path::Path;

use async_trait::async_trait;

/// A node that can be worked on. Two implementations (`ssh`, `local`) pass the same tests.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Runs a command to its end; a non-zero exit is an `Ok` with that status.
    async fn run(&self, command: &RemoteCommand) -> Result<Output, RemoteError>;
    /// Writes a file: to a temporary name beside it, checksum verified there, mode set, synced, moved into place. With `keep_old`
    /// the previous content stays as `PATH.old` for a rollback.
    async fn put(&self, upload: &Upload<'_>) -> Result<(), RemoteError>;
    /// Reads a file.
    async fn get(&self, path: &str) -> Result<Vec<u8>, RemoteError>;
    /// An address on this machine that reaches `port` on the node's loopback, for as long as the guard lives.
    async fn forward(&self, port: u16) -> Result<Forward, RemoteError>;
    /// Installs, starts, stops, restarts, removes or looks at a service and returns its state afterwards.
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
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A file on this machine.
    File(&'a Path),
    /// Bytes in memory; secret ones never reach argv or logs this way.
    Bytes(&'a [u8]),
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
