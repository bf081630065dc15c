//! The nodes of a prefix tree and the slab that holds them.
//!
//! A node owns a run of at least one chained block hash. Its links are 4-byte slab positions instead of pointers, and it does not list
//! its children (see [`super::table`]), so that a node costs 48 bytes however many children it has.

use std::iter;
use std::mem;
use std::ops::{Index, IndexMut};

/// No node: the parent of a first node, the neighbour of the newest and of the oldest node, the end of the free list.
pub(super) const NIL: u32 = u32::MAX;

/// One edge of the tree with its links.
#[derive(Debug)]
pub(super) struct Node {
    /// First hash of the run, kept inline so that a run of one block needs no allocation and a lookup touches no second cache line.
    pub(super) first: u64,
    /// The other hashes of the run, in order.
    rest: Box<[u64]>,
    /// The node that this run continues, or [`NIL`] at the front of a prompt. In the free list: the next free node.
    pub(super) parent: u32,
    /// How many nodes continue this run; 0 = leaf.
    pub(super) children: u32,
    /// How many pins cover the whole run; never more than the parent's.
    pub(super) pins: u32,
    /// Blocks from the front of the prompt to the end of this run; 0 = free.
    pub(super) end: u32,
    /// Next more recently used unpinned node.
    pub(super) newer: u32,
    /// Next less recently used unpinned node.
    pub(super) older: u32,
}

impl Node {
    /// An unlinked, unpinned leaf that continues `parent`, which ends after `start` blocks. `run` is not empty.
    pub(super) fn leaf(parent: u32, start: u32, run: &[u64]) -> Self {
        Self {
            first: run[0],
            rest: run[1..].into(),
            parent,
            children: 0,
            pins: 0,
            end: start + run.len() as u32,
            newer: NIL,
            older: NIL,
        }
    }

    /// Blocks in the run.
    pub(super) fn len(&self) -> usize {
        1 + self.rest.len()
    }

    /// Blocks from the front of the prompt to the start of this run.
    pub(super) fn start(&self) -> u32 {
        self.end - self.len() as u32
    }

