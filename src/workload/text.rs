//! Prompt text from block ids: equal ids give equal text, and lengths come out exactly.
//!
//! In emulation one token is [`BYTES_PER_TOKEN`] bytes. A block id becomes 4 · block_size letters and spaces drawn from the id
//! and the run's seed; the last block is cut so that the prompt has `input_tokens` tokens. JSON escapes none of the bytes, so the
//! prompt takes the same bytes in a request's body. The text is noise: a real model reads it, but says nothing sensible.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::plan::Step;

/// Bytes of canonical prompt that count as one token in emulation.
pub const BYTES_PER_TOKEN: usize = 4;

/// Drawn from with 6 random bits per byte; spaces make up 12 of 64, so that tokenizers see words.
const LETTERS: [u8; 64] = *b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz            ";

/// The prompt of `step`: its literal text, or one made from its blocks.
#[must_use]
pub fn prompt(step: &Step, block_size: u32, seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(prompt_bytes(step));
    write_prompt(step, block_size, seed, &mut out);
    out
}

/// Length of the prompt of `step`, bytes.
#[must_use]
pub fn prompt_bytes(step: &Step) -> usize {
    step.text.as_ref().map_or(step.input_tokens as usize * BYTES_PER_TOKEN, |text| text.len())
}

/// Appends the prompt of `step` to `out`. Literal text is appended as it is: whoever puts it into JSON has to escape it.
///
/// Tokens beyond the last block id (a plan made by hand) are filled from the last id; there is always the promised length.
pub fn write_prompt(step: &Step, block_size: u32, seed: u64, out: &mut Vec<u8>) {
    if let Some(text) = &step.text {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut left = step.input_tokens as usize * BYTES_PER_TOKEN;
    out.reserve(left);
    let block_bytes = block_size as usize * BYTES_PER_TOKEN;
    for (place, &id) in step.blocks.iter().enumerate() {
        let last = place + 1 == step.blocks.len();
        let length = if last { left } else { left.min(block_bytes) };
        write_block(id, seed, length, out);
        left -= length;
    }
    write_block(u64::MAX, seed, left, out);
}

/// Appends `length` bytes of block `id`. A shorter block is the beginning of a longer one with the same id.
fn write_block(id: u64, seed: u64, length: usize, out: &mut Vec<u8>) {
    let end = out.len() + length;
    let mut state = xxh3_64_with_seed(&id.to_le_bytes(), seed);
    while out.len() < end {
        let word = next(&mut state).to_le_bytes().map(|byte| LETTERS[usize::from(byte & 63)]);
        out.extend_from_slice(&word[..word.len().min(end - out.len())]);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): one multiplication chain per eight letters.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{prompt, prompt_bytes};
    use crate::workload::plan::Step;

    fn step(input_tokens: u32, blocks: &[u64]) -> Step {
        Step { think_ms: 0.0, input_tokens, output_tokens: 1, blocks: blocks.into(), text: None }
    }

    #[test]
    fn a_small_prompt_reads_like_this() {
        let text = String::from_utf8(prompt(&step(21, &[7, 8]), 16, 1)).unwrap();
        insta::assert_snapshot!(text, @"wjq ctgr  v wn lhyekwhgwtpktc  pzps neyqhdjcp bl sc ygob uq bk wieha   vihg  tgxflzt");
    }

    #[test]
    fn equal_ids_give_equal_text_and_other_seeds_another_one() {
        let (a, b) = (prompt(&step(40, &[1, 2, 3]), 16, 5), prompt(&step(48, &[1, 2, 9]), 16, 5));
        assert_eq!(a[..128], b[..128], "two blocks of 64 bytes in common");
        assert_ne!(a[128..160], b[128..160], "the third differs from its first bytes");
        assert_ne!(a[..64], a[64..128], "ids differ, so text differs");
        assert_ne!(a, prompt(&step(40, &[1, 2, 3]), 16, 6), "another seed");
    }

    #[test]
    fn blocks_are_all_different() {
        let texts: BTreeSet<Vec<u8>> = (0..10_000).map(|id| prompt(&step(16, &[id]), 16, 0)).collect();
        assert_eq!(texts.len(), 10_000);
    }

    #[test]
    fn literal_text_comes_out_as_it_is() {
        let literal = Step { text: Some(Arc::from("Grüße \"you\"")), ..step(4, &[0]) };
        assert_eq!(prompt(&literal, 64, 3), "Grüße \"you\"".as_bytes());
        assert_eq!(prompt_bytes(&literal), 13);
    }

    proptest! {
        #[test]
        fn lengths_are_exact_and_json_leaves_the_bytes_alone(
            tokens in 1_u32..3000, block_size in 1_u32..600, seed: u64, spare in -3_i32..4,
        ) {
            let count = (i64::from(tokens.div_ceil(block_size)) + i64::from(spare)).max(0) as u64;
            let blocks: Vec<u64> = (0..count).collect();
            let step = step(tokens, &blocks);
            let text = String::from_utf8(prompt(&step, block_size, seed)).unwrap();
            prop_assert_eq!(text.len(), tokens as usize * 4);
            prop_assert_eq!(text.len(), prompt_bytes(&step));
            prop_assert_eq!(serde_json::to_string(&text).unwrap().len(), text.len() + 2);
            prop_assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_lowercase()));
        }
    }
}
