//! Several routers that tell each other how they are, without a network: what one knows of the other, and what it makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Region, ReplicaId, RequestId, Time};
use crate::routing::features::hash_blocks;
use crate::routing::index::Teller;
use crate::routing::peer::{Report, Totals};
use crate::routing::residency::Residency;
use crate::routing::{
    BLOCK_BYTES, Decision, Excluded, Features, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec, Router, Settings,
    Usage, Verdict,
};

const RTT_MS: f64 = 40.0;

/// A node's router: its own engine bears the node's name.
struct Node {
    name: &'static str,
    router: Router,
    requests: u64,
    tellers: BTreeMap<&'static str, Teller>,
}

fn ms(ms: f64) -> Time {
    Time::from_ms(ms)
}

fn region(name: &str) -> Region {
    let (region, _) = name.split_once('/').unwrap_or((name, ""));
    Region::new(region)
}

/// Nodes that all know each other, everybody healthy at time 0. A name is the region, too, up to a slash.
fn nodes(settings: &Settings, names: &[&'static str]) -> Vec<Node> {
    let node = |name: &&'static str| {
        let mut router = Router::new(settings.clone()).expect("settings");
        router.publish();
        for other in names {
            let own = other == name;
            let spec = ReplicaSpec {
                name: (*other).into(),
                region: region(other),
                kind: if own { ReplicaKind::Engine } else { ReplicaKind::Peer },
                models: Vec::new(),
                limits: Limits { kv_tokens: own.then_some(100_000) },
                rates: Rates::default(),
            };
            let (id, _) = router.add_replica(Time::ZERO, spec);
            router.rtt(Time::ZERO, id, if own { 0.0 } else { RTT_MS });
            router.health(Time::ZERO, id, true);
        }
        let listeners = names.iter().filter(|other| *other != name);
        let tellers = listeners.map(|other| (*other, router.teller(&region(other)))).collect();
        Node { name, router, requests: 0, tellers }
    };
    names.iter().map(node).collect()
}

fn settings(strategy: &str) -> Settings {
    Settings { strategy: strategy.into(), ..Settings::default() }
}

/// A prompt of so many blocks (64 tokens each); `name` tells prompts apart.
fn prompt(name: &str, blocks: usize) -> Features {
    let text: Vec<u8> =
        (0..blocks).flat_map(|i| format!("{:<BLOCK_BYTES$}", format!("{name} {i}")).into_bytes()).collect();
    Features {
        blocks: hash_blocks([text.as_slice()], 0).into(),
        prompt_bytes: text.len() as u64,
        ..Features::default()
    }
}

impl Node {
    fn id(&self, name: &str) -> ReplicaId {
        self.router.replica_named(name).expect(name).id
    }

    fn arrive(&mut self, at: f64, features: Features) -> (RequestId, Arc<Decision>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        (request, self.router.arrive(ms(at), request, Arc::new(features)))
    }

    /// Where a request goes that arrives now; it is withdrawn at once.
    fn goes_to(&mut self, at: f64, features: Features) -> String {
        let (request, decision) = self.arrive(at, features);
        self.router.finish(ms(at), request, Outcome::Cancelled);
        decision.chosen().map_or_else(|| format!("{:?}", decision.verdict), |chosen| chosen.name.to_string())
    }
}

/// `from` tells `to` how it is; it arrives half a round trip later.
fn tell(nodes: &mut [Node], at: f64, from: usize, to: usize) -> Report {
    let listener = nodes[to].name;
    let report = nodes[from].router.report(ms(at), listener);
    let Node { router, tellers, name, .. } = &mut nodes[from];
    let part = router.tell(ms(at), tellers.get_mut(listener).expect("a listener"));
    let (name, arrives) = (*name, ms(at + RTT_MS / 2.0));
    let listener = &mut nodes[to];
    let id = listener.id(name);
    listener.router.hear(arrives, id, ms(at), report);
    listener.router.learn_digest(id, &part);
    report
}

