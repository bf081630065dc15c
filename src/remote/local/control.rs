//! How the command line talks to a node's supervisor: one JSON line there, one back, over a Unix socket in the node's folder.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::super::service::{ServiceAction, ServiceState};
use super::folder::Folder;

/// Longest message, bytes; a unit's text is a few kilobytes.
const MESSAGE_LIMIT: u64 = 1 << 20;
/// Longest path that a socket's address can hold, bytes (macOS; Linux has four more).
const SOCKET_PATH_MAX: usize = 103;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Are you there?
    Hello,
    Service {
        unit: String,
        action: ServiceAction,
    },
    /// Stop all services and end; those that were running run again when a supervisor is started.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Here.
    Hello,
    State(ServiceState),
    /// All services are stopped.
    Stopped,
    Refused(String),
}

/// A socket's path that is short enough, and what keeps it valid.
struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

/// Long paths are reached through the open folder, which Linux lets us name.
fn address(folder: &Folder) -> io::Result<Address> {
    let path = folder.socket();
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok(Address { path, _folder: None });
    }
    let open = File::open(folder.control())?;
    let path = Path::new("/proc/self/fd").join(open.as_raw_fd().to_string()).join("socket");
    Ok(Address { path, _folder: Some(open) })
}

pub(super) fn listen(folder: &Folder) -> io::Result<UnixListener> {
    super::file::remove(&folder.socket())?;
    UnixListener::bind(address(folder)?.path)
}

/// Whether this failure of [`ask`] means that no supervisor has read the request: none listens, or it died with the request unread
/// (a Unix socket is reset only then; after reading, its end is an end of file).
pub(super) fn was_not_read(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

/// Asks the supervisor.
pub(super) async fn ask(folder: &Folder, request: &Request) -> io::Result<Reply> {
    let address = address(folder)?;
    let mut stream = UnixStream::connect(&address.path).await?;
    send(&mut stream, request).await?;
    receive(&mut stream).await
}

pub(super) async fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

pub(super) async fn receive<T: for<'de> Deserialize<'de>>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MESSAGE_LIMIT)).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor went away before it answered"));
    }
    Ok(serde_json::from_slice(&line)?)
}
