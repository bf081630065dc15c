//! What must hold for a tree between any two calls; the property tests ask after every step.

use std::collections::BTreeMap;

use super::super::node::NIL;
use super::PrefixTree;

impl PrefixTree {
    /// Panics with the first invariant that does not hold.
    pub(super) fn check(&self) {
        let live: BTreeMap<u32, _> = self.nodes.iter().collect();
        assert_eq!(live.len(), self.nodes.live(), "live nodes are counted");
        assert_eq!(live.values().map(|node| node.len()).sum::<usize>(), self.len, "the sum of runs is the length");
        let pinned = live.values().filter(|node| node.pins > 0);
        assert_eq!(pinned.map(|node| node.len()).sum::<usize>(), self.pinned, "pinned blocks are counted");
        assert!(self.len <= self.capacity || self.evictable() == 0, "over capacity only while everything is pinned");
        self.check_links();
        self.check_recency();
    }

    fn check_links(&self) {
        let mut children: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        let mut entries = 0;
        for (position, node) in self.nodes.iter() {
            let end = if node.parent == NIL { 0 } else { self.nodes[node.parent].end };
            assert!(node.parent == NIL || end > 0, "no orphan: the parent of {position} is live");
            assert_eq!(node.start(), end, "node {position} starts where its parent ends");
            assert_eq!(
                self.table.find(node.first, |found| found == position),
                Some(position),
                "node {position} is found"
            );
            let of_parent = children.entry(node.parent).or_default();
            *of_parent = (of_parent.0 + 1, of_parent.1 + node.pins);
            entries += 1;
        }
        assert_eq!(self.table.len(), entries, "the table holds nothing else");
        for (position, node) in self.nodes.iter() {
            let (count, pins) = children.get(&position).copied().unwrap_or_default();
            assert_eq!(node.children, count, "children of {position} are counted");
            assert!(node.pins >= pins, "a pin of {position}'s children covers {position}");
        }
    }

    fn check_recency(&self) {
        let order: Vec<u32> = self.recency.oldest_first(&self.nodes).collect();
        let age: BTreeMap<u32, usize> = order.iter().enumerate().map(|(age, &node)| (node, age)).collect();
        let unpinned: Vec<u32> =
            self.nodes.iter().filter(|(_, node)| node.pins == 0).map(|(position, _)| position).collect();
        assert_eq!(order.len(), age.len(), "no node is listed twice");
        assert_eq!(age.keys().copied().collect::<Vec<_>>(), unpinned, "exactly the unpinned nodes are listed");
        for (&node, own) in &age {
            if let Some(parent) = age.get(&self.nodes[node].parent) {
                assert!(parent > own, "the parent of {node} was used no earlier");
            }
        }
    }
}
