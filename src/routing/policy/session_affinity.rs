//! `session-affinity`: every session stays on one replica, chosen by rendezvous hashing.
//!
//! ```text
//! score = 1 − hash(session key, replica name) / 2^64        0..=1; the largest hash wins
//! ```
//!
//! When a replica comes or goes only the sessions that it wins or loses move. The key is the request's session key if it has one,
//! else the hash of the first block of its prompt that is not common to all traffic: shared by less than 2 % of the 1,024 most recent
//! conversations without a session key (a prompt that continues a recent one takes its place). While fewer than 256 were seen, shares are
//! of 256, so an opening becomes common with its sixth conversation; until then all that open alike share one replica.
//! A request without any key (a prompt shorter than a block, or nothing of its own in it) scores the same everywhere and goes where the
//! fewest requests are without a first token.
//!
//! Different from the paper's baseline, which takes the hash of the first 256 token ids modulo the number of replicas: that one moves
//! nearly all sessions when a replica comes or goes, and sends everybody who shares a system prompt to one replica.
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
        self.key = self.openings.key(query);
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let name = candidate.replica.spec.name.as_bytes();
        let hash = self.key.map_or(0, |key| xxh3_64_with_seed(name, key));
        terms([("distance", 1.0 - hash as f64 / 2f64.powi(64))])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "session-affinity",
            "",
            "
            # a session key
            prompt=1000 session=7
            a
            b
            c

            # the same session stays when another replica leaves or is busy
            prompt=1000 session=7
            b
            c sent=100000

            # another session
            prompt=1000 session=8
            a
            b
            c

            # no key: the hash of the first block
            prompt=1000 blocks=11,12,13
            a
            b
            c

            # no block either: fewest without a first token
            prompt=10
            a sent=5
            b
            c
            ",
        );
        assert_snapshot!(log, @r"
        # a session key
        a          0.380 = distance 0.380  <-
        b          0.535 = distance 0.535
        c          0.863 = distance 0.863

        # the same session stays when another replica leaves or is busy
        b          0.535 = distance 0.535  <-
        c          0.863 = distance 0.863

        # another session
        a          0.513 = distance 0.513
        b          0.271 = distance 0.271  <-
        c          0.353 = distance 0.353

        # no key: the hash of the first block
        a          0.579 = distance 0.579  <-
        b          0.795 = distance 0.795
        c          0.640 = distance 0.640

        # no block either: fewest without a first token
        a          1.000 = distance 1.000
        b          1.000 = distance 1.000  <-
        c          1.000 = distance 1.000
        ");
    }

    /// Where the sessions go, as names in order.
    fn targets(fleet: &str, requests: impl Iterator<Item = String>) -> String {
        let cases: String = requests.map(|request| format!("prompt=1 {request}\n{fleet}\n\n")).collect();
        scores("session-affinity", "", &cases)
            .lines()
            .filter(|line| line.ends_with("<-"))
            .map(|line| &line[..1])
            .collect()
    }

    #[test]
    fn sessions_spread_evenly_and_only_those_of_a_lost_replica_move() {
        let sessions = || (0..3000u64).map(|i| format!("session={}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let (all, without_b) = (targets("a\nb\nc", sessions()), targets("a\nc", sessions()));
        for name in ['a', 'b', 'c'] {
            let share = all.chars().filter(|target| *target == name).count();
            assert!((900..1100).contains(&share), "{name}: {share} of 3000");
        }
        assert!(all.chars().zip(without_b.chars()).all(|(before, after)| before == 'b' || before == after));
    }

    #[test]
    fn conversations_with_a_common_opening_part_once_it_is_known() {
        // Eight conversations take ten turns each; all open with block 1, their own begins after it.
        let turns = |i: u64| (0..i / 8).map(|turn| format!(",{}", 1000 * (i % 8) + turn)).collect::<String>();
        let request = |i: u64| format!("blocks=1,{}{}", 100 + i % 8, turns(i));
        let targets: Vec<char> = targets("a\nb\nc", (0..80).map(request)).chars().collect();
        assert!(targets[..6].iter().all(|target| *target == targets[0]), "{targets:?}");
        let by_conversation = |from: usize| (0..8).map(|i| targets[from + i]).collect::<String>();
        assert_eq!((by_conversation(8), by_conversation(8)), (by_conversation(24), by_conversation(72)));
        assert!(['a', 'b', 'c'].iter().all(|name| by_conversation(8).contains(*name)), "{}", by_conversation(8));
    }
}
