//! The whole life of a cluster on three real hosts, one of them old: the real binary, sshd, sudo and systemd; the engine is emulated.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::SOON;
use super::harness::{Host, Hosts, wait_until};
use super::load::{Load, complete, complete_at};
use super::user::{Ran, User};

/// Streams at once while the cluster is changed.
pub(crate) const STREAMS: usize = 50;

/// The hosts of the cluster and their user.
pub(crate) struct Cluster<'a> {
    pub(crate) hosts: &'a Hosts,
    pub(crate) nodes: &'a [Host],
    pub(crate) user: User,
}

#[test]
fn a_cluster_is_set_up_used_changed_and_taken_down() {
    let Some(hosts) = Hosts::start(3) else { return };
    let cluster = Cluster::new(&hosts);
    cluster.is_planned_and_not_touched();
    cluster.is_set_up_and_then_left_alone();
    cluster.has_units_that_systemd_accepts();
    cluster.has_links_by_certificate();
    cluster.gets_new_certificates_while_it_runs();
    cluster.serves_through_every_node();
    cluster.shows_itself();
    cluster.has_its_faults_found();
    cluster.forgets_what_it_has_cached();
    cluster.balances_otherwise_without_losing_a_stream();
    cluster.serves_on_when_an_engine_is_killed();
    cluster.tells_what_happened();
    cluster.has_a_central_router_for_a_while();
    cluster.gets_another_version_and_goes_back();
    cluster.is_taken_down();
}

pub(crate) fn measured(what: &str, took: Duration) {
    tell(format_args!("{what}: {:.1} s", took.as_secs_f64()));
}

/// Prints what was measured.
#[expect(clippy::print_stdout, reason = "the numbers are what the test is run for")]
pub(crate) fn tell(what: fmt::Arguments<'_>) {
    println!("measured: {what}");
}

impl<'a> Cluster<'a> {
    /// Every third host has an old glibc. Where the program is too new for it, that has to be told, and the others make the cluster.
    #[expect(clippy::print_stdout, reason = "says what is left out")]
    pub(crate) fn new(hosts: &'a Hosts) -> Self {
        let all = User::new(hosts.hosts());
        all.gorgo("cluster down --yes"); // what an earlier test on the same hosts may have left
        let plan = all.does("cluster setup --dry-run").out;
        if !plan.contains("cannot be set up") {
            return Self { hosts, nodes: hosts.hosts(), user: all };
        }
        let refused: Vec<&str> = plan.lines().filter(|line| line.contains("cannot be set up")).collect();
        let [line] = refused.as_slice() else { panic!("more than the old host is refused: {plan}") };
        assert!(
            line.starts_with("node3: cannot be set up: the machine has glibc 2.31, the program needs 2."),
            "{plan}"
        );
        assert!(plan.contains("  hint: `scripts/release` builds one that runs on glibc 2.28 and newer"), "{plan}");
        println!(
            "left out: the host with the old glibc; set GORGO_TEST_BINARY to what `scripts/release --for-tests` prints"
        );
        let nodes = &hosts.hosts()[..2];
        Self { hosts, nodes, user: User::new(nodes) }
    }

