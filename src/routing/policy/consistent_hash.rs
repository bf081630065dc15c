//! `consistent-hash`: every session at its place on a hash ring, and at the next place with room while that one is full.
//!
//! ```text
//! score = distance  +  full                    0..2; the smallest wins
//!
//! distance = way from the session's place on the ring to the replica's next point, as a share of the ring
//! full     = 1 if in_flight ≥ capacity, else 0
//! capacity = ⌈ load_factor · (Σ in_flight + 1) / replicas ⌉
//! ```
//!
//! Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (arXiv 1608.01350, section 1): no bin holds more balls
//! than c times the average, rounded up, the ball that is about to be placed included, and one that finds its bin full goes on around the
//! ring. The paper leaves c = 1 + ε to the operator (a change moves O(1/ε²) balls), and so does HAProxy (`hash-balance-factor`, in
//! percent); 1.25 is the middle way between balance and affinity here. As many points per replica as libketama has per server (40 hashes
//! of four each).
//!
//! in_flight: this router's requests there until they end, and others' at a peer. The key is that of `session-affinity`: the session key,
//! else the first block of the prompt that is not common to all traffic. A request without any key goes where there is room and the
//! fewest requests are without a first token.
//!
//! Known weaknesses: a session that was pushed on warms a second replica and comes back to the cold first one; the bound counts requests,
//! not their work, and takes replicas for equally fast; under light load it is tight (with one request in flight on three replicas each
//! may have one), so that a replica with a single request pushes sessions on.
//!
//! Names, not ids, are hashed: a router that restarts, or a second one, has the same ring.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::openings::Openings;
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "consistent-hash",
    help: "each session at its place on a hash ring; none above 1.25 times the mean load",
    unit: Unit::Rank,
    parameters: &[
        Parameter {
            key: "load_factor",
            default: 1.25,
            min: 1.0,
            max: 1_000_000.0,
            help: "most requests in flight as a multiple of the mean; large = no bound",
        },
        Parameter { key: "points", default: 160.0, min: 1.0, max: 10_000.0, help: "points per replica on the ring" },
    ],
    build: |parameters, _| Box::new(ConsistentHash::new(parameters)),
};

struct ConsistentHash {
    load_factor: f64,
    points: u64,
    openings: Openings,
    /// Points of each replica on the ring by its name, ascending.
    ring: BTreeMap<Arc<str>, Box<[u64]>>,
    /// Place of the request being decided.
    place: Option<u64>,
    /// Requests in flight at which a replica is full.
    capacity: f64,
}

impl ConsistentHash {
    fn new(parameters: &Parameters) -> Self {
        Self {
            load_factor: parameters.get("load_factor"),
            points: parameters.get("points") as u64,
            openings: Openings::default(),
            ring: BTreeMap::new(),
            place: None,
            capacity: 0.0,
        }
    }

    /// Puts candidates on the ring that are not there. Those that are gone are dropped once they are the greater part of it.
    fn complete_ring(&mut self, candidates: &[View<'_>]) {
        if self.ring.len() > 2 * candidates.len() {
            self.ring.retain(|name, _| candidates.iter().any(|view| view.replica.spec.name == *name));
        }
        for view in candidates {
            let name = &view.replica.spec.name;
            if !self.ring.contains_key(name) {
                self.ring.insert(Arc::clone(name), points_of(name, self.points));
            }
        }
    }

    /// Way around the ring, as a share of it.
    fn distance(&self, name: &str) -> f64 {
        let (Some(place), Some(points)) = (self.place, self.ring.get(name)) else { return 0.0 };
        let next = points.partition_point(|point| *point < place);
        let point = points.get(next).or(points.first()).copied().unwrap_or(place);
        point.wrapping_sub(place) as f64 / 2f64.powi(64)
    }
}

fn points_of(name: &str, points: u64) -> Box<[u64]> {
    let mut points: Vec<u64> = (0..points).map(|i| xxh3_64_with_seed(name.as_bytes(), i)).collect();
    points.sort_unstable();
    points.into()
}

/// Requests in flight at which a replica is full, with one more to be placed.
fn capacity(load_factor: f64, in_flight: f64, replicas: usize) -> f64 {
    (load_factor * (in_flight + 1.0) / replicas as f64).ceil()
}

impl Policy for ConsistentHash {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        // A key may be any number that a client sends: only its hash is spread over the ring.
        self.place = self.openings.key(query).map(|key| xxh3_64(&key.to_le_bytes()));
        self.complete_ring(candidates);
        let in_flight = candidates.iter().map(View::in_flight).sum();
        self.capacity = capacity(self.load_factor, in_flight, candidates.len());
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let full = candidate.in_flight() >= self.capacity;
        terms([("distance", self.distance(&candidate.replica.spec.name)), ("full", if full { 1.0 } else { 0.0 })])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::proptest;

    use super::super::testing::scores;
    use super::{capacity, points_of};