    /// The hashes of the run.
    pub(super) fn run(&self) -> impl Iterator<Item = u64> {
        iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// The hash of the block that ends `depth` blocks from the front of the prompt: one of this run.
    pub(super) fn at_depth(&self, depth: usize) -> u64 {
        self.hash(depth - 1 - self.start() as usize)
    }

    fn hash(&self, position: usize) -> u64 {
        if position == 0 { self.first } else { self.rest[position - 1] }
    }

    /// How many leading hashes of `blocks` this run has, given that the first is equal.
    ///
    /// Hashes are chained, so equality at one position means equality at all positions before it: one look at the last position
    /// decides the usual case and a binary search the others.
    pub(super) fn common(&self, blocks: &[u64]) -> usize {
        let shorter = self.len().min(blocks.len());
        if self.hash(shorter - 1) == blocks[shorter - 1] {
            return shorter;
        }
        let (mut equal, mut different) = (1, shorter - 1);
        while equal < different {
            let middle = equal.midpoint(different);
            if self.hash(middle) == blocks[middle] {
                equal = middle + 1;
            } else {
                different = middle;
            }
        }
        equal
    }

    /// Takes the front `length` blocks out of the run (0 < `length` < [`Self::len`]) as a node with the same parent and pins, whose
    /// only child is what stays here. The caller enters its own parent link here.
    pub(super) fn split_front(&mut self, length: usize) -> Self {
        let front = Self {
            first: self.first,
            rest: self.rest[..length - 1].into(),
            parent: self.parent,
            children: 1,
            pins: self.pins,
            end: self.start() + length as u32,
            newer: NIL,
            older: NIL,
        };
        self.first = self.rest[length - 1];
        self.rest = self.rest[length..].into();
        front
    }

    /// Puts the run that leads to this node (not empty) before its own.
    pub(super) fn prepend(&mut self, run: &[u64]) {
        let mut rest = Vec::with_capacity(run.len() + self.rest.len());
        rest.extend_from_slice(&run[1..]);
        rest.extend(self.run());
        self.first = run[0];
        self.rest = rest.into_boxed_slice();
    }

    /// Drops blocks from the end of the run until `length` (at least 1) are left. Memory is given back at once.
    pub(super) fn truncate(&mut self, length: usize) {
        self.end = self.start() + length as u32;
        let mut rest = mem::take(&mut self.rest).into_vec();
        rest.truncate(length - 1);
        self.rest = rest.into_boxed_slice();
    }
}

/// Nodes by position. Positions of released nodes are used again before the slab grows.
#[derive(Debug)]
pub(super) struct Slab {
    nodes: Vec<Node>,
    free: u32,
    live: usize,
}

impl Slab {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: NIL, live: 0 }
    }

    /// Nodes in use.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// The nodes in use, in no meaningful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..).zip(&self.nodes).filter(|(_, node)| node.end > 0)
    }

    /// Stores a node.
    pub(super) fn add(&mut self, node: Node) -> u32 {
        self.live += 1;
        if self.free != NIL {
            let position = self.free;
            self.free = self[position].parent;
            self[position] = node;
            return position;
        }
        if self.nodes.len() == self.nodes.capacity() {
            // By a quarter, not by doubling: at millions of nodes the slack would be the largest part of the index.
            self.nodes.reserve_exact((self.nodes.len() / 4).max(16));
        }
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    /// Takes a node out; its position is free for the next one.
    pub(super) fn release(&mut self, position: u32) -> Node {
        self.live -= 1;
        let free = Node {
            first: 0,
            rest: Box::default(),
            parent: self.free,
            children: 0,
            pins: 0,
            end: 0,
            newer: NIL,
            older: NIL,
        };
        self.free = position;
        mem::replace(&mut self[position], free)
    }

    /// Bytes of the slab itself, spare room included, runs excluded.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}

impl Index<u32> for Slab {
    type Output = Node;

    fn index(&self, position: u32) -> &Node {
        &self.nodes[position as usize]
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, position: u32) -> &mut Node {
        &mut self.nodes[position as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::{NIL, Node, Slab};

    fn run(node: &Node) -> Vec<u64> {
        node.run().collect()
    }

    #[test]
    fn a_node_is_48_bytes() {
        assert_eq!(size_of::<Node>(), 48);
    }

    #[test]
    fn common_finds_the_first_difference_at_every_position() {
        for length in 1..=9_u64 {
            let held: Vec<u64> = (10..10 + length).collect();
            let node = Node::leaf(NIL, 0, &held);
            for asked in 1..=12_u64 {
                for same in 1..=asked {
                    // As chained hashes do: once different, always different.
                    let blocks: Vec<u64> = (0..asked).map(|i| if i < same { 10 + i } else { 1000 + i }).collect();
                    assert_eq!(
                        node.common(&blocks),
                        same.min(length) as usize,
                        "run {length}, {same} of {asked} equal"
                    );
                }
            }
        }
    }

    #[test]
    fn splitting_truncating_and_prepending_keep_runs_and_ends() {
        let mut node = Node::leaf(7, 10, &[1, 2, 3, 4, 5]);
        node.pins = 2;
        let front = node.split_front(2);
        assert_eq!((run(&front), front.start(), front.end, front.pins, front.parent), (vec![1, 2], 10, 12, 2, 7));
        assert_eq!((run(&node), node.start(), node.end, node.pins), (vec![3, 4, 5], 12, 15, 2));
        node.truncate(1);
        assert_eq!((run(&node), node.start(), node.end), (vec![3], 12, 13));
        node.prepend(&run(&front));
        assert_eq!((run(&node), node.start(), node.end), (vec![1, 2, 3], 10, 13));
    }

    #[test]
    fn released_positions_come_back_before_the_slab_grows() {
        let mut slab = Slab::new();
        for hash in 0..16 {
            assert_eq!(u64::from(slab.add(Node::leaf(NIL, 0, &[hash]))), hash);
        }
        let full = slab.bytes();
        slab.release(3);
        slab.release(9);
        assert_eq!((slab.live(), slab.iter().count()), (14, 14));
        assert_eq!(slab.add(Node::leaf(NIL, 0, &[100])), 9);
        assert_eq!(slab.add(Node::leaf(NIL, 0, &[101])), 3);
        assert_eq!((slab.live(), slab.bytes()), (16, full));
    }
}
