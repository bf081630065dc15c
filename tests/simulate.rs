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
fn what_cannot_be_meant_ends_with_code_2_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("lonely.toml"),
        "[[router]]\nregion = \"us-east-1\"\n[[router]]\nregion = \"us-west-1\"\n\
         [[replica]]\nname = \"a\"\nregion = \"us-east-1\"\ngpu = \"a100-80\"\nmodel = \"mistral-7b\"\n",
    )
    .unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&["--oracle"], "a single router has no peers"),
        (&["--strategy", "nearest"], "unknown strategy `nearest`"),
        (&["--fleet", "no-such.toml"], "no-such.toml"),
        (&["--fleet", "lonely.toml"], "has no replica in its region"),
        (&["--set", "w_rttt=1"], "did you mean `w_rtt`?"),
        (&["--fault", "burn:east@1..2"], "wanted KIND:TARGET@FROM..TO"),
        (&["--generator", "tame-like"], "known: art-like, wild-like"),
    ];
    for (arguments, word) in cases {
        let output = simulate(folder.path(), arguments);
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {talk}");
        assert!(talk.contains(word), "{arguments:?}: {talk}");
    }
}
