//! `gorgo simulate` as a user runs it: the real binary, files on disk, equal bytes for equal seeds.

mod bounded;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gorgo::report::Report;

const BINARY: &str = env!("CARGO_BIN_EXE_gorgo");

fn simulate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("simulate").args(arguments).current_dir(folder).env("NO_COLOR", "1");
    bounded::output(&mut command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn example(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "examples", "fleets", name].iter().collect();
    path.display().to_string()
}

fn report(output: &Output) -> Report {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

#[test]
fn a_comparison_has_a_table_a_file_and_a_page_and_a_seed_repeats_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--strategy", "gorgo,least-load", "--seconds", "20", "--json", "r.json", "--html", "r.html"];
    let run = || {
        let output = simulate(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (text(&output.stdout), std::fs::read_to_string(folder.path().join("r.json")).unwrap())
    };
    let (table, json) = run();
    for word in ["gorgo", "least-load", "(lower bound)", "warm-up of 4 s"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    assert_eq!(run(), (table, json.clone()));
    let report: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(report.runs.iter().map(|run| run.strategy.as_str()).collect::<Vec<_>>(), ["gorgo", "least-load"]);
    for run in &report.runs {
        assert_eq!(run.requests.ok, run.requests.total, "{}", run.strategy);
        assert!(run.ttft_ms.mean > run.bound.as_ref().unwrap().ttft_ms.mean, "nothing beats the bound");
        assert!(run.cache.hit_ratio.unwrap() <= run.cache.infinite_cache_ratio.unwrap() + 0.02);
    }
    assert_eq!(report.runs[0].requests.total, report.runs[1].requests.total);
    assert!(report.client_lag_ms.is_none() && report.emulator_error_ms.is_none(), "nothing is late in virtual time");
    assert!(std::fs::read_to_string(folder.path().join("r.html")).unwrap().ends_with("</html>\n"));
}

#[test]
fn several_seeds_give_means_intervals_and_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--strategy", "gorgo,random", "--seconds", "20", "--seeds", "3", "--seed", "5", "--json", "-"];
    let report = report(&simulate(folder.path(), &arguments));
    let [gorgo, random] = &report.runs[..] else { panic!("{} runs", report.runs.len()) };
    let seeds: Vec<u64> = gorgo.per_seed.iter().flatten().map(|figures| figures.seed).collect();
    assert_eq!(seeds, [5, 6, 7]);
    let of_seeds: Vec<f64> = gorgo.per_seed.iter().flatten().filter_map(|figures| figures.ttft_ms.p95).collect();
    let mean = of_seeds.iter().sum::<f64>() / 3.0;
    assert!((gorgo.ttft_ms.p95.unwrap() - mean).abs() < 0.01);
    let interval = gorgo.ci.as_ref().unwrap()["ttft_ms.p95"];
    assert!(interval.low < mean && mean < interval.high);
    assert!(gorgo.paired.is_none());
    let paired = random.paired.as_ref().unwrap();
    assert_eq!(paired.to, "gorgo");
    let ratio = paired.ratios["ttft_ms.p95"];
    assert!(ratio.low <= ratio.mean && ratio.mean <= ratio.high && ratio.mean > 1.0, "{ratio:?}");
}

#[test]
fn six_regions_with_faults_a_generator_and_a_moving_peak() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = example("six-regions.toml");
    let faults = ["--fault", "down:west-a100@40..60", "--fault", "cut:europe@50..70"];
    let common =
        ["--fleet", &fleet, "--generator", "wild-like", "--window", "0..120", "--time-scale", "1", "--drift", "2"];
    let arguments = [&common[..], &faults[..], &["--strategy", "gorgo-v1,least-load", "--json", "-"]].concat();
    let report = report(&simulate(folder.path(), &arguments));
    for run in &report.runs {
        let requests = &run.requests;
        assert_eq!(requests.total, requests.ok + requests.failed + requests.refused + requests.cancelled);
        assert_eq!(requests.cancelled + requests.unsent, 0, "everything ends");
        assert!(requests.ok * 100 >= requests.total * 99, "{requests:?}");
        assert!(run.routing.cross_region_share > Some(0.0), "agents send on");
        assert_eq!(run.routing.share.len(), 6);
    }
    assert_eq!(report.config["faults"][0], "down:west-a100@40..60");
    assert!(report.trace.name.starts_with("wild-like"));
}

