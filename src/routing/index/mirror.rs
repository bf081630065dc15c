//! The router's copy of one replica's prefix cache.

use super::capacity::{Correction, LearnedCapacity};
use super::tree::{Held, PrefixTree};

/// State and history of one cache, or the sum over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks held.
    pub blocks: usize,
    /// Most blocks to hold, as learned so far.
    pub capacity: usize,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Memory, bytes.
    pub bytes: usize,
    /// Blocks of all prompts that were dispatched to the replica.
    pub lookups: u64,
    /// Of these held at the time.
    pub hits: u64,
}

impl CacheStats {
    /// Adds another cache to a total.
    pub(super) fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.capacity += other.capacity;
        self.nodes += other.nodes;
        self.bytes += other.bytes;
        self.lookups += other.lookups;
        self.hits += other.hits;
    }
}

/// What a replica is believed to hold.
#[derive(Debug)]
pub(super) struct Mirror {
    tree: PrefixTree,
    capacity: LearnedCapacity,
    lookups: u64,
    hits: u64,
}

impl Mirror {
    pub(super) fn new(capacity_blocks: usize) -> Self {
        let capacity = LearnedCapacity::new(capacity_blocks);
        Self { tree: PrefixTree::new(capacity.blocks()), capacity, lookups: 0, hits: 0 }
    }

    pub(super) fn matched(&self, blocks: &[u64]) -> usize {
        self.tree.matched(blocks)
    }

    pub(super) fn insert(&mut self, blocks: &[u64]) -> Held {
        let held = self.tree.hold(blocks);
        self.lookups += blocks.len() as u64;
        self.hits += held.matched as u64;
        held
    }

    /// Keep what is evicted until [`Self::take_evicted`], or no longer.
    pub(super) fn watch_evictions(&mut self, watch: bool) {
        self.tree.watch_evictions(watch);
    }

    /// Evicted since the last time, of what peers are told.
    pub(super) fn take_evicted(&mut self) -> Vec<u64> {
        self.tree.take_evicted()
    }

    pub(super) fn configure(&mut self, capacity_blocks: usize) {
        self.capacity.configure(capacity_blocks);
        self.tree.set_capacity(self.capacity.blocks());
    }

    /// Empties the tree; what was learned about its capacity stays.
    pub(super) fn clear(&mut self) {
        self.tree.clear();
        self.capacity.forget_misses();
    }

    pub(super) fn correct(&mut self, predicted: f64, actual: f64) -> Correction {
        let correction = self.capacity.correct(predicted, actual);
        if correction == Correction::Restarted {
            self.tree.clear();
        }
        self.tree.set_capacity(self.capacity.blocks());
        correction
    }

    /// Longest held prompt, blocks. Walks every node.
    pub(super) fn depth(&self) -> usize {
        self.tree.depth()
    }

    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            blocks: self.tree.len(),
            capacity: self.tree.capacity(),
            nodes: self.tree.nodes(),
            bytes: self.tree.bytes(),
            lookups: self.lookups,
            hits: self.hits,
        }
    }
}
