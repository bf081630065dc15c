//! A running cluster of processes: looked at, changed while streams run, flushed, hurt, given another program and the one before again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::Ran;
use super::local::Ended;

/// Streams that run while agents change.
const STREAMS: usize = 8;
/// Tokens of each: some seconds of an emulated A100, so that they outlive the commands that run meanwhile.
const TOKENS: usize = 1_500;

/// Asks a node's loopback port; the body of the answer.
fn http(port: u16, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A long completion, to its end.
fn stream(port: u16, number: usize, tokens: usize) -> JoinHandle<String> {
    let body = format!(
        r#"{{"model":"mistral-7b","prompt":"{number} and many more","max_tokens":{tokens},"ignore_eos":true,"stream":true}}"#
    );
    thread::spawn(move || http(port, "POST /v1/completions", &body))
}

/// Waits for a condition, with a bound.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not within a minute");
}

/// A cluster of two nodes.
struct Cluster {
    user: Ended,
    /// Of `east`: requests and admin API.
    data: u16,
    admin: u16,
}

impl Cluster {
    fn serving() -> Self {
        let user = Ended::new();
        let launched = user.gorgo("launch east eu --type a100-40 --region us-east-1 europe-central-1 --yes");
        assert_eq!(launched.code, Some(0), "{}", launched.err);
        let set_up = user.gorgo("cluster setup");
        assert_eq!(set_up.code, Some(0), "{}", set_up.err);
        let machines: Value = serde_json::from_str(&user.gorgo("status --json").out).expect("JSON");
        let tags = &machines["nodes"][0]["instance"]["tags"];
        let port = |tag: &str| tags[tag].as_str().and_then(|text| text.parse().ok()).expect("a port");
        let (data, admin) = (port("gorgo-port-agent"), port("gorgo-port-agent-admin"));
        Self { user, data, admin }
    }

    fn done(&self, line: &str) -> Ran {
        let ran = self.user.gorgo(line);
        assert_eq!(ran.code, Some(0), "{line}: {} {}", ran.out, ran.err);
        ran
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.done("cluster status --json").out).expect("JSON")
    }

    fn in_flight(&self) -> u64 {
        let answer = http(self.admin, "GET /admin/v1/drain", "");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        let body: Value = serde_json::from_str(body).expect("JSON");
        body["in_flight"].as_u64().expect("a number")
    }

    /// As many streams as are wanted, all of them under way.
    fn streams(&self, count: usize, tokens: usize) -> Vec<JoinHandle<String>> {
        let streams = (0..count).map(|number| stream(self.data, number, tokens)).collect();
        until("all streams run", || (self.in_flight() == count as u64).then_some(()));
        streams
    }

    fn converged(&self) {
        let again = self.done("cluster setup");
        assert!(again.err.contains("nothing to do"), "{}", again.err);
    }
}

