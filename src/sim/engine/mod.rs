//! One inference engine in virtual time: continuous batching, chunked prefill, prefix cache, KV limits.
//!
//! A job waits, is admitted into the running batch, has its prompt computed chunk by chunk (less what the cache holds) and then
//! gets one token per step that decodes it. What is modelled: both schedulers' batch composition, the step time, KV in blocks
//! with prefix reuse and eviction. What is not: reuse of output KV (conservative), tokenising and HTTP, CPU tiers of the cache,
//! speculation. Steps begin when the last one ends, at once if a job comes to an idle engine; an idle engine costs nothing.

mod batch;
mod kv;
mod sequence;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{EngineEvent, EngineGauges, EngineSpec, Job, Order, Scheduler};

use self::batch::Batch;
use self::sequence::Sequence;
use crate::model::Time;

/// The engine. Driven from outside: [`Self::next_event`] says when, [`Self::advance`] does it.
pub struct Engine {
    spec: EngineSpec,
    batch: Batch,
    step: Option<Step>,
    /// Events that [`Self::submit`] and [`Self::abort`] came across; the next [`Self::advance`] hands them out first.
    outbox: Vec<EngineEvent>,
    /// The latest instant seen: time never goes back, even if the caller's does.
    clock: Time,
    busy_micros: u64,
    /// Factor on the time of every step that begins.
    slowness: f64,
    /// No step begins before.
    stalled_until: Time,
}

/// A step under way. It runs to its end even if all its jobs are aborted: the GPU cannot take it back.
#[derive(Clone, Copy)]
struct Step {
    began: Time,
    ends: Time,
}

impl Engine {
    /// An idle engine with an empty cache.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            batch: Batch::new(&spec),
            spec,
            step: None,
            outbox: Vec::new(),
            clock: Time::ZERO,
            busy_micros: 0,
            slowness: 1.0,
            stalled_until: Time::ZERO,
        }
    }

    /// From the next step on every step takes `factor` times as long (1 = as described; what is not positive counts as 1).
    pub fn set_slowness(&mut self, factor: f64) {
        self.slowness = if factor > 0.0 && factor.is_finite() { factor } else { 1.0 };
    }

    /// The engine stands still until `until`: the step under way ends that much later, and none begins before.
    pub fn stall(&mut self, now: Time, until: Time) {
        self.catch_up(now);
        self.stalled_until = self.stalled_until.max(until);
        if let Some(step) = &mut self.step {
            step.ends = step.ends.plus_ms(until.since_ms(self.clock));
        }
    }

    /// A job arrives. Starts a step at `now` if the engine is idle.
    ///
    /// Steps that ended before `now` are finished first, so that the job cannot join one that began before it came.
    pub fn submit(&mut self, now: Time, job: Job) {
        self.catch_up(now);
        let tokens = u64::from(job.prompt_tokens) + u64::from(job.output_tokens);
        if tokens >= u64::from(u32::MAX) || !self.batch.kv.can_ever_hold(tokens) {
            self.outbox.push(EngineEvent::TooLarge { id: job.id, at: self.clock });
            return;
        }
        self.batch.waiting.push_back(Sequence::new(job, self.spec.block.max(1)));
        if self.step.is_none() {
            self.begin_step();
        }
    }

    /// The client went away: the job leaves at once, its blocks are unpinned, no event of it follows. False if it is unknown.
    pub fn abort(&mut self, now: Time, id: u64) -> bool {
        self.catch_up(now);
        let known = self.batch.remove(id);
        if known {
            self.outbox.retain(|event| event.id() != id);
        }
        known
    }

    /// Has a step been begun in which this job's prompt was, even if it was put back since? False if it is unknown.
    pub fn has_begun(&mut self, now: Time, id: u64) -> bool {
        self.catch_up(now);
        self.batch.has_begun(id)
    }

    /// End of the current step, if one runs: the next time at which [`Self::advance`] has something to do.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        self.outbox.first().map(EngineEvent::at).or(self.step.map(|step| step.ends))
    }

    /// Runs all steps that end at or before `now`; appends what happened, in order, to `events`.
    pub fn advance(&mut self, now: Time, events: &mut Vec<EngineEvent>) {
        events.append(&mut self.outbox);
        self.run(now, events);
    }

    /// Empties the prefix cache; refused (false) while any job runs or waits, as SGLang does.
    pub fn flush(&mut self) -> bool {
        let idle = self.batch.is_idle();
        if idle {
            self.batch.kv.clear();
        }
        idle
    }

    /// What the engine's metrics show, as of the last call with a time.
    #[must_use]
    pub fn gauges(&self) -> EngineGauges {
        let totals = self.batch.totals;
        EngineGauges {
            running: self.batch.running.len() as u32,
            waiting: self.batch.waiting.len() as u32,
            used_tokens: self.batch.used_tokens(),
            cached_tokens: self.batch.kv.evictable_tokens(),
            prompt_tokens_total: totals.prompt_tokens,
            cached_tokens_total: totals.cached_tokens,
            generation_tokens_total: totals.generated_tokens,
            preemptions_total: totals.preemptions,
            busy_ms: self.busy_micros as f64 / 1e3,
        }
    }

    /// The description that it was made from.
    #[must_use]
    pub fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// [`Self::advance`] into the outbox, for callers that did not advance to `now` themselves.
    fn catch_up(&mut self, now: Time) {
        let mut events = std::mem::take(&mut self.outbox);
        self.run(now, &mut events);
        self.outbox = events;
    }

    fn run(&mut self, now: Time, events: &mut Vec<EngineEvent>) {
        while let Some(step) = self.step.filter(|step| step.ends <= now) {
            self.clock = step.ends;
            self.busy_micros += step.ends.micros() - step.began.micros();
            self.batch.finish(step.ends, events);
            self.begin_step();
        }
        self.clock = self.clock.max(now);
    }

    fn begin_step(&mut self) {
        let load = self.batch.plan();
        let began = self.clock.max(self.stalled_until);
        let ms = self.spec.timing.step_ms(&load) * self.slowness;
        self.step = (!load.is_empty()).then(|| Step { began, ends: began.plus_ms(ms) });
    }
}
