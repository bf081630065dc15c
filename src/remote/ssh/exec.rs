//! One command line on a node: its input, its output, its end.

use std::io;
use std::time::Duration;

use openssh::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::super::command::Output;
use super::super::error::{RemoteError, RemoteErrorKind};
use super::super::output::collect;
use super::connection::Connection;
use super::script::KILL_AFTER_S;

/// Beyond a command's own limit, for opening a session on a slow line.
const SLACK: Duration = Duration::from_secs(10);

/// Standard input.
pub(super) enum Input<'a> {
    Bytes(&'a [u8]),
    File(tokio::fs::File),
}

impl Connection {
    /// Runs the line. The limit was given to the node with it; waiting here ends somewhat later, should the node not keep to it.
    pub(super) async fn execute(&self, line: &str, input: Input<'_>, timeout_s: u32) -> Result<Output, RemoteError> {
        if line.contains('\0') {
            return Err(RemoteError::failed(
                &self.target.node,
                "an argument holds a NUL byte, which no command line can",
            ));
        }
        let _permit = self.permit().await;
        let session = self.session().await?;
        let alive = self.settings.alive_interval * self.settings.alive_count;
        let limit = Duration::from_secs((timeout_s.max(1) + KILL_AFTER_S).into()) + alive + SLACK;
        #[expect(clippy::disallowed_methods, reason = "tells a status of `timeout` from one of the command")]
        let begun = std::time::Instant::now();
        let output = match timeout(limit, self.converse(&session, line, input)).await {
            Ok(output) => output?,
            Err(_) => return Err(self.too_long(timeout_s)),
        };
        let at_limit = begun.elapsed() >= Duration::from_secs(timeout_s.max(1).into());
        if at_limit && matches!(output.status, Some(124 | 137) | None) {
            return Err(self.too_long(timeout_s));
        }
        Ok(output)
    }

    fn too_long(&self, timeout_s: u32) -> RemoteError {
        let what = format_args!("the command did not end within {timeout_s} s and was stopped");
        RemoteError::new(RemoteErrorKind::Timeout, &self.target.node, what)
    }

    async fn converse(&self, session: &openssh::Session, line: &str, input: Input<'_>) -> Result<Output, RemoteError> {
        let mut command = session.raw_command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if matches!(input, Input::Bytes(b"")) { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().await.map_err(|error| self.not_started(&error))?;
        let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let feed = async {
            match stdin {
                Some(stdin) => feed(stdin, input).await,
                None => Ok(()),
            }
        };
        let (fed, stdout, stderr) = tokio::join!(feed, collect(stdout), collect(stderr));
        let ended = child.wait().await;
        let local = |error: io::Error| RemoteError::failed(&self.target.node, error);
        fed.map_err(local)?;
        let (stdout, stderr) = (stdout.map_err(local)?, stderr.map_err(local)?);
        let status = match ended {
            Ok(status) => status.code(),
            // The crate's reading of status 127; the shell has said on stderr what it did not find.
            Err(openssh::Error::Remote(_)) => Some(127),
            Err(openssh::Error::RemoteProcessTerminated) if self.is_alive(session).await => None,
            Err(error) => return Err(self.lost(&error)),
        };
        Ok(Output { status, stdout, stderr })
    }

    pub(super) fn not_started(&self, error: &openssh::Error) -> RemoteError {
        match error {
            openssh::Error::SshMux(cause) => {
                RemoteError::failed(&self.target.node, format_args!("the node refused another session: {cause}"))
                    .with_hint(
                        "sshd's `MaxSessions` may be low, or forwarding and commands are restricted for this key",
                    )
            }
            other => self.lost(other),
        }
    }
}

/// Sends all of the input, or as much as the command wants to read.
async fn feed(mut stdin: openssh::ChildStdin, input: Input<'_>) -> io::Result<()> {
    let sent = match input {
        Input::Bytes(bytes) => stdin.write_all(bytes).await,
        Input::File(mut file) => tokio::io::copy(&mut file, &mut stdin).await.map(|_| ()),
    };
    match sent {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
