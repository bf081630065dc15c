//! Getting machines without ever losing sight of one that costs money.
//!
//! The service has no idempotency key, names are not unique, and a launch whose answer was lost may have happened. So a run tag is saved to
//! disk before each call and sent with it; a lost answer is followed by looking for the tag, and only what is not there is asked for again.
//! `protocol` decides (pure), `run` does; `journal` is what survives a crash, `report` what is told at the end.

mod candidates;
mod event;
mod journal;
mod protocol;
mod report;
mod run;
mod tag;
#[cfg(test)]
mod tests;

pub use candidates::{Candidate, Machine, candidates};
pub use event::{LaunchEvent, LaunchProgress};
pub use journal::{LaunchEntry, LaunchJournal, LaunchState, MemoryJournal};
pub use report::{LaunchOutcome, LaunchReport, NodeLaunch};
pub use run::{LaunchOptions, launch};
pub use tag::{CLUSTER_TAG, NODE_TAG, RUN_TAG, RunTag};
