//! The laboratory's hands: a load generator over HTTP, comparison runs, and the demo.
//!
//! It plays a [`crate::workload::Plan`] in real time and hands what it saw to [`crate::report`]. It measures itself, too: how
//! late its requests left stands in every report.

pub mod board;
pub mod body;
pub mod client;
pub mod demo;
pub mod doors;
pub mod entries;
pub mod fleets;
mod limit;
pub mod load;
pub mod machine;
pub mod play;
pub mod profile;
pub mod simulate;
pub mod tally;
pub mod tune;

pub use board::Board;
pub use client::{Client, Target};
pub use doors::{Door, Doors};
pub use play::{Played, Player};
pub use tally::{Progress, Tally};

#[cfg(test)]
mod tests;