/// Everybody tells everybody.
fn gossip(nodes: &mut [Node], at: f64) {
    for from in 0..nodes.len() {
        for to in (0..nodes.len()).filter(|to| *to != from) {
            tell(nodes, at, from, to);
        }
    }
}

#[test]
fn agents_that_predict_know_each_others_speed_and_pending_work() {
    let mut nodes = nodes(&settings("predictive"), &["a", "b"]);
    let forwarded = |features: Features| Features { forwarded: true, prompt_tokens: Some(2000), ..features };
    // `b` serves a prompt of 2000 tokens in 600 ms; only it has seen that.
    for i in 0..8 {
        let at = 10_000.0 * f64::from(i);
        let features = forwarded(prompt(&format!("p{i}"), 5));
        let (request, _) = nodes[1].arrive(at, features);
        assert_eq!(nodes[1].router.report(ms(at), "a").speed.is_some(), i >= 7, "a sample closes with the next one");
        nodes[1].router.first_token(ms(at + 600.0), request);
        let usage = Usage { prompt_tokens: Some(2000), cached_tokens: Some(0), completion_tokens: Some(9) };
        nodes[1].router.finish(ms(at + 900.0), request, Outcome::Done(usage));
    }
    // Two that open alike wait there; `a` sent the third.
    for (i, origin) in [None, None, Some("a")].into_iter().enumerate() {
        let features = forwarded(prompt("common", 20 + i));
        nodes[1].arrive(80_000.0, Features { origin: origin.map(Into::into), ..features });
    }
    let (for_a, for_c) = (nodes[1].router.report(ms(80_001.0), "a"), nodes[1].router.report(ms(80_001.0), "c"));
    let speed = for_a.speed.expect("learned");
    let service = |tokens: f64| speed.service_ms + speed.ms_per_token * tokens;
    assert!((service(2000.0) / 600.0 - 1.0).abs() < 0.05, "{speed:?}");
    let expected =
        |report: &Report| speed.service_ms * report.others.pending + speed.ms_per_token * report.others.uncached_tokens;
    for (report, requests) in [(&for_a, 2.0), (&for_c, 3.0)] {
        assert_eq!(report.others.pending, requests);
        assert!((report.pending_ms.unwrap() - expected(report)).abs() < 1e-6, "{report:?}");
        // Counted for each they would hold more than 2000 tokens each.
        assert!(report.others.held_tokens < 1600.0 * requests, "{:?}", report.others);
    }
    tell(&mut nodes, 80_002.0, 1, 0);
    let (_, decision) = nodes[0].arrive(80_022.0, Features { prompt_tokens: Some(2000), ..prompt("new", 5) });
    let of = |name: &str, term: &str| {
        let candidate = decision.candidates.iter().find(|candidate| *candidate.name == *name).expect(name);
        candidate.terms.iter().find(|known| known.name == term).map(|known| known.value).expect(term)
    };
    assert!((of("b", "prefill") - service(2000.0)).abs() < 0.01, "by what `b` learned");
    assert_eq!(of("a", "prefill"), 215.0, "`a` knows nothing of its own engine yet");
    let waits = of("b", "wait");
    assert!((waits / for_a.pending_ms.unwrap() - 1.0).abs() < 0.01, "{waits}");
}

