//! API keys of clients: who may send requests, and where theirs may go.
//!
//! A key is 256 random bits behind a public id. The file holds the id and the SHA-256 of the whole text: what is random needs neither salt
//! nor a slow hash, and nobody who reads the file can use what stands there. The file is read anew when it changes, so that a key is
//! revoked without a restart; requests that are on their way finish.

pub mod file;
mod ring;
pub mod token;

pub(super) use ring::{Key, Keys};
