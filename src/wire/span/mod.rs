//! What a router writes down of each request while it is traced, and what becomes of it: a dump of JSON lines per node, aligned
//! clocks, one file for Perfetto.
//!
//! All times are microseconds on the node's own clock, which begins with its process. [`align()`] finds out how the clocks of several
//! nodes stand to each other, [`perfetto()`] puts their dumps onto one time line.

mod align;
mod bounds;
mod dump;
mod flows;
mod lanes;
mod merge;
mod perfetto;
mod slices;

pub use align::{Alignment, Bound, Offset, align};
pub use bounds::{Trip, bounds};
pub use dump::{BadDump, Dump};
pub use merge::{Merged, NodeSummary, merge};
pub use perfetto::{Written, perfetto};

use serde::{Deserialize, Serialize};

use super::{Decision, OutcomeKind};

/// The form of dumps that this version writes and reads.
pub const SCHEMA: &str = "gorgo.trace/1";

/// Body of `POST trace/start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartTrace {
    /// Most bytes of spans that are kept, as JSON; older ones are dropped and counted. Default 16 MiB.
    #[serde(default)]
    pub buffer_bytes: Option<u64>,
}

/// Body of `POST trace/stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopTrace {}

/// A router's answer to `POST trace/start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStarted {
    /// The router's name.
    pub node: String,
    /// Its clock when it began.
    pub started_us: u64,
    /// Most bytes of spans that it keeps.
    pub buffer_bytes: u64,
}

/// One line of a dump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Node(NodeTrace),
    /// A request that has ended.
    Request(Box<RequestSpan>),
    /// What was counted at one moment.
    Counters(Counters),
}

/// What a dump is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeTrace {
    /// [`SCHEMA`].
    pub schema: String,
    /// The router's name: of an agent that of its node, else `proxy`.
    pub node: String,
    /// Where it stands; `null` = not told.
    pub region: Option<String>,
    /// Its clock when tracing began.
    pub started_us: u64,
    /// Its clock when tracing ended.
    pub stopped_us: u64,
    /// Its clock when this dump was made.
    pub now_us: u64,
    /// Most bytes of lines that were kept.
    pub buffer_bytes: u64,
    /// Lines that had to go for want of room, the oldest first.
    pub dropped: u64,
    /// Lines behind this one: fewer mean that the dump is cut off.
    pub lines: u64,
    /// Requests that were under way when tracing ended: nothing is told of them.
    pub unfinished: u64,
    /// The clocks of the routers that it asks for their state.
    #[serde(default)]
    pub peers: Vec<PeerClock>,
}

/// How the clock of a peer stands to a node's own, from the round trip that tells it best.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerClock {
    /// The peer's name.
    pub name: String,
    /// Its clock is ahead by this much at least, µs.
    pub low_us: i64,
    /// And by this much at most, µs.
    pub high_us: i64,
}

/// One request at one router, from its first byte to its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestSpan {
    /// Its identity here, as in `x-gorgo-request-id`.
    pub request: String,
    /// Its identity at all routers that it passes: the one that it had at the first of them.
    pub trace: String,
    /// Its identity at the router that forwarded it here; `null` = a client sent it.
    pub parent: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// Its head came.
    pub received_us: u64,
    /// Its body was complete.
    pub collected_us: Option<u64>,
    /// Bytes of it.
    pub body_bytes: Option<u64>,
    /// What routing needs was read out of it.
    pub extracted_us: Option<u64>,
    /// Decisions, first to last.
    pub decisions: Vec<DecisionSpan>,
    /// Attempts, first to last.
    pub attempts: Vec<AttemptSpan>,
    /// It ended.
    pub ended_us: u64,
    /// In which way.
    pub outcome: OutcomeKind,
    /// Status that the client got; `null` if it left before.
    pub status: Option<u16>,
    /// Stable code of the refusal, if it was refused.
    pub refusal: Option<String>,
    /// Prompt tokens as the engine counted them.
    pub prompt_tokens: Option<u32>,
    /// Of these found in its cache.
    pub cached_tokens: Option<u32>,
    /// Tokens generated.
    pub completion_tokens: Option<u32>,
}

/// A decision and when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionSpan {
    /// When it began.
    pub at_us: u64,
    /// When it was made; the same as `at_us` for one that came with another event, such as a place set free.
    pub made_us: u64,
    /// Everybody who was considered, with every term.
    pub decision: Decision,
}

/// One try at a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptSpan {
    /// Its name.
    pub replica: String,
    /// It is another router.
    pub peer: bool,
    /// The request's identity there, as a peer's answer says.
    pub peer_request: Option<String>,
    /// The request was given to a connection.
    pub sent_us: u64,
    /// The head of an answer came.
    pub headers_us: Option<u64>,
    /// Its status.
    pub status: Option<u16>,
    /// The first token came.
    pub first_token_us: Option<u64>,
    /// It was over.
    pub ended_us: u64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// What was counted at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// When.
    pub at_us: u64,
    /// Requests in the router's queue.
    pub queue: u64,
    /// Per replica, in fleet order.
    pub replicas: Vec<ReplicaCounters>,
}

/// What was counted of one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaCounters {
    /// Its name.
    pub replica: String,
    /// Requests of this router there.
    pub in_flight: u64,
    /// Smoothed round trip, ms; `null` = not known yet.
    pub rtt_ms: Option<f64>,
}

#[cfg(test)]
mod tests;
