//! Which openings of prompts are common to all traffic: the part that says nothing about who is talking.
//!
//! Counts, over the most recent [`RECENT`] prompts, how many share each of their first [`DEPTH`] blocks. Block hashes are chained, so equal
//! hash means equal prompt up to there, and the counts fall along a prompt. Memory is bounded by `RECENT · DEPTH` counts
//! (8 MiB or so when no two prompts share anything).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Prompts that count as recent.
const RECENT: usize = 1024;

/// Blocks looked at per prompt: 256 of 256 bytes, some 16,000 tokens of system prompt and tools.
const DEPTH: usize = 256;

/// An opening shared by at least this part of recent prompts is common.
const COMMON_SHARE: f64 = 0.02;

/// While fewer prompts than this were seen, shares are of this many: six equal openings are the first to be common. Without it the very
/// first prompt would be shared by all traffic.
const LEAST_SEEN: usize = 256;

/// Counts of recent openings.
#[derive(Clone, Debug, Default)]
pub(super) struct Openings {
    recent: VecDeque<Box<[u64]>>,
    counts: HashMap<u64, u32, BuildHasherDefault<BlockHasher>>,
}

impl Openings {
    /// Counts a prompt, and forgets the oldest beyond [`RECENT`].
    pub(super) fn observe(&mut self, blocks: &[u64]) {
        let opening = &blocks[..blocks.len().min(DEPTH)];
        for block in opening {
            *self.counts.entry(*block).or_insert(0) += 1;
        }
        self.recent.push_back(opening.into());
        if self.recent.len() > RECENT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        for block in self.recent.pop_front().unwrap_or_default() {
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

/// Block hashes are hashes already (xxh3): taken as they are. The map is never walked, so its order never shows.
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
    use proptest::prelude::{any, proptest};

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
    fn a_conversation_keeps_its_block_while_it_grows_and_openings_go_out_of_use() {
        let mut openings = Openings::default();
        for turn in 0..12 {
            openings.observe(&prompt(3, 2 + turn, turn % 4));
        }
        let block = openings.first_own_block(&prompt(3, 2, 1));
        assert_eq!(block, openings.first_own_block(&prompt(3, 40, 1)));
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
        fn memory_is_bounded_and_counts_match_the_window(prompts in proptest::collection::vec((0..5u64, 0..300u64, any::<u16>()), 0..40)) {
            let mut openings = Openings::default();
            for (shared, own, whose) in prompts {
                openings.observe(&prompt(shared, own, whose.into()));
            }
            let counted: u32 = openings.counts.values().sum();
            let held: usize = openings.recent.iter().map(|opening| opening.len()).sum();
            assert_eq!(counted as usize, held);
            assert!(openings.recent.iter().all(|opening| opening.len() <= DEPTH));
            while !openings.recent.is_empty() {
                openings.forget_oldest();
            }
            assert!(openings.counts.is_empty());
        }
    }
}
