//! A bounded radix tree over chained block hashes: the prefix cache of one replica.
//!
//! Equal hash means equal whole prefix (see [`crate::routing::features::hash_blocks`]), so matching costs O(nodes on the path), not
//! O(blocks). Hashes that are not chained give wrong lengths but harm nothing else. Memory is bounded by the largest capacity that
//! the tree has had: at most [`PrefixTree::BYTES_PER_BLOCK`] per block of it, however the prompts branch.
//!
//! Eviction is what SGLang's radix cache and vLLM's block pool do by default: least recently used first, the end of a prompt before
//! its beginning, nothing that is in use. A block in use counts as used until the moment of its release (vLLM appends released
//! blocks at the recent end of its free queue; SGLang re-inserts a finished request, which refreshes its path).

use super::digest::samples;
use super::node::{NIL, Node, Slab};
use super::recency::Recency;
use super::table::ChildTable;

/// Bytes that the system's allocator adds to one allocation (header and rounding; glibc: 8 and up to 15).
const ALLOCATION_BYTES: usize = 16;

/// The cached prefixes of one cache, least recently used leaf evicted first, blocks in use pinned.
///
/// Used twice: as the router's mirror of a replica's KV cache and as the KV cache of the simulated engine.
#[derive(Debug)]
pub struct PrefixTree {
    capacity: usize,
    len: usize,
    /// Blocks of nodes with pins.
    pinned: usize,
    nodes: Slab,
    table: ChildTable,
    recency: Recency,
    /// The nodes of the prompt at hand, front first. Kept between calls for its allocation only.
    path: Vec<u32>,
    /// Of the blocks that were evicted since somebody asked those of which peers are told; `None` = nobody wants to know.
    evicted: Option<Vec<u64>>,
}

/// What [`PrefixTree::hold`] found and did, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Length of the prefix that was held before.
    pub(super) matched: usize,
    /// How many further blocks are held now.
    pub(super) added: usize,
}

impl PrefixTree {
    /// Most blocks of any tree: node positions and depths are 32 bits wide.
    pub const MAX_CAPACITY: usize = u32::MAX as usize - 1;
    /// Bound of [`Self::bytes`] per block of the largest capacity so far, reached when every block is a node of its own: 48 for the node,
    /// 12 as spare room of the slab, 16 for the table at its emptiest, up to 8 for the path. Long runs take 8 per block.
    pub const BYTES_PER_BLOCK: usize = 84;
    /// Bound of what [`Self::bytes`] counts besides: the tree itself and the smallest sizes of its containers.
    pub const FIXED_BYTES: usize = 2048;

