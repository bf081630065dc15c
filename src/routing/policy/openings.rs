//! Which openings of prompts are common to all traffic: the part that says nothing about who is talking.
//!
//! Counts, over the most recent [`RECENT`] conversations, how many share each of their first [`DEPTH`] blocks. Block hashes are chained,
//! so equal hash means equal prompt up to there, and the counts fall along a prompt. A prompt that continues a recent one takes its
//! place instead of being counted beside it: otherwise a long conversation would come to look like common traffic, and lose its place.
//! Memory is bounded by `RECENT · DEPTH` counts (8 MiB or so when no two prompts share anything).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::Query;

/// Conversations that count as recent.
const RECENT: usize = 1024;

/// Blocks counted per prompt: 256 of 256 bytes, some 16,000 tokens of system prompt and tools.
const DEPTH: usize = 256;

/// Blocks that one turn may add to a conversation and still be seen as its continuation.
const LONGEST_TURN: usize = 512;

/// An opening shared by at least this part of recent conversations is common.
const COMMON_SHARE: f64 = 0.02;

/// While fewer conversations than this were seen, shares are of this many: six equal openings are the first to be common. Without it the
/// very first prompt would be shared by all traffic.
const LEAST_SEEN: usize = 256;

/// A recent prompt.
#[derive(Clone, Debug)]
struct Recent {
    /// Its first blocks, which are counted.
    opening: Box<[u64]>,
    /// Its last full block, by which its continuation is known.
    tail: u64,
}

/// Counts of recent openings.
#[derive(Clone, Debug, Default)]
pub(super) struct Openings {
    /// By order of arrival.
    recent: BTreeMap<u64, Recent>,
    arrivals: u64,
    /// The newest recent prompt that ends in a block.
    tails: BlockMap<u64>,
    /// How many recent prompts have a block.
    counts: BlockMap<u32>,
}

impl Openings {
    /// What a rule of affinity goes by: the session key of the request if it has one, else the hash of the first block that is its own.
    /// Only the first attempt of a request without a session key is counted.
    pub(super) fn key(&mut self, query: &Query<'_>) -> Option<u64> {
        let features = query.features;
        if features.session.is_some() {
            return features.session;
        }
        let key = self.first_own_block(&features.blocks);
        if query.attempt == 1 {
            self.observe(&features.blocks);
        }
        key
    }

    /// Counts a prompt of at least one block, in the place of the one that it continues, and forgets the oldest beyond [`RECENT`].
    pub(super) fn observe(&mut self, blocks: &[u64]) {
        let Some((tail, before)) = blocks.split_last() else { return };
        let continued = before.iter().rev().take(LONGEST_TURN).find_map(|block| self.tails.get(block).copied());
        if let Some(earlier) = continued {
            self.forget(earlier);
        }
        let opening = &blocks[..blocks.len().min(DEPTH)];
        for block in opening {
            *self.counts.entry(*block).or_insert(0) += 1;
        }
        self.tails.insert(*tail, self.arrivals);
        self.recent.insert(self.arrivals, Recent { opening: opening.into(), tail: *tail });
        self.arrivals += 1;
        if self.recent.len() > RECENT
            && let Some((oldest, _)) = self.recent.first_key_value()
        {
            self.forget(*oldest);
        }
    }

    fn forget(&mut self, arrival: u64) {
        let Some(Recent { opening, tail }) = self.recent.remove(&arrival) else { return };
        if self.tails.get(&tail) == Some(&arrival) {
            self.tails.remove(&tail);
        }
        for block in opening {
            if let Some(count) = self.counts.get_mut(&block) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&block);
                }
            }
        }
    }

    /// The first block of a prompt that is not common; the block behind [`DEPTH`] counts as such. `None` where the whole prompt is
    /// common, or shorter than a block.
    pub(super) fn first_own_block(&self, blocks: &[u64]) -> Option<u64> {
        let seen = self.recent.len().max(LEAST_SEEN) as f64;
        let common = |block: &u64| f64::from(self.counts.get(block).copied().unwrap_or(0)) / seen >= COMMON_SHARE;
        let counted = blocks.len().min(DEPTH);
        let own = blocks[..counted].partition_point(common);
        blocks.get(own).copied()
    }
}

