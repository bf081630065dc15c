//! A bounded radix tree over chained block hashes: the prefix cache of one replica.

/// The cached prefixes of one cache, least recently used leaf evicted first, blocks in use pinned.
///
/// Used twice: as the router's mirror of a replica's KV cache and as the KV cache of the simulated engine.
pub struct PrefixTree {}

#[expect(unused_variables, missing_docs, reason = "signatures first")]
impl PrefixTree {
    /// Room for `capacity` blocks.
    pub fn new(capacity: usize) -> Self {
        unimplemented!()
    }
    pub fn capacity(&self) -> usize {
        unimplemented!()
    }
    /// Evicts down to a smaller capacity as far as pins allow.
    pub fn set_capacity(&mut self, capacity: usize) {
        unimplemented!()
    }
    /// Blocks held.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Length of the longest held prefix of `blocks`, in blocks. Changes nothing.
    pub fn matched(&self, blocks: &[u64]) -> usize {
        unimplemented!()
    }
    /// Holds the prompt from now on as the most recently used, evicting as needed; a prompt longer than the capacity is held
    /// from its front as far as it fits. Returns how many blocks were new.
    pub fn insert(&mut self, blocks: &[u64]) -> usize {
        unimplemented!()
    }
    /// Marks the held prefix of `blocks` as in use (counted): it cannot be evicted until [`Self::unpin`]. Returns its length.
    pub fn pin(&mut self, blocks: &[u64]) -> usize {
        unimplemented!()
    }
    /// Takes back one [`Self::pin`] of exactly this slice of blocks.
    pub fn unpin(&mut self, blocks: &[u64]) {
        unimplemented!()
    }
    /// Evicts up to `wanted` unpinned blocks, oldest leaf first; returns how many were evicted.
    pub fn evict(&mut self, wanted: usize) -> usize {
        unimplemented!()
    }
    /// Blocks that could be evicted now.
    pub fn evictable(&self) -> usize {
        unimplemented!()
    }
    /// Drops everything that is not pinned.
    pub fn clear(&mut self) {
        unimplemented!()
    }
    /// Nodes of the tree.
    pub fn nodes(&self) -> usize {
        unimplemented!()
    }
    /// Longest path, in blocks.
    pub fn depth(&self) -> usize {
        unimplemented!()
    }
    /// Memory held, bytes, estimated from capacities of the containers.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
}
