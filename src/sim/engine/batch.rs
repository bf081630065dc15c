//! Which requests are in the next step, and what a finished step yields: both schedulers.
//!
//! Only the request admitted last can have an unfinished prompt (or recomputation): admission goes on while the step has budget
//! left, so the budget ended in it. Walking `running` in order of admission therefore serves decodes before prefill.

use std::collections::VecDeque;

use super::kv::KvCache;
use super::sequence::Sequence;
use super::spec::{EngineEvent, EngineSpec, Order, Scheduler};
use crate::model::Time;
use crate::sim::timing::StepLoad;

/// Longest line in which prompts are compared: beyond it SGLang, too, goes by arrival (its schedule policy, `lpm`).
const MOST_COMPARED: usize = 128;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) generated_tokens: u64,
    pub(super) preemptions: u64,
}

/// All requests of the engine and the KV memory that they share.
pub(super) struct Batch {
    pub(super) kv: KvCache,
    /// First come first served; a preempted request returns to the front.
    pub(super) waiting: VecDeque<Sequence>,
    /// In order of admission.
    pub(super) running: Vec<Sequence>,
    pub(super) totals: Totals,
    /// The first waiting request did not fit and nothing was freed or shared since: no need to try again.
    head_blocked: bool,
    scheduler: Scheduler,
    order: Order,
    chunk: u32,
    max_running: usize,
    block: u32,
}

