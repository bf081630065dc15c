//! What can go wrong on a node, by what the caller has to do about it.

use std::fmt;

/// The branch that a caller takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteErrorKind {
    /// No connection: refused, timed out, lost. May pass.
    Unreachable,
    /// The host's key is not the one that is known: a person has to look.
    HostKey,
    /// Login refused.
    Denied,
    /// sudo wants a password or is missing.
    Sudo,
    /// The node lacks something (systemd, disk space, a program).
    Unsuitable,
    /// It took longer than allowed.
    Timeout,
    /// Anything else.
    Failed,
}

/// A failed operation on a node. `Display` is a lower-case fragment that names the node, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// What to do about it.
    pub kind: RemoteErrorKind,
    /// What happened, with the node's name.
    pub message: String,
    /// What the user can try.
    pub hint: Option<String>,
}

impl RemoteError {
    /// An error of this kind; the message begins with the node's name.
    #[must_use]
    pub fn new(kind: RemoteErrorKind, node: &str, what: impl fmt::Display) -> Self {
        Self { kind, message: format!("{node}: {what}"), hint: None }
    }

    /// An error that no caller treats specially.
    #[must_use]
    pub fn failed(node: &str, what: impl fmt::Display) -> Self {
        Self::new(RemoteErrorKind::Failed, node, what)
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Whether a program's message says that the disk is full.
pub(super) fn tells_disk_full(text: &str) -> bool {
    ["No space left on device", "Disk quota exceeded", "os error 28", "os error 122"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// A full disk, whoever noticed it.
pub(super) fn disk_full(node: &str, path: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Unsuitable, node, format_args!("no space left on the disk that holds {path}"))
        .with_hint(
            "free some space on the node (`df -h` shows where), then run the command again; nothing was replaced",
        )
}
