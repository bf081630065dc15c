//! `random`: any replica that may serve the request, all equally likely. Seeded, so a run can be repeated.
//!
//! ```text
//! score = 0 for the one drawn, 1 for the others
//! ```

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::ReplicaId;
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "random",
    help: "any replica, uniformly",
    unit: Unit::Rank,
    parameters: &[],
    build: |_, seed| Box::new(Random { generator: ChaCha8Rng::seed_from_u64(seed), drawn: None }),
};

struct Random {
    generator: ChaCha8Rng,
    drawn: Option<ReplicaId>,
}

impl Policy for Random {
    fn prepare(&mut self, _query: &Query<'_>, candidates: &[View<'_>]) {
        let position = self.generator.random_range(0..candidates.len());
        self.drawn = Some(candidates[position].replica.id);
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let drawn = self.drawn == Some(candidate.replica.id);
        terms([("not_drawn", if drawn { 0.0 } else { 1.0 })])
    }
}
