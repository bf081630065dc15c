//! The engine's KV memory in blocks: shared prompt prefixes and what running requests hold for themselves.
//!
//! Invariant: blocks in the prefix tree and private blocks together never exceed the capacity.

use crate::routing::index::PrefixTree;

/// KV blocks of one engine.
pub(super) struct KvCache {
    /// Full prompt blocks that anybody may share; those in use are pinned, the rest is evicted when room is needed.
    tree: PrefixTree,
    /// Blocks that belong to single running requests: prompt not shared yet, last partial block, output.
    private: usize,
    capacity: usize,
    block: u32,
}

/// Blocks that one request holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hold {
    /// Leading blocks of the prompt pinned in the tree.
    pub(super) shared: u32,
    /// Blocks of its own.
    pub(super) private: u32,
}

impl Hold {
    fn blocks(self) -> usize {
        self.shared as usize + self.private as usize
    }
}

impl KvCache {
    pub(super) fn new(kv_tokens: u64, block: u32) -> Self {
        let tree = PrefixTree::new(usize::try_from(kv_tokens / u64::from(block)).unwrap_or(usize::MAX));
        Self { private: 0, capacity: tree.capacity(), tree, block }
    }

    /// Whether `tokens` would fit into an otherwise empty cache.
    pub(super) fn can_ever_hold(&self, tokens: u64) -> bool {
        tokens.div_ceil(u64::from(self.block)) <= self.capacity as u64
    }

    /// Leading blocks of `reusable` that are cached; nothing is touched.
    pub(super) fn matched(&self, reusable: &[u64]) -> usize {
        self.tree.matched(reusable)
    }

    /// Admits a request that may reuse any prefix of `reusable`, if `tokens` in all fit. Pins what it reuses; with `reserve`
    /// takes the other blocks at once, otherwise they come with [`Self::grow`].
    pub(super) fn open(&mut self, reusable: &[u64], tokens: u32, reserve: bool) -> Option<Hold> {
        let shared = self.tree.pin(reusable);
        let own = self.blocks_for(tokens).saturating_sub(shared);
        if own > self.available() {
            self.tree.unpin(&reusable[..shared]);
            return None;
        }
        let mut hold = Hold { shared: shared as u32, private: 0 };
        if reserve {
            self.take(&mut hold, own);
        }
        Some(hold)
    }

    /// Takes blocks until the request has room for `tokens`; false, and nothing taken, if there are not enough.
    pub(super) fn grow(&mut self, hold: &mut Hold, tokens: u32) -> bool {
        if u64::from(tokens) <= hold.blocks() as u64 * u64::from(self.block) {
            return true;
        }
        let wanted = self.blocks_for(tokens) - hold.blocks();
        if wanted > self.available() {
            return false;
        }
        self.take(hold, wanted);
        true
    }

    /// The prompt is computed: its full blocks go from the request's own to the tree, where it keeps them pinned. Blocks that
    /// another request shared meanwhile are duplicates and become free.
    pub(super) fn share(&mut self, hold: &mut Hold, prompt: &[u64]) {
        let before = hold.shared as usize;
        // Evicts nothing: the tree gains at most as many blocks as the request gives up.
        self.tree.insert(prompt);
        let shared = self.tree.pin(prompt);
        self.tree.unpin(&prompt[..before]);
        debug_assert_eq!(shared, prompt.len(), "a prompt that fits is held as a whole");
        let given_up = shared.saturating_sub(before);
        self.private -= given_up;
        hold.private -= given_up as u32;
        hold.shared = shared as u32;
    }

    /// The request leaves: its own blocks are free, the shared ones stay cached as the most recently used.
    pub(super) fn close(&mut self, hold: Hold, prompt: &[u64]) {
        self.private -= hold.private as usize;
        self.tree.unpin(&prompt[..hold.shared as usize]);
    }

    pub(super) fn clear(&mut self) {
        self.tree.clear();
    }

    /// Tokens in blocks that running requests share or have shared: the pinned part of the tree.
    pub(super) fn pinned_tokens(&self) -> u64 {
        self.pinned() as u64 * u64::from(self.block)
    }

    /// Tokens that only the cache holds.
    pub(super) fn evictable_tokens(&self) -> u64 {
        self.tree.evictable() as u64 * u64::from(self.block)
    }

    fn pinned(&self) -> usize {
        self.tree.len() - self.tree.evictable()
    }

    /// Blocks that can be had now, by eviction if need be.
    fn available(&self) -> usize {
        self.capacity - self.private - self.pinned()
    }

    /// Moves `blocks` from free (made so by eviction if need be) to the request. The caller has checked [`Self::available`].
    fn take(&mut self, hold: &mut Hold, blocks: usize) {
        let free = self.capacity - self.private - self.tree.len();
        if blocks > free {
            self.tree.evict(blocks - free);
        }
        self.private += blocks;
        hold.private += blocks as u32;
        debug_assert!(self.private + self.tree.len() <= self.capacity, "KV overcommitted");
    }

    fn blocks_for(&self, tokens: u32) -> usize {
        tokens.div_ceil(self.block) as usize
    }

    /// Blocks in use and cached, for the tests' invariants: (private, pinned, evictable, capacity).
    #[cfg(test)]
    pub(super) fn accounting(&self) -> (usize, usize, usize, usize) {
        (self.private, self.pinned(), self.tree.evictable(), self.capacity)
    }
}
