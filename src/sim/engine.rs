//! One inference engine in virtual time: continuous batching, chunked prefill, prefix cache, KV limits.

use std::sync::Arc;

use super::timing::StepTiming;
use crate::model::Time;

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

/// Everything that describes an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSpec {
    /// Step time.
    pub timing: StepTiming,
    /// Tokens of prefill per step.
    pub chunk: u32,
    /// Most requests running.
    pub max_running: u32,
    /// KV capacity, tokens.
    pub kv_tokens: u64,
    /// KV block (page) size, tokens.
    pub block: u32,
    /// Batch composition.
    pub scheduler: Scheduler,
    /// Price, USD per hour, if known.
    pub usd_per_hour: Option<f64>,
}

/// One request to the engine.
#[derive(Clone, Debug)]
pub struct Job {
    /// The caller's own number; unique among jobs in the engine.
    pub id: u64,
    /// Chained hashes of the FULL blocks (`EngineSpec::block` tokens each) of the prompt.
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
        /// Prompt tokens found in the cache when it was admitted.
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
    /// The job can never run: it needs more KV than the engine has.
    TooLarge {
        /// The job.
        id: u64,
        /// When.
        at: Time,
    },
}

/// What an engine's metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineGauges {
    /// Requests in the batch.
    pub running: u32,
    /// Requests waiting.
    pub waiting: u32,
    /// KV tokens in use by running requests.
    pub used_tokens: u64,
    /// KV tokens held only by the prefix cache (evictable).
    pub cached_tokens: u64,
    /// Prompt tokens received in total.
    pub prompt_tokens_total: u64,
    /// Of these found in the cache in total.
    pub cached_tokens_total: u64,
    /// Tokens generated in total.
    pub generation_tokens_total: u64,
    /// Share of time spent in steps since the start is `busy_ms / elapsed`.
    pub busy_ms: f64,
}

/// The engine.
pub struct Engine {}

#[expect(unused_variables, missing_docs, reason = "signatures first")]
impl Engine {
    pub fn new(spec: EngineSpec) -> Self {
        unimplemented!()
    }
    /// A job arrives. Starts a step at `now` if the engine is idle.
    pub fn submit(&mut self, now: Time, job: Job) {
        unimplemented!()
    }
    /// The client went away: the job leaves at once, its blocks are unpinned. False if it is unknown.
    pub fn abort(&mut self, now: Time, id: u64) -> bool {
        unimplemented!()
    }
    /// End of the current step, if one runs: the next time at which [`Self::advance`] has something to do.
    pub fn next_event(&self) -> Option<Time> {
        unimplemented!()
    }
    /// Runs all steps that end at or before `now`; appends what happened, in order, to `events`.
    pub fn advance(&mut self, now: Time, events: &mut Vec<EngineEvent>) {
        unimplemented!()
    }
    /// Empties the prefix cache; refused (false) while any job runs or waits, as SGLang does.
    pub fn flush(&mut self) -> bool {
        unimplemented!()
    }
    pub fn gauges(&self) -> EngineGauges {
        unimplemented!()
    }
    pub fn spec(&self) -> &EngineSpec {
        unimplemented!()
    }
}
