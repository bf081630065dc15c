//! Traces and arrivals in, a plan of sessions and prompts out. Pure: files are read by the caller.

pub mod arrivals;
pub mod bounds;
pub mod build;
pub mod fleet;
pub mod generate;
pub mod homes;
pub mod network;
pub mod plan;
pub mod reblock;
pub mod reuse;
pub mod spread;
pub mod text;
pub mod trace;

pub use arrivals::Arrivals;
pub use build::{PlanError, PlanOptions, build};
pub use fleet::Fleet;
pub use generate::Generator;
pub use homes::{Home, homes};
pub use network::RttMatrix;
pub use plan::{Plan, Session, Step};
pub use trace::{ReadOptions, Trace, TraceError};
