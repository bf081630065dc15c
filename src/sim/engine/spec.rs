//! What an engine is given and what it tells: its description, jobs, events, gauges.

use std::sync::Arc;

use crate::model::Time;
use crate::sim::timing::{StepLoad, StepTiming};

/// Which requests share a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// A step is prefill if any prompt has tokens left or can be admitted, else decode (SGLang with mixing off). KV for prompt
    /// and whole output is reserved at admission.
    PrefillFirst,
    /// Decodes first, the rest of the token budget goes to prefill (vLLM V1). KV grows as tokens come; the most recent request
    /// is preempted and recomputed when it runs out.
    Mixed,
}

/// Who of the waiting is admitted next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First come, first served.
    #[default]
    Arrival,
    /// Whose prompt has the longest prefix in the cache, the first of equals (SGLang's `--schedule-policy lpm`).
    LongestPrefix,
}

/// Everything that describes an engine. Zeros in `chunk`, `max_running` and `block` count as 1.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSpec {
    /// Step time.
    pub timing: StepTiming,
    /// Token budget of a step: prefill tokens, and with [`Scheduler::Mixed`] also one per decoding request.
    pub chunk: u32,
    /// Most requests running.
    pub max_running: u32,
    /// KV capacity, tokens; rounded down to whole blocks.
    pub kv_tokens: u64,
    /// KV block (page) size, tokens.
    pub block: u32,
    /// Batch composition.
    pub scheduler: Scheduler,
    /// Order of admission.
    pub order: Order,
    /// Price, USD per hour, if known.
    pub usd_per_hour: Option<f64>,
}

impl EngineSpec {
    /// Time to first token, ms, of one request alone on an idle engine: `prompt` tokens, of which the leading `cached` are in
    /// the cache. Exactly what the engine does: whole blocks are reused, at least one token is computed, in steps of `chunk`.
    #[must_use]
    pub fn lone_prefill_ms(&self, cached: u32, prompt: u32) -> f64 {
        let block = self.block.max(1);
        let prompt = prompt.max(1);
        let mut computed = cached.min(prompt - 1) / block * block;
        let mut clock = Time::ZERO;
        while computed < prompt {
            let tokens = (prompt - computed).min(self.chunk.max(1));
            let mut load = StepLoad::default();
            load.prefill(computed, tokens);
            clock = clock.plus_ms(self.timing.step_ms(&load));
            computed += tokens;
        }
        clock.ms()
    }

    /// Duration, ms, of a step that decodes one request with `context` tokens to attend to.
    #[must_use]
    pub fn decode_step_ms(&self, context: u32) -> f64 {
        let mut load = StepLoad::default();
        load.decode(context);
        self.timing.step_ms(&load)
    }
}

/// One request to the engine.
#[derive(Clone, Debug)]
pub struct Job {
    /// The caller's own number; unique among jobs in the engine.
    pub id: u64,
    /// Chained hashes of the FULL blocks (`EngineSpec::block` tokens each) of the prompt. Blocks beyond the prompt are ignored;
    /// tokens without a hash are never shared.
    pub blocks: Arc<[u64]>,
    /// Prompt length, tokens (at least 1).
    pub prompt_tokens: u32,
    /// Tokens to generate (at least 1).
    pub output_tokens: u32,
}

/// What happened in the engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EngineEvent {
    /// A job's first token, at the end of the step that finished its prompt.
    FirstToken {
        /// The job.
        id: u64,
        /// When.
        at: Time,
        /// Prompt tokens found in the cache when it was first admitted; always fewer than the prompt has.
        cached_tokens: u32,
    },
    /// One further token.
    Token {
        /// The job.
        id: u64,
        /// When.
        at: Time,
    },
    /// The job is finished (follows its last token).
    Done {
        /// The job.
        id: u64,
        /// When.
        at: Time,
    },
    /// The job can never run: prompt and output need more KV than the engine has. Follows its submission at once.
    TooLarge {
        /// The job.
        id: u64,
        /// When.
        at: Time,
    },
}

impl EngineEvent {
    /// The job that it happened to.
    #[must_use]
    pub fn id(&self) -> u64 {
        match *self {
            Self::FirstToken { id, .. }
            | Self::Token { id, .. }
            | Self::Done { id, .. }
            | Self::TooLarge { id, .. } => id,
        }
    }

    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Time {
        match *self {
            Self::FirstToken { at, .. }
            | Self::Token { at, .. }
            | Self::Done { at, .. }
            | Self::TooLarge { at, .. } => at,
        }
    }
}

/// What an engine's metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineGauges {
    /// Requests in the batch.
    pub running: u32,
    /// Requests waiting.
    pub waiting: u32,
    /// KV tokens in use by running requests: what is written, not what is reserved for output to come.
    pub used_tokens: u64,
    /// KV tokens held only by the prefix cache (evictable).
    pub cached_tokens: u64,
    /// Prompt tokens of all requests admitted so far; a request that was preempted counts once.
    pub prompt_tokens_total: u64,
    /// Of these found in the cache.
    pub cached_tokens_total: u64,
    /// Tokens generated in total.
    pub generation_tokens_total: u64,
    /// Requests preempted in total (always 0 with [`Scheduler::PrefillFirst`]).
    pub preemptions_total: u64,
    /// Time spent in finished steps; the share of time at work is `busy_ms / elapsed`.
    pub busy_ms: f64,
}
