//! The prefix index of one router: a mirror of every replica's cache.
//!
//! One tree per replica instead of one tree with owners at its nodes: each evicts by its own capacity and its own order of use, a
//! replica is forgotten by dropping its tree, and no node can lose track of who holds it. A shared opening is stored once per replica,
//! 8 bytes per block.

use std::collections::{BTreeMap, BTreeSet};

use super::audience::Audience;
use super::capacity::Correction;
use super::catalogue::Catalogue;
use super::mirror::{CacheStats, Mirror};
use crate::model::ReplicaId;

/// The caches of all replicas as one router believes them to be. An unknown replica holds nothing and takes nothing.
#[derive(Debug, Default)]
pub struct PrefixIndex {
    mirrors: BTreeMap<ReplicaId, Mirror>,
    /// Of whose contents peers are told.
    published: BTreeSet<ReplicaId>,
    catalogue: Catalogue,
}

/// State of the whole index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Each replica's, in their order.
    pub replicas: Vec<(ReplicaId, CacheStats)>,
    /// Sum over the replicas.
    pub total: CacheStats,
}

impl PrefixIndex {
    /// An index without replicas.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts an empty mirror of a replica with room for `capacity_blocks`, which [`super::capacity_blocks`] computes. A replica that is
    /// there already is only given this capacity, as by [`Self::set_capacity`].
    pub fn add(&mut self, replica: ReplicaId, capacity_blocks: usize) {
        let mirror = self.mirrors.entry(replica).or_insert_with(|| Mirror::new(capacity_blocks));
        mirror.configure(capacity_blocks);
        self.settle(replica);
    }

