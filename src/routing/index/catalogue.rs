//! What the own engines hold, in the form in which peers are told: changes as they happen, and snapshots in slices.
//!
//! There is one catalogue and one [`Teller`] per listener. A teller keeps no copy of what it told: its place in the log of changes, and
//! how far its snapshot has come, say that. A listener that takes nothing costs nothing; one that has fallen behind the log gets a
//! snapshot.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::audience::Audience;
use super::digest::{DigestPart, samples, shortened};
use crate::model::Time;

/// Changes kept for tellers: at a new prompt of 20,000 tokens per 50 ms, 20 s of them.
const MOST_CHANGES: usize = 1 << 16;

/// Most changes told at a time. With five parts a second and 4 bytes each this bounds a link at 18 kB/s, whatever happens here.
const CHANGES_PER_PART: usize = 900;

/// Most entries of a snapshot looked at at a time: what holds a million tokens is told in 13 parts.
const SLICE: usize = 300;

/// Time between two snapshots for the same listener, ms. Nothing should need them: they mend what a fault on either side has left behind.
const SNAPSHOT_EVERY_MS: f64 = 300_000.0;

/// One hash that is held.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Engines that hold it.
    holders: u32,
    audience: Audience,
}

/// A hash whose audience changed; nobody's = it is not held, or told to nobody.
#[derive(Clone, Copy, Debug)]
struct Change {
    hash: u64,
    before: Audience,
    after: Audience,
}

/// The sampled hashes of what the own engines hold.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<u64, Entry>,
    changes: VecDeque<Change>,
    /// Number of the first change in `changes`.
    first: u64,
    generation: u64,
}

impl Catalogue {
    /// An engine holds the first `matched` + `added` blocks of a prompt; the first `matched` it held before.
    pub(super) fn hold(&mut self, blocks: &[u64], matched: usize, added: usize, audience: Audience) {
        for depth in samples(0, matched + added) {
            let hash = blocks[depth - 1];
            if depth > matched {
                self.entries.entry(hash).or_insert(Entry { holders: 0, audience: Audience::NOBODY }).holders += 1;
            }
            let Some(entry) = self.entries.get_mut(&hash) else { continue };
            let before = entry.audience;
            entry.audience = before.with(audience);
            let after = entry.audience;
            self.note(Change { hash, before, after });
        }
    }

    /// An engine no longer holds these.
    pub(super) fn evict(&mut self, hashes: &[u64]) {
        for &hash in hashes {
            let Some(entry) = self.entries.get_mut(&hash) else { continue };
            entry.holders = entry.holders.saturating_sub(1);
            if entry.holders == 0 {
                let before = entry.audience;
                self.entries.remove(&hash);
                self.note(Change { hash, before, after: Audience::NOBODY });
            }
        }
    }

    /// An engine lost all that it held.
    pub(super) fn lose(&mut self) {
        self.generation += 1;
    }

    fn note(&mut self, change: Change) {
        if change.before == change.after {
            return;
        }
        if self.changes.len() == MOST_CHANGES {
            self.changes.pop_front();
            self.first += 1;
        }
        self.changes.push_back(change);
    }

    /// How often an engine lost all that it held.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Hashes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is nothing held?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number that the next change will have.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    fn change(&self, number: u64) -> Option<Change> {
        let at = number.checked_sub(self.first)?;
        self.changes.get(usize::try_from(at).ok()?).copied()
    }
}

/// What one listener has been told.
#[derive(Clone, Debug)]
pub struct Teller {
    audience: Audience,
    /// Number of the change to be told next.
    next: u64,
    /// Hashes below this one have been told in the snapshot at hand.
    snapshot: Option<u64>,
    /// When the last snapshot began.
    began: Option<Time>,
}

impl Teller {
    /// Has told nothing to a listener of this audience.
    #[must_use]
    pub const fn new(audience: Audience) -> Self {
        Self { audience, next: 0, snapshot: None, began: None }
    }

    /// What there is to tell now, bounded in size; the rest next time.
    pub fn part(&mut self, now: Time, catalogue: &Catalogue) -> DigestPart {
        let mut part = DigestPart::default();
        let due = self.began.is_none_or(|began| now.since_ms(began) >= SNAPSHOT_EVERY_MS);
        if self.next < catalogue.first || (due && self.snapshot.is_none()) {
            part.begins = true;
            self.next = catalogue.end();
            self.snapshot = Some(0);
            self.began = Some(now);
        }
        // The last word on a hash counts, so that none is told twice.
        let mut told = BTreeMap::new();
        self.tell_changes(catalogue, &mut told);
        part.ends = self.tell_slice(catalogue, &mut told);
        for (hash, held) in told {
            if held { part.held.push(hash) } else { part.gone.push(hash) }
        }
        part
    }

