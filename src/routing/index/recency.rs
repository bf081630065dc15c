//! The order in which unpinned nodes were used: a doubly linked list through the slab.
//!
//! Whoever uses a node uses everything before it, so a parent always stands on the newer side of its children, and the oldest node is
//! always a leaf. That makes "oldest leaf first" a look at one end of the list: no stamps, no heap, no leaf set. Pinned nodes are
//! not in the list; since pins cover whole prefixes, the argument holds without them.

use super::node::{NIL, Slab};

/// Both ends of the list.
#[derive(Debug)]
pub(super) struct Recency {
    newest: u32,
    oldest: u32,
}

impl Recency {
    pub(super) const fn new() -> Self {
        Self { newest: NIL, oldest: NIL }
    }

    /// The least recently used unpinned node: a leaf.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NIL).then_some(self.oldest)
    }

    /// Links a node as the most recently used.
    pub(super) fn link_newest(&mut self, nodes: &mut Slab, node: u32) {
        self.link_after(nodes, node, self.newest);
    }

    /// Links a node directly on the newer side of `older`.
    pub(super) fn link_newer(&mut self, nodes: &mut Slab, node: u32, older: u32) {
        self.link_after(nodes, node, older);
    }

    /// Links a node directly on the older side of `newer`.
    pub(super) fn link_older(&mut self, nodes: &mut Slab, node: u32, newer: u32) {
        self.link_after(nodes, node, nodes[newer].older);
    }

    /// Links a node directly on the newer side of `older`, at the oldest end if that is [`NIL`].
    fn link_after(&mut self, nodes: &mut Slab, node: u32, older: u32) {
        let newer = if older == NIL { self.oldest } else { nodes[older].newer };
        nodes[node].older = older;
        nodes[node].newer = newer;
        *self.newer_link(nodes, older) = node;
        *self.older_link(nodes, newer) = node;
    }

    /// Takes a node out of the list.
    pub(super) fn unlink(&mut self, nodes: &mut Slab, node: u32) {
        let (older, newer) = (nodes[node].older, nodes[node].newer);
        *self.newer_link(nodes, older) = newer;
        *self.older_link(nodes, newer) = older;
        nodes[node].older = NIL;
        nodes[node].newer = NIL;
    }

    /// What leads from `older` towards the newest: its own link, or the oldest end.
    fn newer_link<'a>(&'a mut self, nodes: &'a mut Slab, older: u32) -> &'a mut u32 {
        if older == NIL { &mut self.oldest } else { &mut nodes[older].newer }
    }

    /// What leads from `newer` towards the oldest: its own link, or the newest end.
    fn older_link<'a>(&'a mut self, nodes: &'a mut Slab, newer: u32) -> &'a mut u32 {
        if newer == NIL { &mut self.newest } else { &mut nodes[newer].older }
    }

    /// All nodes of the list, oldest first.
    #[cfg(test)]
    pub(super) fn oldest_first<'a>(&self, nodes: &'a Slab) -> impl Iterator<Item = u32> + use<'a> {
        let start = self.oldest();
        std::iter::successors(start, |&node| Some(nodes[node].newer).filter(|&newer| newer != NIL))
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::{NIL, Node, Slab};
    use super::Recency;

    fn order(list: &Recency, nodes: &Slab) -> Vec<u32> {
        let forward: Vec<u32> = list.oldest_first(nodes).collect();
        let mut backward = Vec::new();
        let mut node = list.newest;
        while node != NIL {
            backward.push(node);
            node = nodes[node].older;
        }
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    }

    #[test]
    fn nodes_are_linked_and_unlinked_at_both_ends_and_between() {
        let mut nodes = Slab::new();
        for hash in 0..5 {
            nodes.add(Node::leaf(NIL, 0, &[hash]));
        }
        let mut list = Recency::new();
        assert_eq!((order(&list, &nodes), list.oldest()), (vec![], None));
        list.link_newest(&mut nodes, 0);
        list.link_newest(&mut nodes, 1);
        list.link_newer(&mut nodes, 2, 0);
        list.link_older(&mut nodes, 3, 0);
        list.link_newer(&mut nodes, 4, 1);
        assert_eq!(order(&list, &nodes), [3, 0, 2, 1, 4]);
        for (node, rest) in [(0, vec![3, 2, 1, 4]), (3, vec![2, 1, 4]), (4, vec![2, 1]), (1, vec![2]), (2, vec![])] {
            list.unlink(&mut nodes, node);
            assert_eq!(order(&list, &nodes), rest);
        }
    }
}
