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

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::{scores, scores_seeded};

    #[test]
    fn uniform_and_repeatable() {
        let cases = "prompt=1\na\nb sent=1\nc sent=1,1\n\n".repeat(3000);
        let log = scores_seeded("random", "", 1, &cases);
        for name in ["a", "b", "c"] {
            let wins = log.lines().filter(|line| line.starts_with(name) && line.ends_with("<-")).count();
            assert!((900..1100).contains(&wins), "{name}: {wins} of 3000");
        }
        assert_eq!(log, scores_seeded("random", "", 1, &cases));
        assert_ne!(log, scores_seeded("random", "", 2, &cases));
    }

    #[test]
    fn cases() {
        let log = scores(
            "random",
            "",
            "
            # whoever is drawn
            prompt=1
            a
            b
            c

            # never one that is no candidate
            prompt=1
            b
            ",
        );
        assert_snapshot!(log, @r"
        # whoever is drawn
        a          1.000 = not_drawn 1.000
        b          0.000 = not_drawn 0.000  <-
        c          1.000 = not_drawn 1.000

        # never one that is no candidate
        b          0.000 = not_drawn 0.000  <-
        ");
    }
}
