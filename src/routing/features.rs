//! What routing needs to know of a request, and nothing else.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of canonical prompt per block of the router's index: 64 tokens at the emulator's 4 bytes per token.
pub const BLOCK_BYTES: usize = 256;

/// Features of one request, extracted once and never changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The model that was asked for; `None` when the body names none or cannot be parsed.
    pub model: Option<Arc<str>>,
    /// Hash of the session key (header or body field), if the client gave one.
    pub session: Option<u64>,
    /// Residency class, if any.
    pub residency: Option<Arc<str>>,
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
}

/// Chained hashes of the full [`BLOCK_BYTES`] blocks of a prompt given in pieces (the pieces' boundaries do not matter).
///
/// Block i is `xxh3(bytes of block i, seed = hash of block i-1)`, the first seeded with `seed` (hash of the model's name, so that
/// two models never share a prefix).
#[must_use]
pub fn hash_blocks<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, seed: u64) -> Vec<u64> {
    let mut hashes = Vec::new();
    let mut previous = seed;
    let mut pending: Vec<u8> = Vec::with_capacity(BLOCK_BYTES);
    for piece in pieces {
        let mut rest = piece;
        if !pending.is_empty() {
            let take = rest.len().min(BLOCK_BYTES - pending.len());
            pending.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if pending.len() < BLOCK_BYTES {
                continue;
            }
            previous = xxh3_64_with_seed(&pending, previous);
            hashes.push(previous);
            pending.clear();
        }
        let blocks = rest.chunks_exact(BLOCK_BYTES);
        pending.extend_from_slice(blocks.remainder());
        hashes.extend(blocks.map(|block| {
            previous = xxh3_64_with_seed(block, previous);
            previous
        }));
    }
    hashes
}
