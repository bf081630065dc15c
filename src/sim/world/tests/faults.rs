//! What goes wrong ends every request exactly once, and is seen where it should be.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};

use super::agents::all_in_a;
use super::{Case, conversations, fleet, plan, session, step};
use crate::report::{Outcome, Sample};
use crate::sim::world::node::Node;
use crate::sim::world::{Edge, Played, World};
use crate::workload::fleet::Jitter;
use crate::workload::{Fleet, Plan};

/// One fault within ten seconds.
fn fault() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let kind = prop_oneof![
        Just("down"),
        Just("restart"),
        Just("hang"),
        Just("slow"),
        Just("rtt"),
        Just("cut"),
        Just("pair"),
        Just("half")
    ];
    (kind, name, 0_u32..8000, 1_u32..8000, any::<bool>()).prop_map(|(kind, name, from, length, for_good)| {
        let (from, to) = (f64::from(from) / 1000.0, f64::from(from + length) / 1000.0);
        let end = if for_good { String::new() } else { to.to_string() };
        match kind {
            "restart" => format!("restart:{name}@{from}"),
            "hang" => format!("hang:{name}@{from}..{to}"),
            "slow" | "rtt" => format!("{kind}:{name}@{from}..{end}x3"),
            "pair" => format!("cut:{}@{from}..{end}", if name == "a" { "b/c" } else { "a/b" }),
            "half" => format!("cut:{}@{from}..{end}", ["a>b", "b>a", "c>a"][usize::from(name.as_bytes()[0] - b'a')]),
            _ => format!("{kind}:{name}@{from}..{end}"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_request_ends_exactly_once_whatever_happens(
        faults in collection::vec(fault(), 0..5), agents: bool, apart: bool, seed in 0_u64..1_000_000,
        strategy in prop_oneof![Just("gorgo"), Just("gorgo-v1"), Just("gorgo-proxy"), Just("least-load"), Just("session-affinity")],
    ) {
        let mut fleet = fleet("abc", if agents { "abc" } else { "a" }, "kv_tokens = 6000\nmax_running = 4\n");
        fleet.jitter = Jitter::Internet;
        if apart && !agents {
            fleet.clients[0].region = fleet.replicas[1].region.clone();
        }
        let plan = conversations(40, 200.0);
        let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
        // Who never hears again gives up after a while.
        let edge = Edge { upstream_timeout_ms: 20_000.0, probe_timeout_ms: 1000.0, ..unfair(seed) };
        let case = Case { faults: &faults, edge, seed, ..Case::new(&fleet, &plan, strategy) };
        let played = case.play();
        let cut_off = faults.iter().any(|fault| fault.starts_with("cut") && fault.ends_with(".."));
        if cut_off && apart {
            // Clients behind a line that is cut for good wait for ever, and send nothing more.
            prop_assert!(played.samples.len() <= plan.requests());
        } else {
            prop_assert_eq!(played.samples.len(), plan.requests());
            let waits = |sample: &&Sample| sample.outcome == Outcome::Cancelled;
            prop_assert_eq!(played.samples.iter().filter(waits).count(), 0);
            prop_assert_eq!((played.unsent, played.queued, played.in_flight), (0, 0, 0));
        }
        for sample in &played.samples {
            prop_assert!(sample.intended == sample.sent && sample.sent <= sample.end);
            prop_assert!(sample.first.is_none_or(|first| sample.sent <= first && first <= sample.end));
            if sample.ok() {
                prop_assert!(sample.first.is_some() && sample.last == Some(sample.end));
                prop_assert_eq!(sample.gaps_ms.len() as u32 + 1, sample.output_tokens);
            }
        }
        if faults.is_empty() {
            prop_assert!(played.samples.iter().all(Sample::ok));
            prop_assert_eq!(played.retried, 0);
        }
    }
}

/// Links with spells of longer delays, and clocks that agree or are ten minutes apart.
fn unfair(seed: u64) -> Edge {
    let clocks_apart_ms = if seed.is_multiple_of(2) { 600_000.0 } else { 0.0 };
    Edge { rtt_spells: true, clocks_apart_ms, ..Edge::default() }
}

/// Does this fault leave the engine in `a` alone?
fn spares_a(fault: &str) -> bool {
    fault.starts_with("cut") || fault.starts_with("rtt") || !fault.contains(":a@")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The engine beside the clients' own agent is well, whatever happens to all others and to every line.
    #[test]
    fn nothing_without_a_byte_is_lost_while_somebody_can_serve(
        faults in collection::vec(fault().prop_filter("a is spared", |fault| spares_a(fault)), 1..6), seed in 0_u64..1_000_000,
        strategy in prop_oneof![Just("gorgo"), Just("gorgo-v1"), Just("least-load"), Just("round-robin"), Just("random")],
    ) {
        let mut fleet = all_in_a(fleet("abc", "abc", "kv_tokens = 6000\nmax_running = 4\n"));
        fleet.jitter = Jitter::Internet;
        let plan = conversations(40, 200.0);
        let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
        let played = Case { faults: &faults, edge: unfair(seed), seed, ..Case::new(&fleet, &plan, strategy) }.play();
        prop_assert_eq!(played.samples.len(), plan.requests());
        for sample in &played.samples {
            prop_assert!(sample.ok() || sample.first.is_some(), "{:?}", sample);
        }
        prop_assert_eq!((played.unsent, played.queued, played.in_flight), (0, 0, 0));
    }

    /// Whoever is met by a fault leaves rotation once at most, and comes back.
    #[test]
    fn nothing_flaps(
        fault in fault(), seed in 0_u64..1_000_000,
        strategy in prop_oneof![Just("gorgo"), Just("gorgo-v1"), Just("least-load"), Just("round-robin")],
    ) {
        let mut fleet = fleet("abc", "abc", "");
        fleet.jitter = Jitter::Internet;
        let plan = conversations(120, 150.0);
        let played = Case { faults: &[&fault], edge: unfair(seed), seed, ..Case::new(&fleet, &plan, strategy) }.play();
        // By how many routers it can be seen that a replica has gone: two for each line, and for an engine all three.
        let seen = match fault.split_once(':').expect("a kind") {
            ("slow" | "rtt", _) => 0,
            ("cut", ends) if ends.contains(['/', '>']) => 2,
            ("cut", _) => 4,
            _ => 3,
        };
        prop_assert!(played.health_changes <= 2 * seen, "{} changes by {fault}", played.health_changes);
    }
}

fn ok(played: &Played) -> usize {
    played.samples.iter().filter(|sample| sample.ok()).count()
}

/// One request a second of the same 3000 tokens, for a minute.
fn same_prompt() -> Plan {
    plan((0..60).map(|id| session(id, 1000.0 * id as f64, vec![step(1, 3000, 4, 0.0)])).collect())
}

fn one() -> Fleet {
    fleet("a", "a", "")
}

#[test]
fn a_dead_engine_breaks_what_runs_and_is_left_alone_until_it_is_back() {
    let pair = fleet("ab", "a", "");
    // Prompts of 1.01 s each, all its own, one every 700 ms.
    let plan = plan((0..100).map(|id| session(id, 700.0 * id as f64, vec![step(10 + id, 10_000, 40, 0.0)])).collect());
    let played = Case { faults: &["down:b@20..40"], ..Case::new(&pair, &plan, "least-load") }.play();
    let broken = played.samples.iter().filter(|sample| sample.outcome == Outcome::Failed("cut stream".into())).count();
    assert!(ok(&played) + broken == 100 && broken <= 2, "{broken} broken");
    assert!(played.retried > 0, "what had not begun went elsewhere");
    let at_b = |from: f64, to: f64| {
        let there = |sample: &&Sample| sample.replica.as_deref() == Some("b") && (from..to).contains(&sample.sent.ms());
        played.samples.iter().filter(there).count()
    };
    assert!(at_b(0.0, 20_000.0) > 5 && at_b(45_000.0, 70_000.0) > 5);
    assert_eq!(at_b(20_000.0, 40_000.0), 0);
}

/// What is asked of every cut, to the letter: one change when it is noticed, one when it has healed, and none for those who are not met.
#[test]
fn a_cut_is_noticed_once_at_each_end_and_a_short_one_not_at_all() {
    let fleet = fleet("abc", "abc", "");
    let plan = conversations(300, 200.0);
    let cases = [
        ("cut:c@20..50", 8),
        ("cut:b/c@20..50", 4),
        ("cut:b>c@20..50", 4),
        ("cut:c@20..", 4),
        ("cut:c@20..22.5", 0),
        ("cut:b>c@20..22.5", 0),
    ];
    for strategy in ["gorgo", "round-robin"] {
        for (fault, changes) in cases {
            let played = Case { faults: &[fault], ..Case::new(&fleet, &plan, strategy) }.play();
            assert_eq!(played.health_changes, changes, "{strategy}, {fault}");
            let lost = played.samples.iter().filter(|sample| !sample.ok() && sample.first.is_none()).count();
            assert_eq!((played.samples.len(), lost), (plan.requests(), 0), "{strategy}, {fault}");
        }
    }
}

/// Blocks that each router believes a replica, or the peer beside it, to hold: by what it has sent there, and by what it was told.
fn believed(world: &World<'_>, name: &str) -> Vec<usize> {
    let by = |node: &Node| {
        let known = node.router.snapshot(world.now);
        let of = known.replicas.iter().find(|replica| &*replica.spec.name == name).expect("known to all");
        let sent =
            node.router.index_stats().replicas.iter().find(|(id, _)| *id == of.id).map_or(0, |(_, it)| it.blocks);
        sent + of.peer.map_or(0, |peer| peer.digest_blocks)
    };
    world.nodes.iter().map(by).collect()
}

#[test]
fn what_is_gone_is_forgotten_by_everybody_and_nothing_else() {
    let fleet = fleet("abc", "abc", "");
    let mut sessions: Vec<_> =
        (0..60).map(|id| session(id, 100.0 * id as f64, vec![step(10 + id, 2000, 2, 0.0)])).collect();
    // Less than a block, much later: so that there is a later.
    sessions.push(session(60, 40_000.0, vec![step(1, 8, 1, 0.0)]));
    let plan = plan(sessions);
    for (faults, b_forgotten) in
        [(&[][..], false), (&["down:b@20..25"], true), (&["down:b@20.."], true), (&["cut:b@20..30"], false)]
    {
        for strategy in ["gorgo", "round-robin"] {
            let case = Case { faults, ..Case::new(&fleet, &plan, strategy) };
            let (of_b, of_c) = case.after(|world| (believed(world, "b"), believed(world, "c")));
            assert!(of_c.iter().all(|blocks| *blocks > 0), "{strategy}, {faults:?}: {of_c:?}");
            assert!(of_b.iter().all(|blocks| (*blocks == 0) == b_forgotten), "{strategy}, {faults:?}: {of_b:?}");
        }
    }
}

#[test]
fn clocks_that_are_ten_minutes_apart_change_nothing() {
    let fleet = fleet("abc", "abc", "");
    let plan = conversations(300, 60.0);
    let play = |clocks_apart_ms| {
        let edge = Edge { clocks_apart_ms, slow_start: false, ..Edge::default() };
        Case { edge, faults: &["cut:c@5..15"], ..Case::new(&fleet, &plan, "gorgo") }.play()
    };
    let (together, apart) = (play(0.0), play(600_000.0));
    assert!(together.forwarded > 0 && together.retried > 0);
    assert_eq!(format!("{together:?}"), format!("{apart:?}"));
}

#[test]
fn a_restarted_engine_knows_nothing_and_the_router_soon_knows_that() {
    let (fleet, plan) = (one(), same_prompt());
    let cached = |faults: &[&str]| {
        let played = Case { faults, ..Case::new(&fleet, &plan, "gorgo") }.play();
        assert_eq!(ok(&played), 60);
        played.samples.iter().filter(|sample| sample.cached_tokens == Some(0)).map(|sample| sample.sent.ms()).collect()
    };
    let cold: Vec<f64> = cached(&[]);
    assert_eq!(cold, [0.0]);
    let cold: Vec<f64> = cached(&["restart:a@30.5"]);
    assert_eq!(cold, [0.0, 31_000.0]);
}

#[test]
fn a_hanging_engine_answers_later_and_a_slow_one_takes_longer() {
    let (fleet, plan) = (one(), same_prompt());
    let ttft = |faults: &[&str]| {
        let played = Case { faults, ..Case::new(&fleet, &plan, "gorgo") }.play();
        assert_eq!(ok(&played), 60);
        played.samples.iter().map(|sample| sample.ttft_ms().unwrap()).collect::<Vec<f64>>()
    };
    let fair = ttft(&[]);
    let hung = ttft(&["hang:a@30..33"]);
    assert_eq!((hung[..30] == fair[..30], hung[40..] == fair[40..]), (true, true));
    assert!(hung[30] > 3000.0 && hung[31] > 2000.0 && hung[32] > 1000.0, "{:?}", &hung[30..34]);
    let slow = ttft(&["slow:a@30..35x4", "slow:a@33..35x2"]);
    assert_eq!((slow[29], slow[36]), (fair[29], fair[36]));
    assert!(
        (slow[31] / fair[31] - 4.0).abs() < 0.01 && (slow[34] / fair[34] - 8.0).abs() < 0.01,
        "{:?}",
        &slow[29..37]
    );
}

#[test]
fn an_engine_behind_a_cut_line_is_given_up_after_the_time_limit() {
    let pair = fleet("ab", "a", "");
    let plan = plan(vec![session(0, 5000.0, vec![step(1, 1000, 2, 0.0)])]);
    let edge = Edge { upstream_timeout_ms: 30_000.0, slow_start: false, ..Edge::default() };
    let case = Case { faults: &["down:a@0..", "cut:b@4.."], edge, ..Case::new(&pair, &plan, "gorgo") };
    let sample = case.play().samples.remove(0);
    assert_eq!(sample.outcome, Outcome::Failed("504 upstream_timeout".into()));
    assert_eq!(sample.end.since_ms(sample.sent), 30_000.0);
}

#[test]
fn prompts_that_no_engine_can_hold_fail_at_once() {
    let fleet = fleet("a", "a", "kv_tokens = 1000\n");
    let plan = plan(vec![session(0, 0.0, vec![step(1, 2000, 2, 0.0), step(1, 500, 2, 10.0)])]);
    let played = Case::new(&fleet, &plan, "gorgo").play();
    let outcomes: Vec<&Outcome> = played.samples.iter().map(|sample| &sample.outcome).collect();
    assert_eq!(outcomes, [&Outcome::Failed("400".into()), &Outcome::Ok]);
}