#[test]
fn a_forwarded_request_counts_on_both_sides_and_nowhere_twice() {
    let mut nodes = nodes(&settings("gorgo"), &["a", "b", "c"]);
    // `a` has sent `b` one request; two are `b`'s own, of which one decodes.
    let forwarded = Features { forwarded: true, origin: Some("a".into()), ..prompt("x", 10) };
    nodes[1].arrive(0.0, forwarded);
    nodes[1].arrive(0.0, Features { forwarded: true, ..prompt("y", 20) });
    let (decodes, _) = nodes[1].arrive(0.0, Features { forwarded: true, ..prompt("z", 40) });
    nodes[1].router.headers(ms(1.0), decodes);
    nodes[1].router.first_token(ms(2.0), decodes);
    let for_a = nodes[1].router.report(ms(3.0), "a");
    let for_c = nodes[1].router.report(ms(3.0), "c");
    let own = Totals {
        pending: 1.0,
        uncached_tokens: 1280.0,
        unanswered: 1.0,
        unanswered_tokens: 1280.0,
        decoding: 1.0,
        prompt_tokens: 1280.0 + 2560.0,
        held_tokens: 1280.0 + 2560.0 + 400.0,
    };
    let of_a = Totals {
        pending: 1.0,
        uncached_tokens: 640.0,
        unanswered: 1.0,
        unanswered_tokens: 640.0,
        decoding: 0.0,
        prompt_tokens: 640.0,
        held_tokens: 840.0,
    };
    assert_eq!((for_a.others, for_c.others), (own, own.plus(of_a)));
    assert_eq!(
        (for_a.running, for_c.running, for_a.serving),
        (3.0, 3.0, true),
        "requests at its engine, whoever sent them"
    );
    // `a` adds what it sent, now and not when the report was made.
    tell(&mut nodes, 3.0, 1, 0);
    let before = nodes[0].arrive(23.0, prompt("w", 1)).1;
    let queue = |decision: &Decision, name: &str| {
        let candidate = decision.candidates.iter().find(|candidate| &*candidate.name == name).expect(name);
        candidate.terms.iter().find(|term| term.name == "queue").expect("queue").value
    };
    // 0.1 · 0.094 ms per token of the two others' prompts, 20 ms old and heard for the first time: told is mean.
    assert!((queue(&before, "b") - 0.0094 * 3840.0).abs() < 1e-9, "{before:?}");
}

/// `b` is filled with two long prompts.
fn busy(at: f64, nodes: &mut [Node]) {
    for name in ["p", "q"] {
        nodes[1].arrive(at, Features { forwarded: true, ..prompt(name, 200) });
    }
}

#[test]
fn own_engine_and_peers_are_scored_alike() {
    for (strategy, expected) in [
        ("gorgo", "c"),
        ("least-request", "c"),
        ("least-load", "c"),
        ("power-of-two", "c"),
        ("dynamo", "c"),
        ("aibrix-prefix", "c"),
    ] {
        let mut nodes = nodes(&settings(strategy), &["a", "b", "c"]);
        nodes[2].router.rtt(Time::ZERO, ReplicaId(0), 1.0);
        busy(0.0, &mut nodes);
        // `a` is busy as well; `c` is idle.
        for name in ["k", "l"] {
            let (_, decision) = nodes[0].arrive(0.0, Features { forwarded: true, ..prompt(name, 200) });
            assert_eq!(decision.chosen().map(|chosen| &*chosen.name), Some("a"));
        }
        gossip(&mut nodes, 1.0);
        let drawn: Vec<String> = (0..10).map(|_| nodes[0].goes_to(30.0, prompt("new", 100))).collect();
        let chosen = drawn.iter().filter(|name| *name == expected).count();
        // Power of two does not always draw it.
        let least = if strategy == "power-of-two" { 1 } else { 10 };
        assert!(chosen >= least, "{strategy}: {drawn:?}");
    }
}

#[test]
fn silence_is_not_idleness() {
    let mut nodes = nodes(&settings("gorgo"), &["a", "b", "c"]);
    let goes = |nodes: &mut [Node], at: f64| nodes[0].goes_to(at, prompt(&format!("new at {at}"), 20));
    gossip(&mut nodes, 0.0);
    for name in ["x", "y", "z"] {
        nodes[0].arrive(1.0, Features { forwarded: true, ..prompt(name, 300) });
    }
    assert_eq!(goes(&mut nodes, 30.0), "b", "idle, by its own word");
    assert_eq!(goes(&mut nodes, 2_500.0), "a", "nobody has said anything for two seconds: nobody is idle");
    tell(&mut nodes, 2_500.0, 2, 0);
    assert_eq!(goes(&mut nodes, 2_530.0), "c");
    // `c` has something to do; `b` may have more, for all that is known.
    nodes[2].arrive(2_600.0, Features { forwarded: true, ..prompt("own", 10) });
    tell(&mut nodes, 2_600.0, 2, 0);
    assert_eq!(goes(&mut nodes, 2_630.0), "c");
    tell(&mut nodes, 2_640.0, 1, 0);
    assert_eq!(goes(&mut nodes, 2_670.0), "b", "it is heard again");
}

