//! What can happen in a simulated fleet.

use std::sync::Arc;

use super::exchange::Told;
use crate::model::Time;
use crate::routing::Gauges;
use crate::routing::router::sharing::Shares;

/// One sending of a request from a router to a replica. Whatever concerns an attempt that is no longer the present one of its hop comes
/// too late and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) request: u32,
    /// Index of its leg. 0: from the router that the client spoke to; else from a peer that got it forwarded.
    pub(super) hop: u8,
    /// Unique in its request.
    pub(super) number: u16,
}

/// A question that a router asks one of its replicas by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) node: u32,
    pub(super) target: u32,
    pub(super) what: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Round trip and health.
    Alive,
    /// The engine's metrics.
    Gauges,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Alive; the round trip took this long, ms.
    Alive(f64),
    /// The engine's metrics when it was asked.
    Gauges(Box<Gauges>),
    /// The address answers that nobody listens.
    Refused,
    /// No answer in time.
    Silence,
}

#[derive(Debug)]
pub(super) enum Event {
    /// A session's next request is due at its client.
    Due { session: u32 },
    /// A request has reached the router of its client.
    Arrive { request: u32 },
    /// A request has reached what its router chose.
    Reach(Attempt),
    /// The engine has something to tell; `turn` sorts out what was planned before plans changed.
    Step { machine: u32, turn: u32 },
    /// The first token has reached the router that sent the request.
    First(Attempt),
    /// The end of the answer has.
    Done(Attempt),
    /// The refusal of a prompt that the engine could never hold has.
    TooLarge(Attempt),
    /// The failure of an attempt has, before its first byte or in the midst of it; `gone`: nobody listens there any more.
    Lost { attempt: Attempt, gone: bool },
    /// The broken end of an answer that had begun has reached the router that forwarded the request.
    Broken(Attempt),
    /// An attempt may have been silent for as long as allowed.
    Silent(Attempt),
    /// A cancelled job has to leave its engine.
    Abort { machine: u32, job: u64 },
    /// A peer learns that nobody waits for a forwarded request any more.
    Gone { request: u32, hop: u8 },
    /// The end of a request has reached its client.
    Ended { request: u32 },
    /// A router wants to look at its queue.
    Tick { node: u32 },
    /// A router asks.
    Ask(Ask),
    /// The question has arrived.
    Asked { ask: Ask, sent: Time },
    /// The answer has.
    Answered { ask: Ask, answer: Answer },
    /// A router tells its peers how it is.
    Tell { node: u32 },
    /// A router hears how one of them is, or was.
    Hear { node: u32, target: u32, told: Box<Told> },
    /// A router may have heard nothing of a peer for too long.
    Listen { node: u32, target: u32 },
    /// A router asks a peer for a new stream.
    Call { node: u32, target: u32 },
    /// The peer has got it, to whom the caller is this target.
    Called { node: u32, target: u32 },
    /// A router tells the others what it has at the engines that they share.
    Share { node: u32 },
    /// Another router hears it.
    Shared { node: u32, from: u32, sent: Time, shares: Arc<Shares> },
    /// A fault begins or ends.
    Fault { fault: u32, ends: bool },
}
