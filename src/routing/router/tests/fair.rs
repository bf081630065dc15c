//! One engine, two keys, in time: what a flood of one of them does to the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{RequestId, Time};
use crate::routing::{Decision, Effect, Features, Outcome, ReplicaSpec, Router, Settings, Usage, Verdict};

/// Prompt of every request, tokens; the engine takes a millisecond for each and one request at a time.
const TOKENS: u32 = 100;

/// A router with one engine that is taken when it has a request.
struct World {
    router: Router,
    now: Time,
    /// When each arrived, and how long it waited until it was sent.
    arrived: BTreeMap<u64, Time>,
    waits: BTreeMap<u64, f64>,
    busy: Option<(Time, u64)>,
    /// Time at which requests waited and the engine had nothing to do.
    wasted_ms: f64,
}

impl World {
    fn new() -> Self {
        let settings = Settings { strategy: "gorgo".into(), max_concurrent: Some(1), ..Settings::default() };
        let mut router = Router::new(settings).unwrap();
        let spec = ReplicaSpec::engine("a");
        let (id, _) = router.add_replica(Time::ZERO, spec);
        router.health(Time::ZERO, id, true);
        let (arrived, waits) = (BTreeMap::new(), BTreeMap::new());
        Self { router, now: Time::ZERO, arrived, waits, busy: None, wasted_ms: 0.0 }
    }

    fn note(&mut self, decision: &Decision) {
        if let Verdict::Dispatch(_) = decision.verdict {
            let request = decision.request.0;
            assert!(self.busy.is_none(), "the gate lets one in at a time");
            self.waits.insert(request, self.now.since_ms(self.arrived[&request]));
            self.busy = Some((self.now.plus_ms(f64::from(TOKENS)), request));
        }
    }

    fn deliver(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Released(decision) => self.note(&decision),
                Effect::Recall(request) => panic!("{request:?} is called back from the only engine"),
            }
        }
    }

    /// Whatever ends until then, and looks at the queue that the router wants.
    fn until(&mut self, at: Time) {
        loop {
            let end = self.busy.map(|(end, _)| end);
            let look = self.router.deadline();
            let Some(next) = [end, look].into_iter().flatten().min().filter(|next| *next <= at) else { break };
            if self.busy.is_none() && self.router.queue_len() > 0 {
                self.wasted_ms += next.since_ms(self.now).max(0.0);
            }
            self.now = self.now.max(next);
            let effects = match self.busy.filter(|(end, _)| *end <= self.now) {
                Some((_, request)) => {
                    self.busy = None;
                    let usage =
                        Usage { prompt_tokens: Some(TOKENS), cached_tokens: Some(0), completion_tokens: Some(1) };
                    self.router.finish(self.now, RequestId(request), Outcome::Done(usage))
                }
                None => self.router.tick(self.now),
            };
            self.deliver(effects);
        }
        self.now = at;
    }

    fn arrive(&mut self, request: u64, key: Option<&str>) {
        let features = Features {
            tenant: key.map(Into::into),
            prompt_tokens: Some(TOKENS),
            prompt_bytes: u64::from(TOKENS) * 4,
            max_tokens: Some(1),
            ..Features::default()
        };
        self.arrived.insert(request, self.now);
        let decision = self.router.arrive(self.now, RequestId(request), Arc::new(features));
        self.note(&decision);
    }
}

/// Longest and mean wait of Bob's requests, ms: one every 500 ms or so for a minute, while Ann sends `flood` times what the engine can do.
/// Requests have their keys, or none has one.
fn waits_of_bob(flood: f64, keys: bool) -> (f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut arrivals: Vec<(f64, bool)> =
        (0..120).map(|i| (500.0 * (f64::from(i) + random.random::<f64>()), true)).collect();
    let ann = (flood * 60_000.0 / f64::from(TOKENS)) as u32;
    arrivals.extend((0..ann).map(|_| (60_000.0 * random.random::<f64>(), false)));
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut world = World::new();
    for (request, (at_ms, bob)) in arrivals.iter().enumerate() {
        world.until(Time::from_ms(*at_ms));
        world.arrive(request as u64, keys.then_some(if *bob { "bob" } else { "ann" }));
    }
    world.until(Time::from_ms(1e9));
    assert_eq!(world.router.queue_len(), 0);
    assert!(world.wasted_ms <= 1.0, "work conserving: {} ms", world.wasted_ms);
    let served = arrivals.iter().enumerate().filter(|(i, _)| world.waits.contains_key(&(*i as u64))).count();
    assert!(keys || flood > 1.0 || served == arrivals.len());
    let of_bob = arrivals.iter().enumerate().filter(|(_, (_, bob))| *bob);
    let waits: Vec<f64> = of_bob.filter_map(|(i, _)| world.waits.get(&(i as u64)).copied()).collect();
    assert_eq!(waits.len(), if keys || flood < 1.0 { 120 } else { waits.len() }, "nobody starves");
    (waits.iter().fold(0.0, |a: f64, b| a.max(*b)), waits.iter().sum::<f64>() / waits.len() as f64)
}

#[test]
fn a_flood_of_one_key_leaves_the_waits_of_the_other_as_they_were() {
    let one = f64::from(TOKENS);
    let (alone, alone_mean) = waits_of_bob(0.0, true);
    for flood in [0.5, 2.0, 8.0] {
        let (longest, mean) = waits_of_bob(flood, true);
        // What is being served is finished first, and whoever waited as long goes first once.
        assert!(longest <= alone + 2.0 * one, "{flood}: {longest} instead of {alone}");
        assert!(mean <= alone_mean + one, "{flood}: {mean} instead of {alone_mean}");
    }
    let (longest, mean) = waits_of_bob(2.0, false);
    assert!(longest > 20.0 * one && mean > 10.0 * one, "without keys all wait for all: {longest}, {mean}");
}

#[test]
fn one_key_alone_is_first_come_first_served() {
    assert_eq!(waits_of_bob(0.0, true), waits_of_bob(0.0, false));
}
