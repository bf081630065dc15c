//! A node over SSH, driven through the system's `ssh`, so the user's own configuration, agent and keys work; services are systemd units.
//!
//! Needs OpenSSH here, and on the node a POSIX login shell, GNU coreutils and, for services and logs, systemd.

mod connection;
mod exec;
mod failure;
mod forward;
mod host_key;
mod interactive;
mod known_hosts;
mod logs;
mod script;
mod target;
mod unit;

pub use host_key::HostKey;
pub use interactive::{config_entry, interactive};
pub use known_hosts::forget_host_key;
pub use target::{SshSettings, SshTarget};

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::command::{Output, RemoteCommand};
use super::error::{RemoteError, disk_full, tells_disk_full};
use super::service::{ServiceAction, ServiceState, hex, unit_name};
use super::{Forward, Remote, Source, Upload, check_path};
use connection::Connection;
use exec::Input;

/// Slowest line on which an upload is allowed to take its time, bytes per second.
const SLOWEST: u64 = 100_000;
/// Longest reading of one file, and the fixed part of an upload's limit, seconds.
const FILE_LIMIT_S: u32 = 120;

/// A node over SSH. Cheap to make: the connection is made by the first use and shared by all.
pub struct SshRemote {
    connection: Arc<Connection>,
}

impl SshRemote {
    /// Does not connect yet.
    #[must_use]
    pub fn new(target: SshTarget, settings: SshSettings) -> Self {
        Self { connection: Arc::new(Connection::new(target, settings)) }
    }

    fn node(&self) -> &str {
        &self.connection.target.node
    }

    async fn script(
        &self,
        script: &str,
        args: &[&str],
        sudo: bool,
        input: Input<'_>,
        timeout_s: u32,
    ) -> Result<Output, RemoteError> {
        let line = script::script_line(script, args, sudo, timeout_s);
        let output = self.connection.execute(&line, input, timeout_s).await?;
        if sudo && let Some(error) = failure::sudo(self.node(), output.status, &output.stderr) {
            return Err(error);
        }
        Ok(output)
    }
}

#[async_trait]
impl Remote for SshRemote {
    async fn run(&self, command: &RemoteCommand) -> Result<Output, RemoteError> {
        if command.argv.is_empty() {
            return Err(RemoteError::failed(self.node(), "there is no command to run"));
        }
        let line = script::line(&command.argv, command.sudo, command.timeout_s);
        let output = self.connection.execute(&line, Input::Bytes(&command.stdin), command.timeout_s).await?;
        if command.sudo
            && let Some(error) = failure::sudo(self.node(), output.status, &output.stderr)
        {
            return Err(error);
        }
        Ok(output)
    }

    async fn put(&self, upload: &Upload<'_>) -> Result<(), RemoteError> {
        check_path(self.node(), upload.path)?;
        let (sum, bytes) = checksum(self.node(), upload.source).await?;
        let input = match upload.source {
            Source::Bytes(bytes) => Input::Bytes(bytes),
            Source::File(path) => Input::File(open(self.node(), path).await?),
        };
        let mode = format!("{:04o}", upload.mode & 0o7777);
        let keep = if upload.keep_old { "keep" } else { "replace" };
        let owner = if upload.root { "0:0" } else { "" };
        let args = [upload.path, &mode, &sum, keep, owner];
        let limit = u32::try_from(bytes / SLOWEST).unwrap_or(u32::MAX / 2).saturating_add(FILE_LIMIT_S);
        let output = self.script(script::PUT, &args, upload.root, input, limit).await?;
        if output.ok() {
            return Ok(());
        }
        let complaint = output.complaint();
        if tells_disk_full(&complaint) {
            return Err(disk_full(self.node(), upload.path));
        }
        let error = RemoteError::failed(self.node(), format_args!("cannot write {}: {complaint}", upload.path));
        if output.status == Some(script::WRONG_SUM) {
            return Err(error
                .with_hint("the file here changed while it was sent, or the connection broke; nothing was replaced"));
        }
        Err(error)
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, RemoteError> {
        check_path(self.node(), path)?;
        let output = self.script(script::GET, &[path], false, Input::Bytes(b""), FILE_LIMIT_S).await?;
        if output.ok() {
            return Ok(output.stdout);
        }
        Err(RemoteError::failed(self.node(), format_args!("cannot read {path}: {}", output.complaint())))
    }

    async fn forward(&self, port: u16) -> Result<Forward, RemoteError> {
        forward::open(&self.connection, port).await
    }

    async fn service(&self, unit: &str, action: &ServiceAction) -> Result<ServiceState, RemoteError> {
        let unit = unit_name(self.node(), unit)?;
        if let ServiceAction::Install(definition) = action {
            // Looked at first, so that a node without systemd is not written to.
            self.unit_action("status", &unit).await?;
            let path = format!("/etc/systemd/system/{unit}");
            let source = Source::Bytes(definition.unit_text.as_bytes());
            self.put(&Upload { source, path: &path, mode: 0o644, root: true, keep_old: false }).await?;
        }
        self.unit_action(unit::word(action), &unit).await
    }

    async fn logs(&self, unit: &str, lines: u32, follow: bool) -> Result<mpsc::Receiver<String>, RemoteError> {
        let unit = unit_name(self.node(), unit)?;
        logs::open(Arc::clone(&self.connection), &unit, lines, follow).await
    }
}

async fn open(node: &str, path: &Path) -> Result<tokio::fs::File, RemoteError> {
    let opened = tokio::fs::File::open(path).await;
    opened.map_err(|error| RemoteError::failed(node, format_args!("cannot read {} here: {error}", path.display())))
}

/// Checksum and size of what will be sent.
async fn checksum(node: &str, source: Source<'_>) -> Result<(String, u64), RemoteError> {
    let path = match source {
        Source::Bytes(bytes) => return Ok((hex(&Sha256::digest(bytes)), bytes.len() as u64)),
        Source::File(path) => path,
    };
    let mut file = open(node, path).await?;
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut block = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut block).await;
        let read = read
            .map_err(|error| RemoteError::failed(node, format_args!("cannot read {} here: {error}", path.display())))?;
        if read == 0 {
            return Ok((hex(&sum.finalize()), size));
        }
        sum.update(&block[..read]);
        size += read as u64;
    }
}
