//! `gorgo demo` and `gorgo bench` as a user runs them: the real binary, real sockets, short. Structure and conservation, never
//! speed: this runs on busy machines.

mod bounded;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use gorgo::emulator::engine::{self, EngineHandle, EngineOptions};
use gorgo::model::Region;
use gorgo::report::{Report, Run};
use gorgo::sim::preset;

const BINARY: &str = env!("CARGO_BIN_EXE_gorgo");

fn gorgo(folder: &Path, arguments: &[&str]) -> Output {
    bounded::output(Command::new(BINARY).args(arguments).current_dir(folder).env("NO_COLOR", "1"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// What holds for every run, whatever the machine did.
fn check_run(run: &Run) {
    let requests = &run.requests;
    let ended = requests.ok + requests.failed + requests.refused + requests.cancelled;
    assert_eq!(requests.total, ended, "{}: every request sent has one end", run.strategy);
    assert_eq!(requests.failures.values().sum::<u64>(), requests.failed, "{}", run.strategy);
    assert_eq!(requests.failed, 0, "{}: {:?}", run.strategy, requests.failures);
    assert!(requests.ok > 0, "{}", run.strategy);
    let shares: f64 = run.routing.share.values().sum();
    assert!((shares - 1.0).abs() < 1e-3, "{}: {:?}", run.strategy, run.routing.share);
    let ttft = run.ttft_ms;
    assert!(ttft.p50 <= ttft.p95 && ttft.p95 <= ttft.p99 && ttft.p99 <= ttft.max, "{ttft:?}");
    assert!(run.ttft_ms.max <= run.e2e_ms.max);
    let cache = run.cache;
    assert!(cache.hit_ratio.expect("told") <= cache.infinite_cache_ratio.expect("known") + 0.02, "{cache:?}");
    let bound = run.bound.as_ref().expect("the demo knows its fleet");
    assert!(bound.ttft_ms.mean < ttft.mean, "nothing beats the bound: {bound:?} and {ttft:?}");
}

fn demo(folder: &Path, json: &str) -> Output {
    let arguments = [
        "demo",
        "--seconds",
        "3",
        "--warmup",
        "1",
        "--rate",
        "2",
        "--strategies",
        "gorgo,round-robin",
        "--seed",
        "7",
        "--json",
        json,
        "--report",
        "demo.html",
        "--max-output",
        "8",
    ];
    gorgo(folder, &arguments)
}

#[test]
fn a_short_demo_compares_two_strategies_on_the_same_requests() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), "demo.json");
    let talk = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{talk}");
    let table = text(&output.stdout);
    for word in ["gorgo", "round-robin", "(lower bound)", "TTFT", "client lag", "emulator error", "warm-up"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    assert!(talk.contains("written: `demo.json`, `demo.html`"), "{talk}");
    let report: Report = serde_json::from_slice(&std::fs::read(folder.path().join("demo.json")).unwrap()).unwrap();
    assert_eq!(report.schema, "gorgo.report/1");
    assert_eq!(report.runs.iter().map(|run| run.strategy.as_str()).collect::<Vec<_>>(), ["gorgo", "round-robin"]);
    report.runs.iter().for_each(check_run);
    let totals: Vec<u64> = report.runs.iter().map(|run| run.requests.total).collect();
    assert_eq!(totals[0], totals[1], "all strategies are judged on the same requests");
    assert_eq!(report.runs[0].bound, report.runs[1].bound);
    assert!(report.client_lag_ms.unwrap().n >= totals.iter().sum());
    assert!(report.emulator_error_ms.unwrap().n > 0);
    assert_eq!(report.trace.sha256.len(), 64);
    let html = std::fs::read_to_string(folder.path().join("demo.html")).unwrap();
    assert!(html.contains("<svg") && html.ends_with("</html>\n"));
}

/// Three agents, each beside an engine, with most clients in a region without one.
const AGENTS: &str = r#"
    [[router]]
    region = "a"
    [[router]]
    region = "b"
    [[router]]
    region = "c"
    [[clients]]
    region = "a"
    share = 1
    [[clients]]
    region = "d"
    share = 2
    [[replica]]
    name = "engine-a"
    region = "a"
    gpu = "l40s"
    model = "mistral-7b"
    [[replica]]
    name = "engine-b"
    region = "b"
    gpu = "h100"
    model = "mistral-7b"
    [[replica]]
    name = "engine-c"
    region = "c"
    gpu = "h100"
    model = "mistral-7b"
    [network]
    rtt_ms = { "a/b" = 10, "a/c" = 20, "b/c" = 30, "d/a" = 40, "d/b" = 5, "d/c" = 60 }
"#;

#[test]
fn agents_with_their_peers_take_what_their_clients_send_and_forward_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agents.toml"), AGENTS).unwrap();
    let arguments =
        ["demo", "--fleet", "agents.toml", "--strategies", "gorgo,gorgo-score,round-robin", "--max-output", "4"];
    let load =
        ["--seconds", "4", "--warmup", "1", "--rate", "3", "--seed", "3", "--json", "-", "--report", "agents.html"];
    let output = gorgo(folder.path(), &[&arguments[..], &load[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = report.runs.iter().map(|run| run.strategy.as_str()).collect();
    assert_eq!(names, ["gorgo-v1", "gorgo-score", "round-robin"]);
    for run in &report.runs {
        check_run(run);
        // Clients in d are nearest to b; nobody enters by c.
        let entries: Vec<&str> = run.routing.entries.keys().map(String::as_str).collect();
        assert_eq!(entries, ["a", "b"]);
        assert_eq!(run.routing.entries.values().sum::<u64>(), run.requests.total);
        assert_eq!(run.routing.entries, report.runs[0].routing.entries, "all play the same");
        assert!(run.routing.share.keys().all(|name| name.starts_with("engine-")), "{:?}", run.routing.share);
    }
    // Taking turns leaves no engine out, so that requests crossed from agent to agent.
    let turns = &report.runs[2].routing;
    assert_eq!(turns.share.len(), 3, "{turns:?}");
    assert!(turns.cross_region_share.unwrap() > 0.3, "{turns:?}");
}

/// The sizes that a seed fixes: the same plan was played.
fn fixed(report: &Report) -> BTreeMap<String, String> {
    let of = |run: &Run| format!("{:?} {:?} {:?}", run.requests.total, run.window, run.bound);
    report.runs.iter().map(|run| (run.strategy.clone(), of(run))).collect()
}

#[test]
fn json_on_stdout_is_alone_and_a_seed_repeats_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let reports: Vec<Report> = (0..2)
        .map(|_| {
            let output = demo(folder.path(), "-");
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
        })
        .collect();
    assert_eq!(fixed(&reports[0]), fixed(&reports[1]));
    assert!(!folder.path().join("demo.json").exists());
}

#[test]
fn what_cannot_be_meant_ends_with_code_2_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[[router]]\nregion = \"us-east-1\"\n").unwrap();
    std::fs::write(folder.path().join("cut.jsonl"), "{\"input_length\": 3,\n").unwrap();
    let cases: [(&[&str], &[&str]); 11] = [
        (&["demo", "--strategies", "gorgo,nearest"], &["nearest", "round-robin"]),
        (&["demo", "--strategies", "gorgo,gorgo"], &["twice"]),
        (&["demo", "--fleet", "bad.toml"], &["bad.toml", "replica"]),
        (&["demo", "--trace", "cut.jsonl"], &["cut.jsonl:1"]),
        (&["demo", "--json", "no/such/place.json"], &["no/such/place.json"]),
        (&["demo", "--json", "x", "--report", "./x"], &["--json", "--report", "`x`"]),
        (&["demo", "--report", "-"], &["--report -"]),
        (&["demo", "--strategies", "a,b,gorgo"], &["`a`, `b`", "round-robin"]),
        (&["bench", "--target", "http://127.0.0.1:9", "--window", "0..9"], &["--window", "replay"]),
        (&["bench", "--target", "localhost"], &["--target", "http://"]),
        (&["bench", "--target", "http://127.0.0.1:9", "--profile", "poisson"], &["--rate"]),
    ];
    for (arguments, words) in cases {
        let output = gorgo(folder.path(), arguments);
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {talk}");
        for word in words {
            assert!(talk.contains(word), "{arguments:?}: {word} in {talk}");
        }
        assert_eq!(text(&output.stdout), "");
    }
}

