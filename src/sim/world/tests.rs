//! Whole fleets: repeatability, conservation under faults, closed forms, agents, and what each fault does.

mod agents;
mod direct;
mod faults;
mod forms;
mod guard;
mod prediction;
mod tuning;

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Edge, Measured, Played, Scenario, Unobserved, World, run};
use crate::routing::Settings;
use crate::sim::fault::Fault;
use crate::sim::fleet::{engine_spec, spec_of};
use crate::workload::fleet::FleetFile;
use crate::workload::{Fleet, Plan, Session, Step, homes};

/// Engines of round figures: 10 ms per step and 0.1 ms per token.
const GPU: &str = r#"
    [[gpu]]
    name = "round"
    linear_ms = 0.1
    weights_ms = 0
    quadratic_ms = 0
    context_ms = 0
    fixed_ms = 10
    kv_tokens = 100000
"#;

/// Regions `a`, `b`, … 100 ms apart, with a replica named like its region in each, and routers in those of `routers`.
fn fleet(regions: &str, routers: &str, more: &str) -> Fleet {
    let mut text = String::new();
    for region in routers.chars() {
        let _ = write!(text, "[[router]]\nregion = \"{region}\"\n");
    }
    for region in regions.chars() {
        let _ = write!(
            text,
            "[[replica]]\nname = \"{region}\"\nregion = \"{region}\"\ngpu = \"round\"\nmodel = \"m\"\n{more}\n"
        );
    }
    text.push_str(GPU);
    text.push_str("[network]\njitter = \"none\"\n[network.rtt_ms]\n");
    let places: Vec<char> = regions.chars().collect();
    for (index, a) in places.iter().enumerate() {
        for b in &places[index..] {
            let _ = writeln!(text, "\"{a}/{b}\" = {}", if a == b { 0 } else { 100 });
        }
    }
    let file = FleetFile::parse("fleet", &text).unwrap();
    file.resolve(None, &|gpu, model| spec_of(gpu, model).map(drop).map_err(|error| error.to_string())).unwrap()
}

/// A request of `tokens` prompt tokens, the first blocks of text number `text`.
fn step(text: u64, tokens: u32, output: u32, think_ms: f64) -> Step {
    let blocks: Arc<[u64]> = (0..u64::from(tokens.div_ceil(16))).map(|block| text << 32 | block).collect();
    Step { think_ms, input_tokens: tokens, output_tokens: output, blocks, text: None }
}

fn session(id: u64, start_ms: f64, steps: Vec<Step>) -> Session {
    Session { id: format!("s{id}").into(), start_ms, steps }
}

fn plan(sessions: Vec<Session>) -> Plan {
    Plan { block_size: 16, sessions, concurrency: None }
}

/// `count` sessions of three growing prompts, one every `gap_ms`; four in five are conversations of their own.
fn conversations(count: u64, gap_ms: f64) -> Plan {
    let talk = |id: u64| {
        let text = if id.is_multiple_of(5) { 0 } else { id };
        let tokens = 400 + 37 * (id as u32 % 11);
        let steps = (1..=3).map(|turn| step(text, turn * tokens, 5 + id as u32 % 7, 200.0));
        session(id, id as f64 * gap_ms, steps.collect())
    };
    plan((0..count).map(talk).collect())
}

/// What a test varies.
struct Case<'a> {
    fleet: &'a Fleet,
    plan: &'a Plan,
    strategy: &'a str,
    edge: Edge,
    faults: &'a [&'a str],
    measured: Measured,
    seed: u64,
}

impl<'a> Case<'a> {
    fn new(fleet: &'a Fleet, plan: &'a Plan, strategy: &'a str) -> Self {
        let measured = Measured { from_ms: 0.0, to_ms: f64::INFINITY, drain_ms: 3.6e6 };
        let edge = Edge { slow_start: false, ..Edge::default() };
        Self { fleet, plan, strategy, edge, faults: &[], measured, seed: 1 }
    }

    fn play(&self) -> Played {
        self.with(|scenario| run(scenario, &mut Unobserved).unwrap())
    }

    /// The same with other settings of the routers.
    fn play_with(&self, routing: &Settings) -> Played {
        self.with(|scenario| run(&Scenario { routing, ..*scenario }, &mut Unobserved).unwrap())
    }

