//! The tuner of a router in a whole fleet: time to first token can be bought with decoding, and a tuner that looks at nothing else buys it.

use std::fmt::Write as _;
use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::super::{Edge, Measured, Scenario, Unobserved, World, run};
use super::{plan, session, step};
use crate::model::{RequestId, Time};
use crate::routing::Settings;
use crate::routing::tune::{Figures, Objective, Range, Sample, TuneSettings, What};
use crate::sim::fleet::{engine_spec, spec_of};
use crate::workload::fleet::FleetFile;
use crate::workload::{Fleet, Plan, homes};

/// Three engines that read a prompt in about the same time. The router stands beside one that writes slowly, 40 ms per token; the others
/// write a token in 8 ms and are 150 ms away. So a first token comes soonest from where the rest takes longest.
const FLEET: &str = r#"
    [[router]]
    region = "a"
    [[replica]]
    name = "a"
    region = "a"
    gpu = "slow"
    model = "m"
    [[replica]]
    name = "b"
    region = "b"
    gpu = "quick"
    model = "m"
    [[replica]]
    name = "c"
    region = "c"
    gpu = "quick"
    model = "m"
    [[gpu]]
    name = "slow"
    linear_ms = 0.05
    weights_ms = 0
    quadratic_ms = 0
    context_ms = 0
    fixed_ms = 40
    kv_tokens = 100000
    [[gpu]]
    name = "quick"
    linear_ms = 0.05
    weights_ms = 0
    quadratic_ms = 0
    context_ms = 0
    fixed_ms = 8
    kv_tokens = 100000
    [network]
    jitter = "none"
    rtt_ms = { "a/a" = 0, "b/b" = 0, "c/c" = 0, "a/b" = 150, "a/c" = 150, "b/c" = 150 }
"#;

fn fleet() -> Fleet {
    let file = FleetFile::parse("fleet", FLEET).unwrap();
    file.resolve(None, &|gpu, model| spec_of(gpu, model).map(drop).map_err(|error| error.to_string())).unwrap()
}

/// Prompts of their own with answers of 60 tokens, four a second.
fn traffic(count: u64, seed: u64) -> Plan {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut at = 0.0;
    let one = |id: u64| {
        at -= (1.0 - random.random::<f64>()).ln() * 1000.0 / 4.0;
        session(id, at, vec![step(id, 200, random.random_range(40..80), 0.0)])
    };
    plan((0..count).map(one).collect())
}

/// The weights that the search starts with: round trip, queue.
const START: [f64; 2] = [1.0, 0.2];

/// The weight in force after 6,000 requests with this tuner, and its log.
fn tuned(fleet: &Fleet, objective: Objective, seed: u64) -> ([f64; 2], String) {
    let plan = traffic(6000, 100 + seed);
    let tune = TuneSettings {
        objective,
        ranges: vec![Range { key: "w_queue".into(), bounds: Some((0.001, 10.0)) }],
        seed,
        ..TuneSettings::default()
    };
    with(fleet, &plan, &fixed(START), |scenario| {
        let mut observer = Unobserved;
        let mut world = World::new(scenario, &mut observer).unwrap();
        world.nodes[0].router.start_tuning(Time::ZERO, tune).unwrap();
        world.begin();
        assert!(world.go_on());
        let tuner = world.nodes[0].router.tuner().unwrap();
        let mut log = String::new();
        for entry in tuner.log_since(0).filter(|entry| entry.what != What::Proposed) {
            let change = entry.result.difference.unwrap_or_default();
            let _ = writeln!(log, "{} {:.4} {change:+.3} {}", entry.what.as_str(), entry.values[0].1, entry.why);
        }
        ([START[0], tuner.progress().incumbent[0].1], log)
    })
}

