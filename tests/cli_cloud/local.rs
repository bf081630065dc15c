//! The whole way without an account: machines that are processes here, set up, asked, taken down.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Ran, User, ran};

/// Ends the machines, whatever became of the test.
pub(crate) struct Ended(User);

impl Ended {
    pub(crate) fn new() -> Self {
        Self(User::new())
    }

    /// Local machines run the program under a path of its own, so that it can be exchanged.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.0.command(&format!("--provider local {line}"));
        command.env("XDG_RUNTIME_DIR", self.0.path().join("run"));
        command
    }

    pub(crate) fn gorgo(&self, line: &str) -> Ran {
        ran(self.command(line))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.command("terminate east eu --yes").output();
    }
}

/// The answer to one completion over a fresh connection.
fn completion(port: &str) -> String {
    completion_with(port, "")
}

/// The same with more lines of the head, each with its end.
fn completion_with(port: &str, more: &str) -> String {
    let body = r#"{"model":"mistral-7b","prompt":"hello","max_tokens":4}"#;
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("the agent listens");
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: gorgo\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Without an account, the cluster says what was forgotten.
fn assert_a_forgotten_provider_is_told(user: &Ended) {
    for line in ["status", "cluster status", "cluster setup"] {
        let mut command = user.0.command(line);
        command.env_remove("LAMBDA_API_KEY");
        let told = ran(command);
        assert_eq!(told.code, Some(2));
        assert!(told.err.contains("hint: use `--provider local`"), "{line}: {told:?}");
    }
}

#[test]
fn a_cluster_of_processes_is_set_up_serves_and_goes() {
    let user = Ended::new();
    let launched = user.gorgo("launch east eu --type a100-40 --region us-east-1 europe-central-1 --yes --wait");
    assert_eq!(launched.code, Some(0), "{}", launched.err);
    let planned = user.gorgo("cluster setup --dry-run");
    assert!(planned.code == Some(0) && planned.out.contains("east: 1. "), "{planned:?}");
    let set_up = user.gorgo("cluster setup");
    assert_eq!(set_up.code, Some(0), "{}", set_up.err);
    assert_a_forgotten_provider_is_told(&user);
    let again = user.gorgo("cluster setup");
    assert!(again.code == Some(0) && again.err.contains("nothing to do"), "{again:?}");
    let status: Value = serde_json::from_str(&user.gorgo("status --json").out).expect("JSON");
    let port = status["nodes"][0]["instance"]["tags"]["gorgo-port-agent"].as_str().expect("a port");
    assert!(completion(port).starts_with("HTTP/1.1 200"), "the agent serves");
    for ran in [&set_up, &again] {
        assert!(ran.out.starts_with(&format!("east takes requests at http://127.0.0.1:{port}\neu takes")), "{ran:?}");
    }
    let everywhere = user.gorgo("run -- pwd");
    let folders: Vec<PathBuf> =
        everywhere.out.lines().filter_map(|line| line.split_once(": ")).map(|(_, path)| path.into()).collect();
    assert_eq!(folders.len(), 2, "{everywhere:?}");
    assert_eq!(user.gorgo("run east -- false").code, Some(1));
    assert_eq!(user.gorgo("ssh east").code, Some(2), "there is nothing to log in to");
    let down = user.gorgo("cluster down --yes");
    assert_eq!(down.code, Some(0), "{}", down.err);
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "nobody listens any more");
    assert_eq!(user.gorgo("terminate east eu --yes").code, Some(0));
    assert_eq!(user.gorgo("list").err, "0 machines, $0.00/h\n");
}

#[test]
fn a_setup_that_is_killed_at_a_step_boundary_is_taken_up() {
    let user = Ended::new();
    let launched = user.gorgo("launch east --type a10 --region us-east-1 --yes");
    assert_eq!(launched.code, Some(0), "{}", launched.err);
    for boundary in [1, 2, 4, 7, 11] {
        let mut killed = user.command("cluster setup");
        killed.env("GORGO_CRASH_AT", boundary.to_string());
        assert_eq!(ran(killed).code, None, "it dies by a signal at boundary {boundary}");
    }
    let set_up = user.gorgo("cluster setup");
    assert_eq!(set_up.code, Some(0), "{}", set_up.err);
    assert!(user.gorgo("cluster setup").err.contains("nothing to do"));
}

#[test]
fn residency_classes_hold_at_the_agents_that_set_up_makes() {
    let user = Ended::new();
    let written = |text: &str| fs::write(user.path().join("gorgo.toml"), text).expect("written");
    let done = |line: &str| {
        let ran = user.gorgo(line);
        assert_eq!(ran.code, Some(0), "{line}: {} {}", ran.out, ran.err);
        ran
    };
    let json = |line: &str| serde_json::from_str::<Value>(&done(line).out).expect("JSON");
    written("[residency]\neu-only = [\"europe-*\"]\n[proxy]\nadmin_token_file = \"token\"\n");
    done("launch east eu --type a100-40 --region us-east-1 europe-central-1 --yes");
    let set_up = done("cluster setup");
    assert!(set_up.err.contains("`proxy.admin_token_file` does not reach nodes"), "{}", set_up.err);
    let status = json("status --json");
    let port = status["nodes"][0]["instance"]["tags"]["gorgo-port-agent"].as_str().expect("a port").to_owned();
    let asked = |class: &str| completion_with(&port, &format!("x-gorgo-residency: {class}\r\n"));
    let away = asked("eu-only");
    assert!(away.starts_with("HTTP/1.1 200") && away.contains("x-gorgo-replica: eu\r\n"), "not in us-east-1: {away}");
    let unknown = asked("moon");
    assert!(unknown.starts_with("HTTP/1.1 403") && unknown.contains("unknown_residency"), "{unknown}");
    assert!(done("cluster setup").err.contains("nothing to do"));

    written("[residency]\neu-only = [\"asia-*\"]\n");
    let doctor = user.gorgo("cluster doctor");
    assert!(doctor.out.contains("residency rules of gorgo-agent.service: are missing"), "{}", doctor.out);
    done("cluster setup --yes");
    assert!(done("cluster setup").err.contains("nothing to do"));
    let nowhere = asked("eu-only");
    assert!(nowhere.starts_with("HTTP/1.1 403") && nowhere.contains("\"residency\""), "{nowhere}");

    let planned = json("cluster down --dry-run --json");
    let steps =
        planned["plans"].as_array().expect("plans").iter().map(|plan| plan["steps"].as_array().map_or(0, Vec::len));
    assert!(steps.clone().count() == 2 && steps.clone().all(|steps| steps > 0), "{planned}");
    assert!(asked("moon").starts_with("HTTP/1.1 403"), "only shown");
    let ended = json("cluster down --yes --json");
    let outcomes: Vec<&Value> = ended["nodes"].as_array().expect("nodes").iter().map(|node| &node["outcome"]).collect();
    assert_eq!(outcomes, ["done", "done"]);
}
