//! `round-robin`: one after the other in the order of registration, whoever may serve the request.
//!
//! ```text
//! score = turn        candidates between the one served last and this one, in the ring of ids
//! ```

use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::ReplicaId;
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "round-robin",
    help: "each replica in turn",
    unit: Unit::Rank,
    parameters: &[],
    build: |_, _| Box::new(RoundRobin::default()),
};

#[derive(Default)]
struct RoundRobin {
    /// Served by the decision before this one.
    last: Option<ReplicaId>,
    /// The candidates in the order of their turns.
    ring: Vec<ReplicaId>,
}

impl Policy for RoundRobin {
    fn prepare(&mut self, _query: &Query<'_>, candidates: &[View<'_>]) {
        self.ring.clear();
        self.ring.extend(candidates.iter().map(|view| view.replica.id));
        self.ring.sort_unstable();
        let behind = self.ring.partition_point(|id| Some(*id) <= self.last);
        self.ring.rotate_left(behind);
        self.last = self.ring.first().copied();
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let turn = self.ring.iter().position(|id| *id == candidate.replica.id).unwrap_or(self.ring.len());
        terms([("turn", turn as f64)])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn each_in_turn() {
        let log = scores(
            "round-robin",
            "",
            "
            prompt=1
            a
            b
            c

            prompt=1
            a
            b
            c

            prompt=1
            a
            b
            c

            # back to the first
            prompt=1
            a
            b
            c

            # only the first may: its turn counts
            prompt=1
            a

            # and goes on behind it
            prompt=1
            a
            b
            c
            ",
        );
        assert_snapshot!(log, @r"
        a          0.000 = turn 0.000  <-
        b          1.000 = turn 1.000
        c          2.000 = turn 2.000

        a          2.000 = turn 2.000
        b          0.000 = turn 0.000  <-
        c          1.000 = turn 1.000

        a          1.000 = turn 1.000
        b          2.000 = turn 2.000
        c          0.000 = turn 0.000  <-

        # back to the first
        a          0.000 = turn 0.000  <-
        b          1.000 = turn 1.000
        c          2.000 = turn 2.000

        # only the first may: its turn counts
        a          0.000 = turn 0.000  <-

        # and goes on behind it
        a          2.000 = turn 2.000
        b          0.000 = turn 0.000  <-
        c          1.000 = turn 1.000
        ");
    }
}
