//! Batch composition, KV accounting and timing, in cases worked out by hand and in properties over random traffic.

use std::sync::Arc;

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};

use super::{Engine, EngineEvent, EngineSpec, Job, Scheduler};
use crate::model::Time;
use crate::sim::timing::StepTiming;

/// 10 ms per step and 1 ms per token of it: times can be read off.
fn spec(scheduler: Scheduler) -> EngineSpec {
    EngineSpec {
        timing: StepTiming { fixed_ms: 10.0, linear_ms: 1.0, ..StepTiming::default() },
        chunk: 100,
        max_running: 8,
        kv_tokens: 640,
        block: 16,
        scheduler,
        usd_per_hour: None,
    }
}

/// A job whose prompt is the first `prompt` tokens of text number `text`; equal texts share all their full blocks.
fn job(id: u64, text: u64, prompt: u32, output: u32) -> Job {
    let blocks: Arc<[u64]> = (0..u64::from(prompt) / 16).map(|block| text << 32 | block).collect();
    Job { id, blocks, prompt_tokens: prompt, output_tokens: output }
}

/// Submits jobs at their times (ms), runs until nothing is left and writes one line per event.
fn transcript(engine: &mut Engine, jobs: &[(f64, Job)]) -> String {
    let mut events = Vec::new();
    for (at, job) in jobs {
        engine.advance(Time::from_ms(*at), &mut events);
        engine.submit(Time::from_ms(*at), job.clone());
    }
    drain(engine, &mut events);
    events.iter().map(line).collect()
}

fn drain(engine: &mut Engine, events: &mut Vec<EngineEvent>) {
    while let Some(at) = engine.next_event() {
        engine.advance(at, events);
    }
}

fn line(event: &EngineEvent) -> String {
    let (id, ms) = (event.id(), event.at().ms());
    match event {
        EngineEvent::FirstToken { cached_tokens, .. } => format!("{ms:>5} {id} first, {cached_tokens} cached\n"),
        EngineEvent::Token { .. } => format!("{ms:>5} {id} token\n"),
        EngineEvent::Done { .. } => format!("{ms:>5} {id} done\n"),
        EngineEvent::TooLarge { .. } => format!("{ms:>5} {id} too large\n"),
    }
}

#[test]
fn prompt_in_chunks_then_a_token_per_step() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    // 150 tokens: a chunk of 100 (110 ms), one of 50 (60 ms), then decode steps of one token (11 ms).
    insta::assert_snapshot!(transcript(&mut engine, &[(5.0, job(1, 1, 150, 3))]), @r"
      175 1 first, 0 cached
      186 1 token
      197 1 token
      197 1 done
    ");
    let gauges = engine.gauges();
    assert_eq!((gauges.prompt_tokens_total, gauges.generation_tokens_total, gauges.busy_ms), (150, 3, 192.0));
}
