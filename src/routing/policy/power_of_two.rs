//! `power-of-two`: of two replicas drawn at random, the one with fewer requests of this router in flight.
//!
//! ```text
//! score = in_flight  +  not_drawn        requests
//! ```
//!
//! not_drawn: 0 for the two, one more than the larger in_flight of the two for the others, so that none of them wins. Seeded, so a run can be
//! repeated. Mitzenmacher: two choices cut the longest queue exponentially against one, and avoid the herding of always taking
//! the minimum.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::ReplicaId;
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "power-of-two",
    help: "fewer requests in flight of two drawn at random",
    unit: Unit::Requests,
    parameters: &[],
    build: |_, seed| {
        Box::new(PowerOfTwo { generator: ChaCha8Rng::seed_from_u64(seed), drawn: [None; 2], handicap: 0.0 })
    },
};

struct PowerOfTwo {
    generator: ChaCha8Rng,
    /// The two drawn; the same one twice where there is only one.
    drawn: [Option<ReplicaId>; 2],
    handicap: f64,
}

impl Policy for PowerOfTwo {
    fn prepare(&mut self, _query: &Query<'_>, candidates: &[View<'_>]) {
        let first = self.generator.random_range(0..candidates.len());
        let step = if candidates.len() > 1 { self.generator.random_range(1..candidates.len()) } else { 0 };
        let pair = [first, (first + step) % candidates.len()].map(|position| &candidates[position]);
        self.drawn = pair.map(|view| Some(view.replica.id));
        self.handicap = pair.iter().map(|view| view.in_flight()).fold(0.0, f64::max) + 1.0;
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let drawn = self.drawn.contains(&Some(candidate.replica.id));
        let in_flight = candidate.in_flight();
        terms([("in_flight", in_flight), ("not_drawn", if drawn { 0.0 } else { self.handicap })])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn the_less_loaded_of_two() {
        let log = scores(
            "power-of-two",
            "",
            "
            # only one
            prompt=100
            a sent=5,5

            # two: always the less loaded
            prompt=100
            a sent=5,5
            b sent=5

            # three: one is not drawn
            prompt=100
            a sent=5,5
            b sent=5
            c sent=5,5,5

            # drawn anew each time
            prompt=100
            a sent=5,5
            b sent=5
            c sent=5,5,5

            # others' requests at a peer count
            prompt=100
            a sent=5
            b peer=1 others=5,5
            ",
        );
        assert_snapshot!(log, @r"
        # only one
        a          2.000 = in_flight 2.000 + not_drawn 0.000  <-

        # two: always the less loaded
        a          2.000 = in_flight 2.000 + not_drawn 0.000
        b          1.000 = in_flight 1.000 + not_drawn 0.000  <-

        # three: one is not drawn
        a          2.000 = in_flight 2.000 + not_drawn 0.000
        b          1.000 = in_flight 1.000 + not_drawn 0.000  <-
        c          6.000 = in_flight 3.000 + not_drawn 3.000

        # drawn anew each time
        a          6.000 = in_flight 2.000 + not_drawn 4.000
        b          1.000 = in_flight 1.000 + not_drawn 0.000  <-
        c          3.000 = in_flight 3.000 + not_drawn 0.000

        # others' requests at a peer count
        a          1.000 = in_flight 1.000 + not_drawn 0.000  <-
        b          2.000 = in_flight 2.000 + not_drawn 0.000
        ");
    }

    #[test]
    fn every_pair_is_drawn_about_equally() {
        let case = "prompt=1\na\nb sent=1\nc sent=1,1\n\n";
        let log = scores("power-of-two", "", &case.repeat(3000));
        let wins = |name: &str| log.lines().filter(|line| line.starts_with(name) && line.ends_with("<-")).count();
        // Of the pairs ab, ac, bc the first wins two, the second one, the last none.
        assert!((1900..2100).contains(&wins("a")) && (900..1100).contains(&wins("b")), "{} {}", wins("a"), wins("b"));
        assert_eq!(wins("c"), 0);
    }
}
