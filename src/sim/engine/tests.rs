//! Batch composition, KV and timing in cases worked out by hand: each transcript is what an engine of round figures must say.

mod properties;

use std::sync::Arc;

use super::{Engine, EngineEvent, EngineSpec, Job, Order, Scheduler};
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
        order: Order::Arrival,
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

/// Transcript of a fresh engine.
fn run(spec: EngineSpec, jobs: &[(f64, Job)]) -> String {
    transcript(&mut Engine::new(spec), jobs)
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

#[test]
fn the_longest_cached_prefix_goes_first_where_the_order_says_so() {
    // Text 1 is cached; while text 2 runs alone, texts 3 and 1 come. One at a time: who is second?
    let one = EngineSpec { max_running: 1, ..spec(Scheduler::PrefillFirst) };
    let jobs =
        [(0.0, job(1, 1, 80, 1)), (200.0, job(2, 2, 80, 1)), (210.0, job(3, 3, 80, 1)), (220.0, job(4, 1, 80, 1))];
    let firsts = |order| {
        let told = run(EngineSpec { order, ..one.clone() }, &jobs);
        told.lines().filter(|line| line.contains("first")).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let arrival = ["90 1 first, 0 cached", "290 2 first, 0 cached", "380 3 first, 0 cached", "406 4 first, 64 cached"];
    assert_eq!(firsts(Order::Arrival), arrival);
    let prefix = ["90 1 first, 0 cached", "290 2 first, 0 cached", "316 4 first, 64 cached", "406 3 first, 0 cached"];
    assert_eq!(firsts(Order::LongestPrefix), prefix);
}

#[test]
fn chunk_boundaries() {
    // (prompt, time of the first token): a step costs 10 ms and 1 ms per token, a chunk is 100 tokens.
    let cases = [(1, 11.0), (99, 109.0), (100, 110.0), (101, 121.0), (200, 220.0), (201, 231.0), (350, 390.0)];
    for scheduler in [Scheduler::PrefillFirst, Scheduler::Mixed] {
        for (prompt, first_ms) in cases {
            let first = format!("{first_ms:>5} 1 first, 0 cached\n{first_ms:>5} 1 done\n");
            assert_eq!(run(spec(scheduler), &[(0.0, job(1, 1, prompt, 1))]), first, "{prompt} tokens, {scheduler:?}");
            assert_eq!(spec(scheduler).lone_prefill_ms(0, prompt), first_ms, "{prompt} tokens alone");
        }
    }
}

#[test]
fn a_throttled_engine_takes_longer_from_the_next_step_on() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    let mut events = Vec::new();
    engine.submit(Time::ZERO, job(1, 1, 20, 4));
    engine.advance(Time::from_ms(10.0), &mut events);
    engine.set_slowness(3.0);
    engine.advance(Time::from_ms(50.0), &mut events);
    engine.set_slowness(f64::NAN);
    drain(&mut engine, &mut events);
    // 30 ms as it began, a step of 3 · 11 ms that began before the end of the throttling, and two as described.
    let at: Vec<f64> = events.iter().map(|event| event.at().ms()).collect();
    assert_eq!(at, [30.0, 63.0, 74.0, 85.0, 85.0]);
}

#[test]
fn a_stalled_engine_loses_the_time_and_nothing_else() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    let mut events = Vec::new();
    engine.submit(Time::ZERO, job(1, 1, 20, 3));
    engine.stall(Time::from_ms(35.0), Time::from_ms(135.0));
    drain(&mut engine, &mut events);
    assert_eq!(events.iter().map(|event| event.at().ms()).collect::<Vec<_>>(), [30.0, 141.0, 152.0, 152.0]);
    // Idle when it stalls: what comes meanwhile begins at the end of it.
    engine.stall(Time::from_ms(200.0), Time::from_ms(300.0));
    engine.submit(Time::from_ms(250.0), job(2, 2, 20, 1));
    events.clear();
    drain(&mut engine, &mut events);
    assert_eq!(events.first().map(|event| event.at().ms()), Some(330.0));
}

