//! The rule as a whole: scores of given states, and a router that lives with it.

use std::sync::Arc;

use insta::assert_snapshot;

use super::super::testing::scores;
use crate::model::{Region, ReplicaId, RequestId, Time};
use crate::routing::{
    Decision, Effect, Features, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec, Router, Settings, Usage, Verdict,
};

#[test]
fn untaught() {
    let log = scores(
        "predictive",
        "",
        "
        # nothing learned: 15 ms and 0.1 ms per token; the cold replica is also a worse home
        prompt=6000
        near rtt=40 cached=0
        far rtt=110 cached=5376

        # what has no first token has to be waited for; the clock starts with its arrival
        prompt=1000
        busy rtt=10 sent=4000
        idle rtt=200

        # decodes there stand still meanwhile
        prompt=1000
        busy rtt=10 decoding=4000,4000,4000
        idle rtt=30

        # a configured rate is where learning starts from
        prompt=1000
        slow rtt=10 prefill=0.4
        fast rtt=100 prefill=0.05

        # KV cache is missing: what others hold there counts
        prompt=1000
        own rtt=10 kv=20000
        peer peer=1 rtt=10 kv=20000 others=12000,8500

        # others' work at a peer counts by its tokens where the peer does not predict
        prompt=1000
        own rtt=10 sent=8000
        peer peer=1 rtt=10 others=3000,1000
        ",
    );
    assert_snapshot!(log, @r"
    # nothing learned: 15 ms and 0.1 ms per token; the cold replica is also a worse home
    near     714.500 = network 40.000 + wait 0.000 + prefill 615.000 + decode 0.000 + stall 0.000 + later 0.000 + home 59.500 + tail 0.000
    far      198.684 = network 110.000 + wait 0.000 + prefill 77.400 + decode 0.000 + stall 0.000 + later 0.000 + home 11.284 + tail 0.000  <-

    # what has no first token has to be waited for; the clock starts with its arrival
    busy     573.500 = network 10.000 + wait 410.000 + prefill 115.000 + decode 0.000 + stall 0.000 + later 0.000 + home 38.500 + tail 0.000
    idle     486.500 = network 200.000 + wait 0.000 + prefill 115.000 + decode 0.000 + stall 0.000 + later 0.000 + home 171.500 + tail 0.000  <-

    # decodes there stand still meanwhile
    busy     206.625 = network 10.000 + wait 0.000 + prefill 115.000 + decode 0.000 + stall 43.125 + later 0.000 + home 38.500 + tail 0.000
    idle     197.500 = network 30.000 + wait 0.000 + prefill 115.000 + decode 0.000 + stall 0.000 + later 0.000 + home 52.500 + tail 0.000  <-

    # a configured rate is where learning starts from
    slow     526.500 = network 10.000 + wait 0.000 + prefill 415.000 + decode 0.000 + stall 0.000 + later 0.000 + home 101.500 + tail 0.000
    fast     256.000 = network 100.000 + wait 0.000 + prefill 65.000 + decode 0.000 + stall 0.000 + later 0.000 + home 91.000 + tail 0.000  <-

    # KV cache is missing: what others hold there counts
    own      163.500 = network 10.000 + wait 0.000 + prefill 115.000 + decode 0.000 + stall 0.000 + later 0.000 + home 38.500 + tail 0.000  <-
    peer    3115.750 = network 10.000 + wait 2080.000 + prefill 115.000 + decode 0.000 + stall 28.750 + later 0.000 + home 38.500 + tail 843.500

    # others' work at a peer counts by its tokens where the peer does not predict
    own      973.500 = network 10.000 + wait 810.000 + prefill 115.000 + decode 0.000 + stall 0.000 + later 0.000 + home 38.500 + tail 0.000
    peer     622.250 = network 10.000 + wait 430.000 + prefill 115.000 + decode 0.000 + stall 28.750 + later 0.000 + home 38.500 + tail 0.000  <-
    ");
}

#[test]
fn a_full_batch_makes_wait_if_its_size_is_known() {
    let log = scores(
        "predictive",
        "max_running=2",
        "
        prompt=1000
        full rtt=10 decoding=4000,4000
        free rtt=10 decoding=4000
        ",
    );
    assert_snapshot!(log, @r"
    full    2971.250 = network 10.000 + wait 1995.000 + prefill 115.000 + decode 0.000 + stall 28.750 + later 0.000 + home 38.500 + tail 784.000
    free     177.875 = network 10.000 + wait 0.000 + prefill 115.000 + decode 0.000 + stall 14.375 + later 0.000 + home 38.500 + tail 0.000  <-
    ");
}

#[test]
fn the_size_of_a_batch_counts_if_it_is_given_and_not_unasked() {
    let case = "
        prompt=1000
        full rtt=10 slots=2 decoding=4000,4000
        free rtt=10 slots=3 decoding=4000,4000
        ";
    let waits = |parameters: &str| {
        let log = scores("predictive", parameters, case);
        log.lines().filter(|line| line.contains("wait 1995.000")).map(|line| line[..4].to_owned()).collect::<Vec<_>>()
    };
    assert!(waits("").is_empty());
    assert_eq!(waits("max_running=2"), ["full", "free"]);
    assert!(waits("max_running=9").is_empty());
}

#[test]
fn weights() {
    let log = scores(
        "predictive",
        "gamma=0.4 phi=0 tail=0.3",
        "
        prompt=20000
        busy rtt=10 decoding=4000,4000
        idle rtt=300
        ",
    );
    assert_snapshot!(log, @r"
    busy    3944.500 = network 10.000 + wait 0.000 + prefill 2015.000 + decode 0.000 + stall 1612.000 + later 0.000 + home 0.000 + tail 307.500
    idle    2709.500 = network 300.000 + wait 0.000 + prefill 2015.000 + decode 0.000 + stall 0.000 + later 0.000 + home 0.000 + tail 394.500  <-
    ");
}

/// A router with replicas at 10, 20, … ms.
struct Live {
    router: Router,
    now: Time,
    next: u64,
}

impl Live {
    fn new(replicas: u32, kind: ReplicaKind) -> Self {
        Self::with(replicas, kind, Vec::new())
    }

    fn with(replicas: u32, kind: ReplicaKind, parameters: Vec<(String, f64)>) -> Self {
        let settings = Settings { strategy: "predictive".into(), parameters, ..Settings::default() };
        let mut router = Router::new(settings).unwrap();
        for number in 0..replicas {
            let spec = ReplicaSpec {
                name: format!("r{number}").into(),
                region: Region::new("r"),
                kind: if number == 0 { ReplicaKind::Engine } else { kind },
                models: Vec::new(),
                limits: Limits::default(),
                rates: Rates::default(),
            };
            let (id, _) = router.add_replica(Time::ZERO, spec);
            router.rtt(Time::ZERO, id, f64::from(10 * (number + 1)));
            router.health(Time::ZERO, id, true);
        }
        Self { router, now: Time::from_ms(1000.0), next: 0 }
    }

    fn after(&mut self, ms: f64) -> &mut Self {
        self.now = self.now.plus_ms(ms);
        self
    }

    fn arrive(&mut self, tokens: u32) -> (RequestId, Arc<Decision>) {
        let request = RequestId(self.next);
        self.next += 1;
        let features = Features { prompt_tokens: Some(tokens), ..Features::default() };
        (request, self.router.arrive(self.now, request, Arc::new(features)))
    }

    fn serve(&mut self, request: RequestId, ttft_ms: f64, tokens: u32) {
        let now = self.after(ttft_ms).now;
        self.router.first_token(now, request);
        let usage = Usage { prompt_tokens: Some(tokens), cached_tokens: Some(0), completion_tokens: Some(20) };
        let now = self.after(190.0).now;
        self.router.finish(now, request, Outcome::Done(usage));
    }
}

fn term(decision: &Decision, replica: usize, name: &str) -> f64 {
    let candidate = &decision.candidates[replica];
    candidate.terms.iter().find(|term| term.name == name).map(|term| term.value).expect("a term of this name")
}

#[test]
fn speed_and_decode_floor_are_learned_from_what_comes_back() {
    let mut live = Live::new(1, ReplicaKind::Engine);
    for i in 0..40 {
        let tokens = 500 + 400 * (i % 9);
        let (request, _) = live.after(10_000.0).arrive(tokens);
        live.serve(request, 10.0 + 8.0 + 0.05 * f64::from(tokens), tokens);
    }
    let (_, decision) = live.after(10_000.0).arrive(4000);
    let prefill = term(&decision, 0, "prefill");
    assert!((prefill / 208.0 - 1.0).abs() < 0.03, "{prefill}");
    let ttft = decision.predicted_ttft_ms().unwrap();
    assert!((ttft - (10.0 + prefill)).abs() < 1e-6 && ttft < decision.candidates[0].score, "{ttft}");
    // 190 ms for 19 gaps, around which the floor swings; the expected output has moved from 200 towards 20.
    let output = 20.0 + 180.0 * 0.98_f64.powi(40);
    let floor = term(&decision, 0, "decode") / (0.125 * output);
    assert!((8.5..11.5).contains(&floor), "{floor}");
    let accuracy = live.router.replicas().next().unwrap().ttft_ms.accuracy().unwrap();
    assert!(accuracy.error_median < 10.0, "{accuracy:?}");
}

/// A replica that takes 8 ms and 0.05 ms per token, as was learned, behind a router that does not hold back.
fn learned() -> Live {
    learned_with(0)
}

/// The same of an engine that is said to run so many requests at most; 0 = it is not.
fn learned_with(max_running: u32) -> Live {
    let parameters = vec![("hold_ms".into(), 60_000.0), ("max_running".into(), f64::from(max_running))];
    let mut live = Live::with(1, ReplicaKind::Engine, parameters);
    for i in 0..40 {
        let tokens = 500 + 400 * (i % 9);
        let (request, _) = live.after(10_000.0).arrive(tokens);
        live.serve(request, 10.0 + 8.0 + 0.05 * f64::from(tokens), tokens);
    }
    live
}

/// What a prompt of 4000 tokens takes there, once nothing is in flight.
fn prefill_ms(live: &mut Live) -> f64 {
    let (request, decision) = live.after(60_000.0).arrive(4000);
    live.router.withdraw(live.now, request);
    term(&decision, 0, "prefill")
}

#[test]
fn nothing_is_learned_from_a_replica_that_is_out_of_rotation() {
    let mut live = learned();
    let before = prefill_ms(&mut live);
    for health in [false, true] {
        let (request, _) = live.after(10_000.0).arrive(1000);
        let id = ReplicaId(0);
        (0..5).for_each(|_| drop(live.router.health(live.now, id, health)));
        live.serve(request, 2000.0, 1000);
        (0..5).for_each(|_| drop(live.router.health(live.now, id, true)));
        // What it closed is learned from with the next one.
        let (next, _) = live.after(10_000.0).arrive(4000);
        live.serve(next, 10.0 + before, 4000);
        let moved = (prefill_ms(&mut live) - before).abs() / before;
        assert_eq!(moved < 0.001, !health, "healthy: {health}, moved by {moved}");
    }
}

#[test]
fn nothing_is_learned_from_who_waited_for_a_place() {
    for most in [1, 2] {
        let mut live = learned_with(most);
        let before = prefill_ms(&mut live);
        let (first, _) = live.after(10_000.0).arrive(1000);
        let (second, _) = live.after(1.0).arrive(1000);
        // The second begins when the first, after three seconds, is done.
        live.serve(first, 68.0, 1000);
        live.serve(second, 3000.0, 1000);
        let (next, _) = live.after(10_000.0).arrive(4000);
        live.serve(next, 10.0 + before, 4000);
        let moved = (prefill_ms(&mut live) - before).abs() / before;
        assert_eq!(moved < 0.001, most == 1, "{most} places, moved by {moved}");
    }
}

#[test]
fn the_central_router_holds_back_what_would_wait_and_lets_the_short_go_first() {
    let mut live = Live::new(1, ReplicaKind::Engine);
    let (first, sent) = live.arrive(8000);
    assert!(matches!(sent.verdict, Verdict::Dispatch(_)));
    let (long, held) = live.after(1.0).arrive(6000);
    assert_eq!(held.verdict, Verdict::Hold, "815 ms of work before it");
    let (short, held) = live.after(1.0).arrive(100);
    assert_eq!(held.verdict, Verdict::Hold);
    // 5 ms there, 815 ms, and 5 ms less for the way of the next: at 1315 ms there are 500 left.
    assert_eq!(live.router.deadline(), Some(Time::from_ms(1315.0)));
    live.now = Time::from_ms(1314.0);
    assert_eq!(live.router.tick(live.now), []);
    live.now = Time::from_ms(1315.0);
    let freed = |effects: Vec<Effect>| -> Vec<RequestId> {
        let released = |effect| match effect {
            Effect::Released(decision) => Some(decision.request),
            Effect::Recall(_) => None,
        };
        effects.into_iter().filter_map(released).collect()
    };
    let effects = live.router.tick(live.now);
    assert_eq!(freed(effects), [short], "it adds 25 ms, so the other has to wait");
    // The first token comes earlier than thought.
    live.now = Time::from_ms(1400.0);
    let effects = live.router.first_token(live.now, first);
    assert_eq!(freed(effects), [long]);
    assert_eq!(live.router.queue_len(), 0);
}

#[test]
fn with_peers_nothing_is_held() {
    let mut live = Live::new(2, ReplicaKind::Peer);
    for _ in 0..20 {
        let (_, decision) = live.arrive(8000);
        assert!(matches!(decision.verdict, Verdict::Dispatch(_)));
    }
}

#[test]
fn an_answer_that_is_not_streamed_does_not_block_the_clock() {
    let mut live = Live::new(1, ReplicaKind::Engine);
    let features = Features { prompt_tokens: Some(1000), unstreamed: true, ..Features::default() };
    live.router.arrive(live.now, RequestId(500), Arc::new(features));
    let (_, decision) = live.after(50.0).arrive(1000);
    assert_eq!(term(&decision, 0, "wait"), 1000.0 + 5.0 + 115.0 - 1055.0);
    live.router.finish(live.now, RequestId(decision.request.0), Outcome::Cancelled);
    let (_, decision) = live.after(10_000.0).arrive(1000);
    assert_eq!((term(&decision, 0, "wait"), term(&decision, 0, "stall") > 0.0), (0.0, true), "it decodes by now");
}

#[test]
fn predictions_that_fail_give_way_to_the_least_work() {
    let mut live = Live::new(2, ReplicaKind::Engine);
    for _ in 0..49 {
        // No speed that is believed explains five seconds for ten tokens.
        let (request, decision) = live.after(60_000.0).arrive(10);
        assert_eq!(decision.candidates[0].terms.len(), 8);
        live.serve(request, 5000.0, 10);
    }
    let (request, _) = live.after(60_000.0).arrive(10);
    live.serve(request, 5000.0, 10);
    let (_, decision) = live.after(60_000.0).arrive(1000);
    let names: Vec<&str> = decision.candidates[0].terms.iter().map(|term| term.name).collect();
    assert_eq!(names, ["pending", "prefill"]);
    assert_eq!((decision.candidates[0].score, decision.predicted_ttft_ms().is_some()), (100.0, true));
    assert_eq!(decision.verdict, Verdict::Dispatch(ReplicaId(0)));
}
