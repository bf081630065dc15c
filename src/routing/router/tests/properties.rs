//! Whatever happens in whatever order: no request is lost, none is counted twice, nothing panics.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use crate::model::{Region, ReplicaId, RequestId, Time};
use crate::routing::policy::names;
use crate::routing::{
    Class, Effect, Features, Gauges, Late, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec, Router, Settings, Slo,
    Usage, Verdict,
};

#[derive(Clone, Debug)]
enum Event {
    Arrive { request: u64, model: bool, priority: i32, blocks: u64, who: u8 },
    Headers(u64),
    FirstToken(u64),
    Finish(u64, u8),
    Failed(u64),
    Withdraw(u64),
    Add { name: u8, any_model: bool },
    Remove(u32),
    Drain(u32, bool),
    Rtt(u32, f64),
    Gauges(u32, f64),
    Health(u32, bool),
    Strategy(usize),
    Limit(Option<u32>),
    Tick,
}

fn events() -> impl Strategy<Value = Event> {
    let request = 0..30u64;
    let replica = 0..6u32;
    prop_oneof![
        8 => (request.clone(), any::<bool>(), -1..2i32, 0..20u64, 0..6u8)
            .prop_map(|(request, model, priority, blocks, who)| Event::Arrive { request, model, priority, blocks, who }),
        3 => request.clone().prop_map(Event::Headers),
        3 => request.clone().prop_map(Event::FirstToken),
        4 => (request.clone(), 0..3u8).prop_map(|(request, how)| Event::Finish(request, how)),
        3 => request.clone().prop_map(Event::Failed),
        1 => request.prop_map(Event::Withdraw),
        2 => (0..4u8, any::<bool>()).prop_map(|(name, any_model)| Event::Add { name, any_model }),
        1 => replica.clone().prop_map(Event::Remove),
        1 => (replica.clone(), any::<bool>()).prop_map(|(replica, on)| Event::Drain(replica, on)),
        1 => (replica.clone(), any::<f64>()).prop_map(|(replica, rtt)| Event::Rtt(replica, rtt)),
        1 => (replica.clone(), any::<f64>()).prop_map(|(replica, value)| Event::Gauges(replica, value)),
        3 => (replica, any::<bool>()).prop_map(|(replica, ok)| Event::Health(replica, ok)),
        1 => (0..names().count()).prop_map(Event::Strategy),
        1 => proptest::option::of(0..4u32).prop_map(Event::Limit),
        1 => Just(Event::Tick),
    ]
}

/// What the world outside believes of each request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Held,
    At(ReplicaId),
}

struct World {
    router: Router,
    seen: BTreeMap<u64, Seen>,
    now: Time,
}

impl World {
    fn note(&mut self, request: RequestId, verdict: Verdict) {
        match verdict {
            Verdict::Dispatch(replica) => drop(self.seen.insert(request.0, Seen::At(replica))),
            Verdict::Hold => drop(self.seen.insert(request.0, Seen::Held)),
            Verdict::Reject { .. } => drop(self.seen.remove(&request.0)),
        }
    }