    #[test]
    fn capacities() {
        // (factor, in flight, replicas) → ⌈factor · (in flight + 1) / replicas⌉
        let cases = [
            ((1.25, 0.0, 3), 1.0),
            ((1.25, 2.0, 3), 2.0),
            ((1.25, 7.0, 3), 4.0),
            ((1.25, 23.0, 3), 10.0),
            ((1.0, 5.0, 3), 2.0),
            ((1.25, 0.0, 1), 2.0),
        ];
        for ((factor, in_flight, replicas), expected) in cases {
            assert_eq!(capacity(factor, in_flight, replicas), expected, "{factor} {in_flight} {replicas}");
        }
    }

    #[test]
    fn cases() {
        let log = scores(
            "consistent-hash",
            "",
            "
            # a session key
            prompt=1000 session=7
            a
            b
            c

            # its replica is full with one (1.25 · 2 / 3 < 1): on to the next on the ring
            prompt=1000 session=7
            a sent=10
            b
            c

            # of four in flight (1.25 · 5 / 3 = 2.08) three are too many, two are not
            prompt=1000 session=7
            a decoding=10,10
            b
            c sent=10,10

            prompt=1000 session=7
            a decoding=10,10,10
            b
            c sent=10

            # nothing else of a load counts
            prompt=1000 session=7
            a rtt=400 running=90 waiting=9
            b
            c rtt=1 cached=900

            # a replica that leaves takes only its own sessions along
            prompt=1000 session=7
            b
            c

            # no key: the hash of the first block
            prompt=1000 blocks=11,12,13
            a
            b
            c

            # no block either: fewest without a first token, if there is room
            prompt=10
            a sent=5
            b
            c

            # others' requests at a peer count
            prompt=1000 session=7
            a peer=1 others=10
            b
            c
            ",
        );
        assert_snapshot!(log, @r"
        # a session key
        a          0.001 = distance 0.001 + full 0.000  <-
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000

        # its replica is full with one (1.25 · 2 / 3 < 1): on to the next on the ring
        a          1.001 = distance 0.001 + full 1.000
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000  <-

        # of four in flight (1.25 · 5 / 3 = 2.08) three are too many, two are not
        a          0.001 = distance 0.001 + full 0.000  <-
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000

        a          1.001 = distance 0.001 + full 1.000
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000  <-

        # nothing else of a load counts
        a          0.001 = distance 0.001 + full 0.000  <-
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000

        # a replica that leaves takes only its own sessions along
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000  <-

        # no key: the hash of the first block
        a          0.001 = distance 0.001 + full 0.000
        b          0.015 = distance 0.015 + full 0.000
        c          0.001 = distance 0.001 + full 0.000  <-

        # no block either: fewest without a first token, if there is room
        a          1.000 = distance 0.000 + full 1.000
        b          0.000 = distance 0.000 + full 0.000  <-
        c          0.000 = distance 0.000 + full 0.000

        # others' requests at a peer count
        a          1.001 = distance 0.001 + full 1.000
        b          0.006 = distance 0.006 + full 0.000
        c          0.003 = distance 0.003 + full 0.000  <-
        ");
    }

    /// Where the sessions go, as names in order.
    fn targets(parameters: &str, fleet: &str) -> String {
        let session = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let cases: String = (0..3000).map(|i| format!("prompt=1 session={}\n{fleet}\n\n", session(i))).collect();
        scores("consistent-hash", parameters, &cases)
            .lines()
            .filter(|line| line.ends_with("<-"))
            .map(|line| &line[..1])
            .collect()
    }

    #[test]
    fn sessions_spread_and_only_those_of_a_lost_or_full_replica_move() {
        let (all, without_b, b_full) =
            (targets("", "a\nb\nc"), targets("", "a\nc"), targets("", "a sent=1\nb sent=1,1,1\nc sent=1"));
        for name in ['a', 'b', 'c'] {
            let share = all.chars().filter(|target| *target == name).count();
            assert!((700..1300).contains(&share), "{name}: {share} of 3000");
        }
        for moved in [&without_b, &b_full] {
            assert!(all.chars().zip(moved.chars()).all(|(before, after)| before == 'b' || before == after));
            assert!(!moved.contains('b'));
        }
        assert_eq!(without_b, b_full, "around a full replica the way is that around a missing one");
        assert_eq!(targets("load_factor=1000000", "a sent=1\nb sent=1,1,1\nc sent=1"), all, "without a bound");
    }

    proptest! {
        #[test]
        fn somebody_always_has_room(loads in proptest::collection::vec(0..50u32, 1..20), percent in 100..300u32) {
            let total: u32 = loads.iter().sum();
            let capacity = capacity(f64::from(percent) / 100.0, f64::from(total), loads.len());
            assert!(loads.iter().any(|load| f64::from(*load) < capacity));
        }

        #[test]
        fn points_are_ascending_and_a_replica_s_own(name in "[a-z]{1,8}", points in 1..500u64) {
            let ring = points_of(&name, points);
            assert_eq!(ring.len() as u64, points);
            assert!(ring.is_sorted());
            assert_ne!(ring, points_of(&format!("{name}!"), points));
        }
    }
}
