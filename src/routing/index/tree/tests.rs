//! Cases, the guarantee of the router's mirror, the bound on memory, and a model: one map entry per block, nothing clever.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Held, PrefixTree};

/// Chained hashes of a prompt whose blocks are single bytes.
fn chain(prompt: impl AsRef<[u8]>) -> Vec<u64> {
    let step = |previous: &mut u64, &byte: &u8| {
        *previous = xxh3_64_with_seed(&[byte], *previous);
        Some(*previous)
    };
    prompt.as_ref().iter().scan(0, step).collect()
}

/// A tree that holds these prompts, inserted in this order.
fn tree(capacity: usize, prompts: &[&str]) -> PrefixTree {
    let mut tree = PrefixTree::new(capacity);
    for prompt in prompts {
        tree.insert(&chain(prompt));
        tree.check();
    }
    tree
}

#[test]
fn the_longest_held_prefix_matches() {
    let tree = tree(100, &["system+alice", "system+bob", "other"]);
    let cases = [
        ("", 0),
        ("s", 1),
        ("sys", 3),
        ("system+", 7),
        ("system+alice", 12),
        ("system+alice and more", 12),
        ("system+alicia", 11),
        ("system+b", 8),
        ("system+carol", 7),
        ("other", 5),
        ("x", 0),
        ("ystem+alice", 0),
    ];
    for (prompt, matched) in cases {
        assert_eq!(tree.matched(&chain(prompt)), matched, "{prompt:?}");
    }
    assert_eq!((tree.len(), tree.nodes(), tree.depth()), (7 + 5 + 3 + 5, 4, 12));
}

#[test]
fn a_shared_prefix_survives_the_split_that_made_it() {
    let mut tree = tree(100, &["shared-one"]);
    assert_eq!(tree.hold(&chain("shared-two")), Held { matched: 7, added: 3 });
    assert_eq!(tree.matched(&chain("shared-")), 7);
    assert_eq!(tree.matched(&chain("shared-three")), 8);
}

#[test]
fn the_oldest_leaf_goes_first_from_its_end() {
    let mut tree = tree(14, &["base-aaa", "base-bbb", "base-ccc"]);
    tree.insert(&chain("base-aaa"));
    assert_eq!(tree.len(), 14);
    assert_eq!(tree.evict(1), 1);
    let left = |tree: &PrefixTree| ["base-aaa", "base-bbb", "base-ccc"].map(|prompt| tree.matched(&chain(prompt)));
    assert_eq!(left(&tree), [8, 7, 8]);
    assert_eq!(tree.insert(&chain("zz")), 2, "one block was free, one more is evicted");
    assert_eq!(left(&tree), [8, 6, 8]);
    tree.set_capacity(9);
    assert_eq!(left(&tree), [7, 5, 5]);
    assert_eq!(tree.evict(usize::MAX), 9);
    assert!(tree.is_empty());
    tree.check();
}

#[test]
fn touching_a_prefix_refreshes_that_prefix_only() {
    let mut tree = tree(12, &["abcdef", "uvwxyz"]);
    tree.insert(&chain("abc"));
    tree.insert(&chain("123456789"));
    tree.check();
    assert_eq!([tree.matched(&chain("abcdef")), tree.matched(&chain("uvwxyz"))], [3, 0]);
}

#[test]
fn a_prompt_longer_than_the_capacity_is_held_from_its_front() {
    for capacity in 0..6 {
        let mut tree = tree(capacity, &["xy"]);
        assert_eq!(tree.insert(&chain("abcdefgh")), capacity);
        assert_eq!((tree.matched(&chain("abcdefgh")), tree.len()), (capacity, capacity));
        assert_eq!(tree.insert(&chain("abcdefgh")), 0);
        tree.check();
    }
}

#[test]
fn pinned_blocks_stay_until_the_last_unpin() {
    let mut tree = tree(8, &["abcd", "wxyz"]);
    assert_eq!(tree.pin(&chain("abXX")), 2);
    assert_eq!(tree.pin(&chain("abcd")), 4);
    assert_eq!((tree.evictable(), tree.evict(usize::MAX), tree.len()), (4, 4, 4));
    assert_eq!(tree.insert(&chain("pqrstu")), 4, "only what the pins leave");
    tree.unpin(&chain("abcd"));
    tree.check();
    assert_eq!(tree.evictable(), 6);
    tree.set_capacity(1);
    assert_eq!((tree.len(), tree.matched(&chain("abcd"))), (2, 2), "pins go before the capacity");
    tree.clear();
    assert_eq!((tree.len(), tree.evictable()), (2, 0));
    tree.unpin(&chain("ab"));
    tree.check();
    assert_eq!((tree.len(), tree.matched(&chain("ab"))), (1, 1), "and the capacity is caught up with");
    tree.clear();
    assert_eq!((tree.len(), tree.nodes(), tree.capacity()), (0, 0, 1));
}

