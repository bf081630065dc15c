//! An engine with a process around it that can die, come back, hang and slow down.

use std::collections::BTreeSet;

use crate::model::Time;
use crate::routing::{EngineLimits, Gauges};
use crate::sim::engine::{Engine, EngineEvent, EngineSpec, Job, Order};

/// One replica's machine.
pub(super) struct Machine {
    spec: EngineSpec,
    /// `None`: the process is not there.
    engine: Option<Engine>,
    /// Jobs in the engine, for the day it dies.
    jobs: BTreeSet<u64>,
    /// It answers nothing before.
    pub(super) hangs_until: Time,
    /// Times as long as its steps take.
    slowness: f64,
    /// For when its next event is planned, and the turn of that plan.
    planned: Option<Time>,
    turn: u32,
    /// Of processes that are gone.
    tokens: u64,
    busy_ms: f64,
}

impl Machine {
    pub(super) fn new(spec: EngineSpec) -> Self {
        Self {
            engine: Some(Engine::new(spec.clone())),
            spec,
            jobs: BTreeSet::new(),
            hangs_until: Time::ZERO,
            slowness: 1.0,
            planned: None,
            turn: 0,
            tokens: 0,
            busy_ms: 0.0,
        }
    }

    pub(super) fn spec(&self) -> &EngineSpec {
        &self.spec
    }

    /// Gives it a job; false if there is no process to take it.
    pub(super) fn submit(&mut self, now: Time, job: Job) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        self.jobs.insert(job.id);
        engine.submit(now, job);
        true
    }

    pub(super) fn abort(&mut self, now: Time, job: u64) {
        if self.jobs.remove(&job)
            && let Some(engine) = &mut self.engine
        {
            engine.abort(now, job);
        }
    }

    /// Does the engine work on this job, or has it?
    pub(super) fn has_begun(&mut self, now: Time, job: u64) -> bool {
        self.jobs.contains(&job) && self.engine.as_mut().is_some_and(|engine| engine.has_begun(now, job))
    }

    /// What happened up to `now`, if the plan of this turn still holds.
    pub(super) fn advance(&mut self, now: Time, turn: u32, events: &mut Vec<EngineEvent>) {
        if turn != self.turn {
            return;
        }
        self.planned = None;
        if let Some(engine) = &mut self.engine {
            engine.advance(now, events);
        }
        for event in events.iter() {
            if let EngineEvent::Done { id, .. } | EngineEvent::TooLarge { id, .. } = event {
                self.jobs.remove(id);
            }
        }
    }

    /// When to look again and under which turn, if that differs from what is planned.
    pub(super) fn plan(&mut self, now: Time) -> Option<(Time, u32)> {
        let next = self.engine.as_ref().and_then(Engine::next_event).map(|at| at.max(now));
        if next == self.planned {
            return None;
        }
        self.planned = next;
        self.turn = self.turn.wrapping_add(1);
        next.map(|at| (at, self.turn))
    }

    /// The process dies; its jobs come back.
    pub(super) fn kill(&mut self) -> BTreeSet<u64> {
        (self.tokens, self.busy_ms) = (self.tokens(), self.busy_ms());
        self.engine = None;
        std::mem::take(&mut self.jobs)
    }

    /// A new process that knows nothing.
    pub(super) fn start(&mut self) {
        if self.engine.is_none() {
            let mut engine = Engine::new(self.spec.clone());
            engine.set_slowness(self.slowness);
            self.hangs_until = Time::ZERO;
            self.engine = Some(engine);
        }
    }

    pub(super) fn stall(&mut self, now: Time, until: Time) {
        self.hangs_until = self.hangs_until.max(until);
        if let Some(engine) = &mut self.engine {
            engine.stall(now, until);
        }
    }

    /// Of its GPU: a new process is as slow.
    pub(super) fn set_slowness(&mut self, factor: f64) {
        self.slowness = factor;
        if let Some(engine) = &mut self.engine {
            engine.set_slowness(factor);
        }
    }

    /// What its metrics page says now.
    pub(super) fn gauges(&self) -> Option<Gauges> {
        let told = self.engine.as_ref()?.gauges();
        let kv_tokens = self.spec.kv_tokens as f64;
        let used_tokens = told.used_tokens as f64;
        Some(Gauges {
            running: Some(f64::from(told.running)),
            waiting: Some(f64::from(told.waiting)),
            kv_usage: (kv_tokens > 0.0).then(|| used_tokens / kv_tokens),
            used_tokens: Some(used_tokens),
            kv_tokens: Some(kv_tokens),
        })
    }

    /// What it says of its settings.
    pub(super) fn limits(spec: &EngineSpec) -> EngineLimits {
        EngineLimits {
            max_running: Some(spec.max_running.max(1)),
            kv_tokens: Some(spec.kv_tokens),
            batch_tokens: Some(spec.chunk.max(1)),
            in_order: Some(spec.order == Order::Arrival),
        }
    }

    /// Tokens generated.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens + self.engine.as_ref().map_or(0, |engine| engine.gauges().generation_tokens_total)
    }

    /// Time at work, ms.
    pub(super) fn busy_ms(&self) -> f64 {
        self.busy_ms + self.engine.as_ref().map_or(0.0, |engine| engine.gauges().busy_ms)
    }
}
