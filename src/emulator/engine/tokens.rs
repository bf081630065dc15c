//! Tokens in emulation: 4 bytes of the canonical prompt each way, so that lengths are exact without a tokenizer.

use std::sync::Arc;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of canonical prompt, and of output text, per token.
pub(super) const TOKEN_BYTES: usize = 4;

/// Output limit of a request that names none, tokens.
pub(super) const DEFAULT_MAX_TOKENS: u32 = 200;

/// A prompt as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    /// Chained hashes of its full KV blocks.
    pub(super) blocks: Arc<[u64]>,
    /// Its length, tokens: a started token counts, and an empty prompt has one.
    pub(super) tokens: u32,
    /// Hash of all of it.
    pub(super) hash: u64,
}

impl Prompt {
    /// Cuts a prompt, given in pieces, into tokens and blocks of `block` tokens (boundaries of pieces do not matter).
    ///
    /// Block i is hashed as `xxh3(its bytes, seed = hash of block i-1)`, the first with `seed`: equal hash, equal whole prefix.
    pub(super) fn of<'a>(pieces: impl Iterator<Item = &'a [u8]>, block: u32, seed: u64) -> Self {
        let size = TOKEN_BYTES * block.max(1) as usize;
        let mut blocks = Vec::new();
        let mut previous = seed;
        let mut length = 0;
        let mut pending: Vec<u8> = Vec::with_capacity(size);
        for mut piece in pieces {
            length += piece.len();
            if !pending.is_empty() {
                let (head, rest) = piece.split_at(piece.len().min(size - pending.len()));
                pending.extend_from_slice(head);
                piece = rest;
                if pending.len() < size {
                    continue;
                }
                previous = xxh3_64_with_seed(&pending, previous);
                blocks.push(previous);
                pending.clear();
            }
            let whole = piece.chunks_exact(size);
            pending.extend_from_slice(whole.remainder());
            for block in whole {
                previous = xxh3_64_with_seed(block, previous);
                blocks.push(previous);
            }
        }
        let tokens = u32::try_from(length.div_ceil(TOKEN_BYTES).max(1)).unwrap_or(u32::MAX);
        Self { blocks: blocks.into(), tokens, hash: xxh3_64_with_seed(&pending, previous) }
    }
}

/// Output of one prompt: how long it becomes and what it says, both given by prompt and seed alone.
#[derive(Clone, Debug)]
pub(super) struct Output {
    rng: ChaCha8Rng,
    /// Its length, tokens.
    pub(super) tokens: u32,
    /// Whether it ends because it reaches its limit.
    pub(super) cut: bool,
}

impl Output {
    /// The output to a prompt. With `ignore_eos` it is exactly `max_tokens` long, otherwise 1 to `max_tokens`, evenly spread.
    pub(super) fn to(prompt: &Prompt, max_tokens: Option<u32>, ignore_eos: bool, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(prompt.hash ^ seed.rotate_left(32));
        let limit = max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).max(1);
        let tokens = if ignore_eos { limit } else { rng.random_range(1..=limit) };
        Self { rng, tokens, cut: tokens == limit }
    }

    /// Text of the next token: a space and three letters, so that it needs no escape in JSON and is one token as input too.
    pub(super) fn next_token(&mut self) -> [u8; TOKEN_BYTES] {
        let random = self.rng.next_u32().to_le_bytes();
        [b' ', letter(random[0]), letter(random[1]), letter(random[2])]
    }

    /// The first values of a made-up embedding, in -1..1.
    pub(super) fn embedding(&mut self) -> [f32; 16] {
        std::array::from_fn(|_| self.rng.random_range(-1.0..1.0))
    }
}

fn letter(random: u8) -> u8 {
    b'a' + random % 26
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Output, Prompt};

    fn prompt(pieces: &[&str], block: u32) -> Prompt {
        Prompt::of(pieces.iter().map(|piece| piece.as_bytes()), block, 7)
    }

    #[test]
    fn lengths_are_exact() {
        let cases: [(&[&str], u32, usize); 8] = [
            (&[], 1, 0),
            (&[""], 1, 0),
            (&["abc"], 1, 0),
            (&["abcd"], 1, 1),
            (&["abcde"], 2, 1),
            (&["ab", "cd", "ef"], 2, 1),
            (&["abcdefgh"], 2, 2),
            (&["abcdefghi"], 3, 2),
        ];
        for (pieces, tokens, blocks) in cases {
            let one = prompt(pieces, 1);
            assert_eq!((one.tokens, one.blocks.len()), (tokens, blocks), "{pieces:?}");
        }
        assert_eq!(prompt(&["abcdefghi"], 2).blocks.len(), 1);
    }

    #[test]
    fn a_shared_prefix_shares_its_blocks_and_nothing_after_it() {
        let a = prompt(&["aaaabbbbccccdddd"], 1);
        let b = prompt(&["aaaabbbbXXXXdddd"], 1);
        assert_eq!(a.blocks[..2], b.blocks[..2]);
        assert_ne!(a.blocks[2], b.blocks[2]);
        assert_ne!(a.blocks[3], b.blocks[3]);
        assert_ne!(Prompt::of([b"aaaa".as_slice()].into_iter(), 1, 8).blocks[0], a.blocks[0], "another model");
    }

    #[test]
    fn outputs_depend_on_prompt_and_seed_only() {
        let text = |prompt: &Prompt, seed| {
            let mut output = Output::to(prompt, Some(50), false, seed);
            (0..output.tokens).flat_map(|_| output.next_token()).collect::<Vec<u8>>()
        };
        let (one, two) = (prompt(&["one"], 16), prompt(&["two"], 16));
        assert_eq!(text(&one, 1), text(&one, 1));
        assert_ne!(text(&one, 1), text(&two, 1));
        assert_ne!(text(&one, 1), text(&one, 2));
        assert!(text(&one, 1).iter().all(|byte| *byte == b' ' || byte.is_ascii_lowercase()));
    }

    #[test]
    fn output_lengths_keep_their_limit() {
        for seed in 0..200 {
            let free = Output::to(&prompt(&["p"], 1), None, false, seed);
            assert!((1..=200).contains(&free.tokens));
            assert_eq!(free.cut, free.tokens == 200);
            let exact = Output::to(&prompt(&["p"], 1), Some(33), true, seed);
            assert_eq!((exact.tokens, exact.cut), (33, true));
        }
    }

    proptest! {
        #[test]
        fn boundaries_of_pieces_do_not_matter(pieces in proptest::collection::vec("[a-c]{0,9}", 0..9), block in 1..5u32) {
            let refs: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(prompt(&refs, block), prompt(&[&pieces.concat()], block));
        }
    }
}
