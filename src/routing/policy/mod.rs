//! The strategies: one file each, one line each in the registry.

/// An unknown strategy or parameter name; the message lists the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy `{name}`; known strategies: {known}")]
pub struct UnknownStrategy {
    /// As asked for.
    pub name: String,
    /// The known ones, separated by commas.
    pub known: String,
}