    fn released(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let decision = match effect {
                Effect::Released(decision) => decision,
                Effect::Recall(request) => {
                    self.recall(request);
                    continue;
                }
            };
            assert_eq!(self.seen.get(&decision.request.0), Some(&Seen::Held), "released, but not held: {decision}");
            assert_ne!(decision.verdict, Verdict::Hold, "a release is final");
            assert!(!decision.explain().is_empty());
            self.note(decision.request, decision.verdict);
        }
    }

    fn recall(&mut self, request: RequestId) {
        assert!(matches!(self.seen.get(&request.0), Some(Seen::At(_))), "called back, but not at a replica: {request}");
        let (decision, effects) = self.router.recalled(self.now, request);
        self.note(request, decision.verdict);
        self.released(effects);
    }

    fn play(&mut self, event: Event) {
        self.now = self.now.plus_ms(700.0);
        let now = self.now;
        let router = &mut self.router;
        let effects = match event {
            Event::Arrive { request, model, priority, blocks, who } => {
                let features = Features { priority, ..features(model, blocks, who) };
                let decision = router.arrive(now, RequestId(request), Arc::new(features));
                self.seen.remove(&request);
                self.note(decision.request, decision.verdict);
                Vec::new()
            }
            Event::Failed(request) => {
                let (decision, effects) = router.failed(now, RequestId(request));
                if let Some(Seen::At(replica)) = self.seen.get(&request).copied() {
                    assert_ne!(decision.verdict, Verdict::Dispatch(replica), "sent again to where it failed");
                    self.note(decision.request, decision.verdict);
                }
                effects
            }
            Event::Finish(request, how) => {
                self.seen.remove(&request);
                let usage =
                    Usage { prompt_tokens: Some(request as u32), cached_tokens: Some(3), completion_tokens: Some(9) };
                let outcome = [Outcome::Done(usage), Outcome::Cancelled, Outcome::Broken][usize::from(how)];
                router.finish(now, RequestId(request), outcome)
            }
            Event::Withdraw(request) => {
                self.seen.remove(&request);
                router.withdraw(now, RequestId(request))
            }
            Event::Headers(request) => router.headers(now, RequestId(request)),
            Event::FirstToken(request) => router.first_token(now, RequestId(request)),
            Event::Add { name, any_model } => router.add_replica(now, spec(name, any_model)).1,
            Event::Remove(replica) => router.remove_replica(now, ReplicaId(replica)),
            Event::Drain(replica, on) => router.set_draining(now, ReplicaId(replica), on),
            Event::Rtt(replica, rtt) => {
                router.rtt(now, ReplicaId(replica), rtt);
                Vec::new()
            }
            Event::Gauges(replica, value) => {
                let (running, waiting) = (Some(value), Some(value));
                let gauges =
                    Gauges { running, waiting, kv_usage: Some(value), kv_tokens: Some(value), ..Gauges::default() };
                router.gauges(now, ReplicaId(replica), gauges)
            }
            Event::Health(replica, ok) => router.health(now, ReplicaId(replica), ok),
            Event::Strategy(which) => {
                let name = names().nth(which).expect("in range");
                router.set_strategy(now, name, &[]).expect("registered")
            }
            Event::Limit(limit) => router.set_max_concurrent(now, limit),
            Event::Tick => router.tick(now),
        };
        self.released(effects);
    }

    fn check(&self) {
        let held = self.seen.values().filter(|seen| **seen == Seen::Held).count();
        assert_eq!((self.router.queue_len(), self.router.in_flight()), (held, self.seen.len() - held));
        // Who is held has an age limit; who is at a replica may be late.
        assert!(self.router.deadline().is_some() || held == 0);
        assert!(self.router.deadline().is_none() || !self.seen.is_empty());
        for replica in self.router.snapshot(self.now).replicas {
            let there = self.seen.values().filter(|seen| **seen == Seen::At(replica.id)).count();
            assert_eq!(replica.in_flight, there, "{}", replica.name());
        }
    }
}

/// Of nobody, of one of two keys, or of one of two classes, forwarded or not.
fn features(model: bool, blocks: u64, who: u8) -> Features {
    Features {
        model: model.then(|| "m".into()),
        tenant: ["ann", "bob"].get(usize::from(who)).map(|key| (*key).into()),
        class: (who > 2).then(|| if who > 3 { "defer".into() } else { "other".into() }),
        forwarded: who == 5,
        blocks: (0..blocks).collect(),
        prompt_bytes: blocks * 256 + 17,
        ..Features::default()
    }
}

fn spec(name: u8, any_model: bool) -> ReplicaSpec {
    ReplicaSpec {
        name: name.to_string().into(),
        region: Region::new("r"),
        kind: ReplicaKind::Engine,
        models: if any_model { Vec::new() } else { vec!["other".into()] },
        limits: Limits::default(),
        rates: Rates { prefill_ms_per_token: Some(f64::NAN), queue_ms_per_token: None },
    }
}

/// No limits, or some that some of the requests meet.
fn slo() -> impl Strategy<Value = Slo> {
    let class = |ttft_ms, late| Class { ttft_ms, late, weight: 2.0 };
    proptest::option::of(100.0..5000.0).prop_map(move |ttft_ms| Slo {
        default: class(ttft_ms, Late::Refuse),
        classes: [("defer".to_owned(), class(ttft_ms, Late::Defer))].into(),
        itl_ms: None,
    })
}

proptest! {
    #[test]
    fn no_request_is_lost_or_counted_twice(
        events in proptest::collection::vec(events(), 0..150), slo in slo(), max_concurrent in proptest::option::of(1..3u32),
    ) {
        let settings = Settings { queue_limit: 5, queue_timeout_ms: 20_000.0, max_concurrent, slo, ..Settings::default() };
        let mut world = World { router: Router::new(settings).expect("settings"), seen: BTreeMap::new(), now: Time::ZERO };
        for event in events {
            world.play(event);
            world.check();
        }
        // Time alone empties the queue, and ending what is in flight leaves nothing.
        world.now = world.now.plus_ms(20_000.0);
        let effects = world.router.tick(world.now);
        world.released(effects);
        for request in 0..30 {
            world.play(Event::Finish(request, 1));
        }
        world.check();
        assert_eq!((world.router.queue_len(), world.router.in_flight()), (0, 0));
    }
}
