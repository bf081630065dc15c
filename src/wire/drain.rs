//! `drain`: how a router is told to finish and, if wanted, to end.
//!
//! `proxy stop` goes this way instead of a process id in a file: only the process that answers at the admin address can be
//! stopped, never a stranger that got the old number.

use serde::{Deserialize, Serialize};

/// Body of `POST drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDrain {
    /// True = refuse new requests with 503 and finish those in flight; false = take requests again.
    pub draining: bool,
    /// End the process once nothing is in flight (or its drain limit is over). Only together with `draining`; cannot be taken back.
    #[serde(default)]
    pub stop: bool,
}

/// How far the draining is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// True while new requests are refused.
    pub draining: bool,
    /// True if the process ends when the last request has.
    pub stopping: bool,
    /// Requests not finished yet, those in the queue included.
    pub in_flight: u64,
}
