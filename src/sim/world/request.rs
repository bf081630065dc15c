//! A request under way and its legs: from the client's router, and from each peer that got it forwarded.

use std::sync::Arc;

use super::event::Attempt;
use crate::model::Time;
use crate::report::Sample;
use crate::routing::Features;
use crate::sim::link::Connection;

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No router has it, or its router is done with it.
    Over,
    /// Its router holds it, or is about to decide.
    Held,
    /// Sent; nothing has come back.
    Sent,
    /// The answer has begun.
    Answering,
}

/// One router's part.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) node: usize,
    /// The attempt of the client's router that brought it to this peer; `None` = this is the client's router.
    pub(super) of: Option<Attempt>,
    pub(super) stage: Stage,
    /// Present attempt.
    pub(super) number: u16,
    /// Index of the replica in the router's order.
    pub(super) target: usize,
    pub(super) connection: Option<Box<Connection>>,
    /// When it was sent, then when its first token came.
    pub(super) heard: Time,
    /// Prompt tokens that the engine found in its cache, once it has said so.
    pub(super) cached_tokens: Option<u32>,
    /// Nothing comes back before what was sent back earlier.
    pub(super) back_at: Time,
}

impl Leg {
    pub(super) fn at(node: usize) -> Self {
        Self {
            node,
            of: None,
            stage: Stage::Held,
            number: 0,
            target: 0,
            connection: None,
            heard: Time::ZERO,
            cached_tokens: None,
            back_at: Time::ZERO,
        }
    }

    /// The request is at the replica that this router chose.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::Answering)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) session: u32,
    pub(super) step: u32,
    pub(super) sample: Sample,
    pub(super) features: Arc<Features>,
    /// The client's router's, then those of the peers that got it, one after the other.
    pub(super) legs: Vec<Leg>,
    /// Attempts so far, of all legs.
    pub(super) sends: u16,
    /// When the engine made the latest token; ZERO = none yet.
    pub(super) token_at: Time,
    /// Of the client's link, if it does not stand beside its router.
    pub(super) connection: Option<Box<Connection>>,
    /// Its sample is taken: what is left is a peer that does not know yet.
    pub(super) recorded: bool,
}

impl Request {
    /// Is this the present attempt of its hop?
    pub(super) fn is_present(&self, attempt: Attempt) -> bool {
        let leg = &self.legs[usize::from(attempt.hop)];
        leg.is_away() && leg.number == attempt.number
    }

    /// Does what comes of this attempt reach the client's router? Not if that has given it up for another one.
    pub(super) fn serves(&self, attempt: Attempt) -> bool {
        self.legs[usize::from(attempt.hop)].of.is_none_or(|entry| self.is_present(entry))
    }

    /// The present attempt of a hop.
    pub(super) fn attempt(&self, request: u32, hop: usize) -> Attempt {
        Attempt { request, hop: hop as u8, number: self.legs[hop].number }
    }
}
