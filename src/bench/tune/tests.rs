//! Searches in the real simulator, at a small size.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;

use tokio_util::sync::CancellationToken;

use super::arena::{HELD_OUT, Simulated};
use super::figures::{Figure, Objective};
use super::search::{Arena as _, Kind, ranked};
use super::space::Space;
use super::{TuneConfig, tune};
use crate::bench::demo::fleet::{default_fleet, resolve, specs};
use crate::bench::simulate::{Contender, Loads, Scene, Source};
use crate::bench::{Board, fleets};
use crate::report::tuning::{Gain, Tuning};
use crate::routing::Settings;
use crate::routing::policy::{Parameters, find};
use crate::sim::world::Edge;
use crate::workload::fleet::FleetFile;
use crate::workload::{Arrivals, Fleet, PlanOptions, Trace};

fn space(strategy: &str, grid: &str) -> Space {
    let entry = find(strategy).unwrap();
    let present = Parameters::resolve(entry.name, entry.parameters, &[]).unwrap();
    Space::new(entry, &present, &[grid.parse().unwrap()]).unwrap()
}

fn built_in(name: &str) -> Fleet {
    resolve(&FleetFile::parse(name, fleets::find(name).unwrap().text).unwrap(), None).unwrap()
}

/// `gorgo` on a fleet with the bundled trace.
fn config(fleet: Fleet, seconds: f64, rates: &[f64], grid: &str) -> TuneConfig {
    let load = Arrivals::Poisson { per_s: rates[0] };
    let scene = Scene {
        specs: specs(&fleet).unwrap(),
        fleet,
        source: Source::Trace(Box::new(Trace::bundled().unwrap())),
        options: PlanOptions { seconds: Some(seconds), ..PlanOptions::new(load, 0) },
        drift: 0.0,
        faults: Vec::new(),
        warmup_s: Some(1.0),
        drain_s: 3600.0,
        slo: None,
    };
    let named = |name: &str| Contender::new(Settings { strategy: name.into(), ..Settings::default() }, Edge::default());
    TuneConfig {
        contender: named("gorgo"),
        baseline: Some(named("random")),
        scene,
        loads: Loads::Given(rates.iter().map(|per_s| Arrivals::Poisson { per_s: *per_s }).collect()),
        windows: Vec::new(),
        held_out: Vec::new(),
        seed: 1,
        seeds: 2,
        space: space("gorgo", grid),
        kind: Kind::Grid,
        objective: Objective::default(),
        budget: None,
        described: BTreeMap::new(),
    }
}

fn run(config: &TuneConfig) -> Tuning {
    tune(config, &Board::default(), &CancellationToken::new()).unwrap()
}

/// The reward hack of the paper's authors: with first tokens alone as the objective, a search gives up the queue term. Requests then stay
/// where the cache is and the distance short, first tokens come early, since prefills go before decodes, and whole answers take several
/// times as long.
#[test]
fn first_tokens_alone_drive_the_queue_weight_to_its_end_and_four_figures_do_not() {
    let config = config(built_in("three-l40s"), 60.0, &[3.0], "w_queue=0.01,0.03,0.1");
    let (board, stop, points) = (Board::default(), CancellationToken::new(), config.space.points());
    let Loads::Given(loads) = &config.loads else { panic!("{:?}", config.loads) };
    let mut arena = Simulated {
        config: &config,
        loads,
        board: &board,
        stop: &stop,
        most: String::new(),
        done: AtomicU64::new(0),
        saturated: BTreeSet::new(),
    };
    let cells = arena.play(&points, 0..config.seeds).unwrap().unwrap();
    let objective = |key: &str| Objective::new(vec![key.parse::<Figure>().unwrap()]).unwrap();
    let (first_tokens, answers) = (objective("ttft_ms.p95"), objective("e2e_ms.p95"));
    let greedy = &ranked(&first_tokens, &points, cells.clone())[0];
    let whole = &ranked(&Objective::default(), &points, cells)[0];
    let of = |objective: &Objective, trial: &super::search::Trial| objective.compared(&trial.cells, &trial.to).mean;
    assert_eq!(greedy.point, [0.01], "the lower end");
    assert!(of(&first_tokens, greedy) < 0.8, "{}", of(&first_tokens, greedy));
    assert!(of(&answers, greedy) > 1.6, "{}", of(&answers, greedy));
    assert!(whole.point[0] > 0.01);
    assert!(of(&answers, whole) < 1.3, "{}", of(&answers, whole));
    assert!(arena.saturated.is_empty());
}

