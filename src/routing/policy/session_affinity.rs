//! `session-affinity`: every session stays on one replica, chosen by rendezvous hashing.
//!
//! ```text
//! score = 1 − hash(session key, replica name) / 2^64        0..=1; the largest hash wins
//! ```
//!
//! When a replica comes or goes only the sessions that it wins or loses move. The key is the request's session key if it has one,
//! else the hash of the first block of its prompt that is not common to all traffic: shared by less than 2 % of the 1,024 most recent
//! prompts without a session key. While fewer than 256 were seen, shares are of 256, so an opening becomes common with its sixth
//! prompt; until then all conversations that open alike share one replica.
//! A request without any key (a prompt shorter than a block, or nothing of its own in it) scores the same everywhere and goes where the
//! fewest requests are without a first token.
//!
//! Names, not ids, are hashed: a router that restarts, or a second one, sends a session to the same place.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::openings::Openings;
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "session-affinity",
    help: "each session on one replica by rendezvous hashing",
    unit: Unit::Rank,
    parameters: &[],
    build: |_, _| Box::new(SessionAffinity::default()),
};

#[derive(Default)]
struct SessionAffinity {
    openings: Openings,
    /// Key of the request being decided.
    key: Option<u64>,
}

impl Policy for SessionAffinity {
    fn prepare(&mut self, query: &Query<'_>, _candidates: &[View<'_>]) {
        let features = query.features;
        self.key = features.session.or_else(|| self.openings.first_own_block(&features.blocks));
        let counts = features.session.is_none() && query.attempt == 1;
        if counts {
            self.openings.observe(&features.blocks);
        }
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let name = candidate.replica.spec.name.as_bytes();
        let hash = self.key.map_or(0, |key| xxh3_64_with_seed(name, key));
        terms([("distance", 1.0 - hash as f64 / 2f64.powi(64))])
    }
}