    /// Drops a replica's mirror.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.publish(replica, false);
        self.mirrors.remove(&replica);
    }

    /// Has peers told what this replica holds, or no longer. A change empties its mirror: nobody noted who may know of what is there.
    pub fn publish(&mut self, replica: ReplicaId, publish: bool) {
        if !self.mirrors.contains_key(&replica) || self.published.contains(&replica) == publish {
            return;
        }
        self.forget(replica);
        if let Some(mirror) = self.mirrors.get_mut(&replica) {
            mirror.watch_evictions(publish);
        }
        if publish {
            self.published.insert(replica)
        } else {
            self.published.remove(&replica)
        };
    }

    /// What peers are told.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Enters what the replica has evicted into the catalogue, if that is told. To be called after everything that evicts.
    fn settle(&mut self, replica: ReplicaId) {
        if self.published.contains(&replica)
            && let Some(mirror) = self.mirrors.get_mut(&replica)
        {
            self.catalogue.evict(&mirror.take_evicted());
        }
    }

    /// The replica has lost everything.
    fn lost(&mut self, replica: ReplicaId) {
        self.settle(replica);
        if self.published.contains(&replica) {
            self.catalogue.lose();
        }
    }

    /// Leading blocks that the replica is believed to hold. Changes nothing.
    #[must_use]
    pub fn matched(&self, replica: ReplicaId, blocks: &[u64]) -> usize {
        self.mirrors.get(&replica).map_or(0, |mirror| mirror.matched(blocks))
    }

    /// [`Self::matched`] for all replicas, in their order.
    pub fn matches(&self, blocks: &[u64]) -> impl Iterator<Item = (ReplicaId, usize)> {
        self.mirrors.iter().map(|(&replica, mirror)| (replica, mirror.matched(blocks)))
    }

    /// A prompt goes to the replica, which will hold it: call this at dispatch, so that a burst of equal prompts stays together.
    /// Returns how many blocks were new.
    pub fn insert(&mut self, replica: ReplicaId, blocks: &[u64]) -> usize {
        self.insert_for(replica, blocks, Audience::EVERYBODY)
    }

    /// The same for a prompt of which only some may learn that it is there.
    pub fn insert_for(&mut self, replica: ReplicaId, blocks: &[u64], audience: Audience) -> usize {
        let Some(mirror) = self.mirrors.get_mut(&replica) else { return 0 };
        let held = mirror.insert(blocks);
        if self.published.contains(&replica) {
            self.settle(replica);
            self.catalogue.hold(blocks, held.matched, held.added, audience);
        }
        held.added
    }

    /// Empties one replica's mirror. Its capacity, its counters and the other replicas stay.
    pub fn forget(&mut self, replica: ReplicaId) {
        if let Some(mirror) = self.mirrors.get_mut(&replica) {
            mirror.clear();
            self.lost(replica);
        }
    }

    /// Empties all mirrors.
    pub fn clear(&mut self) {
        let all: Vec<ReplicaId> = self.mirrors.keys().copied().collect();
        all.into_iter().for_each(|replica| self.forget(replica));
    }

    /// Takes a newly configured capacity; the ratio to it that was learned from the engine's reports stays.
    pub fn set_capacity(&mut self, replica: ReplicaId, capacity_blocks: usize) {
        if let Some(mirror) = self.mirrors.get_mut(&replica) {
            mirror.configure(capacity_blocks);
            self.settle(replica);
        }
    }

    /// Learns from the engine's `cached_tokens` for a prompt whose cached part was predicted, both in blocks (a report in tokens
    /// seldom is a whole number of them). `None` for an unknown replica.
    pub fn correct(&mut self, replica: ReplicaId, predicted: f64, actual: f64) -> Option<Correction> {
        let correction = self.mirrors.get_mut(&replica)?.correct(predicted, actual);
        if correction == Correction::Restarted {
            self.lost(replica);
        } else {
            self.settle(replica);
        }
        Some(correction)
    }

    /// Longest held prompt of every replica, blocks. Looks at every node: for people who ask for it.
    #[must_use]
    pub fn depths(&self) -> Vec<(ReplicaId, usize)> {
        self.mirrors.iter().map(|(&replica, mirror)| (replica, mirror.depth())).collect()
    }

    /// State and counters of every replica and in total. Cheap: nothing is walked.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        let mut stats = IndexStats::default();
        for (&replica, mirror) in &self.mirrors {
            let own = mirror.stats();
            stats.total.add(own);
            stats.replicas.push((replica, own));
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::{any, prop, proptest};

    use super::{Correction, PrefixIndex};
    use crate::model::ReplicaId;
    use crate::routing::features::{BLOCK_BYTES, hash_blocks};

    const A: ReplicaId = ReplicaId(1);
    const B: ReplicaId = ReplicaId(2);
    const UNKNOWN: ReplicaId = ReplicaId(9);

    /// Hashes of a prompt with one block per letter.
    fn prompt(letters: &str) -> Vec<u64> {
        let text: Vec<u8> = letters.bytes().flat_map(|letter| [letter; BLOCK_BYTES]).collect();
        hash_blocks([text.as_slice()], 0)
    }

    fn index(capacity: usize) -> PrefixIndex {
        let mut index = PrefixIndex::new();
        index.add(B, capacity);
        index.add(A, capacity);
        index
    }

    fn matches(index: &PrefixIndex, letters: &str) -> Vec<(u32, usize)> {
        index.matches(&prompt(letters)).map(|(replica, blocks)| (replica.0, blocks)).collect()
    }

    fn describe(index: &PrefixIndex) -> String {
        let stats = index.stats();
        let depths: Vec<usize> = index.depths().into_iter().map(|(_, depth)| depth).collect();
        let deepest = depths.iter().copied().max().unwrap_or(0);
        let rows = stats.replicas.iter().map(|(replica, stats)| (replica.0.to_string(), stats));
        rows.chain([("total".to_owned(), &stats.total)])
            .zip(depths.into_iter().chain([deepest]))
            .map(|((name, s), depth)| {
                let (blocks, capacity, nodes) = (s.blocks, s.capacity, s.nodes);
                format!(
                    "{name}: {blocks}/{capacity} blocks, {nodes} nodes, depth {depth}, {}/{} hits\n",
                    s.hits, s.lookups
                )
            })
            .collect()
    }

    #[test]
    fn every_replica_has_its_own_cache() {
        let mut index = index(8);
        assert_eq!(index.insert(A, &prompt("abcd")), 4);
        assert_eq!(index.insert(A, &prompt("abxy")), 2);
        assert_eq!(index.insert(B, &prompt("ab")), 2);
        assert_eq!(index.insert(UNKNOWN, &prompt("ab")), 0);
        assert_eq!(matches(&index, "abcz"), [(1, 3), (2, 2)]);
        assert_eq!((index.matched(A, &prompt("abcd")), index.matched(UNKNOWN, &prompt("ab"))), (4, 0));
        assert_snapshot!(describe(&index), @r"
        1: 6/8 blocks, 3 nodes, depth 4, 2/8 hits
        2: 2/8 blocks, 1 nodes, depth 2, 0/2 hits
        total: 8/16 blocks, 4 nodes, depth 4, 2/10 hits
        ");
        assert!(index.stats().total.bytes > 0);
    }

    #[test]
    fn replicas_are_forgotten_cleared_and_removed() {
        let mut index = index(8);
        for replica in [A, B] {
            index.insert(replica, &prompt("abc"));
        }
        index.forget(A);
        index.forget(UNKNOWN);
        assert_eq!(matches(&index, "abc"), [(1, 0), (2, 3)]);
        index.insert(A, &prompt("abc"));
        index.clear();
        assert_eq!(matches(&index, "abc"), [(1, 0), (2, 0)]);
        index.remove(A);
        assert_eq!(matches(&index, "abc"), [(2, 0)]);
        assert_snapshot!(describe(&index), @r"
        2: 0/8 blocks, 0 nodes, depth 0, 0/3 hits
        total: 0/8 blocks, 0 nodes, depth 0, 0/3 hits
        ");
    }

    #[test]
    fn a_changed_capacity_evicts_at_once_and_adding_again_keeps_the_cache() {
        let mut index = index(8);
        index.insert(A, &prompt("abcdef"));
        index.add(A, 5);
        assert_eq!(index.matched(A, &prompt("abcdef")), 5);
        index.set_capacity(A, 2);
        index.set_capacity(UNKNOWN, 2);
        assert_eq!(index.matched(A, &prompt("abcdef")), 2);
    }

    #[test]
    fn the_engines_reports_correct_the_mirror() {
        let mut index = index(100);
        index.insert(A, &prompt(&"abcdefghij".repeat(10)));
        assert_eq!(index.correct(A, 10.0, 7.0), Some(Correction::Over));
        assert_eq!(index.stats().replicas[0].1.blocks, 97);
        assert_eq!(index.correct(A, 20.0, 0.0), Some(Correction::Over));
        assert_eq!(index.correct(A, 20.0, 0.0), Some(Correction::Over));
        assert_eq!(index.correct(A, 20.0, 0.0), Some(Correction::Restarted));
        let stats = index.stats().replicas[0].1;
        assert_eq!((stats.blocks, stats.capacity), (0, 100));
        assert_eq!(index.correct(UNKNOWN, 1.0, 1.0), None);
        for _ in 0..4 {
            assert_eq!(
                index.correct(B, 20.0, 0.0),
                Some(Correction::Over),
                "misses before a flush do not count after it"
            );
            index.forget(B);
        }
    }

    proptest! {
        /// The property that routing relies on, through the hashing of real bytes.
        #[test]
        fn every_block_aligned_prefix_matches_the_replica_that_got_it(
            text in prop::collection::vec(any::<u8>(), 0..4 * BLOCK_BYTES),
            other in prop::collection::vec(any::<u8>(), 0..4 * BLOCK_BYTES),
        ) {
            let mut index = index(8);
            let blocks = hash_blocks([text.as_slice()], 7);
            index.insert(A, &blocks);
            index.insert(A, &hash_blocks([other.as_slice()], 7));
            for length in 0..=text.len() {
                let aligned = length / BLOCK_BYTES;
                assert_eq!(index.matched(A, &hash_blocks([&text[..length]], 7)), aligned);
            }
            assert_eq!(index.matched(B, &blocks), 0);
        }
    }
}