#[test]
fn the_papers_rule_sees_a_peers_limit_and_nothing_else_of_its_load() {
    let settings = Settings {
        parameters: vec![("running_threshold".into(), 0.0), ("max_running".into(), 3.0)],
        ..settings("gorgo-v1")
    };
    let mut nodes = nodes(&settings, &["a", "b", "c"]);
    for _ in 0..3 {
        nodes[0].arrive(0.0, Features { forwarded: true, ..prompt("own", 300) });
    }
    let b = nodes[0].id("b");
    nodes[0].router.rtt(Time::ZERO, b, 1.0);
    gossip(&mut nodes, 0.0);
    let terms = |nodes: &mut [Node]| {
        let name = format!("new {}", nodes[0].requests);
        let (request, decision) = nodes[0].arrive(30.0, prompt(&name, 20));
        nodes[0].router.finish(ms(30.0), request, Outcome::Cancelled);
        let chosen = decision.chosen().map(|chosen| chosen.name.to_string());
        (chosen, format!("{:?}", decision.candidates[1].terms))
    };
    let idle = terms(&mut nodes);
    assert_eq!(idle.0.as_deref(), Some("b"));
    busy(5.0, &mut nodes);
    tell(&mut nodes, 6.0, 1, 0);
    assert_eq!(terms(&mut nodes), idle, "two long prompts are not in its cost");
    nodes[1].arrive(7.0, Features { forwarded: true, ..prompt("third", 1) });
    tell(&mut nodes, 8.0, 1, 0);
    assert_eq!(terms(&mut nodes).0.as_deref(), Some("c"), "at its limit it drops out");
}

#[test]
fn a_prefix_that_only_the_peer_has_seen_draws_requests_there() {
    let mut nodes = nodes(&settings("gorgo"), &["a", "b"]);
    let (request, _) = nodes[1].arrive(0.0, Features { forwarded: true, ..prompt("long", 50) });
    nodes[1].router.finish(ms(400.0), request, Outcome::Done(Usage::default()));
    assert_eq!(nodes[0].goes_to(401.0, prompt("long", 60)), "a");
    nodes[0].router.clear_cache(None);
    gossip(&mut nodes, 402.0);
    let (request, decision) = nodes[0].arrive(430.0, prompt("long", 60));
    let chosen = decision.chosen().expect("somebody");
    assert_eq!((&*chosen.name, chosen.cached_tokens), ("b", 48 * 64), "50 blocks, rounded down to four");
    // That the peer had less after all says nothing about what this router knew itself.
    let before = nodes[0].router.index_stats();
    let usage = Usage { prompt_tokens: Some(3840), cached_tokens: Some(0), completion_tokens: None };
    nodes[0].router.finish(ms(900.0), request, Outcome::Done(usage));
    assert_eq!(nodes[0].router.index_stats(), before);
    // What it has evicted it says, too. What `a` itself sent there is believed until the peer has lost it.
    nodes[0].router.clear_cache(None);
    nodes[1].router.clear_cache(None);
    tell(&mut nodes, 1000.0, 1, 0);
    assert_eq!(nodes[0].goes_to(1030.0, prompt("long", 60)), "a");
}

#[test]
fn a_peer_that_begins_anew_is_believed_to_hold_nothing() {
    let mut nodes = nodes(&settings("gorgo"), &["a", "b"]);
    let b = nodes[0].id("b");
    nodes[0].router.greet(b, 1);
    nodes[1].arrive(0.0, Features { forwarded: true, ..prompt("long", 50) });
    gossip(&mut nodes, 1.0);
    let cached = |nodes: &mut [Node], at: f64| {
        let (request, decision) = nodes[0].arrive(at, prompt("long", 50));
        nodes[0].router.finish(ms(at), request, Outcome::Cancelled);
        decision.candidates.iter().find(|candidate| &*candidate.name == "b").map(|candidate| candidate.cached_tokens)
    };
    assert_eq!(cached(&mut nodes, 30.0), Some(48 * 64));
    nodes[0].router.greet(b, 1);
    // That request went to `b`: now it is known to hold all of it.
    assert_eq!(cached(&mut nodes, 40.0), Some(50 * 64 - 1));
    nodes[0].router.greet(b, 2);
    assert_eq!(cached(&mut nodes, 50.0), Some(0), "neither its word nor our own");
}

