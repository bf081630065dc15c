//! What routing needs to know of a request, and nothing else.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::residency::Classes;
use crate::model::geo::Coordinates;

/// Bytes of canonical prompt per block of the router's index: 64 tokens at the emulator's 4 bytes per token.
pub const BLOCK_BYTES: usize = 256;

/// Features of one request, extracted once and never changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The model that was asked for; `None` when the body names none or cannot be parsed.
    pub model: Option<Arc<str>>,
    /// Hash of the session key (header or body field), if the client gave one.
    pub session: Option<u64>,
    /// Residency classes that it came with, apart from that of its model.
    pub residency: Classes,
    /// Its class of service, if it names one or its key has one.
    pub class: Option<Arc<str>>,
    /// Name of the API key that it came with.
    pub tenant: Option<Arc<str>>,
    /// Where the client is, if that is known.
    pub place: Option<Coordinates>,
    /// Larger is more urgent; 0 by default.
    pub priority: i32,
    /// Chained hashes of the full blocks of the canonical prompt: equal hash, equal whole prefix.
    pub blocks: Arc<[u64]>,
    /// Length of the canonical prompt in bytes.
    pub prompt_bytes: u64,
    /// Exact prompt length in tokens where it is known (a tokenizer, the simulator); otherwise the router estimates it.
    pub prompt_tokens: Option<u32>,
    /// The request's own limit on output tokens.
    pub max_tokens: Option<u32>,
    /// A peer sent it: it has made its one hop and stays here.
    pub forwarded: bool,
    /// Which peer sent it, if that is known. It counts the request itself and is not told of it.
    pub origin: Option<Arc<str>>,
    /// The body could not be read: nothing is known to go by, so the request goes where the load is least, whatever the strategy.
    pub opaque: bool,
    /// The answer comes as a whole: nobody will see its first token.
    pub unstreamed: bool,
}

/// Chained hashes of the full [`BLOCK_BYTES`] blocks of a prompt given in pieces (the pieces' boundaries do not matter).
///
/// Block i is `xxh3(bytes of block i, seed = hash of block i-1)`, the first seeded with `seed` (hash of the model's name, so that
/// two models never share a prefix). Equal hashes therefore mean equal prompts up to there, apart from collisions of 64 bits (at a
/// million blocks held, one in 10^13 per block looked up). The hash is not keyed with a secret: who crafts a collision misroutes their own
/// request, nothing more. Linear in the prompt; nothing is allocated but the result.
#[must_use]
pub fn hash_blocks<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, seed: u64) -> Vec<u64> {
    let mut hashes = Vec::new();
    let mut previous = seed;
    let mut pending = [0; BLOCK_BYTES];
    let mut filled = 0;
    for piece in pieces {
        let mut rest = piece;
        if filled > 0 {
            let (taken, after) = rest.split_at(rest.len().min(BLOCK_BYTES - filled));
            pending[filled..filled + taken.len()].copy_from_slice(taken);
            filled += taken.len();
            rest = after;
            if filled < BLOCK_BYTES {
                continue;
            }
            previous = xxh3_64_with_seed(&pending, previous);
            hashes.push(previous);
        }
        let blocks = rest.chunks_exact(BLOCK_BYTES);
        let tail = blocks.remainder();
        pending[..tail.len()].copy_from_slice(tail);
        filled = tail.len();
        hashes.extend(blocks.map(|block| {
            previous = xxh3_64_with_seed(block, previous);
            previous
        }));
    }
    hashes
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_assert_ne, prop_assume, proptest};
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use super::{BLOCK_BYTES, hash_blocks};

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..6 * BLOCK_BYTES)
    }

    #[test]
    fn only_full_blocks_are_hashed_each_seeded_with_the_one_before() {
        let text: Vec<u8> = (0..BLOCK_BYTES * 2 + 1).map(|i| (i % 251) as u8).collect();
        let first = xxh3_64_with_seed(&text[..BLOCK_BYTES], 42);
        let second = xxh3_64_with_seed(&text[BLOCK_BYTES..2 * BLOCK_BYTES], first);
        let cases = [
            (0, vec![]),
            (BLOCK_BYTES - 1, vec![]),
            (BLOCK_BYTES, vec![first]),
            (2 * BLOCK_BYTES - 1, vec![first]),
            (2 * BLOCK_BYTES, vec![first, second]),
            (2 * BLOCK_BYTES + 1, vec![first, second]),
        ];
        for (length, hashes) in cases {
            assert_eq!(hash_blocks([&text[..length]], 42), hashes, "{length} bytes");
        }
        assert!(hash_blocks([], 42).is_empty());
    }

    /// Recorded values: a change of the hash would silently divide routers of different versions, which exchange what they hold.
    #[test]
    fn the_hash_is_stable_across_versions() {
        let text = [b'g'; 2 * BLOCK_BYTES];
        assert_snapshot!(format!("{:016x?}", hash_blocks([text.as_slice()], 0)), @"[8c4025c1b5e31f6a, 0c477c797a320acb]");
    }

    proptest! {
        #[test]
        fn piece_boundaries_do_not_matter(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), seed: u64) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]);
            prop_assert_eq!(hash_blocks(pieces, seed), hash_blocks([text.as_slice()], seed));
            prop_assert_eq!(hash_blocks(text.chunks(1), seed), hash_blocks([text.as_slice()], seed));
        }

        #[test]
        fn a_changed_byte_changes_its_block_and_all_later_ones_only(text in text(), at: prop::sample::Index, flip in 1_u8..) {
            prop_assume!(text.len() >= BLOCK_BYTES);
            let at = at.index(text.len());
            let mut changed = text.clone();
            changed[at] ^= flip;
            let pairs = hash_blocks([text.as_slice()], 0).into_iter().zip(hash_blocks([changed.as_slice()], 0));
            for (block, (before, after)) in pairs.enumerate() {
                prop_assert_eq!(before == after, block < at / BLOCK_BYTES, "block {}", block);
            }
        }

        #[test]
        fn two_models_share_nothing(text in text(), one: u64, other: u64) {
            prop_assume!(one != other);
            for (mine, theirs) in hash_blocks([text.as_slice()], one).into_iter().zip(hash_blocks([text.as_slice()], other)) {
                prop_assert_ne!(mine, theirs);
            }
        }
    }
}