impl Batch {
    pub(super) fn new(spec: &EngineSpec) -> Self {
        let block = spec.block.max(1);
        Self {
            kv: KvCache::new(spec.kv_tokens, block),
            waiting: VecDeque::new(),
            running: Vec::new(),
            totals: Totals::default(),
            head_blocked: false,
            scheduler: spec.scheduler,
            order: spec.order,
            chunk: spec.chunk.max(1),
            max_running: spec.max_running.max(1) as usize,
            block,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Composes the next step; an empty load means that there is nothing to do.
    pub(super) fn plan(&mut self) -> StepLoad {
        match self.scheduler {
            Scheduler::PrefillFirst => self.plan_prefill_first(),
            Scheduler::Mixed => self.plan_mixed(),
        }
    }

    fn plan_prefill_first(&mut self) -> StepLoad {
        let mut budget = self.chunk;
        let mut load = StepLoad::default();
        if let Some(last) = self.running.last_mut().filter(|last| last.in_prompt()) {
            last.schedule(&mut budget, &mut load);
        }
        self.admit(&mut budget, &mut load);
        if load.is_empty() {
            let mut unlimited = u32::MAX;
            for sequence in &mut self.running {
                sequence.schedule(&mut unlimited, &mut load);
            }
        }
        load
    }

    fn plan_mixed(&mut self) -> StepLoad {
        let mut budget = self.chunk;
        let mut load = StepLoad::default();
        let preemptions = self.totals.preemptions;
        let mut index = 0;
        while index < self.running.len() && budget > 0 {
            if self.make_room(index, budget) {
                self.running[index].schedule(&mut budget, &mut load);
                index += 1;
            }
        }
        if self.totals.preemptions == preemptions {
            self.admit(&mut budget, &mut load);
        }
        load
    }

    /// KV for the next tokens of the running request at `index`, preempting the most recent ones as needed; false if it had to
    /// go itself. Alone it always fits: larger requests are refused when they come.
    fn make_room(&mut self, index: usize, budget: u32) -> bool {
        while let Some(sequence) = self.running.get_mut(index) {
            let tokens = sequence.computed + sequence.remaining().min(budget);
            if self.kv.grow(&mut sequence.hold, tokens) {
                return true;
            }
            let victim = self.running.pop().expect("there is one at `index`");
            self.preempt(victim);
        }
        false
    }

    /// Back to the front of the line without its KV; what it generated is kept and recomputed like a prompt.
    fn preempt(&mut self, mut victim: Sequence) {
        self.kv.close(victim.hold, &victim.blocks);
        victim.hold = super::kv::Hold::default();
        victim.computed = 0;
        victim.step = 0;
        self.totals.preemptions += 1;
        self.head_blocked = false;
        self.waiting.push_front(victim);
    }

    /// Place in the line of the request that is to be admitted next.
    fn next_waiting(&self) -> usize {
        let matched = |sequence: &Sequence| self.kv.matched(sequence.reusable(self.block));
        match self.order {
            Order::LongestPrefix if self.waiting.len() <= MOST_COMPARED => {
                let all = self.waiting.iter().enumerate().rev();
                all.max_by_key(|(_, sequence)| matched(sequence)).map_or(0, |(place, _)| place)
            }
            _ => 0,
        }
    }

    /// Admits waiting requests in order while budget, running limit and KV allow; the first that does not fit blocks the rest.
    fn admit(&mut self, budget: &mut u32, load: &mut StepLoad) {
        while *budget > 0 && self.running.len() < self.max_running && !self.head_blocked {
            let place = self.next_waiting();
            let Some(mut sequence) = self.waiting.remove(place) else { return };
            if !self.open(&mut sequence) {
                self.head_blocked = true;
                self.waiting.insert(place, sequence);
                return;
            }
            let tokens = sequence.computed + sequence.remaining().min(*budget);
            let fits = self.kv.grow(&mut sequence.hold, tokens);
            debug_assert!(fits, "checked when it was opened");
            sequence.schedule(budget, load);
            self.running.push(sequence);
        }
    }

    /// Pins what the request can reuse and checks that the rest fits: its whole length under prefill first, what is known of it
    /// when mixed (vllm-project/vllm#37307, the default since 0.19: admitting by the first chunk alone lets a long prompt thrash,
    /// preempting itself chunk by chunk).
    fn open(&mut self, sequence: &mut Sequence) -> bool {
        let (tokens, reserve) = match self.scheduler {
            Scheduler::PrefillFirst => (sequence.prompt + sequence.output, true),
            Scheduler::Mixed => (sequence.known(), false),
        };
        let Some(hold) = self.kv.open(sequence.reusable(self.block), tokens, reserve) else { return false };
        sequence.hold = hold;
        sequence.computed = hold.shared * self.block;
        if sequence.cached.is_none() {
            sequence.cached = Some(sequence.computed);
            self.totals.prompt_tokens += u64::from(sequence.prompt);
            self.totals.cached_tokens += u64::from(sequence.computed);
        }
        true
    }

    /// The step ends: counts its tokens, tells what came out of it, lets finished requests go.
    pub(super) fn finish(&mut self, at: Time, events: &mut Vec<EngineEvent>) {
        let Self { kv, running, totals, head_blocked, .. } = self;
        running.retain_mut(|sequence| {
            sequence.computed += std::mem::take(&mut sequence.step);
            if sequence.remaining() > 0 {
                return true;
            }
            if sequence.owes_sharing() {
                let mut hold = sequence.hold;
                kv.share(&mut hold, sequence.shareable());
                sequence.hold = hold;
                *head_blocked = false;
            }
            let id = sequence.id;
            events.push(match sequence.generated {
                0 => EngineEvent::FirstToken { id, at, cached_tokens: sequence.cached.unwrap_or(0) },
                _ => EngineEvent::Token { id, at },
            });
            sequence.generated += 1;
            totals.generated_tokens += 1;
            if sequence.generated < sequence.output {
                return true;
            }
            kv.close(sequence.hold, &sequence.blocks);
            *head_blocked = false;
            events.push(EngineEvent::Done { id, at });
            false
        });
    }

    /// Was this request ever admitted?
    pub(super) fn has_begun(&self, id: u64) -> bool {
        let mut all = self.running.iter().chain(&self.waiting);
        all.any(|sequence| sequence.id == id && sequence.cached.is_some())
    }

    /// Takes a request out, wherever it is, and frees what it holds; false if it is unknown.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(index);
            self.kv.close(sequence.hold, &sequence.blocks);
        } else if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(index);
        } else {
            return false;
        }
        self.head_blocked = false;
        true
    }

    /// KV tokens written by running requests. Shared blocks count once, however many use them.
    pub(super) fn used_tokens(&self) -> u64 {
        let private = |sequence: &Sequence| u64::from(sequence.computed - sequence.hold.shared * self.block);
        self.kv.pinned_tokens() + self.running.iter().map(private).sum::<u64>()
    }
}