    pub(crate) fn addresses(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.address.as_str()).collect()
    }

    /// A shell line on every node; what each says.
    pub(crate) fn everywhere(&self, line: &str) -> Vec<String> {
        self.nodes.iter().map(|node| self.hosts.say(node, line)).collect()
    }

    fn serves(&self, node: &Host) -> bool {
        complete(&node.address, "hello", 4, false).is_ok()
    }

    fn is_planned_and_not_touched(&self) {
        let plan = self.user.does("cluster setup --dry-run").out;
        for node in self.nodes {
            for step in ["upload gorgo", "start gorgo-engine.service", "start gorgo-agent.service"] {
                let name = &node.name;
                assert!(
                    plan.lines().any(|line| line.starts_with(name) && line.contains(step)),
                    "{name} {step}: {plan}"
                );
            }
        }
        self.everywhere("! test -e /opt/gorgo && ! test -e /etc/systemd/system/gorgo-agent.service");
    }

    fn is_set_up_and_then_left_alone(&self) {
        let set_up = self.user.does("cluster setup");
        for node in self.nodes {
            assert!(self.serves(node), "{}: {}", node.name, set_up.err);
        }
        measured(&format!("setup of {} hosts from nothing to serving", self.nodes.len()), set_up.took);
        let state = "systemctl show --property MainPID,NRestarts,ActiveEnterTimestamp gorgo-engine gorgo-agent; \
            sudo find /opt/gorgo /etc/gorgo /etc/systemd/system /var/lib/gorgo/done -printf '%p %T@ %s\\n' | sort";
        let before = self.everywhere(state);
        let again = self.user.does("cluster setup");
        assert!(again.err.contains("nothing to do: every node is as it is to be"), "{}", again.err);
        assert_eq!(self.everywhere(state), before, "nothing has changed");
        measured("setup of a converged cluster", again.took);
    }

    fn has_units_that_systemd_accepts(&self) {
        let verify = "systemd-analyze verify --man=no /etc/systemd/system/gorgo-engine.service /etc/systemd/system/gorgo-agent.service 2>&1";
        for said in self.everywhere(verify) {
            assert_eq!(said.lines().find(|line| line.contains("gorgo-")), None);
        }
        for exposure in self.everywhere("systemd-analyze security --no-pager gorgo-agent | tail -n 1") {
            assert!(exposure.contains("OK"), "{exposure}");
        }
    }

    /// Every agent has all others in rotation, and who shows no certificate learns nothing.
    fn has_links_by_certificate(&self) {
        for node in self.nodes {
            let healthy = "curl -s http://127.0.0.1:8001/metrics | grep -c '^gorgo_replica_healthy{.*} 1$'";
            let all = self.nodes.len().to_string();
            wait_until("all agents know each other", SOON, || self.hosts.say(node, healthy) == all);
            let address = &node.address;
            let stranger = format!(
                "curl -sk https://{address}:8443/gorgo/v1/peer; echo; curl -s http://{address}:8443/gorgo/v1/peer; echo"
            );
            assert_eq!(self.hosts.say(node, &stranger), "");
            let client = format!("curl -s -o /dev/null -w '%{{http_code}}' http://{address}:8000/gorgo/v1/peer");
            assert_eq!(self.hosts.say(node, &client), "404", "as a client nobody is a peer, nor is the machine itself");
            let refused = "curl -s http://127.0.0.1:8001/metrics | grep '^gorgo_peer_refusals_total' | sort";
            let counted = "gorgo_peer_refusals_total{cause=\"handshake\"} 1\ngorgo_peer_refusals_total{cause=\"no_certificate\"} 1";
            assert_eq!(self.hosts.say(node, refused), counted);
            let owner = "sudo stat -c '%a %u' /etc/gorgo/agent.pem; stat -c %u /proc/$(systemctl show --property MainPID --value gorgo-agent)";
            let said = self.hosts.say(node, owner);
            let (file, process) = said.split_once('\n').expect("two lines");
            assert_eq!(file, format!("400 {process}"), "the agent's own while it runs, and nobody else's");
            assert!(!self.hosts.succeeds(node, "cat /etc/gorgo/agent.pem"));
        }
        for file in ["ca.pem", "certificates.json"] {
            let mode = fs::metadata(self.state_file(file)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    fn state_file(&self, name: &str) -> PathBuf {
        self.user.path("state").join("clusters/lab").join(name)
    }

    /// Certificates that are near their end are renewed, and used without a restart. What somebody copied of a node's is revoked with it.
    fn gets_new_certificates_while_it_runs(&self) {
        let [thief, door] = [&self.nodes[0], &self.nodes[1]];
        self.hosts.say(thief, "sudo install -m 600 -o \"$(id -un)\" /etc/gorgo/agent.pem stolen.pem");
        let knock = format!(
            "curl -sk --max-time 5 --cert stolen.pem --key stolen.pem https://{}:8443/gorgo/v1/peer",
            door.address
        );
        assert!(self.hosts.say(thief, &knock).contains(&format!("\"name\":\"{}\"", door.name)));
        let path = self.state_file("certificates.json");
        let text = fs::read_to_string(&path).expect("reads");
        let mut known: Value = serde_json::from_str(&text).expect("JSON");
        for issued in known["issued"].as_object_mut().expect("by identity").values_mut() {
            let ends = issued["not_after"].as_u64().expect("seconds");
            issued["not_after"] = (ends - 80 * 86_400).into();
        }
        fs::write(&path, known.to_string()).expect("writes");
        let revoked = self.user.does(&format!("cluster revoke {}", thief.name)).out;
        assert_eq!(revoked.trim(), format!("gorgo://lab/agent/{}", thief.name));
        let running = "systemctl show --property MainPID,NRestarts gorgo-agent";
        let before = self.everywhere(running);
        let plan = self.user.does("cluster setup --dry-run").out;
        assert_eq!(plan.matches("issue a certificate for agent of").count(), self.nodes.len(), "{plan}");
        assert!(!plan.contains("PRIVATE") && !plan.contains("start gorgo"), "{plan}");
        assert_eq!(plan.matches("): the one of before has been revoked").count(), 1, "{plan}");
        assert_eq!(plan.matches("): others have been revoked").count(), self.nodes.len() - 1, "{plan}");
        self.user.does("cluster setup");
        for node in self.nodes {
            let renewed = "curl -s http://127.0.0.1:8001/metrics | grep -q '^gorgo_certificate_renewals_total{outcome=\"ok\"} 1$'";
            wait_until("the agent has taken the new one", SOON, || self.hosts.succeeds(node, renewed));
        }
        assert!(!self.hosts.succeeds(thief, &knock), "worth nothing");
        let refused = "curl -s http://127.0.0.1:8001/metrics | grep '^gorgo_peer_refusals_total{cause=\"revoked\"}'";
        assert!(self.hosts.succeeds(door, refused), "and counted");
        assert_eq!(self.everywhere(running), before, "without a restart");
        assert!(self.user.does("cluster setup").err.contains("nothing to do"));
        self.everywhere("sudo systemctl restart gorgo-agent");
        for node in self.nodes {
            wait_until("it can read its certificate after a restart, too", SOON, || self.serves(node));
        }
    }

    fn serves_through_every_node(&self) {
        for node in self.nodes {
            let answer = complete(&node.address, "a story", 30, true).expect("a stream");
            for sign in ["text/event-stream", "x-gorgo-strategy: predictive", "x-gorgo-replica: node"] {
                assert!(answer.contains(sign), "{sign}: {answer}");
            }
        }
        let load = Load::start(&self.addresses(), STREAMS);
        wait_until("as many streams have ended as run at once", SOON, || load.finished() >= STREAMS);
        load.end().expect("no stream is lost");
    }

    /// Streams of the engine that dies are lost; what comes after is served by the others until systemd has started it again.
    fn serves_on_when_an_engine_is_killed(&self) {
        let node = &self.nodes[0];
        let restarts = || self.hosts.say(node, "systemctl show --property NRestarts --value gorgo-engine");
        let before = restarts();
        self.hosts.say(node, "sudo kill -9 $(systemctl show --property MainPID --value gorgo-engine)");
        let mut served = 0;
        wait_until("systemd has restarted the engine", SOON, || {
            complete(&node.address, "hello", 4, false).expect("another node serves meanwhile");
            served += 1;
            restarts() != before && self.hosts.succeeds(node, "curl -sf http://127.0.0.1:30000/health")
        });
        assert!(served > 0);
        wait_until("the agent uses its own engine again", SOON, || {
            let answer = complete(&node.address, "hello", 4, false).expect("served");
            answer.contains(&format!("x-gorgo-replica: {}", node.name))
        });
        let set_up = self.user.does("cluster setup");
        assert!(set_up.err.contains("nothing to do"), "a restart is no change: {}", set_up.err);
    }

    fn tells_what_happened(&self) {
        let agents = self.user.does("cluster logs --lines 500").out;
        for node in self.nodes {
            let mut lines = agents.lines().filter(|line| line.starts_with(&format!("{}: ", node.name)));
            assert!(lines.any(|line| line.contains("ready;")), "{}: {agents}", node.name);
        }
        let engine = self.user.does("cluster logs node1 --service engine").out;
        assert!(engine.contains("status=9/KILL") && !engine.contains("node2: "), "{engine}");
    }

    /// Beside the agent of the last node, which goes on serving; asked through a tunnel.
    fn has_a_central_router_for_a_while(&self) {
        let node = self.nodes.last().expect("a node");
        let name = &node.name;
        let deployed = self.user.does(&format!("proxy deploy {name} --strategy least-request"));
        measured("deployment of a central router", deployed.took);
        let status = self.user.does(&format!("proxy --remote {name} --service proxy status --json")).out;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status["strategy"], "least-request", "{status}");
        let answer = complete_at(&node.address, 8080, "hello", 20, true).expect("the router serves");
        assert!(answer.contains("x-gorgo-strategy: least-request"), "{answer}");
        self.user.does(&format!("proxy deploy {name} --remove --yes"));
        assert!(TcpStream::connect((node.address.as_str(), 8080)).is_err(), "it is gone");
        assert!(self.serves(node), "its agent is not");
    }

    fn gets_another_version_and_goes_back(&self) {
        let first = self.programs();
        let other = self.user.path("gorgo-other");
        fs::copy(self.user.program(), &other).expect("copies");
        let mut file = fs::OpenOptions::new().append(true).open(&other).expect("opens");
        file.write_all(b"another version").expect("writes"); // bytes behind the end of a program do no harm
        drop(file);
        let uploaded = self.user.does(&format!("cluster upload --yes --agent-binary {}", other.display()));
        measured("upload of another version and restart", uploaded.took);
        let second = self.programs();
        for (node, (first, second)) in self.nodes.iter().zip(first.iter().zip(&second)) {
            assert_ne!(first.running, second.running, "{}", node.name);
            assert_eq!(second.old, first.running, "the one before is kept");
            assert!(self.serves(node), "{}", node.name);
        }
        let back = self.user.does("cluster rollback --yes");
        measured("rollback", back.took);
        for (node, (first, third)) in self.nodes.iter().zip(first.iter().zip(&self.programs())) {
            assert_eq!(first.running, third.running, "{}", node.name);
            assert!(self.serves(node), "{}", node.name);
        }
        assert!(self.user.does("cluster setup").err.contains("nothing to do"), "it is what it was");
    }

    /// What each agent runs, by the file that its process has open.
    fn programs(&self) -> Vec<Programs> {
        let sum = "sudo sha256sum /proc/$(systemctl show --property MainPID --value gorgo-agent)/exe | cut -d' ' -f1; \
            cat /opt/gorgo/bin/gorgo.old 2>/dev/null | sha256sum | cut -d' ' -f1";
        let read = |said: String| {
            let (running, old) = said.split_once('\n').expect("two lines");
            Programs { running: running.to_owned(), old: old.to_owned() }
        };
        self.everywhere(sum).into_iter().map(read).collect()
    }

    fn is_taken_down(&self) {
        let down: Ran = self.user.does("cluster down --yes");
        measured("down", down.took);
        self.everywhere("! test -e /opt/gorgo && ! test -e /etc/gorgo && ! ls /etc/systemd/system/gorgo-* 2>/dev/null");
        for node in self.nodes {
            assert_eq!(self.hosts.say(node, "systemctl list-units --all --no-legend 'gorgo-*'"), "", "{}", node.name);
            assert!(TcpStream::connect((node.address.as_str(), 8000)).is_err(), "{} listens", node.name);
        }
        assert!(self.user.does("cluster down --yes").err.contains("nothing to do"), "twice is once");
    }
}

/// Checksums.
struct Programs {
    running: String,
    old: String,
}