/// An emulated engine in this process and its base URL.
async fn engine() -> (EngineHandle, String) {
    let options = EngineOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        spec: preset::engine("h100", "mistral-7b").expect("a preset"),
        model: "mistral-7b".into(),
        region: Region::new("us-east-1"),
        seed: 1,
    };
    let engine = engine::start(options).await.expect("a port is free");
    let url = format!("http://{}", engine.address());
    (engine, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_sweeps_a_target_and_finds_its_model() {
    let (engine, url) = engine().await;
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["--profile", "sweep", "--runs", "3", "--seconds", "1.5", "--concurrency", "4", "--max-output", "2"];
    let (path, arguments) =
        (folder.path().to_owned(), [&["bench", "--target", &url, "--json", "-"], &arguments[..]].concat());
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let run = move || gorgo(&path, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.runs.len(), 3, "synchronous, throughput and one rate between");
    let kinds: Vec<&str> = report.runs.iter().map(|run| run.load.kind.as_str()).collect();
    assert_eq!(kinds, ["closed", "closed", "open"]);
    assert!(report.runs.iter().all(|run| run.requests.failed == 0));
    assert!(report.runs[0].requests.ok > 0 && report.runs[1].requests.ok > 0);
    // The engine's own count: every request of the report was really made, warm-up included.
    let sent: u64 = report.runs.iter().map(|run| run.requests.total + run.window.warmup_requests).sum();
    assert_eq!(engine.counts().requests, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_sends_clients_to_their_entries_and_counts_them() {
    let (east, frankfurt) = (engine().await, engine().await);
    let target = |name: &str, url: &str, region: &str| format!("name={name},url={url},region={region}");
    let targets = [target("east", &east.1, "us-east-1"), target("frankfurt", &frankfurt.1, "europe-central-1")];
    let folder = tempfile::tempdir().unwrap();
    for (entry, shared) in [("geo", true), ("first", false)] {
        let arguments = ["bench", "--target", &targets[0], "--target", &targets[1], "--entry", entry];
        let clients = ["--client-region", "europe-south-1=2", "--client-region", "us-south-1"];
        let load = ["--rate", "30", "--seconds", "1", "--warmup", "0", "--max-output", "1", "--json", "-"];
        let arguments: Vec<String> =
            [&arguments[..], &clients[..], &load[..]].concat().into_iter().map(str::to_owned).collect();
        let before = [east.0.counts().requests, frankfurt.0.counts().requests];
        let path = folder.path().to_owned();
        let run = move || gorgo(&path, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let report: Report = serde_json::from_slice(&output.stdout).unwrap();
        let run = &report.runs[0];
        assert_eq!(run.requests.failed, 0, "{:?}", run.requests.failures);
        // What the report says is what the engines counted.
        let count = |name: &str| run.routing.entries.get(name).copied().unwrap_or(0);
        assert_eq!(count("east"), east.0.counts().requests - before[0], "{entry}");
        assert_eq!(count("frankfurt"), frankfurt.0.counts().requests - before[1], "{entry}");
        assert_eq!(count("east") + count("frankfurt"), run.requests.total);
        assert!(count("east") > 0 && (count("frankfurt") > 0) == shared, "{:?}", run.routing.entries);
        assert_eq!(report.config["entry"], entry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_the_load_and_reports_what_was_measured() {
    let (engine, url) = engine().await;
    let child = Command::new(BINARY)
        .args(["bench", "--target", &url, "--concurrency", "2", "--seconds", "600", "--warmup", "0", "--json", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let some_requests = async {
        while engine.counts().requests < 6 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), some_requests).await.expect("requests come");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.interrupted);
    let requests = &report.runs[0].requests;
    assert!(requests.ok > 0 && requests.failed == 0, "{requests:?}");
    assert_eq!(requests.total, requests.ok + requests.cancelled, "{requests:?}");
}

#[test]
fn a_target_that_is_not_there_is_a_failure_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = gorgo(folder.path(), &["bench", "--target", "http://127.0.0.1:9", "--seconds", "1", "--rate", "1"]);
    let talk = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{talk}");
    assert!(talk.contains("127.0.0.1:9") && talk.contains("model"), "{talk}");
}