    /// Room for `capacity` blocks, at most [`Self::MAX_CAPACITY`]. Memory is taken as it is needed.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.min(Self::MAX_CAPACITY),
            len: 0,
            pinned: 0,
            nodes: Slab::new(),
            table: ChildTable::new(),
            recency: Recency::new(),
            path: Vec::new(),
            evicted: None,
        }
    }

    /// From now on, keeps the evicted blocks of which peers are told until [`Self::take_evicted`]; or no longer.
    pub(super) fn watch_evictions(&mut self, watch: bool) {
        self.evicted = watch.then(Vec::new);
    }

    /// The evicted blocks that peers are told of, since the last time, in no meaningful order.
    pub(super) fn take_evicted(&mut self) -> Vec<u64> {
        self.evicted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Most blocks to hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Evicts down to a smaller capacity as far as pins allow.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.min(Self::MAX_CAPACITY);
        self.evict(self.len.saturating_sub(self.capacity));
    }

    /// Blocks held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Length of the longest held prefix of `blocks`, in blocks. Changes nothing.
    #[must_use]
    pub fn matched(&self, blocks: &[u64]) -> usize {
        let (mut parent, mut depth) = (NIL, 0);
        while let Some(node) = self.child(parent, &blocks[depth..]) {
            let common = self.nodes[node].common(&blocks[depth..]);
            depth += common;
            if common < self.nodes[node].len() {
                break;
            }
            parent = node;
        }
        depth
    }

    /// Holds the prompt from now on as the most recently used, evicting as needed; a prompt longer than the capacity is held
    /// from its front as far as it fits. Returns how many blocks were new.
    pub fn insert(&mut self, blocks: &[u64]) -> usize {
        self.hold(blocks).added
    }

    /// [`Self::insert`], telling also how much was held before.
    pub(super) fn hold(&mut self, blocks: &[u64]) -> Held {
        let matched = self.walk(blocks);
        self.touch_path();
        let added = self.make_room(blocks.len() - matched);
        if added > 0 {
            self.extend_path(&blocks[matched..matched + added]);
        }
        self.join_path();
        Held { matched, added }
    }

    /// Marks the held prefix of `blocks` as in use (counted): it cannot be evicted until [`Self::unpin`]. Returns its length.
    pub fn pin(&mut self, blocks: &[u64]) -> usize {
        let matched = self.walk(blocks);
        for &node in &self.path {
            if self.nodes[node].pins == 0 {
                self.recency.unlink(&mut self.nodes, node);
                self.pinned += self.nodes[node].len();
            }
            self.nodes[node].pins += 1;
        }
        matched
    }

    /// Takes back one [`Self::pin`] of exactly this slice of blocks: the slice that was held, `&blocks[..n]` where `pin` returned n.
    /// What is no longer pinned thereby becomes the most recently used.
    pub fn unpin(&mut self, blocks: &[u64]) {
        self.walk(blocks);
        for &node in self.path.iter().rev() {
            let Some(pins) = self.nodes[node].pins.checked_sub(1) else { continue };
            self.nodes[node].pins = pins;
            if pins == 0 {
                self.pinned -= self.nodes[node].len();
                self.recency.link_newest(&mut self.nodes, node);
            }
        }
        self.evict(self.len.saturating_sub(self.capacity));
    }

    /// Evicts up to `wanted` unpinned blocks, oldest leaf first, each from its end; returns how many were evicted.
    pub fn evict(&mut self, wanted: usize) -> usize {
        let mut evicted = 0;
        while evicted < wanted
            && let Some(leaf) = self.recency.oldest()
        {
            let length = self.nodes[leaf].len();
            let dropped = length.min(wanted - evicted);
            self.note_evicted(leaf, length - dropped);
            if dropped < length {
                self.nodes[leaf].truncate(length - dropped);
            } else {
                self.remove_leaf(leaf);
            }
            evicted += dropped;
        }
        self.len -= evicted;
        evicted
    }

    /// Blocks that could be evicted now.
    #[must_use]
    pub fn evictable(&self) -> usize {
        self.len - self.pinned
    }

    /// Drops everything that is not pinned. Gives all memory back if nothing is.
    pub fn clear(&mut self) {
        if self.pinned == 0 {
            let nodes: Vec<u32> = self.nodes.iter().map(|(node, _)| node).filter(|_| self.evicted.is_some()).collect();
            nodes.into_iter().for_each(|node| self.note_evicted(node, 0));
            let evicted = self.evicted.take();
            *self = Self { evicted, ..Self::new(self.capacity) };
        } else {
            self.evict(self.evictable());
        }
    }

    /// Nodes of the tree.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.live()
    }

    /// Longest path, in blocks. Looks at every node.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.nodes.iter().map(|(_, node)| node.end as usize).max().unwrap_or(0)
    }

    /// Memory held, bytes, estimated from capacities of the containers and what an allocator adds to each run.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // The first hash of a run stands in its node; only runs of two and more have an allocation.
        let further = self.len - self.nodes.live();
        let runs = further * size_of::<u64>() + further.min(self.nodes.live()) * ALLOCATION_BYTES;
        let path = self.path.capacity() * size_of::<u32>();
        size_of::<Self>() + self.nodes.bytes() + self.table.bytes() + runs + path
    }

    /// The node that continues `parent` with the first of `blocks`.
    fn child(&self, parent: u32, blocks: &[u64]) -> Option<u32> {
        let &first = blocks.first()?;
        self.table.find(first, |node| self.nodes[node].first == first && self.nodes[node].parent == parent)
    }

    /// Fills the path with the nodes of the longest held prefix of `blocks` and returns its length. A node of which the prefix holds
    /// only the front is split, so that what happens next happens to exactly these blocks.
    fn walk(&mut self, blocks: &[u64]) -> usize {
        self.path.clear();
        let (mut parent, mut depth) = (NIL, 0);
        while let Some(node) = self.child(parent, &blocks[depth..]) {
            let common = self.nodes[node].common(&blocks[depth..]);
            depth += common;
            if common < self.nodes[node].len() {
                let front = self.split(node, common);
                self.path.push(front);
                break;
            }
            self.path.push(node);
            parent = node;
        }
        depth
    }

    /// Makes the front `length` blocks of a node a node of their own, with the same place in the order of use and the same pins. What
    /// stays keeps its position, so the links of its children stay right.
    fn split(&mut self, node: u32, length: usize) -> u32 {
        let front = self.nodes[node].split_front(length);
        let (front_hash, pins) = (front.first, front.pins);
        let position = self.nodes.add(front);
        self.nodes[node].parent = position;
        self.table.replace(front_hash, node, position);
        self.table.insert(self.nodes[node].first, node);
        if pins == 0 {
            self.recency.link_newer(&mut self.nodes, position, node);
        }
        position
    }

    /// Makes the path the most recently used, its front before its end.
    fn touch_path(&mut self) {
        for &node in self.path.iter().rev() {
            if self.nodes[node].pins == 0 {
                self.recency.unlink(&mut self.nodes, node);
                self.recency.link_newest(&mut self.nodes, node);
            }
        }
    }

    /// Evicts for `wanted` further blocks, but nothing of the path; returns how many of them fit now.
    fn make_room(&mut self, wanted: usize) -> usize {
        let unpinned = |&&node: &&u32| self.nodes[node].pins == 0;
        let own: usize = self.path.iter().filter(unpinned).map(|&node| self.nodes[node].len()).sum();
        let missing = (self.len + wanted).saturating_sub(self.capacity);
        // The path is the most recently used part, so what is evictable besides it goes first.
        self.evict(missing.min(self.evictable() - own));
        wanted.min(self.capacity.saturating_sub(self.len))
    }

    /// Adds a leaf at the end of the path.
    fn extend_path(&mut self, run: &[u64]) {
        let parent = self.path.last().copied().unwrap_or(NIL);
        let start = if parent == NIL { 0 } else { self.nodes[parent].end };
        let leaf = self.nodes.add(Node::leaf(parent, start, run));
        self.table.insert(run[0], leaf);
        self.len += run.len();
        if parent != NIL {
            self.nodes[parent].children += 1;
        }
        if parent != NIL && self.nodes[parent].pins == 0 {
            self.recency.link_older(&mut self.nodes, leaf, parent);
        } else {
            self.recency.link_newest(&mut self.nodes, leaf);
        }
        self.path.push(leaf);
    }

    /// Joins neighbours on the just touched path that nothing keeps apart any more: no branch, no pins. Without this, a prompt that
    /// grows turn by turn would become a chain of nodes, and branches that are long gone would cost every later walk.
    fn join_path(&mut self) {
        let mut end = self.path.len();
        while end > 1 {
            let mut start = end - 1;
            while start > 0 && self.joinable(self.path[start - 1], self.path[start]) {
                start -= 1;
            }
            if start + 1 < end {
                self.join(start, end);
            }
            end = start;
        }
    }

    fn joinable(&self, parent: u32, child: u32) -> bool {
        self.nodes[parent].children == 1 && self.nodes[parent].pins == 0 && self.nodes[child].pins == 0
    }

    /// Moves the runs of a stretch of the path into its last node, whose children keep their links.
    fn join(&mut self, start: usize, end: usize) {
        let last = self.path[end - 1];
        let mut run = Vec::new();
        let parent = self.nodes[self.path[start]].parent;
        self.table.remove(self.nodes[last].first, last);
        for position in start..end - 1 {
            let node = self.path[position];
            self.recency.unlink(&mut self.nodes, node);
            self.table.remove(self.nodes[node].first, node);
            run.extend(self.nodes.release(node).run());
        }
        self.nodes[last].prepend(&run);
        self.nodes[last].parent = parent;
        self.table.insert(self.nodes[last].first, last);
    }

    /// The blocks of a node from this position of its run on are about to go.
    fn note_evicted(&mut self, node: u32, from: usize) {
        let Some(evicted) = &mut self.evicted else { return };
        let node = &self.nodes[node];
        evicted.extend(samples(node.start() as usize + from, node.end as usize).map(|depth| node.at_depth(depth)));
    }

    fn remove_leaf(&mut self, leaf: u32) {
        debug_assert_eq!(self.nodes[leaf].children, 0, "`unpin` was given a shorter slice than `pin`");
        self.recency.unlink(&mut self.nodes, leaf);
        let node = self.nodes.release(leaf);
        self.table.remove(node.first, leaf);
        if node.parent != NIL {
            self.nodes[node.parent].children -= 1;
        }
    }
}

#[cfg(test)]
mod check;
#[cfg(test)]
mod tests;
