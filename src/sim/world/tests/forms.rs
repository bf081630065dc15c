//! Against what queueing theory and the engine model alone say.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::{Case, conversations, fleet, mean, plan, session, step, ttft_ms};
use crate::model::Time;
use crate::sim::engine::{Engine, EngineEvent, Job};
use crate::sim::fleet::engine_spec;
use crate::workload::Plan;
use crate::workload::reblock::chained_blocks;

/// Single requests of `tokens` tokens at Poisson times.
fn poisson(per_s: f64, count: u64, tokens: u32) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut at_ms = 0.0;
    let one = |id| {
        at_ms += rng.sample::<f64, _>(Exp1) * 1000.0 / per_s;
        session(id, at_ms, vec![step(1000 + id, tokens, 1, 0.0)])
    };
    plan((0..count).map(one).collect())
}

#[test]
fn one_prompt_per_step_is_a_queue_of_constant_service() {
    // A chunk holds one prompt: 10 + 0.1 · 100 = 20 ms each, first come first served. M/D/1: the wait before service is
    // rho / (2 (1 - rho)) services on average (Pollaczek and Khinchine).
    let fleet = fleet("a", "a", "chunk = 100\nmax_running = 100000\n");
    for rho in [0.3, 0.6, 0.8] {
        let plan = poisson(rho * 50.0, 40_000, 100);
        let played = Case::new(&fleet, &plan, "round-robin").play();
        let times = ttft_ms(&played);
        assert_eq!(times.len(), 40_000);
        let wanted = 20.0 + 20.0 * rho / (2.0 * (1.0 - rho));
        let found = mean(&times);
        assert!((found / wanted - 1.0).abs() < 0.04, "rho {rho}: {found:.2} ms, {wanted:.2} ms by the formula");
        // The law of utilisation: time at work = arrivals times service.
        assert!((played.busy_ms[0] - 40_000.0 * 20.0).abs() < 1.0, "{:?}", played.busy_ms);
    }
}

#[test]
fn two_engines_in_turn_are_two_queues_of_half_the_traffic() {
    // Every second arrival of a Poisson process: gaps are Erlang-2, so waits lie below those of M/D/1 at the same load.
    let fleet = fleet("ab", "a", "chunk = 100\n");
    let plan = poisson(70.0, 20_000, 100);
    let played = Case::new(&fleet, &plan, "round-robin").play();
    let share = played.samples.iter().filter(|sample| sample.replica.as_deref() == Some("b")).count();
    assert_eq!(share, 10_000);
    let waits: Vec<f64> = played
        .samples
        .iter()
        .map(|sample| {
            sample.ttft_ms().unwrap() - 20.0 - if sample.replica.as_deref() == Some("b") { 100.0 } else { 0.0 }
        })
        .collect();
    let md1 = 20.0 * 0.7 / (2.0 * 0.3);
    assert!(mean(&waits) < 0.75 * md1 && mean(&waits) > 0.3 * md1, "{:.2} ms, M/D/1 {md1:.2} ms", mean(&waits));
}

#[test]
fn one_replica_beside_its_router_is_the_engine_model_and_nothing_else() {
    for more in ["", "scheduler = \"mixed\"\nchunk = 300\nkv_tokens = 8000\n"] {
        let fleet = fleet("a", "a", more);
        // Sessions of one request each: their times do not depend on replies.
        let mut plan = conversations(120, 45.0);
        for session in &mut plan.sessions {
            session.steps.truncate(1);
            session.steps[0].think_ms = 0.0;
        }
        let played = Case::new(&fleet, &plan, "gorgo").play();
        let spec = engine_spec(&fleet.replicas[0]).unwrap();
        let (mut engine, mut events) = (Engine::new(spec.clone()), Vec::new());
        for (id, session) in (0..).zip(&plan.sessions) {
            let step = &session.steps[0];
            let blocks = chained_blocks(step, plan.block_size, spec.block).into();
            let (prompt_tokens, output_tokens) = (step.input_tokens, step.output_tokens);
            engine.submit(Time::from_ms(session.start_ms), Job { id, blocks, prompt_tokens, output_tokens });
        }
        while let Some(at) = engine.next_event() {
            engine.advance(at, &mut events);
        }
        for (id, sample) in (0..).zip(&played.samples) {
            let own: Vec<&EngineEvent> = events.iter().filter(|event| event.id() == id).collect();
            let tokens = own.len() - 1;
            assert_eq!(sample.first, Some(own[0].at()), "request {id}");
            assert_eq!((sample.last, sample.gaps_ms.len() + 1), (Some(own[tokens].at()), tokens), "request {id}");
            let EngineEvent::FirstToken { cached_tokens, .. } = own[0] else { panic!("{own:?}") };
            assert_eq!(sample.cached_tokens, Some(*cached_tokens), "request {id}");
        }
    }
}

#[test]
fn a_far_replica_costs_a_round_trip_and_slow_start_more() {
    let fleet = fleet("ab", "a", "");
    let plan = plan(vec![session(0, 10.0, vec![step(1, 8000, 3, 0.0)])]);
    // 10 ms + 0.1 ms · 8000 tokens in one step of 8192, 100 ms of way; two further tokens of 10.1 ms.
    let mut case = Case { faults: &["down:a@0.."], ..Case::new(&fleet, &plan, "least-load") };
    let sample = |case: &Case<'_>| case.play().samples.remove(0);
    let direct = sample(&case);
    assert_eq!((direct.replica.as_deref(), direct.retried), (Some("b"), true));
    assert_eq!((direct.ttft_ms(), direct.e2e_ms()), (Some(910.0), Some(930.2)));
    // 32,500 bytes on an idle connection: 14,600 in the first round trip, 29,200 in the second.
    case.edge.slow_start = true;
    assert_eq!(sample(&case).ttft_ms(), Some(1010.0));
}