#[test]
fn released_blocks_are_the_most_recently_used() {
    let mut tree = tree(6, &["ab", "cd", "ef"]);
    tree.pin(&chain("ab"));
    tree.unpin(&chain("ab"));
    tree.insert(&chain("ghij"));
    assert_eq!(["ab", "cd", "ef", "ghij"].map(|prompt| tree.matched(&chain(prompt))), [2, 0, 0, 4]);
}

#[test]
fn what_no_longer_branches_is_one_node_again() {
    let mut tree = tree(1000, &[]);
    let session = "a prompt that grows turn by turn, from the same front".as_bytes();
    for end in 2..=session.len() {
        let turn = chain(&session[..end]);
        tree.insert(&turn);
        assert_eq!(tree.nodes(), 1, "turn {end}");
        // A branch that is used once, as by a retried turn, and forgotten before the next turn.
        tree.insert(&chain([&session[..end / 2], b"\0"].concat()));
        assert_eq!(tree.nodes(), 3, "turn {end}");
        tree.insert(&turn);
        tree.set_capacity(end);
        tree.set_capacity(1000);
        tree.insert(&turn);
        tree.check();
    }
    assert_eq!((tree.nodes(), tree.depth()), (1, session.len()));
}

#[test]
fn hashes_that_are_not_chained_do_no_harm() {
    let mut tree = PrefixTree::new(50);
    for number in 0..2000_u64 {
        let length = number % 9;
        let blocks: Vec<u64> = (0..length).map(|i| xxh3_64_with_seed(&i.to_le_bytes(), number) % 4).collect();
        tree.insert(&blocks);
        tree.check();
        assert!(tree.matched(&blocks) <= blocks.len());
    }
}

#[test]
fn memory_is_bounded_under_endless_distinct_prompts() {
    let capacity = 4000;
    let bound = PrefixTree::FIXED_BYTES + PrefixTree::BYTES_PER_BLOCK * capacity;
    // (blocks of the prompt, of these shared with all others)
    for (length, shared) in [(1, 0), (2, 1), (3, 0), (100, 60), (1000, 999), (9000, 10)] {
        let mut tree = PrefixTree::new(capacity);
        let opening: Vec<u64> = (1..=shared).map(|i| xxh3_64_with_seed(b"shared", i)).collect();
        for number in 0..(20 * capacity as u64 / (length - shared)).min(6000) {
            let tail = (shared..length).map(|i| xxh3_64_with_seed(&i.to_le_bytes(), number));
            tree.insert(&opening.iter().copied().chain(tail).collect::<Vec<_>>());
            assert!(tree.len() <= capacity);
            assert!(tree.bytes() <= bound, "{} bytes over {bound} for {length} blocks", tree.bytes());
        }
        tree.check();
        assert_eq!(tree.len(), capacity, "the capacity is used");
        tree.clear();
        assert!(tree.bytes() <= PrefixTree::FIXED_BYTES, "clearing gives the memory back");
    }
}

#[test]
fn every_block_a_node_of_its_own_stays_within_the_bound() {
    let capacity = 3000_usize;
    let mut tree = PrefixTree::new(capacity);
    // A branch after every block of one long prompt.
    let long: Vec<u64> = (1..=capacity as u64 / 2).map(|i| xxh3_64_with_seed(b"long", i)).collect();
    for end in (0..long.len()).rev() {
        tree.insert(&[&long[..end], &[end as u64]].concat());
    }
    tree.check();
    assert!(tree.nodes() > capacity * 9 / 10, "{} nodes", tree.nodes());
    assert!(tree.bytes() <= PrefixTree::FIXED_BYTES + PrefixTree::BYTES_PER_BLOCK * capacity, "{} bytes", tree.bytes());
}

/// The tree as one would first write it down: every held prefix with the moment of its last use and its pins.
#[derive(Default)]
struct Model {
    capacity: usize,
    now: u64,
    blocks: BTreeMap<Vec<u8>, (u64, u32)>,
}

impl Model {
    fn matched(&self, prompt: &[u8]) -> usize {
        (1..=prompt.len()).take_while(|&end| self.blocks.contains_key(&prompt[..end])).count()
    }

    fn pinned(&self) -> usize {
        self.blocks.values().filter(|(_, pins)| *pins > 0).count()
    }

