//! One request inside the engine, waiting or running.

use std::sync::Arc;

use super::kv::Hold;
use super::spec::Job;
use crate::sim::timing::StepLoad;

/// A request and how far it is. Kept small: the inner loop walks an array of these.
pub(super) struct Sequence {
    pub(super) id: u64,
    /// Hashes of the prompt blocks that can be shared.
    pub(super) blocks: Arc<[u64]>,
    pub(super) prompt: u32,
    pub(super) output: u32,
    /// Tokens generated so far; they survive preemption.
    pub(super) generated: u32,
    /// Tokens whose KV is in memory, reused or computed. Never more than [`Self::known`].
    pub(super) computed: u32,
    /// Tokens that the step under way computes for it; 0 = not in the step.
    pub(super) step: u32,
    /// Prompt blocks that can be shared: full and with a hash.
    shareable: u32,
    /// Tokens found in the cache at the first admission.
    pub(super) cached: Option<u32>,
    pub(super) hold: Hold,
}

impl Sequence {
    pub(super) fn new(job: Job, block: u32) -> Self {
        let prompt = job.prompt_tokens.max(1);
        let hashes = u32::try_from(job.blocks.len()).unwrap_or(u32::MAX);
        Self {
            id: job.id,
            shareable: hashes.min(prompt / block),
            blocks: job.blocks,
            prompt,
            output: job.output_tokens.max(1),
            generated: 0,
            computed: 0,
            step: 0,
            cached: None,
            hold: Hold::default(),
        }
    }

    /// Tokens that exist: prompt and output so far. The step that computes the last of them yields the next token.
    pub(super) fn known(&self) -> u32 {
        self.prompt + self.generated
    }

    /// Tokens to compute before the next token comes: 1 while decoding.
    pub(super) fn remaining(&self) -> u32 {
        self.known() - self.computed
    }

    /// The prompt is not computed yet.
    pub(super) fn in_prompt(&self) -> bool {
        self.generated == 0
    }

    /// Prompt blocks that may be shared with others.
    pub(super) fn shareable(&self) -> &[u64] {
        &self.blocks[..self.shareable as usize]
    }

    /// The prompt is computed and not all of what can be shared is shared.
    pub(super) fn owes_sharing(&self) -> bool {
        self.hold.shared < self.shareable
    }

    /// Prompt blocks that may be reused: at least one known token is always computed, since it yields the next one.
    pub(super) fn reusable(&self, block: u32) -> &[u64] {
        let most = ((self.known() - 1) / block).min(self.shareable);
        &self.blocks[..most as usize]
    }

    /// Gives it up to `budget` tokens of the step that is being composed.
    pub(super) fn schedule(&mut self, budget: &mut u32, load: &mut StepLoad) {
        let tokens = self.remaining().min(*budget);
        if tokens == 0 {
            return;
        }
        *budget -= tokens;
        self.step = tokens;
        if self.remaining() == 1 && !self.in_prompt() {
            load.decode(self.known());
        } else {
            load.prefill(self.computed, tokens);
        }
    }
}
