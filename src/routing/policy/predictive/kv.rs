//! How much of a replica's KV cache this router's requests in flight take. What they share counts once:
//!
//! ```text
//! k = tokens per block · (number of distinct full prompt blocks in flight) + Σ (rest of the prompt + E[out])
//! ```
//!
//! Block hashes are chained: equal at one place, equal before it. So the prompts in flight form a tree, and a prompt adds to it what
//! is behind its longest common opening with any other; it takes the same away when it leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::RequestId;

/// One request's share.
#[derive(Clone, Debug)]
struct Prompt {
    blocks: Arc<[u64]>,
    block_tokens: u64,
    loose_tokens: u64,
}

/// What the requests in flight take.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    prompts: BTreeMap<RequestId, Prompt>,
    /// Blocks, counted once and counted for each prompt.
    distinct: u64,
    blocks: u64,
    /// Tokens of all blocks, counted for each prompt.
    block_tokens: u64,
    /// Tokens behind the last full block, and output.
    loose_tokens: u64,
}

impl Taken {
    /// k.
    pub(super) fn tokens(&self) -> f64 {
        let per_block = self.block_tokens as f64 / self.blocks.max(1) as f64;
        self.distinct as f64 * per_block + self.loose_tokens as f64
    }

    /// Requests in flight.
    pub(super) fn requests(&self) -> usize {
        self.prompts.len()
    }

    /// A request comes in: its full blocks, their tokens, and the tokens behind them and of its output.
    pub(super) fn add(&mut self, request: RequestId, blocks: Arc<[u64]>, block_tokens: u64, loose_tokens: u64) {
        self.remove(request);
        self.distinct += self.own(&blocks);
        self.blocks += blocks.len() as u64;
        self.block_tokens += block_tokens;
        self.loose_tokens += loose_tokens;
        self.prompts.insert(request, Prompt { blocks, block_tokens, loose_tokens });
    }

    /// A request has left.
    pub(super) fn remove(&mut self, request: RequestId) {
        let Some(prompt) = self.prompts.remove(&request) else { return };
        self.distinct -= self.own(&prompt.blocks);
        self.blocks -= prompt.blocks.len() as u64;
        self.block_tokens -= prompt.block_tokens;
        self.loose_tokens -= prompt.loose_tokens;
    }

    /// Blocks of a prompt that none of those here has.
    fn own(&self, blocks: &[u64]) -> u64 {
        let shared = self.prompts.values().map(|prompt| common(&prompt.blocks, blocks)).max().unwrap_or(0);
        (blocks.len() - shared) as u64
    }
}

/// Length of the common opening of two chains, in steps that halve.
fn common(a: &[u64], b: &[u64]) -> usize {
    let length = a.len().min(b.len());
    if length == 0 || a[0] != b[0] {
        return 0;
    }
    let (mut same, mut other) = (1, length + 1);
    while other - same > 1 {
        let middle = same.midpoint(other);
        if a[middle - 1] == b[middle - 1] { same = middle } else { other = middle }
    }
    same
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::Taken;
    use crate::model::RequestId;
    use crate::routing::features::hash_blocks;

    /// A chain: `shared` blocks of the same text, then `own` blocks of a text of this number.
    fn chain(shared: usize, number: u8, own: usize) -> Vec<u64> {
        let block = crate::routing::BLOCK_BYTES;
        hash_blocks([&vec![0; shared * block][..], &vec![number; own * block][..]], 1)
    }

    #[test]
    fn what_is_shared_counts_once() {
        let mut taken = Taken::default();
        for number in 1..=10 {
            // 256 blocks of 16 tokens and 4 tokens over, 240 blocks common to all; 40 tokens of output
            taken.add(RequestId(number.into()), chain(240, number, 16).into(), 4096, 44);
        }
        assert_eq!(taken.tokens(), 6840.0);
        // 262 blocks and 8 tokens, the same 240 blocks in front
        taken.add(RequestId(11), chain(240, 11, 22).into(), 262 * 16, 48);
        assert_eq!(taken.tokens(), 7240.0);
        taken.add(RequestId(11), chain(240, 11, 22).into(), 262 * 16, 48);
        assert_eq!(taken.tokens(), 7240.0, "the same again");
        (1..=11).for_each(|request| taken.remove(RequestId(request)));
        taken.remove(RequestId(1));
        assert_eq!(taken.tokens(), 0.0);
    }

    proptest! {
        /// As a counter per block says.
        #[test]
        fn it_counts_as_a_set_does(steps in prop::collection::vec((0..8_u64, 0..6_usize, 1..4_u8, 0..6_usize), 0..60)) {
            let mut taken = Taken::default();
            let mut naive = BTreeMap::new();
            for (request, shared, number, own) in steps {
                if naive.contains_key(&request) && number == 1 {
                    naive.remove(&request);
                    taken.remove(RequestId(request));
                } else {
                    let blocks = chain(shared, number, own);
                    taken.add(RequestId(request), blocks.clone().into(), 16 * blocks.len() as u64, request);
                    naive.insert(request, blocks);
                }
                let distinct: BTreeSet<u64> = naive.values().flatten().copied().collect();
                let loose: u64 = naive.keys().sum();
                prop_assert_eq!(taken.tokens(), (16 * distinct.len()) as f64 + loose as f64);
            }
        }
    }
}
