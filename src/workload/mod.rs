//! Traces and arrivals in, a plan of sessions and prompts out. Pure: files are read by the caller.

pub mod plan;

pub use plan::{Plan, Session, Step};
