//! Block hashes of a prompt at another block size than the trace's, as an engine or a router would compute them from the text.
//!
//! Two prompts of one plan have equal hashes exactly as far as their synthesised texts ([`super::text`]) are equal, in whole blocks,
//! so that a simulation in block ids and an emulation in bytes find the same prefixes. (In principle short pieces of different
//! ids could agree by chance; a block of one token does so once in a hundred thousand pairs.)

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::plan::Step;
use super::text::BYTES_PER_TOKEN;

/// Chained hashes of the FULL blocks of `to` tokens (at least 1) of the prompt of `step`, whose ids stand for `from` tokens each.
#[must_use]
pub fn chained_blocks(step: &Step, from: u32, to: u32) -> Vec<u64> {
    let (from, to) = (from.max(1) as usize, to.max(1) as usize);
    match &step.text {
        Some(text) => chain_text(text.as_bytes(), to),
        None => chain_ids(&step.blocks, step.input_tokens as usize, from, to),
    }
}

fn chain_text(text: &[u8], to: usize) -> Vec<u64> {
    let mut hash = 0;
    let blocks = text.chunks_exact(to * BYTES_PER_TOKEN);
    blocks.map(|block| chained(&mut hash, block)).collect()
}

fn chain_ids(ids: &[u64], tokens: usize, from: usize, to: usize) -> Vec<u64> {
    let mut hash = 0;
    let mut part = Vec::new();
    let blocks = (0..tokens / to).map(|place| {
        part.clear();
        let mut at = place * to;
        while at < (place + 1) * to {
            let end = ((at / from + 1) * from).min((place + 1) * to);
            let id = ids.get(at / from).copied().unwrap_or(u64::MAX);
            part.extend([id, (at % from) as u64, (end - at) as u64].into_iter().flat_map(u64::to_le_bytes));
            at = end;
        }
        chained(&mut hash, &part)
    });
    blocks.collect()
}

fn chained(hash: &mut u64, block: &[u8]) -> u64 {
    *hash = xxh3_64_with_seed(block, *hash);
    *hash
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection, prop_assert_eq, proptest};

    use super::chained_blocks;
    use crate::workload::plan::Step;
    use crate::workload::text::prompt;

    fn step(input_tokens: u32, blocks: Vec<u64>) -> Step {
        Step { think_ms: 0.0, input_tokens, output_tokens: 1, blocks: blocks.into(), text: None }
    }

    /// Whole blocks that two lists have in common at their beginning.
    fn common<T: PartialEq>(a: &[T], b: &[T]) -> usize {
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn literal_text_is_hashed_as_it_is() {
        let text = |text: &str| Step { text: Some(Arc::from(text)), ..step(1, vec![]) };
        let (a, b) =
            (chained_blocks(&text("0123456789abcdef01"), 64, 2), chained_blocks(&text("01234567xxxxxxxx"), 64, 2));
        assert_eq!((a.len(), b.len(), common(&a, &b)), (2, 2, 1));
    }

    proptest! {
        #[test]
        fn equal_hashes_are_equal_text(
            a in collection::vec(0_u64..2, 1..6), b in collection::vec(0_u64..2, 1..6),
            from in 8_u32..40, to in 4_u32..90, cut in 0_u32..8, seed: u64,
        ) {
            let whole = |ids: Vec<u64>, cut| step(ids.len() as u32 * from - cut, ids);
            let (a, b) = (whole(a, cut), whole(b, 0));
            let by_id = common(&chained_blocks(&a, from, to), &chained_blocks(&b, from, to));
            let bytes = common(&prompt(&a, from, seed), &prompt(&b, from, seed));
            let full = (a.input_tokens.min(b.input_tokens) / to) as usize;
            prop_assert_eq!(by_id, (bytes / 4 / to as usize).min(full));
            prop_assert_eq!(chained_blocks(&a, from, to).len(), (a.input_tokens / to) as usize);
        }
    }
}
