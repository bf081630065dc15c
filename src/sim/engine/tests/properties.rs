//! What must hold whatever comes in: tokens as asked for, balanced books, time that goes forward, repeatability.

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};

use super::{drain, job, spec};
use crate::model::Time;
use crate::sim::engine::{Engine, EngineEvent, EngineSpec, Order, Scheduler};
use crate::sim::preset;

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

fn specs() -> impl Strategy<Value = EngineSpec> {
    let schedulers = prop_oneof![Just(Scheduler::PrefillFirst), Just(Scheduler::Mixed)];
    let orders = prop_oneof![Just(Order::Arrival), Just(Order::LongestPrefix)];
    (schedulers, orders).prop_map(|(scheduler, order)| EngineSpec { order, ..spec(scheduler) })
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
    fn tokens_come_out_as_asked_and_the_books_balance(spec in specs(), acts in acts()) {
        let mut engine = Engine::new(spec);
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
    fn equal_inputs_give_equal_events(spec in specs(), acts in acts()) {
        let first = play(&mut Engine::new(spec.clone()), &acts);
        let second = play(&mut Engine::new(spec), &acts);
        prop_assert_eq!(first, second);
    }

    #[test]
    fn lone_request_takes_what_was_announced(cached in 0..3000u32, further in 1..40_000u32, mixed in proptest::bool::ANY) {
        let scheduler = if mixed { Scheduler::Mixed } else { Scheduler::PrefillFirst };
        let spec = EngineSpec { scheduler, ..preset::engine("a100-80", "mistral-7b").expect("a preset") };
        let prompt = cached + further;
        let mut engine = Engine::new(spec.clone());
        let mut events = Vec::new();
        if cached > 0 {
            engine.submit(Time::ZERO, job(0, 0, cached, 1));
            drain(&mut engine, &mut events);
        }
        let start = Time::from_ms(1e6);
        engine.submit(start, job(1, 0, prompt, 1));
        events.clear();
        drain(&mut engine, &mut events);
        let took = events[0].at().since_ms(start);
        prop_assert!((took - spec.lone_prefill_ms(cached, prompt)).abs() < 1e-6, "{took} ms");
    }

    #[test]
    fn longer_cached_prefix_is_never_slower(gpu in 0..9usize, prompt in 2..60_000u32, a in 0.0..1.0f64, b in 0.0..1.0f64) {
        let gpu = crate::sim::hardware::GPUS[gpu].id;
        let spec = preset::engine(gpu, "mistral-7b").expect("fits everywhere");
        let cached = |share: f64| (f64::from(prompt) * share) as u32;
        let (less, more) = (cached(a.min(b)), cached(a.max(b)));
        // Each step ends on a whole microsecond: half a microsecond for each of at most 30 steps.
        let rounding_ms = 0.015;
        prop_assert!(spec.lone_prefill_ms(more, prompt) <= spec.lone_prefill_ms(less, prompt) + rounding_ms);
    }
}
