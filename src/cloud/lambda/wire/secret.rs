//! How a secret crosses the wire: as a plain string there, never printable here.

use serde::{Deserialize as _, Deserializer, Serializer};

use crate::model::Secret;

/// Writes the text; for the body that is sent, nothing else.
pub(super) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => serializer.serialize_str(secret.reveal()),
        None => serializer.serialize_none(),
    }
}

/// Reads text that may be absent or null.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}
