//! `gorgo.toml`: what may be written, what is wrong with it, and what it means together with flags and defaults. Pure: the caller
//! finds and reads the file.

pub mod engine;
pub mod exposure;
pub mod face;
pub mod file;
pub mod fleet;
pub mod keys;
pub mod problem;
pub mod read;
pub mod replica;
pub mod resolve;
pub mod schema;
pub mod slo;

pub use engine::EngineOptions;
pub use exposure::exposed;
pub use fleet::{Fleet, HostEntry, Login, NodeEntry, ProviderKind, fleet};
pub use problem::{Problem, Problems};
pub use read::{Document, read};
pub use replica::ReplicaEntry;
pub use resolve::{Flags, Resolved, resolve};
pub use schema::schema;

/// What the name of a strategy means on an agent, for those who know configurations and no routing.
pub use crate::routing::policy::on_agent;