    fn tell_changes(&mut self, catalogue: &Catalogue, told: &mut BTreeMap<u32, bool>) {
        while told.len() < CHANGES_PER_PART
            && let Some(change) = catalogue.change(self.next)
        {
            self.next += 1;
            // What the snapshot has yet to come to it will tell as it is then.
            if self.snapshot.is_some_and(|told_below| change.hash >= told_below) {
                continue;
            }
            let (before, after) = (change.before.meets(self.audience), change.after.meets(self.audience));
            if before != after {
                told.insert(shortened(change.hash), after);
            }
        }
    }

    /// The next slice of the snapshot at hand, if there is one. True if it was the last.
    fn tell_slice(&mut self, catalogue: &Catalogue, told: &mut BTreeMap<u32, bool>) -> bool {
        let Some(from) = self.snapshot else { return false };
        let mut left = catalogue.entries.range((Bound::Included(from), Bound::Unbounded));
        for (&hash, entry) in left.by_ref().take(SLICE) {
            if entry.audience.meets(self.audience) {
                told.insert(shortened(hash), true);
            }
        }
        self.snapshot = left.next().map(|(&hash, _)| hash);
        self.snapshot.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Strategy, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{Audience, CHANGES_PER_PART, Catalogue, MOST_CHANGES, SLICE, SNAPSHOT_EVERY_MS, Teller};
    use crate::model::{ReplicaId, Time};
    use crate::routing::index::{Digest, DigestPart, PrefixIndex, SAMPLE_EVERY};

    const ENGINE: ReplicaId = ReplicaId(0);

    /// Hashes as good as chained: equal only where all before are equal.
    fn prompt(session: u64, blocks: u64) -> Vec<u64> {
        (1..=blocks).map(|block| xxhash_rust::xxh3::xxh3_64(&(session << 32 | block).to_le_bytes())).collect()
    }

    fn index(capacity: usize) -> PrefixIndex {
        let mut index = PrefixIndex::new();
        index.add(ENGINE, capacity);
        index.publish(ENGINE, true);
        index
    }

    /// Parts until there is nothing left to tell.
    fn tell(index: &PrefixIndex, teller: &mut Teller, digest: &mut Digest, now: Time) -> Vec<DigestPart> {
        let mut parts = Vec::new();
        loop {
            let part = teller.part(now, index.catalogue());
            if part.is_empty() && teller.snapshot.is_none() {
                return parts;
            }
            digest.apply(&part);
            parts.push(part);
        }
    }

    #[test]
    fn inserts_and_evictions_are_told_once() {
        let mut index = index(40);
        let (mut teller, mut digest) = (Teller::new(Audience::EVERYBODY), Digest::default());
        index.insert(ENGINE, &prompt(1, 20));
        let first = tell(&index, &mut teller, &mut digest, Time::ZERO);
        assert!(first.len() == 1 && first[0].begins && first[0].ends);
        assert_eq!((first[0].held.len(), digest.matched(&prompt(1, 20))), (5, 20));
        index.insert(ENGINE, &prompt(1, 20));
        assert_eq!(tell(&index, &mut teller, &mut digest, Time::ZERO), []);
        index.insert(ENGINE, &prompt(2, 30));
        let next = tell(&index, &mut teller, &mut digest, Time::ZERO);
        assert_eq!((next[0].held.len(), next[0].gone.len(), next.len()), (7, 3, 1), "10 of 20 blocks are evicted");
        assert_eq!((digest.matched(&prompt(1, 20)), digest.matched(&prompt(2, 30))), (8, 28));
    }

    #[test]
    fn a_cache_that_was_lost_is_told_as_such() {
        let mut index = index(100);
        let (mut teller, mut digest) = (Teller::new(Audience::EVERYBODY), Digest::default());
        index.insert(ENGINE, &prompt(1, 20));
        tell(&index, &mut teller, &mut digest, Time::ZERO);
        index.forget(ENGINE);
        tell(&index, &mut teller, &mut digest, Time::ZERO);
        assert_eq!((digest.blocks(), index.catalogue().generation(), index.catalogue().len()), (0, 1, 0));
        index.insert(ENGINE, &prompt(1, 20));
        for _ in 0..3 {
            index.correct(ENGINE, 20.0, 0.0);
        }
        assert_eq!((index.catalogue().len(), index.catalogue().generation()), (0, 2), "the engine restarted");
        index.insert(ENGINE, &prompt(1, 20));
        index.remove(ENGINE);
        assert_eq!(index.catalogue().len(), 0);
    }

    #[test]
    fn two_engines_of_one_node_are_told_as_one() {
        let other = ReplicaId(7);
        let mut index = index(100);
        index.add(other, 100);
        index.publish(other, true);
        let (mut teller, mut digest) = (Teller::new(Audience::EVERYBODY), Digest::default());
        index.insert(ENGINE, &prompt(1, 20));
        index.insert(other, &prompt(1, 12));
        index.forget(ENGINE);
        tell(&index, &mut teller, &mut digest, Time::ZERO);
        assert_eq!(digest.matched(&prompt(1, 20)), 12);
        index.publish(other, false);
        tell(&index, &mut teller, &mut digest, Time::ZERO);
        assert_eq!(digest.blocks(), 0, "not ours any more");
    }

    #[test]
    fn a_listener_that_fell_behind_gets_a_snapshot_in_slices_and_so_does_everybody_at_times() {
        let mut index = index(1 << 20);
        let (mut teller, mut digest) = (Teller::new(Audience::EVERYBODY), Digest::default());
        tell(&index, &mut teller, &mut digest, Time::ZERO);
        let blocks = (MOST_CHANGES + 1) * SAMPLE_EVERY;
        index.insert(ENGINE, &prompt(1, blocks as u64));
        let parts = tell(&index, &mut teller, &mut digest, Time::from_ms(1.0));
        assert!(parts[0].begins && parts.last().unwrap().ends);
        assert_eq!((parts.len(), digest.blocks()), ((MOST_CHANGES + 1).div_ceil(SLICE), blocks));
        assert!(parts.iter().all(|part| part.held.len() + part.gone.len() <= CHANGES_PER_PART + SLICE));
        let quiet = tell(&index, &mut teller, &mut digest, Time::from_ms(SNAPSHOT_EVERY_MS));
        assert_eq!(quiet.len(), 0);
        let again = tell(&index, &mut teller, &mut digest, Time::from_ms(SNAPSHOT_EVERY_MS + 1.0));
        assert!(again[0].begins);
        assert_eq!(digest.blocks(), blocks);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64, usize),
        Forget,
        Capacity(usize),
        Tell,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..6_u64, 0..60_u64, 0..3_usize).prop_map(|(session, blocks, class)| Step::Insert(session, blocks, class)),
            1 => prop::strategy::Just(Step::Forget),
            1 => (0..200_usize).prop_map(Step::Capacity),
            6 => prop::strategy::Just(Step::Tell),
        ]
    }

    /// Whatever happens in whatever order: once all is told, each listener knows exactly what is held and may be told to it.
    fn check(steps: Vec<Step>, late: bool) {
        let requests = [Audience::EVERYBODY, Audience(2), Audience(4)];
        let listeners = [Audience(1), Audience(1 | 2), Audience(1 | 4), Audience(1 | 2 | 4)];
        let mut index = index(150);
        let mut links = listeners.map(|audience| (Teller::new(audience), Digest::default()));
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(session, blocks, class) => {
                    index.insert_for(ENGINE, &prompt(session, blocks), requests[class]);
                }
                Step::Forget => index.forget(ENGINE),
                Step::Capacity(blocks) => index.set_capacity(ENGINE, blocks),
                Step::Tell => {
                    for (teller, digest) in &mut links {
                        digest.apply(&teller.part(Time::ZERO, index.catalogue()));
                    }
                }
            }
            if late && at % 5 == 0 {
                links[0].0.snapshot = Some(at as u64 * (u64::MAX / 80));
            }
        }
        for (audience, (teller, digest)) in listeners.iter().zip(&mut links) {
            if late {
                // As if its snapshot were due.
                teller.began = None;
            }
            tell(&index, teller, digest, Time::ZERO);
            let meant = index.catalogue().entries.iter().filter(|(_, entry)| entry.audience.meets(*audience));
            let meant: BTreeSet<u32> = meant.map(|(hash, _)| (hash >> 32) as u32).collect();
            let known: BTreeSet<u32> = digest.hashes().collect();
            assert_eq!(known, meant, "{audience:?}");
        }
        let held: usize = (0..6).map(|session| index.matched(ENGINE, &prompt(session, 60)) / SAMPLE_EVERY).sum();
        assert_eq!(index.catalogue().len(), held, "the catalogue is what the tree holds");
    }

    proptest! {
        #[test]
        fn every_listener_ends_up_knowing_what_it_may(steps in prop::collection::vec(step(), 0..60)) {
            check(steps, false);
        }

        #[test]
        fn also_in_the_middle_of_snapshots(steps in prop::collection::vec(step(), 0..60)) {
            check(steps, true);
        }

        #[test]
        fn a_block_of_restricted_requests_is_told_to_no_stranger(sessions in prop::collection::vec((0..4_u64, 1..40_u64), 1..20)) {
            let mut index = index(10_000);
            let (mut teller, mut digest) = (Teller::new(Audience::EVERYBODY), Digest::default());
            for (session, blocks) in sessions {
                index.insert_for(ENGINE, &prompt(session, blocks), Audience(2));
                index.insert_for(ENGINE, &prompt(session + 10, blocks), Audience::NOBODY);
                tell(&index, &mut teller, &mut digest, Time::ZERO);
                prop_assert_eq!(digest.blocks(), 0);
            }
        }
    }

    #[test]
    fn nothing_is_catalogued_of_engines_that_are_not_published() {
        let mut index = PrefixIndex::new();
        index.add(ENGINE, 100);
        index.insert(ENGINE, &prompt(1, 40));
        index.forget(ENGINE);
        assert_eq!((index.catalogue().len(), index.catalogue().generation()), (0, 0));
        let _: &Catalogue = index.catalogue();
    }
}
