//! What can go wrong on a node, by what the caller has to do about it.

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