fn assert_whole(streams: Vec<JoinHandle<String>>) {
    for stream in streams {
        let answer = stream.join().expect("it was read to its end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(300)]);
        assert!(
            answer.contains("data: [DONE]"),
            "a stream was cut off: …{}",
            &answer[answer.len().saturating_sub(300)..]
        );
    }
}

#[test]
fn agents_change_while_streams_run_and_none_is_lost() {
    let cluster = Cluster::serving();
    let status = cluster.status();
    let east = &status["nodes"][0];
    assert_eq!(
        (&east["serving"], &east["binary"]["same"], &east["agent"]["strategy"]),
        (&true.into(), &true.into(), &"predictive".into())
    );
    assert_eq!(
        (&east["engine"]["up"], &east["engine"]["model"], &east["trouble"]),
        (&true.into(), &"mistral-7b".into(), &Value::Null)
    );
    let table = cluster.done("cluster status");
    assert!(table.err.contains("2 of 2 nodes serving, 0 in flight, $0.00/h"), "{}", table.err);

    let streams = cluster.streams(STREAMS, TOKENS);
    let live = cluster.done("cluster restart-lb --strategy least-load --max-concurrent 50");
    let expected = "east: least-load, at most 50 running: changed while it served\neu: least-load, at most 50 running: changed while it served\n";
    assert_eq!(live.out, expected);
    assert!(cluster.in_flight() > 0, "streams ran meanwhile");
    let restarted = cluster.done("cluster restart-lb east --restart --max-concurrent none --json");
    let ended: Value = serde_json::from_str(&restarted.out).expect("JSON");
    assert_eq!((&ended["nodes"][0]["outcome"], &ended["failed"]), (&"restarted".into(), &Value::Null));
    assert_whole(streams);

    let status = cluster.status();
    let limits = [0, 1].map(|at| status["nodes"][at]["agent"]["max_concurrent"].clone());
    assert_eq!(limits, [Value::Null, 50.into()]);
    let kept = cluster.done("cluster setup --dry-run");
    assert!(kept.err.contains("east (least-load, no limit), eu (least-load, at most 50 running)"), "{}", kept.err);
    cluster.converged();
    cluster.done("cluster flush-cache");
    let one = cluster.streams(1, TOKENS);
    let busy = cluster.user.gorgo("cluster flush-cache --json");
    let flushed: Value = serde_json::from_str(&busy.out).expect("JSON");
    let kept = [0, 1].into_iter().filter(|at| flushed["nodes"][*at]["engine"]["outcome"] == "busy").count();
    assert_eq!(
        (busy.code, kept),
        (Some(3), 1),
        "the engine with the stream keeps its cache, and that is said: {busy:?}"
    );
    assert_whole(one);
    let back = cluster.done("cluster restart-lb --as-configured");
    assert!(back.out.contains("eu: predictive, no limit: changed while it served"), "{}", back.out);
    cluster.converged();
    let odd = cluster.user.gorgo("cluster restart-lb --strategy gorgo --set w_rtt=1");
    assert!(odd.code == Some(2) && odd.err.contains("has no parameter `w_rtt`"), "{odd:?}");
}

#[test]
fn what_breaks_is_seen_and_a_new_program_goes_back_once() {
    let cluster = Cluster::serving();
    cluster.done("cluster doctor");
    let engine = cluster.status()["nodes"][0]["services"]["engine"]["pid"].to_string();
    assert!(Command::new("kill").args(["-9", &engine]).status().expect("kill runs").success());
    until("the engine serves again", || {
        let status: Value = serde_json::from_str(&cluster.user.gorgo("cluster status --json").out).ok()?;
        let east = &status["nodes"][0];
        (east["serving"] == true && east["services"]["engine"]["restarts"] == 1).then_some(())
    });
    assert!(cluster.done("cluster status").out.contains("engine (restarted once)"));
    let doctor = cluster.user.gorgo("cluster doctor");
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(
        doctor.out.starts_with("east: gorgo-engine.service runs, and was restarted once because it ended\n  hint: "),
        "{}",
        doctor.out
    );

    // Another build: what follows the sections of a program does not change what it does.
    let other = cluster.user.path().join("other");
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_gorgo")).expect("it is there");
    bytes.push(b'\n');
    fs::write(&other, bytes).expect("written");
    let upload = format!("cluster upload --agent-binary {}", other.display());
    let asked = cluster.user.gorgo(&upload);
    assert!(asked.code == Some(2) && asked.err.contains("restart gorgo-engine.service on east, eu"), "{asked:?}");
    let uploaded = cluster.done(&format!("{upload} --yes --json"));
    assert!(uploaded.out.contains(r#""outcome": "done""#), "{}", uploaded.out);
    assert!(cluster.done("cluster status").out.contains("(another build)"));
    cluster.done("cluster doctor");
    cluster.done("cluster rollback --yes");
    assert_eq!(cluster.status()["nodes"][0]["binary"]["same"], true);
    let twice = cluster.user.gorgo("cluster rollback --yes");
    assert!(twice.code == Some(1) && twice.err.contains("there is no program of before to go back to"), "{twice:?}");
    cluster.converged();
    cluster.done("cluster down --yes");
    let gone = cluster.user.gorgo("cluster status");
    assert!(gone.code == Some(0) && gone.out.contains("nothing is installed"), "{gone:?}");
    let doctor = cluster.user.gorgo("cluster doctor");
    assert!(doctor.code == Some(1) && doctor.out.contains("it is not what gorgo.toml would make of it"), "{doctor:?}");
    assert!(cluster.user.gorgo("cluster status nobody").code == Some(4));
}

#[test]
fn the_traces_of_all_nodes_are_one_file_and_a_node_without_one_is_named() {
    let cluster = Cluster::serving();
    let file = cluster.user.path().join("trace.json");
    let stop = format!("cluster stop-trace --output {}", file.display());
    let early = cluster.user.gorgo(&stop);
    assert!(early.code == Some(1) && early.err.contains("eu: no trace runs here, and none is kept"), "{early:?}");
    assert!(!file.exists());
    let nowhere = cluster.user.gorgo("cluster stop-trace --output none/trace.json");
    assert!(nowhere.code == Some(2) && nowhere.err.contains("its folder does not exist"), "{nowhere:?}");
    let planned = cluster.done("cluster start-trace --dry-run");
    assert_eq!(planned.out, "start to collect spans: the routers of east, eu\n");

    let started: Value = serde_json::from_str(&cluster.done("cluster start-trace --json").out).expect("JSON");
    assert_eq!(started["started"].as_array().map(Vec::len), Some(2), "{started}");
    let twice = cluster.user.gorgo("cluster start-trace eu");
    assert!(twice.code == Some(1) && twice.err.contains("eu: a trace runs here"), "{twice:?}");
    assert_whole(cluster.streams(4, TOKENS / 4));
    let told: Value = serde_json::from_str(&cluster.done(&format!("{stop} --json")).out).expect("JSON");
    let east = &told["nodes"][0];
    assert_eq!((&east["node"], &east["requests"], &told["failed"]), (&"east".into(), &4.into(), &Value::Array(vec![])));
    assert!(told["nodes"][1]["clock_error_us"].is_u64(), "{told}");
    assert_eq!(traced(&file), ["east", "eu"]);

    // An agent that was restarted has forgotten its trace; the other one gives its own again.
    let agent = cluster.status()["nodes"][1]["services"]["agent"]["pid"].to_string();
    assert!(Command::new("kill").args(["-9", &agent]).status().expect("kill runs").success());
    until("it is back", || (cluster.status()["nodes"][1]["services"]["agent"]["restarts"] == 1).then_some(()));
    let partly = until("it answers", || {
        let ran = cluster.user.gorgo(&stop);
        ran.err.contains("eu: no trace runs here").then_some(ran)
    });
    assert_eq!(partly.code, Some(3), "{partly:?}");
    assert_eq!(traced(&file), ["east"]);
}

/// The nodes of a trace.
fn traced(file: &std::path::Path) -> Vec<String> {
    let trace: Value = serde_json::from_str(&fs::read_to_string(file).expect("it is there")).expect("JSON");
    assert!(trace["traceEvents"].as_array().is_some_and(|events| events.len() > 20), "{trace}");
    let nodes = trace["metadata"]["nodes"].as_array().expect("nodes");
    nodes.iter().filter_map(|node| node["node"].as_str().map(str::to_owned)).collect()
}