#[test]
fn a_search_is_checked_on_seeds_that_chose_nothing_and_repeats_its_bytes() {
    let mut bad = config(default_fleet().unwrap(), 10.0, &[4.0], "w_rtt=0.5,1");
    bad.seeds = 3;
    // With a distance that outweighs everything all goes to the nearest engine.
    bad.contender.routing.parameters = vec![("w_rtt".into(), 1000.0), ("w_queue".into(), 0.2)];
    bad.space.axes[0].start = 1000.0;
    let found = run(&bad);
    let held_out = found.held_out.as_ref().unwrap();
    assert_eq!((held_out.gain, found.search.runs, found.trials.len()), (Gain::Real, 9, 3));
    assert!(held_out.objective.unwrap().high < Some(1.0) && held_out.ratios.len() == 10);
    let names: Vec<_> = held_out.report.runs.iter().map(|run| run.strategy.as_str()).collect();
    assert_eq!(names, ["gorgo", "gorgo (tuned)", "random"]);
    for run in &held_out.report.runs {
        let seeds: Vec<u64> = run.per_seed.iter().flatten().map(|figures| figures.seed).collect();
        assert_eq!(seeds, [HELD_OUT + 1, HELD_OUT + 2, HELD_OUT + 3]);
    }
    let compared: Vec<_> =
        held_out.report.comparisons.iter().map(|one| (one.strategy.as_str(), one.to.as_str())).take(4).collect();
    let wanted = [("gorgo (tuned)", "gorgo"), ("random", "gorgo"), ("gorgo", "random"), ("gorgo (tuned)", "random")];
    assert_eq!(compared, wanted);
    assert!(found.toml.starts_with("[cluster]\nstrategy = \"gorgo\""), "{}", found.toml);
    assert!(found.toml.ends_with(", w_queue = 0.2 }"), "what was set stays set: {}", found.toml);
    assert!(found.remarks.iter().any(|remark| remark.starts_with("chosen under one load")));
    assert_eq!(run(&bad).to_json().unwrap(), found.to_json().unwrap());
    assert!(found.page("t").unwrap().unwrap().contains("the gain is larger than the noise"));
}

#[test]
fn an_evolution_keeps_its_budget_and_a_stop_leaves_what_was_found() {
    let mut config = config(default_fleet().unwrap(), 5.0, &[2.0], "w_queue=0.01..1");
    (config.kind, config.budget, config.baseline) = (Kind::Evolution, Some(20), None);
    let found = run(&config);
    assert!(found.search.runs <= 20 && found.search.ended.contains("budget"), "{:?}", found.search);
    assert!(found.held_out.is_some() && found.trials.len() > 2);
    config.budget = Some(13);
    assert!(config.most_runs().unwrap_err().to_string().contains("less than a generation takes: 14"));
    (config.kind, config.budget) = (Kind::Grid, Some(5));
    assert!(config.most_runs().unwrap_err().to_string().contains("7 points take 14 runs"));
    config.budget = None;
    let stop = CancellationToken::new();
    stop.cancel();
    let found = tune(&config, &Board::default(), &stop).unwrap();
    assert!(found.search.interrupted && found.held_out.is_none() && found.toml.is_empty());
    assert_eq!(found.weights["w_queue"], 0.1, "nothing was chosen");
}
