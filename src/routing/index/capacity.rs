//! How many blocks to believe in: the configured start and what the engine's own `cached_tokens` teach.
//!
//! The engine is asked nothing extra: each reply with usage says whether the prediction held. Steps are small, so that
//! one odd reply moves little and many that agree move it far: 3 % each way, twenty-three in a row halve it.

/// Share of a KV cache that prompts are believed to fill; the rest is output and fragmentation.
const START_SHARE: f64 = 0.9;
/// Learned capacity never falls below this share of the KV cache.
const LEAST_SHARE: f64 = 0.05;
/// Nor rises above this one (blocks shared with other routers' traffic can make a cache look larger than it is).
const MOST_SHARE: f64 = 1.2;
/// Tokens to mirror for a replica that does not tell its KV capacity.
pub const UNKNOWN_KV_TOKENS: u64 = 200_000;

/// A prediction that exceeds the truth by more blocks than this is too high (the engine always computes at least the last block).
const OVER_BLOCKS: f64 = 1.5;
/// One that falls short by more blocks than this is too low.
const UNDER_BLOCKS: f64 = 0.5;
/// Factor on the capacity after a prediction that was too high.
const SHRINK: f64 = 0.97;
/// After one that was too low.
const GROW: f64 = 1.03;
/// After one that was right, up to the whole KV cache.
const DRIFT: f64 = 1.001;

/// A near-total miss: of a prediction of more blocks than this ...
const MISS_BLOCKS: f64 = 8.0;
/// ... less than this share was there.
const MISS_SHARE: f64 = 0.1;
/// So many in a row mean that the replica restarted or was flushed.
const MISSES: u32 = 3;

/// The capacity to give a replica at its start, in blocks: 0.9 of its KV tokens, or [`UNKNOWN_KV_TOKENS`], at `tokens_per_block`
/// (positive).
#[must_use]
pub fn capacity_blocks(kv_tokens: Option<u64>, tokens_per_block: f64) -> usize {
    let tokens = kv_tokens.map_or(UNKNOWN_KV_TOKENS as f64, |tokens| tokens as f64 * START_SHARE);
    (tokens / tokens_per_block.max(f64::MIN_POSITIVE)) as usize
}

/// What the engine's report said about a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Within tolerance.
    Right,
    /// Less was cached than predicted.
    Over,
    /// More was cached than predicted.
    Under,
    /// The third near-total miss in a row: nothing of what the mirror holds is there any more.
    Restarted,
}

/// The learned capacity of one replica, in blocks. Kept as a fraction, so that small steps add up on small caches too.
#[derive(Clone, Debug)]
pub(super) struct LearnedCapacity {
    /// As configured: [`START_SHARE`] of the KV cache.
    start: f64,
    /// As believed now.
    now: f64,
    /// Near-total misses in a row.
    misses: u32,
}

impl LearnedCapacity {
    /// Starts at the configured number of blocks.
    pub(super) fn new(start: usize) -> Self {
        Self { start: start as f64, now: start as f64, misses: 0 }
    }

    /// Whole blocks to hold.
    pub(super) fn blocks(&self) -> usize {
        self.now as usize
    }

    /// Takes a new configured start, keeping the learned ratio: what is known of the engine's habits does not depend on its size.
    pub(super) fn configure(&mut self, start: usize) {
        let ratio = if self.start > 0.0 { self.now / self.start } else { 1.0 };
        self.start = start as f64;
        self.now = self.start * ratio;
    }

    /// Back to the configured start.
    pub(super) fn reset(&mut self) {
        *self = Self { start: self.start, now: self.start, misses: 0 };
    }

    /// Starts counting near-total misses anew: the mirror was emptied on purpose.
    pub(super) fn forget_misses(&mut self) {
        self.misses = 0;
    }

    /// Compares a prediction with what the engine reported, both in blocks.
    pub(super) fn correct(&mut self, predicted: f64, actual: f64) -> Correction {
        let full = self.start / START_SHARE;
        if predicted > MISS_BLOCKS && actual < MISS_SHARE * predicted {
            self.misses += 1;
            if self.misses == MISSES {
                self.reset();
                return Correction::Restarted;
            }
        }
        if predicted - actual > OVER_BLOCKS {
            self.now = (self.now * SHRINK).max(LEAST_SHARE * full);
            return Correction::Over;
        }
        if predicted >= 1.0 {
            // What was expected was there. (Nothing expected, nothing found is no sign that the cache survived: that rule is ours.)
            self.misses = 0;
        }
        if actual - predicted > UNDER_BLOCKS {
            self.now = (self.now * GROW).min(MOST_SHARE * full);
            return Correction::Under;
        }
        if self.now < full {
            self.now = (self.now * DRIFT).min(full);
        }
        Correction::Right
    }
}

