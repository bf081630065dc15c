//! A unit's journal as a stream of lines.

use std::sync::Arc;

use openssh::{ChildStdout, Stdio};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

use super::super::error::RemoteError;
use super::connection::Connection;
use super::script::{LOGS, NO_SYSTEMD, endless_line, script_line};
use super::{failure, unit};

/// Lines that wait for a slow reader before the node is held back.
const AHEAD: usize = 256;
/// Longest reading of lines that are there already, seconds.
const LIMIT_S: u32 = 120;

/// Starts reading; refusals are told here, not in the stream.
pub(super) async fn open(
    connection: Arc<Connection>,
    unit: &str,
    lines: u32,
    follow: bool,
) -> Result<mpsc::Receiver<String>, RemoteError> {
    let node = connection.target.node.clone();
    let (count, mode) = (lines.to_string(), if follow { "follow" } else { "end" });
    let args = [unit, &count, mode];
    let line = if follow { endless_line(LOGS, &args, true) } else { script_line(LOGS, &args, true, LIMIT_S) };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (told, refusal) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let result = stream(&connection, &line, &sender, told).await;
        if let Err(error) = result {
            tracing::debug!(%error, "the log ended");
        }
    });
    match refusal.await {
        Ok(Ok(())) => Ok(receiver),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RemoteError::failed(&node, "the log could not be opened")),
    }
}

/// Carries lines until the log or its reader ends. `told` hears once whether there is a log: at the
/// script's `ready`, or at the end.
async fn stream(
    connection: &Connection,
    line: &str,
    sender: &mpsc::Sender<String>,
    told: tokio::sync::oneshot::Sender<Result<(), RemoteError>>,
) -> Result<(), openssh::Error> {
    let _permit = connection.permit().await;
    let session = match connection.session().await {
        Ok(session) => session,
        Err(error) => return told.send(Err(error)).map_err(|_| openssh::Error::Disconnected),
    };
    let mut command = session.raw_command(line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn().await {
        Ok(child) => child,
        Err(error) => return told.send(Err(connection.not_started(&error))).map_err(|_| error),
    };
    // Held open: its end is what stops a following journal on the node.
    let stdin = child.stdin().take();
    let stdout = child.stdout().take().expect("was asked to be a pipe");
    let mut stderr = child.stderr().take().expect("was asked to be a pipe");
    let mut told = Some(told);
    carry(stdout, sender, &mut told).await;
    drop(stdin);
    let mut complaint = Vec::new();
    let _ = (&mut stderr).take(1 << 16).read_to_end(&mut complaint).await;
    let status = match child.wait().await {
        Ok(status) => status.code(),
        Err(openssh::Error::Remote(_)) => Some(127),
        Err(error) => return Err(error),
    };
    if let Some(told) = told {
        let _ = told.send(verdict(&connection.target.node, status, &complaint));
    }
    Ok(())
}

async fn carry(
    stdout: ChildStdout,
    sender: &mpsc::Sender<String>,
    told: &mut Option<tokio::sync::oneshot::Sender<Result<(), RemoteError>>>,
) {
    let mut reader = BufReader::new(stdout);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = tokio::select! {
            read = reader.read_until(b'\n', &mut bytes) => read,
            () = sender.closed() => return,
        };
        if !matches!(read, Ok(1..)) {
            return;
        }
        if let Some(told) = told.take() {
            let _ = told.send(Ok(()));
            continue;
        }
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        if sender.send(text).await.is_err() {
            return;
        }
    }
}

/// A log without lines is fine; one that cannot be read is not.
fn verdict(node: &str, status: Option<i32>, stderr: &[u8]) -> Result<(), RemoteError> {
    if let Some(error) = failure::sudo(node, status, stderr) {
        return Err(error);
    }
    match status {
        Some(0) | None => Ok(()),
        Some(NO_SYSTEMD) => Err(unit::no_systemd(node)),
        _ => Err(RemoteError::failed(
            node,
            format_args!("cannot read the log: {}", String::from_utf8_lossy(stderr).trim()),
        )),
    }
}
