//! What a peer says that its engine holds: a compact set of hashes, from which the cached part of a prompt follows to within a few blocks.
//!
//! Hashes are chained, so one of them stands for the whole prefix up to it: every [`SAMPLE_EVERY`]-th is enough, and the upper half of
//! each. A strange hash is taken for a held one with a probability of entries / 2^32, and then misroutes one request by a few blocks.

use std::collections::BTreeSet;

/// Every how many blocks of a prompt peers are told a hash. 4: what is known of a prompt falls short by 3 blocks at most (192 tokens at
/// 4 bytes each), and a new prompt of 20,000 tokens costs 78 hashes.
pub const SAMPLE_EVERY: usize = 4;

/// Most hashes kept of one peer: a million blocks, 67 million tokens. What a peer says beyond that is not taken in.
const MOST: usize = 1 << 18;

/// Memory of a hash in an ordered set, bytes: four, and as much again for half-empty nodes and their links.
const BYTES_PER_HASH: usize = 8;

/// The depths, in blocks from the front of a prompt, of the hashes that peers are told, of those in `(from, to]`.
pub(super) fn samples(from: usize, to: usize) -> impl Iterator<Item = usize> {
    (from / SAMPLE_EVERY + 1..=to / SAMPLE_EVERY).map(|i| i * SAMPLE_EVERY)
}