    /// Evicts one block: a leaf without pins, the oldest, none of `kept`'s prefixes.
    fn evict_one(&mut self, kept: &[u8]) -> bool {
        let leaf = |key: &[u8]| !self.blocks.keys().any(|other| other.len() == key.len() + 1 && other.starts_with(key));
        let candidates =
            self.blocks.iter().filter(|(key, (_, pins))| *pins == 0 && !kept.starts_with(key) && leaf(key));
        let oldest = candidates.min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.blocks.remove(&key).is_some())
    }

    fn evict(&mut self, wanted: usize) -> usize {
        (0..wanted).take_while(|_| self.evict_one(&[])).count()
    }

    fn shrink(&mut self) {
        self.evict(self.blocks.len().saturating_sub(self.capacity));
    }

    fn insert(&mut self, prompt: &[u8]) -> usize {
        self.now += 1;
        let matched = self.matched(prompt);
        for end in 1..=matched {
            self.blocks.get_mut(&prompt[..end]).unwrap().0 = self.now;
        }
        let mut added = 0;
        for end in matched + 1..=prompt.len() {
            while self.blocks.len() >= self.capacity && self.evict_one(&prompt[..end]) {}
            if self.blocks.len() >= self.capacity {
                break;
            }
            self.blocks.insert(prompt[..end].to_vec(), (self.now, 0));
            added += 1;
        }
        added
    }

    fn pin(&mut self, prompt: &[u8]) -> usize {
        let matched = self.matched(prompt);
        for end in 1..=matched {
            self.blocks.get_mut(&prompt[..end]).unwrap().1 += 1;
        }
        matched
    }

    fn unpin(&mut self, prompt: &[u8]) {
        self.now += 1;
        for end in 1..=prompt.len() {
            let (used, pins) = self.blocks.get_mut(&prompt[..end]).unwrap();
            *pins -= 1;
            if *pins == 0 {
                *used = self.now;
            }
        }
        self.shrink();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>),
    Pin(Vec<u8>),
    /// Takes back one of the outstanding pins.
    Unpin(usize),
    Evict(usize),
    SetCapacity(usize),
    Clear,
}

/// Few letters and a shared front, so that prompts branch at all depths and runs are long.
fn prompt() -> impl Strategy<Value = Vec<u8>> {
    (0_usize..=12, prop::collection::vec(0_u8..3, 0..10)).prop_map(|(front, tail)| {
        let mut prompt = b"opening-text"[..front].to_vec();
        prompt.extend(tail);
        prompt
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prompt().prop_map(Step::Insert),
        3 => prompt().prop_map(Step::Pin),
        3 => any::<usize>().prop_map(Step::Unpin),
        2 => (0_usize..20).prop_map(Step::Evict),
        1 => (0_usize..60).prop_map(Step::SetCapacity),
        1 => proptest::strategy::Just(Step::Clear),
    ]
}

/// Takes one step on both and compares what they answer.
fn take(step: Step, tree: &mut PrefixTree, model: &mut Model, pins: &mut Vec<Vec<u8>>) {
    match step {
        Step::Insert(prompt) => assert_eq!(tree.insert(&chain(&prompt)), model.insert(&prompt)),
        Step::Pin(mut prompt) => {
            let length = tree.pin(&chain(&prompt));
            assert_eq!(length, model.pin(&prompt));
            prompt.truncate(length);
            pins.push(prompt);
        }
        Step::Unpin(which) => {
            if !pins.is_empty() {
                let prompt = pins.swap_remove(which % pins.len());
                tree.unpin(&chain(&prompt));
                model.unpin(&prompt);
            }
        }
        Step::Evict(wanted) => assert_eq!(tree.evict(wanted), model.evict(wanted)),
        Step::SetCapacity(capacity) => {
            tree.set_capacity(capacity);
            model.capacity = capacity;
            model.shrink();
        }
        Step::Clear => {
            tree.clear();
            model.evict(usize::MAX);
        }
    }
}

proptest! {
    #[test]
    fn behaves_like_the_model(capacity in 0_usize..60, steps in prop::collection::vec(step(), 0..80)) {
        let mut tree = PrefixTree::new(capacity);
        let mut model = Model { capacity, ..Model::default() };
        let mut pins = Vec::new();
        for step in steps {
            take(step, &mut tree, &mut model, &mut pins);
            tree.check();
            assert_eq!(tree.len(), model.blocks.len());
            assert_eq!(tree.evictable(), model.blocks.len() - model.pinned());
            assert_eq!(tree.depth(), model.blocks.keys().map(Vec::len).max().unwrap_or(0));
            for key in model.blocks.keys() {
                assert_eq!(tree.matched(&chain(key)), key.len(), "{key:?}");
            }
            assert!(tree.bytes() <= PrefixTree::FIXED_BYTES + PrefixTree::BYTES_PER_BLOCK * 60);
        }
    }

    /// The property that routing relies on.
    #[test]
    fn every_prefix_of_an_inserted_prompt_matches_until_evicted(
        capacity in 24_usize..100,
        prompts in prop::collection::vec(prompt(), 1..30),
    ) {
        let mut tree = PrefixTree::new(capacity);
        for prompt in &prompts {
            tree.insert(&chain(prompt));
            for end in 0..=prompt.len() {
                assert_eq!(tree.matched(&chain(&prompt[..end])), end);
            }
        }
        // No more was used since than fits: nothing of it can have been evicted.
        let mut used = 0;
        for prompt in prompts.iter().rev() {
            used += prompt.len();
            if used > capacity {
                break;
            }
            assert_eq!(tree.matched(&chain(prompt)), prompt.len());
        }
    }
}