/// The weights of the paper's tuner after as many.
fn published(fleet: &Fleet, seed: u64) -> [f64; 2] {
    let plan = traffic(6000, 100 + seed);
    let [w_rtt, w_queue] = START;
    let parameters = [
        ("w_rtt", w_rtt),
        ("w_rtt_min", 0.1),
        ("w_rtt_max", 10.0),
        ("w_queue", w_queue),
        ("w_queue_min", 0.001),
        ("w_queue_max", 10.0),
    ];
    with(fleet, &plan, &Settings { seed, ..settings("gorgo-online", &parameters) }, |scenario| {
        let mut observer = Unobserved;
        let mut world = World::new(scenario, &mut observer).unwrap();
        world.begin();
        assert!(world.go_on());
        let decision = world.nodes[0].router.arrive(world.now, RequestId(u64::MAX), Arc::default());
        let weight = |name| decision.weights.iter().find(|weight| weight.name == name).unwrap().value;
        [weight("w_rtt"), weight("w_queue")]
    })
}

/// TTFT p50 and p95, whole time p50 and p95 with these weights throughout, ms.
fn figures(fleet: &Fleet, weights: [f64; 2]) -> Figures {
    let plan = traffic(1500, 8);
    let played = with(fleet, &plan, &fixed(weights), |scenario| run(scenario, &mut Unobserved).unwrap());
    let sample =
        |of: &crate::report::Sample| Sample { ttft_ms: of.ttft_ms().unwrap(), e2e_ms: of.end.since_ms(of.sent) };
    Figures::of(&played.samples.iter().map(sample).collect::<Vec<_>>()).unwrap()
}

/// The paper's score with these weights, which the paper's tuner moves as well.
fn fixed([w_rtt, w_queue]: [f64; 2]) -> Settings {
    settings("gorgo-v3", &[("w_rtt", w_rtt), ("w_queue", w_queue)])
}

fn settings(strategy: &str, parameters: &[(&str, f64)]) -> Settings {
    let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
    Settings { strategy: strategy.into(), parameters, seed: 1, ..Settings::default() }
}

fn with<T>(fleet: &Fleet, plan: &Plan, routing: &Settings, act: impl FnOnce(&Scenario<'_>) -> T) -> T {
    let specs: Vec<_> = fleet.replicas.iter().map(|replica| engine_spec(replica).unwrap()).collect();
    act(&Scenario {
        fleet,
        specs: &specs,
        plan,
        homes: &homes(&fleet.clients, plan, 1, 0.0),
        routing,
        edge: Edge { slow_start: false, rates: false, ..Edge::default() },
        faults: &[],
        measured: Measured { from_ms: 0.0, to_ms: f64::INFINITY, drain_ms: 3.6e6 },
        seed: 1,
    })
}

#[test]
fn first_tokens_alone_are_bought_with_the_rest_and_the_whole_objective_is_not_fooled() {
    let fleet = fleet();
    let start = figures(&fleet, START);
    println!("w_queue {}: {start}", START[1]);
    let [first, whole] = [Objective::FirstToken, Objective::Whole].map(|objective| {
        let (weights, log) = tuned(&fleet, objective, 3);
        let figures = figures(&fleet, weights);
        println!("{objective:?}: w_queue {:.3}: {figures}\n{log}", weights[1]);
        figures
    });
    assert!(first.ttft_p50 < 0.6 * start.ttft_p50 && first.e2e_p50 > 2.0 * start.e2e_p50, "the hack is there: {first}");
    assert!(whole.e2e_p50 < 1.1 * start.e2e_p50 && whole.e2e_p95 < 1.1 * start.e2e_p95, "{whole}");
}

/// The published tuner measures noise on this fleet; ours stays where nothing better is proven.
#[test]
fn seeds_scatter_the_published_tuner_and_never_make_ours_worse() {
    let fleet = fleet();
    let start = figures(&fleet, START).cost(Objective::Whole);
    let mut queue = Vec::new();
    for seed in 1..=4 {
        let (published, (ours, _)) = (published(&fleet, seed), tuned(&fleet, Objective::Whole, seed));
        let [theirs, own] = [published, ours].map(|weights| figures(&fleet, weights));
        println!("seed {seed}: published {published:.3?}: {theirs}\n        ours {ours:.3?}: {own}");
        assert!(own.cost(Objective::Whole) < start + 0.02, "seed {seed}: {own}");
        queue.push(published[1]);
    }
    queue.sort_by(f64::total_cmp);
    assert!(queue[3] > 3.0 * queue[0], "{queue:?}");
}
