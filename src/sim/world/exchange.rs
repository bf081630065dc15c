//! What agents tell each other, as pure messages: the gateway's streams (`gateway::peers`) without their bytes.
//!
//! An agent tells each peer how it is and what its engines hold, several times a second. A peer that has heard nothing for too long gives
//! the stream up, takes the teller for unreachable, and asks for a new one until it gets it.

use crate::model::{Region, ReplicaId, Time};
use crate::routing::index::{DigestPart, Teller};
use crate::routing::{Effect, Report, Router};

/// Most parts of a digest that are taken at once where everything is known: far more than any engine's cache needs.
const MOST_PARTS: usize = 10_000;

/// Agents do not restart in a simulation.
pub(super) const EPOCH: u64 = 1;

/// A state, as it travels.
#[derive(Debug)]
pub(super) struct Told {
    /// Number of the stream that it belongs to: a stream that was given up is not listened to any more.
    pub(super) stream: u32,
    sent: Time,
    report: Report,
    part: DigestPart,
}

/// The teller's end of a stream.
#[derive(Debug)]
pub(super) struct Mouth {
    stream: u32,
    teller: Teller,
}

/// The listener's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ear {
    /// Number of the stream that it listens to, or listened to last.
    pub(super) stream: u32,
    /// When it last heard something; `None` = it gave the stream up.
    pub(super) heard: Option<Time>,
}

impl Mouth {
    /// A new stream to a listener in this region: it is told everything from the beginning.
    pub(super) fn new(stream: u32, router: &Router, listener: &Region) -> Self {
        Self { stream, teller: router.teller(listener) }
    }

    /// How the router is now, which its own clock takes for `clock`, for the listener of this name.
    pub(super) fn say(&mut self, router: &Router, (now, clock): (Time, Time), listener: &str) -> Told {
        let (report, part) = (router.report(now, listener), router.tell(now, &mut self.teller));
        Told { stream: self.stream, sent: clock, report, part }
    }

    /// The same with all there is to tell of the caches, heard at once.
    pub(super) fn pour(
        &mut self,
        teller: &Router,
        now: Time,
        (listener, name): (&mut Router, &str),
        peer: ReplicaId,
    ) -> Vec<Effect> {
        for _ in 0..MOST_PARTS {
            let part = teller.tell(now, &mut self.teller);
            if part.is_empty() {
                break;
            }
            listener.learn_digest(peer, &part);
        }
        let report = teller.report(now, name);
        listener.hear(now, peer, now, report)
    }
}

impl Told {
    /// What a router makes of it, to whom the teller is `peer`.
    pub(super) fn hear(&self, router: &mut Router, now: Time, peer: ReplicaId) -> Vec<Effect> {
        let mut effects = router.hear(now, peer, self.sent, self.report);
        if !self.part.is_empty() {
            router.learn_digest(peer, &self.part);
        }
        effects.extend(router.health(now, peer, self.report.serving || self.report.draining));
        effects
    }
}
