//! `gorgo.toml`: what may be written, what is wrong with it, and what it means together with flags and defaults. Pure: the caller
//! finds and reads the file.

pub mod problem;
pub mod replica;
pub(crate) mod suggest;

pub use problem::{Problem, Problems};
pub use replica::ReplicaEntry;