    /// What the world looks like once it has been played.
    fn after<T>(&self, look: impl FnOnce(&World<'_>) -> T) -> T {
        self.with(|scenario| {
            let mut observer = Unobserved;
            let mut world = World::new(scenario, &mut observer).unwrap();
            world.begin();
            assert!(world.go_on());
            look(&world)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Scenario<'_>) -> T) -> T {
        let specs: Vec<_> = self.fleet.replicas.iter().map(|replica| engine_spec(replica).unwrap()).collect();
        let faults: Vec<Fault> = self.faults.iter().map(|text| text.parse().unwrap()).collect();
        let scenario = Scenario {
            fleet: self.fleet,
            specs: &specs,
            plan: self.plan,
            homes: &homes(&self.fleet.clients, self.plan, self.seed, 0.0),
            routing: &Settings { strategy: self.strategy.into(), seed: self.seed, ..Settings::default() },
            edge: self.edge,
            faults: &faults,
            measured: self.measured,
            seed: self.seed,
        };
        act(&scenario)
    }
}

/// Time to first token of every request that has one, ms.
fn ttft_ms(played: &Played) -> Vec<f64> {
    played.samples.iter().filter_map(crate::report::Sample::ttft_ms).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_seed_repeats_every_byte_and_another_one_does_not() {
    let agents = fleet("abc", "abc", "");
    let central = fleet("abc", "a", "");
    let plan = conversations(60, 40.0);
    let edge = Edge { rtt_spells: true, usage: 0.5, ..Edge::default() };
    let faults = ["slow:b@1..2x3", "restart:c@1.5", "rtt:a/b@0.5..1x2"];
    for (fleet, strategy) in [(&agents, "gorgo-v1"), (&agents, "least-load"), (&central, "random"), (&central, "gorgo")]
    {
        let jittery = Fleet { jitter: crate::workload::fleet::Jitter::Internet, ..fleet.clone() };
        let case = Case { edge, faults: &faults, ..Case::new(&jittery, &plan, strategy) };
        let bytes = |case: &Case<'_>| format!("{:?}", case.play());
        assert_eq!(bytes(&case), bytes(&case), "{strategy}");
        assert_ne!(bytes(&case), bytes(&Case { seed: 2, ..case }), "{strategy}");
    }
}

#[test]
fn the_time_that_counts_is_that_of_the_load_generator() {
    let fleet = fleet("a", "a", "");
    let plan = conversations(20, 100.0);
    let measured = Measured { from_ms: 500.0, to_ms: 1000.0, drain_ms: 100.0 };
    let played = Case { measured, ..Case::new(&fleet, &plan, "gorgo") }.play();
    let counted = played.samples.iter().filter(|sample| sample.measured).count() as u64;
    // Ten sessions start before 1000 ms, the five of them that start from 500 ms on count; the run ends 100 ms after the last start.
    assert_eq!(played.samples.iter().filter(|sample| sample.intended.ms() < 500.0 && sample.measured).count(), 0);
    assert_eq!(counted + played.unsent, 15);
    assert!(played.unsent > 0 && played.end.ms() == 1100.0, "{} {}", played.unsent, played.end.ms());
    let cancelled = |sample: &&crate::report::Sample| sample.outcome == crate::report::Outcome::Cancelled;
    assert!(played.samples.iter().filter(cancelled).all(|sample| sample.end == played.end));
}

#[test]
fn a_closed_loop_keeps_its_sessions_at_once_and_sends_nothing_after_its_time() {
    let fleet = fleet("a", "a", "");
    let plan = Plan { concurrency: Some(4), ..conversations(400, 0.0) };
    let measured = Measured { from_ms: 0.0, to_ms: 20_000.0, drain_ms: 60_000.0 };
    let played = Case { measured, ..Case::new(&fleet, &plan, "gorgo") }.play();
    assert!(played.samples.iter().all(|sample| sample.ok() && sample.sent.ms() < 20_000.0));
    assert_eq!(played.unsent, 0);
    for at in [5_000.0, 10_000.0, 15_000.0] {
        let now = crate::model::Time::from_ms(at);
        let under_way = played.samples.iter().filter(|sample| sample.sent <= now && now < sample.end).count();
        assert!(under_way <= 4, "{under_way} at {at} ms");
    }
    assert!(played.samples.len() > 120, "{}", played.samples.len());
}

#[test]
fn an_observer_sees_every_request_and_can_end_the_run() {
    struct Counts {
        sent: usize,
        ended: usize,
        most: usize,
    }
    impl super::Observer for Counts {
        fn sent(&mut self) {
            self.sent += 1;
        }
        fn ended(&mut self, sample: &crate::report::Sample, home: &str) {
            assert!(sample.ok() && home == "a");
            self.ended += 1;
        }
        fn goes_on(&mut self) -> bool {
            self.ended < self.most
        }
    }
    let fleet = fleet("ab", "a", "");
    let plan = conversations(300, 50.0);
    let specs: Vec<_> = fleet.replicas.iter().map(|replica| engine_spec(replica).unwrap()).collect();
    for (most, stopped) in [(usize::MAX, false), (30, true)] {
        let mut counts = Counts { sent: 0, ended: 0, most };
        let scenario = Scenario {
            fleet: &fleet,
            specs: &specs,
            plan: &plan,
            homes: &homes(&fleet.clients, &plan, 1, 0.0),
            routing: &Settings::default(),
            edge: Edge::default(),
            faults: &[],
            measured: Measured { from_ms: 0.0, to_ms: f64::INFINITY, drain_ms: 1e6 },
            seed: 1,
        };
        let played = run(&scenario, &mut counts).unwrap();
        assert_eq!((played.stopped, counts.sent), (stopped, played.samples.len()));
        assert_eq!(counts.ended == 900, !stopped, "{} ended", counts.ended);
        assert_eq!(played.unsent, 0);
    }
}