/// Held in full, with several seeds and all strategies, by docs/six-regions.md.
#[test]
fn what_agents_tell_each_other_is_nearly_as_good_as_perfect_knowledge_and_better_than_no_look_at_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = example("six-regions.toml");
    let strategies = "gorgo-score,prefix-tree,least-load,session-affinity";
    let arguments = ["--fleet", &fleet, "--generator", "art-like", "--drift", "2", "--seconds", "100", "--oracle"];
    let output = simulate(folder.path(), &[&arguments[..], &["--strategy", strategies, "--json", "-"]].concat());
    let report = report(&output);
    let p95: Vec<f64> = report.runs.iter().filter_map(|run| run.ttft_ms.p95).collect();
    let [told, oracle, others @ ..] = &p95[..] else { panic!("{p95:?}") };
    assert_eq!(report.runs[1].strategy, "gorgo-score (oracle)");
    assert!(*told <= 1.15 * oracle, "told {told} ms, with perfect knowledge {oracle} ms");
    assert!(others.len() == 3 && others.iter().all(|other| told < other), "{p95:?}");
}

#[test]
fn a_sweep_over_windows_and_seeds_compares_with_the_baseline_and_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let common = ["--fleet", "a10-a100-h100", "--generator", "wild-like", "--open-loop", "--baseline", "least-load"];
    let draws = ["--time-scale", "4,2", "--window", "0..40,40..80", "--seeds", "2", "--strategy", "gorgo,least-load"];
    let output = simulate(folder.path(), &[&common[..], &draws, &["--json", "r.json", "--html", "r.html"]].concat());
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for word in ["time scale 4", "time scale 2", "÷ least-load", "÷ lower bound", "pair by pair"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    let report: Report = serde_json::from_slice(&std::fs::read(folder.path().join("r.json")).unwrap()).unwrap();
    let runs: Vec<_> = report.runs.iter().map(|run| (run.strategy.as_str(), run.load.time_scale)).collect();
    let wanted = [("gorgo", 4.0), ("least-load", 4.0), ("gorgo", 2.0), ("least-load", 2.0)];
    assert_eq!(runs, wanted.map(|(strategy, scale)| (strategy, Some(scale))));
    let windows: Vec<_> = report.runs[0].per_seed.iter().flatten().map(|draw| (draw.seed, draw.window_s)).collect();
    let (first, second) = (Some((0.0, Some(40.0))), Some((40.0, Some(80.0))));
    assert_eq!(windows, [(1, first), (2, first), (1, second), (2, second)]);
    // gorgo ÷ least-load, then both ÷ the bound: over both loads and under each.
    assert_eq!(report.comparisons.len(), 3 * 3);
    let over_all = &report.comparisons[0];
    assert_eq!((over_all.strategy.as_str(), over_all.to.as_str(), &over_all.load), ("gorgo", "least-load", &None));
    let by_load = |key: &str| -> f64 { report.comparisons[1..3].iter().map(|one| one.ratios[key].mean.ln()).sum() };
    for (key, ratio) in &over_all.ratios {
        assert!((ratio.mean.ln() - by_load(key) / 2.0).abs() < 2e-3, "{key}: the mean of the loads, as rounded");
        assert!(ratio.low <= Some(ratio.mean) && Some(ratio.mean) <= ratio.high, "{key}: {ratio:?}");
    }
    for bound in report.comparisons.iter().filter(|one| one.to == "lower bound") {
        assert!(bound.ratios["ttft_ms.p50"].mean > 1.0, "nothing beats the bound: {bound:?}");
    }
    assert!(std::fs::read_to_string(folder.path().join("r.html")).unwrap().contains("Latency by load"));
}

#[test]
fn loads_can_be_shares_of_the_capacity_which_is_searched() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--strategy", "gorgo,random", "--seconds", "20", "--load", "0.5,0.8", "--json", "-"];
    let report = report(&simulate(folder.path(), &arguments));
    let capacity = report.capacity.as_ref().unwrap();
    let most = capacity.load.sessions_per_s.unwrap();
    let loads: Vec<_> = report.runs.iter().map(|run| (run.load.of_capacity, run.load.sessions_per_s)).collect();
    let wanted = [0.5, 0.5, 0.8, 0.8].map(|share| (Some(share), Some(share * most)));
    assert!(
        loads.iter().zip(&wanted).all(|(a, b)| a.0 == b.0 && (a.1.unwrap() - b.1.unwrap()).abs() < 1e-2),
        "{loads:?}"
    );
    assert!((capacity.limit_ms / capacity.idle_ms - 2.0).abs() < 1e-6 && capacity.probes > 3, "{capacity:?}");
}

