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

/// One thing that happens to an engine.
#[derive(Clone, Debug)]
enum Act {
    /// Time passes, µs; the engine is told or finds out later.
    Wait { micros: u64, told: bool },
    /// A prompt of so many tokens of a text and an output length.
    Submit { text: u64, prompt: u32, output: u32 },
    /// The job that was submitted as number `index` (modulo all so far) is aborted.
    Abort { index: usize },
    /// The cache is flushed, if the engine allows.
    Flush,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..200_000u64, proptest::bool::ANY).prop_map(|(micros, told)| Act::Wait { micros, told }),
        6 => (0..4u64, 1..300u32, 1..60u32).prop_map(|(text, prompt, output)| Act::Submit { text, prompt, output }),
        1 => (600..700u32).prop_map(|prompt| Act::Submit { text: 9, prompt, output: 20 }),
        2 => (0..64usize).prop_map(|index| Act::Abort { index }),
        1 => Just(Act::Flush),
    ];
    collection::vec(act, 1..80)
}

fn schedulers() -> impl Strategy<Value = Scheduler> {
    prop_oneof![Just(Scheduler::PrefillFirst), Just(Scheduler::Mixed)]
}

/// Carries out the acts and drains the engine, checking the books after every act. Returns all events and the jobs that were
/// aborted while the engine knew them.
fn play(engine: &mut Engine, acts: &[Act]) -> (Vec<EngineEvent>, Vec<u64>) {
    let (mut now, mut events, mut aborted, mut submitted) = (Time::ZERO, Vec::new(), Vec::new(), 0);
    for act in acts {
        match *act {
            Act::Wait { micros, told } => {
                now = Time::from_micros(now.micros() + micros);
                if told {
                    engine.advance(now, &mut events);
                }
            }
            Act::Submit { text, prompt, output } => {
                engine.submit(now, job(submitted, text, prompt, output));
                submitted += 1;
            }
            Act::Abort { index } if submitted > 0 => {
                let id = index as u64 % submitted;
                if engine.abort(now, id) {
                    aborted.push(id);
                }
            }
            Act::Abort { .. } => {}
            Act::Flush => {
                let gauges = engine.gauges();
                assert_eq!(engine.flush(), gauges.running + gauges.waiting == 0, "flushed if and only if idle");
            }
        }
        check_books(engine);
    }
    while let Some(at) = engine.next_event() {
        engine.advance(at, &mut events);
        check_books(engine);
    }
    (events, aborted)
}

/// KV never exceeds the capacity, and what requests hold adds up to what is taken.
fn check_books(engine: &Engine) {
    let (private, pinned, evictable, capacity) = engine.batch.kv.accounting();
    assert!(private + pinned + evictable <= capacity, "{private} + {pinned} + {evictable} > {capacity} blocks");
    let running = &engine.batch.running;
    assert_eq!(running.iter().map(|sequence| sequence.hold.private as usize).sum::<usize>(), private);
    assert!(running.iter().all(|sequence| sequence.hold.shared as usize <= pinned));
    assert!(running.len() <= engine.spec.max_running as usize);
    for sequence in running {
        let room = (sequence.hold.shared + sequence.hold.private) * engine.spec.block;
        assert!(sequence.computed + sequence.step <= room, "KV of {} has a place", sequence.id);
    }
    assert!(engine.gauges().used_tokens <= engine.spec.kv_tokens);
    if running.is_empty() {
        assert_eq!((private, pinned), (0, 0), "nobody holds anything");
    }
}

proptest! {
    #[test]
    fn tokens_come_out_as_asked_and_the_books_balance(scheduler in schedulers(), acts in acts()) {
        let mut engine = Engine::new(spec(scheduler));
        let (events, aborted) = play(&mut engine, &acts);
        let gauges = engine.gauges();
        prop_assert_eq!((gauges.running, gauges.waiting, gauges.used_tokens), (0, 0, 0), "drained");
        prop_assert!(events.is_sorted_by_key(EngineEvent::at), "time goes forward");

        let submitted = acts.iter().filter_map(|act| match *act {
            Act::Submit { prompt, output, .. } => Some((prompt, output)),
            _ => None,
        });
        for (id, (prompt, output)) in submitted.enumerate() {
            let of_job: Vec<&EngineEvent> = events.iter().filter(|event| event.id() == id as u64).collect();
            let tokens = |event: &&&EngineEvent| matches!(event, EngineEvent::FirstToken { .. } | EngineEvent::Token { .. });
            let tokens = of_job.iter().filter(tokens).count();
            if prompt + output > 640 {
                assert!(matches!(of_job[..], [EngineEvent::TooLarge { .. }]));
            } else if aborted.contains(&(id as u64)) {
                prop_assert!(tokens < output as usize);
            } else {
                prop_assert_eq!(tokens, output as usize);
                let EngineEvent::FirstToken { cached_tokens, .. } = *of_job[0] else { panic!("{:?}", of_job[0]) };
                prop_assert!(cached_tokens < prompt && cached_tokens % 16 == 0);
                assert!(matches!(of_job.last(), Some(EngineEvent::Done { .. })));
            }
        }
    }

    #[test]
    fn equal_inputs_give_equal_events(scheduler in schedulers(), acts in acts()) {
        let first = play(&mut Engine::new(spec(scheduler)), &acts);
        let second = play(&mut Engine::new(spec(scheduler)), &acts);
        prop_assert_eq!(first, second);
    }
}
