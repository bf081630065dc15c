//! Which node continues a prefix: one open-addressing table for all nodes of a tree.
//!
//! Hashes are chained, so the first hash of a node names its whole prefix and with it its parent: the key needs nothing else, and a
//! node with no child, two, or (at the front of prompts) a hundred thousand costs the same. A sorted list per node would move up to
//! megabytes at each new opening; `std`'s map takes two to four times the memory of this one.

use super::node::NIL;

/// An unused slot: no entry names [`NIL`].
const EMPTY: u64 = u64::MAX;
/// 2^64 divided by the golden ratio: spreads keys that are themselves not uniform (Knuth, The Art of Computer Programming 3, 6.4).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Slots with linear probing; an entry is 32 bits of the spread hash above the node's position, so entries move without a look at
/// the nodes.
#[derive(Debug)]
pub(super) struct ChildTable {
    slots: Vec<u64>,
    len: usize,
}

fn entry(hash: u64, node: u32) -> u64 {
    (hash.wrapping_mul(SPREAD) & !u64::from(u32::MAX)) | u64::from(node)
}

impl ChildTable {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }

    /// Entries.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all slots.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }

    /// The node entered under `hash` that `accept` confirms (other hashes may share the entry's 32 bits).
    pub(super) fn find(&self, hash: u64, accept: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let wanted = entry(hash, 0);
        let mut slot = self.home(wanted);
        loop {
            let found = self.slots[slot];
            if found == EMPTY {
                return None;
            }
            let node = found as u32;
            if (found ^ wanted) >> 32 == 0 && accept(node) {
                return Some(node);
            }
            slot = self.after(slot);
        }
    }

    /// Enters a node.
    pub(super) fn insert(&mut self, hash: u64, node: u32) {
        debug_assert_ne!(node, NIL);
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.place(entry(hash, node));
        self.len += 1;
    }

    /// Enters `new` where `old` was.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let slot = self.slot_of(hash, old);
        self.slots[slot] = entry(hash, new);
    }

    /// Takes a node out, closing the gap so that no tombstones pile up under endless churn.
    pub(super) fn remove(&mut self, hash: u64, node: u32) {
        let mut hole = self.slot_of(hash, node);
        let mut slot = self.after(hole);
        while self.slots[slot] != EMPTY {
            let moved = self.slots[slot];
            if self.distance(self.home(moved), slot) >= self.distance(hole, slot) {
                self.slots[hole] = moved;
                hole = slot;
            }
            slot = self.after(slot);
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
    }

    fn slot_of(&self, hash: u64, node: u32) -> usize {
        let wanted = entry(hash, node);
        let mut slot = self.home(wanted);
        while self.slots[slot] != wanted {
            assert_ne!(self.slots[slot], EMPTY, "every node of a tree is in its table");
            slot = self.after(slot);
        }
        slot
    }

    /// First slot to look at: the upper 32 bits scaled to the number of slots, which need not be a power of two.
    fn home(&self, entry: u64) -> usize {
        (((entry >> 32) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn place(&mut self, entry: u64) {
        let mut slot = self.home(entry);
        while self.slots[slot] != EMPTY {
            slot = self.after(slot);
        }
        self.slots[slot] = entry;
    }

    /// By half, which keeps the table between half and three quarters full.
    fn grow(&mut self) {
        let slots = (self.slots.len() / 2 * 3).max(16);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for entry in old.into_iter().filter(|&entry| entry != EMPTY) {
            self.place(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{any, prop, proptest};

    use super::ChildTable;

    fn find(table: &ChildTable, keys: &BTreeMap<u32, u64>, hash: u64) -> Option<u32> {
        table.find(hash, |node| keys[&node] == hash)
    }

    #[test]
    fn an_empty_table_finds_nothing_and_holds_no_memory() {
        let table = ChildTable::new();
        assert_eq!((table.find(1, |_| true), table.bytes()), (None, 0));
    }

    #[test]
    fn entries_with_equal_upper_bits_are_told_apart_by_the_caller() {
        let mut table = ChildTable::new();
        for node in 0..100 {
            table.insert(42, node);
        }
        for node in 0..100 {
            assert_eq!(table.find(42, |found| found == node), Some(node));
        }
        table.replace(42, 7, 500);
        assert_eq!(table.find(42, |found| found == 7), None);
        assert_eq!(table.find(42, |found| found == 500), Some(500));
    }

    proptest! {
        /// Few distinct hashes, so that chains are long and wrap around the end of the table.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), 0_u64..400, any::<bool>()), 0..600)) {
            let mut table = ChildTable::new();
            let mut keys = BTreeMap::new();
            let mut nodes = BTreeMap::new();
            for (number, (add, key, crowded)) in (0_u32..).zip(steps) {
                let hash = if crowded { u64::MAX - key } else { key << 40 };
                if add && !nodes.contains_key(&hash) {
                    table.insert(hash, number);
                    keys.insert(number, hash);
                    nodes.insert(hash, number);
                } else if let Some(node) = nodes.remove(&hash) {
                    table.remove(hash, node);
                }
                assert_eq!(table.len(), nodes.len());
                assert_eq!(find(&table, &keys, hash), nodes.get(&hash).copied());
            }
            for (hash, node) in nodes {
                assert_eq!(find(&table, &keys, hash), Some(node));
            }
        }
    }
}
