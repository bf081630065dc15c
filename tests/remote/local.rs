//! The behaviours in a local node, and what only its supervisor has: surviving a kill -9 of anybody, bounded logs, one per node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gorgo::remote::local::LocalRemote;
use gorgo::remote::{Remote, ServiceAction, ServiceUnit};
use tempfile::TempDir;

use super::conformance::{self, Place};
use super::support::{command, eventually, put, run, stdout, unit};

/// A local node; its supervisor ends with the folder.
pub(crate) struct Node {
    pub(crate) remote: LocalRemote,
    folder: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let remote = remote(folder.path());
        Self { remote, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A script and a service that runs it.
    async fn install(&self, name: &str, script: &str) -> ServiceUnit {
        let path = format!("/opt/gorgo/{name}.sh");
        put(&self.remote, &path, script.as_bytes()).await;
        let definition = unit(&path);
        self.act(name, ServiceAction::Install(definition.clone())).await;
        definition
    }

    async fn act(&self, name: &str, action: ServiceAction) -> gorgo::remote::ServiceState {
        self.remote.service(name, &action).await.expect("the supervisor does it")
    }

    /// Processes of this node: those whose working directory is its folder, and its supervisor.
    fn processes(&self) -> Vec<u32> {
        let folder = self.folder.path().canonicalize().expect("exists");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("Linux").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let here = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder);
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if here || is_supervisor(&words, &folder) {
                found.push(pid);
            }
        }
        found
    }

    fn supervisor(&self) -> Option<u32> {
        let folder = self.folder.path();
        let words = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        self.processes().into_iter().find(|pid| is_supervisor(&words(pid), folder))
    }
}

fn is_supervisor(words: &[u8], folder: &Path) -> bool {
    let text = String::from_utf8_lossy(words);
    let words: Vec<_> = text.split('\0').collect();
    words.get(1) == Some(&"supervise") && words.get(3).is_some_and(|dir| Path::new(dir) == folder)
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new(GORGO).args(["supervise", "--stop", "--dir"]).arg(self.folder.path()).status();
    }
}

const GORGO: &str = env!("CARGO_BIN_EXE_gorgo");

fn remote(folder: &Path) -> LocalRemote {
    LocalRemote::new("east", folder, GORGO.as_ref()).expect("a plain folder")
}

/// Whether the process has ended; one that waits for its parent to notice has.
pub(crate) fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Now, in the unit of start times: hundredths of a second.
fn ticks_since_boot() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").expect("Linux");
    let seconds: f64 = uptime.split(' ').next().and_then(|word| word.parse().ok()).expect("seconds");
    (seconds * 100.0) as u64
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success());
}

/// One test per behaviour, each with a node of its own.
macro_rules! in_a_local_node {
    ($($behaviour:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $behaviour() {
            let node = Node::new();
            let place = Place { remote: &node.remote, folder: "/opt/gorgo/test".into() };
            conformance::$behaviour(&place).await;
        }
    )+};
}

in_a_local_node!(
    commands,
    streams,
    limits,
    crowd,
    uploads,
    large_upload,
    replacement,
    full_disk,
    tunnels,
    services,
    logs
);

const FOREVER: &str = "echo started; while :; do sleep 0.1; done\n";

#[tokio::test]
async fn the_nodes_folders_are_below_its_own() {
    let node = Node::new();
    put(&node.remote, "/etc/gorgo/agent.toml", b"x").await;
    assert_eq!(fs::read(node.path("etc/gorgo/agent.toml")).expect("reads"), b"x");
    assert_eq!(stdout(&node.remote, &["cat", "/etc/gorgo/agent.toml"]).await, "x");
    assert_eq!(stdout(&node.remote, &["sh", "-c", "cd /etc/gorgo && ls"]).await, "agent.toml\n");
    assert_eq!(Path::new(stdout(&node.remote, &["pwd"]).await.trim()), node.folder.path());
    assert_eq!(node.remote.path("/etc/gorgo/agent.toml"), node.path("etc/gorgo/agent.toml"));
}

