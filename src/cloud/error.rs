//! What can go wrong with a provider, by what the caller has to do about it.

/// The branch that a caller takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudErrorKind {
    /// Missing, rejected or inactive credentials: a person has to act.
    Credentials,
    /// No machine of this type there right now: try the next region.
    Capacity,
    /// The named object does not exist.
    NotFound,
    /// The request is wrong and will stay wrong.
    Invalid,
    /// The account's quota is used up.
    Quota,
    /// Too many calls or a fault of the service that passes: safe to repeat (reads only).
    Transient,
    /// The answer was lost after a call that creates something: it may have happened.
    UnknownOutcome,
    /// The user stopped it before it was sent: nothing has happened.
    Stopped,
}

/// A failed call. `Display` is a lower-case fragment without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CloudError {
    /// What to do about it.
    pub kind: CloudErrorKind,
    /// The provider's own code, e.g. `instance-operations/launch/insufficient-capacity`.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    /// What the user can try.
    pub hint: Option<String>,
}