#[cfg(test)]
mod tests {
    use super::Correction::{Over, Restarted, Right, Under};
    use super::{LearnedCapacity, capacity_blocks};

    #[test]
    fn the_start_is_nine_tenths_of_the_kv_cache() {
        let cases = [
            (Some(64_000), 64.0, 900),
            (Some(40_000), 57.5, 626),
            (None, 64.0, 3125),
            (Some(0), 64.0, 0),
            (Some(u64::MAX), 0.0, usize::MAX),
        ];
        for (kv_tokens, tokens_per_block, blocks) in cases {
            assert_eq!(capacity_blocks(kv_tokens, tokens_per_block), blocks, "{kv_tokens:?} / {tokens_per_block}");
        }
    }

    #[test]
    fn one_report_moves_the_capacity_by_the_rule() {
        // (predicted, actual) -> verdict and factor on a start of 900 (the whole cache is 1000)
        let cases = [
            ((10.0, 8.4), Over, 0.97),
            ((10.0, 8.5), Right, 1.001),
            ((10.0, 10.0), Right, 1.001),
            ((10.0, 10.5), Right, 1.001),
            ((10.0, 10.6), Under, 1.03),
            ((0.0, 0.0), Right, 1.001),
            ((0.0, 30.0), Under, 1.03),
            ((10.0, 0.0), Over, 0.97),
        ];
        for ((predicted, actual), verdict, factor) in cases {
            let mut capacity = LearnedCapacity::new(900);
            assert_eq!(capacity.correct(predicted, actual), verdict, "{predicted} predicted, {actual} found");
            assert_eq!(capacity.now, 900.0 * factor, "{predicted} predicted, {actual} found");
        }
    }

    #[test]
    fn the_capacity_stays_within_its_limits() {
        for ((predicted, actual), limit) in [((10.0, 5.0), 50), ((0.0, 5.0), 1200), ((5.0, 5.0), 1000)] {
            let mut capacity = LearnedCapacity::new(900);
            for _ in 0..1000 {
                capacity.correct(predicted, actual);
            }
            assert_eq!(capacity.blocks(), limit, "{predicted} predicted, {actual} found, again and again");
        }
    }

    #[test]
    fn a_right_prediction_does_not_shrink_what_was_learned_beyond_the_whole_cache() {
        let mut capacity = LearnedCapacity::new(900);
        for _ in 0..20 {
            capacity.correct(0.0, 9.0);
        }
        let learned = capacity.blocks();
        assert!(learned > 1000);
        assert_eq!((capacity.correct(4.0, 4.0), capacity.blocks()), (Right, learned));
    }

    #[test]
    fn three_near_total_misses_in_a_row_are_a_restart() {
        // Reports in order -> whether the last is taken for a restart
        let miss = (20.0, 1.9);
        let cases = [
            ("three", vec![miss, miss, miss], true),
            ("two", vec![miss, miss], false),
            ("a right one between", vec![miss, miss, (3.0, 3.0), miss], false),
            ("more than predicted between", vec![miss, miss, (3.0, 9.0), miss], false),
            ("nothing predicted between", vec![miss, miss, (0.0, 0.0), miss], true),
            ("a partial miss between", vec![miss, miss, (20.0, 9.0), miss], true),
            ("too small to tell", vec![(8.0, 0.0), (8.0, 0.0), (8.0, 0.0)], false),
        ];
        for (name, reports, restarted) in cases {
            let mut capacity = LearnedCapacity::new(900);
            let mut last = Right;
            for (predicted, actual) in reports {
                last = capacity.correct(predicted, actual);
            }
            assert_eq!(last == Restarted, restarted, "{name}");
            assert_eq!(capacity.blocks() == 900, restarted, "{name}");
        }
    }

    #[test]
    fn a_new_configuration_keeps_the_learned_ratio() {
        let mut capacity = LearnedCapacity::new(1000);
        capacity.correct(10.0, 0.0);
        capacity.configure(1000);
        assert_eq!(capacity.blocks(), 970);
        capacity.configure(2000);
        assert_eq!(capacity.blocks(), 1940);
        capacity.configure(0);
        capacity.configure(100);
        assert_eq!(capacity.blocks(), 100);
    }
}