/// A router in each region that reaches every engine: what the fleet is for. Nobody forwards anything, and every router uses engines
/// of other regions.
#[test]
fn routers_of_the_direct_form_reach_every_engine() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--fleet", "six-direct", "--generator", "wild-like", "--window", "0..60", "--time-scale", "1"];
    let more = ["--strategy", "least-load,session-affinity", "--set", "rtt_spells=on", "--json", "-"];
    let report = report(&simulate(folder.path(), &[&arguments[..], &more].concat()));
    for run in &report.runs {
        assert_eq!(run.requests.ok, run.requests.total, "{}", run.strategy);
        assert_eq!(run.routing.share.len(), 6, "{}", run.strategy);
        assert!(run.routing.cross_region_share > Some(0.5), "{}", run.strategy);
    }
    let routers = report.config["fleet"]["routers"].as_array().unwrap();
    assert_eq!(routers.len(), 6);
}

/// The same fleet and requests both ways. Orders of magnitude and choices, never speed: the machine may be busy, and a late timer
/// makes the live run slower, never faster. Session affinity depends on the request alone, so its choices have to be the same.
#[test]
fn what_is_simulated_is_what_happens_live() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--against-live", "--strategy", "session-affinity,gorgo", "--rate", "2", "--seconds", "6"];
    let more = ["--warmup", "0", "--max-output", "16", "--max-think", "0.2", "--drain", "30", "--json", "-"];
    let report = report(&simulate(folder.path(), &[&arguments[..], &more].concat()));
    for run in &report.runs {
        let live = run.live.as_ref().unwrap();
        assert_eq!((live.requests.ok, live.requests.total), (run.requests.ok, run.requests.total), "{}", run.strategy);
        let hits = |ratio: Option<f64>| ratio.unwrap();
        let apart = (hits(live.cache.hit_ratio) - hits(run.cache.hit_ratio)).abs();
        assert!(apart < 0.05, "{}: hits {live:?} and {run:?}", run.strategy);
        for (simulated, live) in [(run.ttft_ms.p50, live.ttft_ms.p50), (run.e2e_ms.p50, live.e2e_ms.p50)] {
            let ratio = simulated.unwrap() / live.unwrap();
            assert!((0.3..1.15).contains(&ratio), "{}: {simulated:?} ms simulated, {live:?} ms live", run.strategy);
        }
    }
    let agreement = |run: usize| report.runs[run].live.as_ref().unwrap().agreement.unwrap();
    assert_eq!(agreement(0), 1.0, "session affinity");
    assert!(agreement(1) > 0.7, "gorgo: {}", agreement(1));
    assert!(report.client_lag_ms.is_some() && report.emulator_error_ms.is_some());
}

#[test]
fn what_cannot_be_meant_ends_with_code_2_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("lonely.toml"),
        "[[router]]\nregion = \"us-east-1\"\n[[router]]\nregion = \"us-west-1\"\n\
         [[replica]]\nname = \"a\"\nregion = \"us-east-1\"\ngpu = \"a100-80\"\nmodel = \"mistral-7b\"\n",
    )
    .unwrap();
    let cases: [(&[&str], &str); 11] = [
        (&["--oracle"], "a single router has no peers"),
        (&["--strategy", "nearest"], "unknown strategy `nearest`"),
        (&["--fleet", "no-such.toml"], "no-such.toml"),
        (&["--fleet", "lonely.toml"], "has no replica in its region"),
        (&["--set", "w_rttt=1"], "did you mean `w_rtt`?"),
        (&["--fault", "burn:east@1..2"], "wanted KIND:TARGET@FROM..TO"),
        (&["--fleet", "three-a10"], "did you mean `three-a100`?"),
        (&["--against-live", "--fleet", "six-direct"], "simulated only"),
        (&["--against-live", "--seeds", "2"], "one seed"),
        (&["--against-live", "--set", "usage=0"], "settings of the simulation"),
        (&["--generator", "tame-like"], "known: art-like, wild-like"),
    ];
    for (arguments, word) in cases {
        let output = simulate(folder.path(), arguments);
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {talk}");
        assert!(talk.contains(word), "{arguments:?}: {talk}");
    }
}
