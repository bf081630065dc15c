//! What a workload could gain from caching at best, and how long its prompts are.

use std::collections::BTreeSet;

/// One prefix cache of infinite size that sees every prompt in order.
#[derive(Clone, Debug, Default)]
pub struct InfiniteCache {
    seen: BTreeSet<u64>,
    reuse: Reuse,
}

/// Prompt tokens and how many of them were there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// All prompt tokens.
    pub tokens: u64,
    /// Tokens of leading blocks seen before.
    pub cached_tokens: u64,
}

impl Reuse {
    /// Share of the prompt tokens that were cached, 0 to 1 (0 for no tokens).
    #[must_use]
    pub fn ratio(self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.cached_tokens as f64 / self.tokens as f64 }
    }
}

impl InfiniteCache {
    /// Takes one prompt in; returns its tokens in leading blocks that were there already.
    pub fn insert(&mut self, blocks: &[u64], tokens: u32, block_size: u32) -> u32 {
        let known = blocks.iter().take_while(|id| self.seen.contains(id)).count();
        self.seen.extend(&blocks[known..]);
        let known = u32::try_from(known).unwrap_or(u32::MAX);
        let cached = known.saturating_mul(block_size).min(tokens);
        self.reuse.tokens += u64::from(tokens);
        self.reuse.cached_tokens += u64::from(cached);
        cached
    }

    /// All prompts so far.
    #[must_use]
    pub fn reuse(&self) -> Reuse {
        self.reuse
    }
}

/// Reuse of prompts, each given as its blocks and its length in tokens, in this order.
#[must_use]
pub fn infinite_cache<'a>(prompts: impl IntoIterator<Item = (&'a [u64], u32)>, block_size: u32) -> Reuse {
    let mut cache = InfiniteCache::default();
    for (blocks, tokens) in prompts {
        cache.insert(blocks, tokens, block_size);
    }
    cache.reuse()
}

/// Statistics of a set of lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lengths {
    /// How many.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Median (nearest rank).
    pub p50: u32,
    /// 95th percentile (nearest rank).
    pub p95: u32,
    /// Longest.
    pub max: u32,
}

impl Lengths {
    /// Statistics of `lengths`; all 0 if there are none.
    #[must_use]
    pub fn of(lengths: impl IntoIterator<Item = u32>) -> Self {
        let mut sorted: Vec<u32> = lengths.into_iter().collect();
        sorted.sort_unstable();
        let Some(&max) = sorted.last() else { return Self::default() };
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let sum: u64 = sorted.iter().map(|&length| u64::from(length)).sum();
        Self { count: sorted.len(), mean: sum as f64 / sorted.len() as f64, p50: rank(50), p95: rank(95), max }
    }
}

#[cfg(test)]
mod tests {
    use super::{InfiniteCache, Lengths, infinite_cache};

    #[test]
    fn only_leading_blocks_count_and_a_partial_block_counts_its_tokens() {
        let mut cache = InfiniteCache::default();
        let cases: [(&[u64], u32, u32); 6] = [
            (&[1, 2, 3], 40, 0),
            (&[1, 2, 4], 48, 32),
            (&[1, 2, 3], 40, 40),
            (&[9, 2, 3], 48, 0),
            (&[1, 8, 3], 48, 16),
            (&[], 5, 0),
        ];
        for (blocks, tokens, cached) in cases {
            assert_eq!(cache.insert(blocks, tokens, 16), cached, "{blocks:?}");
        }
        assert_eq!((cache.reuse().tokens, cache.reuse().cached_tokens), (229, 88));
        assert_eq!(infinite_cache([], 16).ratio(), 0.0);
    }

    #[test]
    fn lengths_use_the_nearest_rank() {
        let lengths = Lengths::of([5, 1, 4, 2, 3]);
        assert_eq!((lengths.count, lengths.mean, lengths.p50, lengths.p95, lengths.max), (5, 3.0, 3, 5, 5));
        assert_eq!(Lengths::of((1..=100).rev()).p95, 95);
        assert_eq!(Lengths::of([7]).p50, 7);
        assert_eq!(Lengths::of([]), Lengths::default());
    }
}