/// What is told of a hash.
pub(super) const fn shortened(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Changes of what a peer holds; see [`Digest::apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestPart {
    /// A snapshot begins with this part.
    pub begins: bool,
    /// It ends with this part: what was not told since its beginning is not there.
    pub ends: bool,
    /// Held now.
    pub held: Vec<u32>,
    /// No longer held. None of them stands in `held`.
    pub gone: Vec<u32>,
}

impl DigestPart {
    /// Does it say nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The hashes that a peer holds, as far as it told.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    held: BTreeSet<u32>,
    /// The snapshot that is coming in. Until it is complete, what was known before counts, too.
    incoming: Option<BTreeSet<u32>>,
}

impl Digest {
    /// Takes a part.
    pub fn apply(&mut self, part: &DigestPart) {
        if part.begins {
            self.incoming = Some(BTreeSet::new());
        }
        for set in [Some(&mut self.held), self.incoming.as_mut()].into_iter().flatten() {
            for hash in &part.gone {
                set.remove(hash);
            }
            set.extend(part.held.iter().take(MOST.saturating_sub(set.len())));
        }
        if part.ends
            && let Some(complete) = self.incoming.take()
        {
            self.held = complete;
        }
    }

    /// Leading blocks of a prompt that the peer holds, rounded down to [`SAMPLE_EVERY`].
    ///
    /// A prefix that is held is held from its front, so the last hash that is there is searched for by halves.
    #[must_use]
    pub fn matched(&self, blocks: &[u64]) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        let (mut there, mut missing) = (0, blocks.len() / SAMPLE_EVERY + 1);
        while there + 1 < missing {
            let middle = there.midpoint(missing);
            if self.held.contains(&shortened(blocks[middle * SAMPLE_EVERY - 1])) {
                there = middle;
            } else {
                missing = middle;
            }
        }
        there * SAMPLE_EVERY
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Blocks that the hashes stand for.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.held.len() * SAMPLE_EVERY
    }

    /// The hashes, in order.
    #[cfg(test)]
    pub(super) fn hashes(&self) -> impl Iterator<Item = u32> {
        self.held.iter().copied()
    }

    /// Memory, bytes, estimated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.held.len() + self.incoming.as_ref().map_or(0, BTreeSet::len)) * BYTES_PER_HASH
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{Digest, DigestPart, MOST, SAMPLE_EVERY, samples, shortened};
    use crate::routing::features::{BLOCK_BYTES, hash_blocks};

    fn prompt(letters: &str) -> Vec<u64> {
        let text: Vec<u8> = letters.bytes().flat_map(|letter| [letter; BLOCK_BYTES]).collect();
        hash_blocks([text.as_slice()], 0)
    }

    fn hashes(blocks: &[u64]) -> Vec<u32> {
        samples(0, blocks.len()).map(|depth| shortened(blocks[depth - 1])).collect()
    }

    #[test]
    fn every_fourth_depth_is_told() {
        let cases =
            [((0, 3), vec![]), ((0, 4), vec![4]), ((4, 8), vec![8]), ((3, 13), vec![4, 8, 12]), ((5, 5), vec![])];
        for ((from, to), expected) in cases {
            assert_eq!(samples(from, to).collect::<Vec<_>>(), expected, "({from}, {to}]");
        }
    }

    #[test]
    fn what_is_known_of_a_prompt_falls_short_by_less_than_a_sample() {
        let mut digest = Digest::default();
        digest.apply(&DigestPart { held: hashes(&prompt("abcdefghijklm")), ..DigestPart::default() });
        let cases = [("", 0), ("abc", 0), ("abcd", 4), ("abcdefghxxxx", 8), ("abcdefghijklmnop", 12), ("xbcdefgh", 0)];
        for (asked, blocks) in cases {
            assert_eq!(digest.matched(&prompt(asked)), blocks, "{asked}");
        }
        assert_eq!((digest.blocks(), digest.bytes() > 0), (12, true));
        digest.apply(&DigestPart { gone: hashes(&prompt("abcdefghijkl"))[2..].to_vec(), ..DigestPart::default() });
        assert_eq!(digest.matched(&prompt("abcdefghijklm")), 8);
        digest.clear();
        assert_eq!((digest.matched(&prompt("abcdefgh")), digest.blocks()), (0, 0));
    }

    #[test]
    fn a_snapshot_replaces_what_was_known_once_it_is_complete() {
        let (old, new) = (prompt("aaaa"), prompt("bbbbcccc"));
        let mut digest = Digest::default();
        let known = |digest: &Digest| (digest.matched(&old), digest.matched(&new));
        digest.apply(&DigestPart { held: hashes(&old), ..DigestPart::default() });
        digest.apply(&DigestPart { begins: true, held: hashes(&new[..4]), ..DigestPart::default() });
        assert_eq!(known(&digest), (4, 4), "both, meanwhile");
        digest.apply(&DigestPart { ends: true, held: vec![hashes(&new)[1]], ..DigestPart::default() });
        assert_eq!(known(&digest), (0, 8));
        digest.apply(&DigestPart { begins: true, held: hashes(&old), ..DigestPart::default() });
        digest.apply(&DigestPart { begins: true, ..DigestPart::default() });
        digest.apply(&DigestPart { ends: true, ..DigestPart::default() });
        assert_eq!(known(&digest), (0, 0), "one that begins again is another");
        digest.apply(&DigestPart { ends: true, held: hashes(&new), ..DigestPart::default() });
        assert_eq!(known(&digest), (0, 8), "an end without a beginning ends nothing");
    }

    #[test]
    fn a_peer_that_tells_without_end_is_not_listened_to_without_end() {
        let mut digest = Digest::default();
        for chunk in 0..MOST as u32 / 1000 + 10 {
            let held = (chunk * 1000..(chunk + 1) * 1000).collect();
            digest.apply(&DigestPart { begins: chunk == 0, held, ..DigestPart::default() });
        }
        assert_eq!(digest.blocks(), MOST * SAMPLE_EVERY);
    }

    proptest! {
        #[test]
        fn a_held_prefix_of_any_length_is_found(letters in "[ab]{0,40}", length in 0_usize..40, other in prop::collection::vec(any::<u32>(), 0..50)) {
            let blocks = prompt(&letters);
            let length = length.min(blocks.len());
            let mut digest = Digest::default();
            digest.apply(&DigestPart { held: [hashes(&blocks[..length]), other].concat(), ..DigestPart::default() });
            assert_eq!(digest.matched(&blocks), length / SAMPLE_EVERY * SAMPLE_EVERY);
        }
    }
}