/// Never walked, so its order never shows.
type BlockMap<V> = HashMap<u64, V, BuildHasherDefault<BlockHasher>>;

/// Block hashes are hashes already (xxh3): taken as they are.
#[derive(Clone, Copy, Debug, Default)]
struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{DEPTH, LEAST_SEEN, Openings, RECENT};

    /// A prompt that shares `shared` blocks with all others and has `own` blocks of its own.
    fn prompt(shared: u64, own: u64, whose: u64) -> Vec<u64> {
        (0..shared).chain((0..own).map(|i| (whose + 1) * 1_000_000 + i)).collect()
    }

    #[test]
    fn the_shared_opening_is_learned_after_six_prompts() {
        let mut openings = Openings::default();
        for whose in 0..6 {
            assert_eq!(openings.first_own_block(&prompt(3, 2, whose)), Some(0), "before prompt {whose}");
            openings.observe(&prompt(3, 2, whose));
        }
        assert_eq!(openings.first_own_block(&prompt(3, 2, 0)), Some(1_000_000), "six of {LEAST_SEEN} are 2.3 %");
        assert_eq!(openings.first_own_block(&prompt(3, 0, 0)), None, "nothing of its own");
        assert_eq!(openings.first_own_block(&[]), None);
    }

    #[test]
    fn a_long_conversation_keeps_its_block() {
        let mut openings = Openings::default();
        for turn in 0..50 {
            for whose in 0..8 {
                openings.observe(&prompt(3, 2 + turn, whose));
                let expected = if turn == 0 && whose < 5 { 0 } else { (whose + 1) * 1_000_000 };
                assert_eq!(
                    openings.first_own_block(&prompt(3, 2 + turn, whose)),
                    Some(expected),
                    "{whose}, turn {turn}"
                );
            }
        }
        assert_eq!(openings.recent.len(), 8);
    }

    #[test]
    fn equal_prompts_count_one_by_one() {
        let mut openings = Openings::default();
        (0..6).for_each(|_| openings.observe(&prompt(3, 0, 0)));
        assert_eq!(openings.first_own_block(&prompt(3, 0, 0)), None);
    }

    #[test]
    fn openings_go_out_of_use() {
        let mut openings = Openings::default();
        (0..6).for_each(|whose| openings.observe(&prompt(3, 2, whose)));
        for whose in 0..RECENT as u64 {
            openings.observe(&[u64::MAX - whose]);
        }
        assert_eq!((openings.first_own_block(&prompt(3, 2, 1)), openings.counts.len()), (Some(0), RECENT));
    }

    #[test]
    fn an_opening_longer_than_what_is_counted_ends_there() {
        let mut openings = Openings::default();
        let long = DEPTH as u64 + 10;
        (0..10).for_each(|whose| openings.observe(&prompt(long, 1, whose)));
        assert_eq!(openings.first_own_block(&prompt(long, 1, 3)), Some(DEPTH as u64));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_counts_match_what_is_recent(
            prompts in proptest::collection::vec((0..5u64, 0..300u64, 0..4u64), 0..40),
        ) {
            let mut openings = Openings::default();
            for (shared, own, whose) in prompts {
                openings.observe(&prompt(shared, own, whose));
            }
            let counted: u32 = openings.counts.values().sum();
            let held: usize = openings.recent.values().map(|recent| recent.opening.len()).sum();
            assert_eq!(counted as usize, held);
            assert!(openings.recent.values().all(|recent| recent.opening.len() <= DEPTH));
            assert!(openings.tails.len() <= openings.recent.len());
            while let Some((&oldest, _)) = openings.recent.first_key_value() {
                openings.forget(oldest);
            }
            assert!(openings.counts.is_empty() && openings.tails.is_empty());
        }
    }
}