#[tokio::test]
async fn commands_do_not_get_the_operators_secrets() {
    let node = Node::new();
    let names = stdout(&node.remote, &["env"]).await;
    for line in names.lines() {
        let name = line.split('=').next().unwrap_or_default();
        let known = ["HOME", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER", "LC_ALL", "PWD", "SHLVL", "_"];
        assert!(known.contains(&name), "{name} reached the node");
    }
}

#[tokio::test]
async fn services_survive_the_command_line_that_started_them() {
    let node = Node::new();
    node.install("a", FOREVER).await;
    let pid = node.act("a", ServiceAction::Start).await.pid.expect("runs");
    // Another process of the command line, so to speak.
    let other = remote(node.folder.path());
    let seen = other.service("a", &ServiceAction::Status).await.expect("looks");
    assert_eq!(seen.pid, Some(pid));
    let session = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("runs");
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3).map(str::to_owned)).expect("a session")
    };
    let supervisor = node.supervisor().expect("one runs");
    assert_ne!(session(supervisor), session(std::process::id()), "a hang-up or Ctrl-C here does not reach it");
    assert_eq!(session(pid), session(supervisor));
}

#[tokio::test]
async fn a_killed_supervisor_is_replaced_and_nothing_is_left_running() {
    let node = Node::new();
    node.install("a", FOREVER).await;
    node.install("b", FOREVER).await;
    node.install("c", FOREVER).await;
    let orphan = node.act("a", ServiceAction::Start).await.pid.expect("runs");
    node.act("b", ServiceAction::Start).await;
    node.act("b", ServiceAction::Stop).await;
    kill(node.supervisor().expect("one runs"));
    let seen = node.act("a", ServiceAction::Status).await;
    assert_eq!((seen.running, seen.pid), (true, Some(orphan)), "still seen, without a supervisor");

    // Any action brings a new one, which ends the orphan and starts what was wanted.
    node.act("c", ServiceAction::Start).await;
    let renewed = eventually("the service's return", async || {
        let state = node.act("a", ServiceAction::Status).await;
        state.running.then_some(state)
    })
    .await;
    assert_ne!(renewed.pid, Some(orphan));
    assert!(is_gone(orphan), "the orphan has ended");
    assert!(!node.act("b", ServiceAction::Status).await.running, "what was stopped stays stopped");

    kill(node.supervisor().expect("one runs"));
    node.remote.shut_down().await.expect("ends");
    assert_eq!(node.processes(), Vec::<u32>::new(), "nothing of the node runs");
    let state = node.act("a", ServiceAction::Status).await;
    assert!(state.installed && !state.running);
    node.remote.boot().await.expect("boots");
    eventually("the wanted services", async || {
        let (a, b) = (node.act("a", ServiceAction::Status).await, node.act("b", ServiceAction::Status).await);
        (a.running && !b.running).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_recorded_pid_that_belongs_to_somebody_else_is_left_alone() {
    let node = Node::new();
    node.install("a", FOREVER).await;
    node.act("a", ServiceAction::Start).await;
    let record = node.path(".supervisor/processes/a.service.json");
    kill(node.supervisor().expect("one runs"));
    let mut running: serde_json::Value = serde_json::from_slice(&fs::read(&record).expect("reads")).expect("JSON");
    let service = running["process"]["pid"].as_u64().expect("a pid");
    // Start times are told in ticks of 10 ms; the stranger's has to be another.
    let ticks = running["process"]["start_ticks"].as_u64().expect("a start time");
    eventually("another tick", async || (ticks_since_boot() > ticks + 1).then_some(())).await;
    let mut stranger = Command::new("sleep").arg("60").stdout(std::process::Stdio::null()).spawn().expect("starts");
    running["process"]["pid"] = stranger.id().into();
    fs::write(&record, running.to_string()).expect("writes");
    assert!(!node.act("a", ServiceAction::Status).await.running, "same pid, other start time");
    node.act("a", ServiceAction::Stop).await;
    assert!(stranger.try_wait().expect("looks").is_none(), "the stranger still runs");
    stranger.kill().expect("ends it");
    stranger.wait().expect("waits");
    kill(u32::try_from(service).expect("a pid"));
}

#[tokio::test]
async fn there_is_one_supervisor_however_many_want_one() {
    let node = Node::new();
    put(&node.remote, "/opt/gorgo/x.sh", FOREVER.as_bytes()).await;
    let names: Vec<String> = (0..6).map(|i| format!("s{i}")).collect();
    let all = names.iter().map(async |name| {
        node.act(name, ServiceAction::Install(unit("/opt/gorgo/x.sh"))).await;
        node.act(name, ServiceAction::Start).await.pid.expect("runs")
    });
    let pids = futures_util::future::join_all(all).await;
    let mut expected = pids;
    expected.push(node.supervisor().expect("one runs"));
    expected.sort_unstable();
    // Each service has a child now and then (its `sleep`), so only leaders of groups are compared.
    let leaders = |pids: Vec<u32>| {
        let leads = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let group = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
            group == Some(*pid)
        };
        let mut leaders: Vec<u32> = pids.into_iter().filter(leads).collect();
        leaders.sort_unstable();
        leaders
    };
    eventually("exactly these", async || (leaders(node.processes()) == expected).then_some(())).await;
}

#[tokio::test]
async fn a_service_that_keeps_dying_is_tried_again_more_and_more_slowly() {
    let node = Node::new();
    node.install("a", "echo try; exit 3\n").await;
    node.act("a", ServiceAction::Start).await;
    let restarts = eventually("some restarts", async || {
        let state = node.act("a", ServiceAction::Status).await;
        (state.restarts >= 3).then_some(state.restarts)
    })
    .await;
    // 0.1 + 0.2 + 0.4 s of pauses are behind it; without growing ones there would be many more in the time.
    assert!(restarts < 10, "{restarts}");
    let stopped = node.act("a", ServiceAction::Stop).await;
    assert!(!stopped.running);
    let missing = ServiceUnit { argv: vec!["/opt/gorgo/bin/absent".into()], ..unit("x") };
    node.act("b", ServiceAction::Install(missing)).await;
    let error = node.remote.service("b", &ServiceAction::Start).await.expect_err("no program");
    assert!(error.message.contains("opt/gorgo/bin/absent"), "{error}");
}

#[tokio::test]
async fn what_a_service_started_ends_with_it() {
    let node = Node::new();
    node.install("a", "sleep 600 & echo $! > /opt/gorgo/child\nwait\n".replace("/opt/gorgo", "opt/gorgo").as_str())
        .await;
    node.act("a", ServiceAction::Start).await;
    let child = eventually("the child", async || {
        fs::read_to_string(node.path("opt/gorgo/child")).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    node.act("a", ServiceAction::Stop).await;
    eventually("its end", async || (!run(&node.remote, &["kill", "-0", child.trim()]).await.ok()).then_some(())).await;
}

#[tokio::test]
async fn a_folder_that_goes_away_takes_its_services_along() {
    let node = Node::new();
    node.install("a", FOREVER).await;
    let pid = node.act("a", ServiceAction::Start).await.pid.expect("runs");
    let supervisor = node.supervisor().expect("one runs");
    fs::remove_dir_all(node.folder.path()).expect("removes");
    for pid in [pid, supervisor] {
        eventually("its end", async || is_gone(pid).then_some(())).await;
    }
    // The guard removes it; the supervisor may have made it anew for its last record.
    fs::create_dir_all(node.folder.path()).expect("for the guard");
}

#[tokio::test]
async fn a_deep_folder_works_too() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let deep = folder.path().join("x".repeat(60)).join("y".repeat(60));
    let remote = remote(&deep);
    put(&remote, "/opt/gorgo/a.sh", FOREVER.as_bytes()).await;
    remote.service("a", &ServiceAction::Install(unit("/opt/gorgo/a.sh"))).await.expect("installs");
    assert!(remote.service("a", &ServiceAction::Start).await.expect("starts").running);
    remote.shut_down().await.expect("ends");
}

#[test]
fn supervise_is_hidden_and_checks_its_folder() {
    let help = Command::new(GORGO).arg("--help").output().expect("runs");
    assert!(!String::from_utf8_lossy(&help.stdout).contains("supervise"));
    let bad = Command::new(GORGO).args(["supervise", "--stop", "--dir", "/a b"]).output().expect("runs");
    assert_eq!(bad.status.code(), Some(1));
    let talk = String::from_utf8_lossy(&bad.stderr);
    assert!(talk.contains("hint: set GORGO_STATE_DIR"), "{talk}");
}

#[tokio::test]
async fn a_slow_command_does_not_outlive_its_time() {
    let node = Node::new();
    let slow = gorgo::remote::RemoteCommand { timeout_s: 1, ..command(&["sh", "-c", "sleep 601 & wait"]) };
    node.remote.run(&slow).await.expect_err("too slow");
    eventually("no process of it", async || node.processes().is_empty().then_some(())).await;
}