#[test]
fn a_draining_peer_is_left_alone_while_it_says_so() {
    let mut nodes = nodes(&settings("round-robin"), &["a", "b"]);
    let b = nodes[0].id("b");
    let report = nodes[1].router.report(Time::ZERO, "a");
    let hear = |nodes: &mut [Node], at: f64, draining: bool| {
        nodes[0].router.hear(ms(at), b, ms(at), Report { draining, ..report });
        let (request, decision) = nodes[0].arrive(at, prompt("x", 1));
        nodes[0].router.finish(ms(at), request, Outcome::Cancelled);
        decision.excluded.iter().map(|(_, _, reason)| *reason).collect::<Vec<_>>()
    };
    assert_eq!(hear(&mut nodes, 1.0, true), [Excluded::Draining]);
    assert_eq!(hear(&mut nodes, 2.0, false), []);
}

#[test]
fn a_limit_of_running_requests_counts_others_at_a_peer() {
    let settings = Settings { max_concurrent: Some(2), ..settings("gorgo") };
    let mut nodes = nodes(&settings, &["a", "b"]);
    for name in ["x", "y"] {
        nodes[0].arrive(0.0, Features { forwarded: true, ..prompt(name, 1) });
        nodes[1].arrive(0.0, Features { forwarded: true, ..prompt(name, 1) });
    }
    assert_eq!(nodes[0].goes_to(1.0, prompt("z", 1)), "b", "nothing is known of it");
    gossip(&mut nodes, 2.0);
    let (_, decision) = nodes[0].arrive(30.0, prompt("z", 1));
    assert_eq!(decision.verdict, Verdict::Hold);
    // Both are done there: what waits here may go.
    nodes[1].router.finish(ms(40.0), RequestId(1), Outcome::Cancelled);
    nodes[1].router.finish(ms(40.0), RequestId(2), Outcome::Cancelled);
    let report = nodes[1].router.report(ms(50.0), "a");
    let b = nodes[0].id("b");
    let released = nodes[0].router.hear(ms(70.0), b, ms(50.0), report);
    assert_eq!(released.len(), 1, "{released:?}");
}

#[test]
fn digests_tell_no_region_what_its_residency_does_not_allow() {
    let classes = [("eu-only".to_owned(), vec!["eu-*".to_owned()])];
    let settings =
        Settings { residency: Residency { classes: classes.into(), ..Residency::default() }, ..settings("gorgo") };
    let mut nodes = nodes(&settings, &["eu-west-3", "eu-central-1", "us-east-1"]);
    let secret = Features { residency: ["eu-only"].into_iter().collect(), forwarded: true, ..prompt("secret", 40) };
    nodes[0].arrive(0.0, secret);
    nodes[0].arrive(0.0, Features { forwarded: true, ..prompt("public", 40) });
    gossip(&mut nodes, 1.0);
    let known = |node: &mut Node, features: Features| {
        let (request, decision) = node.arrive(30.0, features);
        node.router.finish(ms(30.0), request, Outcome::Cancelled);
        let paris = decision.candidates.iter().find(|candidate| &*candidate.name == "eu-west-3");
        paris.map(|candidate| candidate.cached_tokens)
    };
    // Virginia asks without a class, as a client there could, to find out what Paris was asked.
    assert_eq!(known(&mut nodes[2], prompt("secret", 41)), Some(0));
    assert_eq!(known(&mut nodes[2], prompt("public", 41)), Some(40 * 64));
    assert_eq!(known(&mut nodes[1], prompt("secret", 41)), Some(40 * 64));
}
