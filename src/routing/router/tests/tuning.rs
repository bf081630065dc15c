//! Two strategies at once: who decides on whose request, and what becomes of that.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::tune::{Command, Method, Range, TuneError, TuneSettings, What};
use crate::routing::{Decision, Features, Outcome, ReplicaSpec, Router, Settings, Usage, Verdict};

/// A router of the rule `gorgo` with two replicas, whose tuner moves `w_rtt` up or down.
fn router() -> Router {
    let mut router = Router::new(Settings { strategy: "gorgo".into(), ..Settings::default() }).unwrap();
    for (name, rtt_ms) in [("near", 1.0), ("far", 2.0)] {
        let spec = ReplicaSpec::engine(name);
        let (id, _) = router.add_replica(Time::ZERO, spec);
        router.rtt(Time::ZERO, id, rtt_ms);
        router.health(Time::ZERO, id, true);
    }
    router
}

fn tuning() -> TuneSettings {
    let ranges = vec![Range { key: "w_rtt".into(), bounds: None }];
    TuneSettings { ranges, block: 8, periods: 7, ..TuneSettings::default() }
}

fn arrive(router: &mut Router, number: u64) -> Arc<Decision> {
    router.arrive(Time::from_ms(number as f64 * 10.0), RequestId(number), Arc::new(Features::default()))
}

fn answer(router: &mut Router, number: u64) {
    let now = Time::from_ms(number as f64 * 10.0 + 5.0);
    router.first_token(now, RequestId(number));
    router.finish(now, RequestId(number), Outcome::Done(Usage::default()));
}

fn w_rtt(decision: &Decision) -> Option<f64> {
    decision.weights.iter().find(|weight| weight.name == "w_rtt").map(|weight| weight.value)
}

/// The number of the first request that is decided with other weights, and its decision.
fn first_of_rival(router: &mut Router) -> (u64, Arc<Decision>) {
    for number in 0..200 {
        let decision = arrive(router, number);
        if w_rtt(&decision) != Some(1.0) {
            return (number, decision);
        }
        answer(router, number);
    }
    panic!("nobody is tried");
}

#[test]
fn a_request_keeps_its_weights_over_its_attempts_and_the_record_shows_them() {
    let mut router = router();
    router.start_tuning(Time::ZERO, tuning()).unwrap();
    let (number, decision) = first_of_rival(&mut router);
    assert!(number >= 16, "a lead comes first: {number}");
    let tried = w_rtt(&decision).unwrap();
    assert!((tried.ln().abs() - 0.5).abs() < 1e-9, "{tried}");
    assert!(
        (decision.candidates[0].terms[0].value - tried).abs() < 1e-9,
        "the score has the weight that the record shows"
    );
    let (again, _) = router.failed(Time::from_ms(number as f64 * 10.0 + 1.0), RequestId(number));
    assert_eq!((again.attempt, w_rtt(&again)), (2, Some(tried)));
    assert_eq!(router.strategy().parameters[0].1, 1.0, "the weight in force is the incumbent's");
}

#[test]
fn what_is_decided_after_the_rival_is_gone_is_the_incumbents() {
    let mut router = router();
    router.start_tuning(Time::ZERO, tuning()).unwrap();
    let (number, _) = first_of_rival(&mut router);
    router.command_tuner(Time::from_ms(9000.0), Command::Freeze).unwrap();
    let (again, _) = router.failed(Time::from_ms(9001.0), RequestId(number));
    assert_eq!(w_rtt(&again), Some(1.0));
    assert_eq!(router.start_tuning(Time::from_ms(9002.0), tuning()), Err(TuneError::Runs));
}

#[test]
fn a_strategy_set_by_hand_ends_the_tuner_whatever_it_is() {
    let mut router = router();
    assert_eq!(router.command_tuner(Time::ZERO, Command::Stop), Err(TuneError::NeverRan));
    router.start_tuning(Time::ZERO, tuning()).unwrap();
    first_of_rival(&mut router);
    router.set_strategy(Time::from_ms(9000.0), "random", &[]).unwrap();
    assert_eq!(router.tuner().unwrap().progress().why, "the strategy was set by hand");
    let decision = arrive(&mut router, 1000);
    assert_eq!((decision.strategy, decision.weights.as_slice()), ("random", [].as_slice()));
    let refused = router.start_tuning(Time::from_ms(10_001.0), tuning()).unwrap_err().to_string();
    assert!(refused.contains("strategy `random` has no parameter `w_rtt`"), "{refused}");
    // The numbers of the log go on, so that whoever reads it misses nothing.
    let last = router.tuner().unwrap().log_since(0).last().unwrap().number;
    router.set_strategy(Time::from_ms(10_002.0), "gorgo", &[]).unwrap();
    router.start_tuning(Time::from_ms(10_003.0), tuning()).unwrap();
    let next: Vec<u64> = router.tuner().unwrap().log_since(last).map(|entry| entry.number).collect();
    assert_eq!(next, [last + 1]);
}

/// What the router tells the tuner of each answer is what calibration fits: tokens computed, tokens queued before, time to first token.
#[test]
fn rates_are_fitted_to_what_dispatches_really_met() {
    let mut router = router();
    let settings = TuneSettings { method: Method::Calibrated, ..TuneSettings::default() };
    router.start_tuning(Time::ZERO, settings).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut in_flight: VecDeque<(RequestId, ReplicaId, u32)> = VecDeque::new();
    for number in 0..300_u64 {
        let (request, now) = (RequestId(number), Time::from_ms(number as f64 * 5000.0));
        let tokens = random.random_range(50..3000_u32);
        let features =
            Features { prompt_tokens: Some(tokens), prompt_bytes: u64::from(tokens) * 4, ..Features::default() };
        let decision = router.arrive(now, request, Arc::new(features));
        let Verdict::Dispatch(replica) = decision.verdict else { panic!("{decision}") };
        let queued: u32 = in_flight.iter().filter(|(_, at, _)| *at == replica).map(|(_, _, tokens)| tokens).sum();
        let ttft_ms = 30.0 + 0.15 * f64::from(tokens) + 0.06 * f64::from(queued);
        router.first_token(now.plus_ms(ttft_ms), request);
        in_flight.push_back((request, replica, tokens));
        if in_flight.len() > random.random_range(1..5) {
            let (oldest, _, tokens) = in_flight.pop_front().unwrap();
            let usage = Usage { prompt_tokens: Some(tokens), cached_tokens: Some(0), completion_tokens: Some(9) };
            router.finish(now.plus_ms(4900.0), oldest, Outcome::Done(usage));
        }
    }
    let proposed = router.tuner().unwrap().log_since(0).find(|entry| entry.what == What::Proposed).unwrap().clone();
    let [(_, prefill), (_, queue)] = proposed.values[..] else { panic!("{proposed:?}") };
    assert!((prefill - 0.15).abs() < 0.002 && (queue - 0.06).abs() < 0.001, "{prefill} {queue}");
}