#[test]
fn prefill_first_stalls_decodes() {
    // Job 2 comes while job 1 decodes (step 30..41): its two prefill steps (110 and 60 ms) run alone, job 1 waits for 170 ms.
    insta::assert_snapshot!(run(spec(Scheduler::PrefillFirst), &[(0.0, job(1, 1, 20, 4)), (35.0, job(2, 2, 150, 2))]), @r"
       30 1 first, 0 cached
       41 1 token
      211 2 first, 0 cached
      223 1 token
      223 2 token
      223 2 done
      234 1 token
      234 1 done
    ");
}

#[test]
fn mixed_does_not_stall_decodes() {
    // The same: each step decodes job 1 and gives 99 and then 51 tokens to the prompt of job 2.
    insta::assert_snapshot!(run(spec(Scheduler::Mixed), &[(0.0, job(1, 1, 20, 4)), (35.0, job(2, 2, 150, 2))]), @r"
       30 1 first, 0 cached
       41 1 token
      151 1 token
      213 1 token
      213 1 done
      213 2 first, 0 cached
      224 2 token
      224 2 done
    ");
}

#[test]
fn short_prompts_share_a_prefill_step() {
    // 40 + 40 + 20 of job 3's 40 tokens fill the chunk of 100; its other 20 come with job 4.
    let jobs = [
        (0.0, job(0, 0, 1, 1)),
        (1.0, job(1, 1, 40, 1)),
        (1.0, job(2, 2, 40, 1)),
        (1.0, job(3, 3, 40, 1)),
        (1.0, job(4, 4, 40, 1)),
    ];
    insta::assert_snapshot!(run(spec(Scheduler::PrefillFirst), &jobs), @r"
     11 0 first, 0 cached
     11 0 done
    121 1 first, 0 cached
    121 1 done
    121 2 first, 0 cached
    121 2 done
    191 3 first, 0 cached
    191 3 done
    191 4 first, 0 cached
    191 4 done
    ");
}

#[test]
fn prefix_is_reused_once_its_prefill_has_ended() {
    // While job 0 runs, 1 and 2 come with the same text and are computed side by side. Job 3 finds it; job 4 all but its last
    // full block, since at least one token has to be computed; job 5 shares no text.
    let jobs = [
        (0.0, job(0, 0, 1, 1)),
        (1.0, job(1, 1, 40, 2)),
        (1.0, job(2, 1, 40, 2)),
        (200.0, job(3, 1, 50, 1)),
        (300.0, job(4, 1, 48, 1)),
        (400.0, job(5, 5, 48, 1)),
    ];
    insta::assert_snapshot!(run(spec(Scheduler::PrefillFirst), &jobs), @r"
     11 0 first, 0 cached
     11 0 done
    101 1 first, 0 cached
    101 2 first, 0 cached
    113 1 token
    113 1 done
    113 2 token
    113 2 done
    228 3 first, 32 cached
    228 3 done
    326 4 first, 32 cached
    326 4 done
    458 5 first, 0 cached
    458 5 done
    ");
}

#[test]
fn first_that_does_not_fit_blocks_the_rest() {
    // 40 blocks of KV: job 1 takes 32 of them for 500 + 3 tokens, job 2 needs 13, and small job 3 waits behind it.
    let jobs = [(0.0, job(1, 1, 500, 3)), (1.0, job(2, 2, 200, 1)), (2.0, job(3, 3, 10, 1))];
    insta::assert_snapshot!(run(spec(Scheduler::PrefillFirst), &jobs), @r"
    550 1 first, 0 cached
    561 1 token
    572 1 token
    572 1 done
    792 2 first, 0 cached
    792 2 done
    812 3 first, 0 cached
    812 3 done
    ");
}

#[test]
fn running_limit_holds_requests_back() {
    let spec = EngineSpec { max_running: 1, ..spec(Scheduler::Mixed) };
    insta::assert_snapshot!(run(spec, &[(0.0, job(1, 1, 20, 2)), (0.0, job(2, 2, 20, 1))]), @r"
     30 1 first, 0 cached
     41 1 token
     41 1 done
     71 2 first, 0 cached
     71 2 done
    ");
}

#[test]
fn most_recent_request_is_preempted_and_recomputed() {
    // 6 blocks of KV, 2 for each prompt of 32: when jobs 1 and 2 need a third one for their output, job 3 loses its two. It comes
    // back when job 1 is done; the token that it had is recomputed with the prompt (33 tokens), not told again.
    let spec = EngineSpec { kv_tokens: 96, ..spec(Scheduler::Mixed) };
    let jobs = [(0.0, job(0, 0, 1, 1)), (1.0, job(1, 1, 32, 3)), (1.0, job(2, 2, 32, 4)), (1.0, job(3, 3, 32, 4))];
    let mut engine = Engine::new(spec);
    insta::assert_snapshot!(transcript(&mut engine, &jobs), @r"
     11 0 first, 0 cached
     11 0 done
    117 1 first, 0 cached
    117 2 first, 0 cached
    117 3 first, 0 cached
    129 1 token
    129 2 token
    141 1 token
    141 1 done
    141 2 token
    185 2 token
    185 2 done
    185 3 token
    196 3 token
    207 3 token
    207 3 done
    ");
    assert_eq!(engine.gauges().preemptions_total, 1);
    assert_eq!(engine.gauges().prompt_tokens_total, 97, "counted once");
}

#[test]
fn prefill_first_reserves_output_and_never_preempts() {
    let spec = EngineSpec { kv_tokens: 96, ..spec(Scheduler::PrefillFirst) };
    let jobs = [(0.0, job(1, 1, 32, 4)), (0.0, job(2, 2, 32, 4)), (0.0, job(3, 3, 32, 4))];
    let mut engine = Engine::new(spec);
    insta::assert_snapshot!(transcript(&mut engine, &jobs), @r"
     42 1 first, 0 cached
     84 2 first, 0 cached
     96 1 token
     96 2 token
    108 1 token
    108 2 token
    120 1 token
    120 1 done
    120 2 token
    120 2 done
    162 3 first, 0 cached
    173 3 token
    184 3 token
    195 3 token
    195 3 done
    ");
    assert_eq!(engine.gauges().preemptions_total, 0);
}

#[test]
fn too_large_is_told_at_once_and_harms_nobody() {
    let endless = Job { id: 3, blocks: Arc::from([]), prompt_tokens: u32::MAX, output_tokens: u32::MAX };
    let jobs = [(0.0, job(1, 1, 20, 2)), (3.0, job(2, 2, 630, 11)), (4.0, endless)];
    insta::assert_snapshot!(run(spec(Scheduler::Mixed), &jobs), @r"
      3 2 too large
      4 3 too large
     30 1 first, 0 cached
     41 1 token
     41 1 done
    ");
}

#[test]
fn least_recently_used_prefix_is_evicted() {
    // 40 blocks. Three texts of 12 full blocks are cached, and text 1 used once more, when text 4 needs 13 blocks: 4 are free, 9
    // come from the end of text 2.
    let texts = [1, 2, 3, 1, 4, 1, 3, 2];
    let jobs: Vec<(f64, Job)> =
        (0..).zip(texts).map(|(id, text)| (1000.0 * id as f64, job(id, text, 200, 1))).collect();
    let transcript = run(spec(Scheduler::PrefillFirst), &jobs);
    let cached: Vec<&str> = transcript.lines().filter_map(|line| line.split(" first, ").nth(1)).collect();
    let (cold, warm) = ("0 cached", "192 cached");
    assert_eq!(cached, [cold, cold, cold, warm, cold, warm, warm, "48 cached"]);
}

#[test]
fn abort_frees_at_once_and_the_step_runs_to_its_end() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    let mut events = Vec::new();
    engine.submit(Time::ZERO, job(1, 1, 300, 100)); // 25 blocks, in its first chunk until 110 ms
    engine.submit(Time::ZERO, job(2, 2, 300, 100)); // waits for KV
    engine.submit(Time::ZERO, job(3, 3, 10, 1));
    let gauges = |engine: &Engine| (engine.gauges().running, engine.gauges().waiting);
    assert_eq!(gauges(&engine), (1, 2));
    assert!(engine.abort(Time::from_ms(50.0), 1), "mid-prefill");
    assert_eq!(gauges(&engine), (0, 2));
    assert_eq!(engine.batch.kv.accounting(), (0, 0, 0, 40));
    assert_eq!(engine.next_event(), Some(Time::from_ms(110.0)), "the step under way goes on");
    assert!(engine.abort(Time::from_ms(60.0), 2), "while waiting");
    assert!(!engine.abort(Time::from_ms(60.0), 2), "known no more");
    drain(&mut engine, &mut events);
    insta::assert_snapshot!(events.iter().map(line).collect::<String>(), @r"
    130 3 first, 0 cached
    130 3 done
    ");
}

#[test]
fn no_event_of_an_aborted_job_follows() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    let mut events = Vec::new();
    engine.submit(Time::ZERO, job(1, 1, 20, 5));
    // The caller did not advance: the tokens at 30, 41 and 52 ms are pending when the job goes.
    assert!(engine.abort(Time::from_ms(55.0), 1));
    drain(&mut engine, &mut events);
    assert_eq!(events, []);
    assert_eq!(engine.gauges().generation_tokens_total, 3);
}

#[test]
fn flush_is_refused_while_busy() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    let mut events = Vec::new();
    engine.submit(Time::ZERO, job(1, 1, 40, 2));
    assert!(!engine.flush(), "running");
    drain(&mut engine, &mut events);
    assert_eq!((engine.gauges().used_tokens, engine.gauges().cached_tokens), (0, 32));
    assert!(engine.flush());
    assert_eq!(engine.gauges().cached_tokens, 0);
}

#[test]
fn gauges_show_what_is_written() {
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    let mut events = Vec::new();
    engine.submit(Time::ZERO, job(1, 1, 150, 20));
    // (time, tokens written): nothing, one chunk, the prompt, one more with each decode step.
    for (ms, used) in [(0.0, 0), (109.0, 0), (110.0, 100), (170.0, 150), (181.0, 151), (192.0, 152)] {
        engine.advance(Time::from_ms(ms), &mut events);
        assert_eq!(engine.gauges().used_tokens, used, "{ms} ms");
    }
}

#[test]
fn idle_engine_does_nothing_and_zeros_count_as_one() {
    let mut engine = Engine::new(EngineSpec { chunk: 0, max_running: 0, block: 0, ..spec(Scheduler::Mixed) });
    let mut events = Vec::new();
    engine.advance(Time::from_ms(1e6), &mut events);
    assert_eq!((engine.next_event(), engine.gauges().busy_ms), (None, 0.0));
    let empty = Job { id: 1, blocks: Arc::from([]), prompt_tokens: 0, output_tokens: 0 };
    engine.submit(Time::from_ms(1e6), empty);
    drain(&mut engine, &mut events);
    insta::assert_snapshot!(events.iter().map(line).collect::<String>(), @r"
    1000011 1 first, 0 cached
    1000011 1 done
    ");
}

#[test]
fn a_caller_that_does_not_advance_gets_the_same() {
    let jobs = [(0.0, job(1, 1, 150, 4)), (115.0, job(2, 1, 150, 3)), (300.0, job(3, 2, 10, 2))];
    let mut engine = Engine::new(spec(Scheduler::PrefillFirst));
    for (at, job) in &jobs {
        engine.submit(Time::from_ms(*at), job.clone());
    }
    let mut events = Vec::new();
    drain(&mut engine, &mut events);
    let told: String = events.iter().map(line).collect();
    assert_eq!(told, run(spec(Scheduler::PrefillFirst), &jobs));
}
