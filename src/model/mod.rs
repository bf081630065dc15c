//! The nouns that every part of gorgo shares: time, ids, regions, replicas' limits. Pure data, no behaviour beyond units.

pub mod date;
pub mod geo;
mod identity;
mod ids;
mod region;
mod secret;
pub mod spelling;
mod time;

pub use identity::{BadIdentity, Identity, Part};
pub use ids::{ReplicaId, RequestId};
pub use region::Region;
pub use secret::Secret;
pub use time::Time;
