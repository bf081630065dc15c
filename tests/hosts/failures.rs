//! A cluster while its nodes and the lines between them fail: whoever can serves, nothing without a byte is lost, and what heals is used.

use std::collections::BTreeMap;
use std::env;
use std::thread;
use std::time::Duration;

use super::SOON;
use super::cluster::{Cluster, measured, tell};
use super::harness::{Host, Hosts, wait_until};
use super::traffic::{Seen, Traffic, p95_ms, toll};

/// Requests a second.
const RATE: f64 = 20.0;

/// Length of the partition, s, if no other is asked for: longer than the 3 s after which a peer that says nothing is given up.
const PARTITION_S: u64 = 7;

/// Before the partition, and after its healing.
const FAIR: Duration = Duration::from_secs(6);
const AFTER: Duration = Duration::from_secs(10);

/// After so long everything is to be as it was.
const HEALED: Duration = Duration::from_secs(5);

/// A network address that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// With `GORGO_TEST_PARTITION_S=30` the partition is the long one whose numbers are promised, once per strategy.
#[test]
fn a_cluster_serves_through_every_failure() {
    let Some(hosts) = Hosts::start(3) else { return };
    let cluster = Cluster::new(&hosts);
    cluster.user.does("cluster setup");
    let asked = env::var("GORGO_TEST_PARTITION_S").ok().filter(|text| !text.is_empty());
    let length = asked.as_ref().map_or(PARTITION_S, |text| text.parse().expect("GORGO_TEST_PARTITION_S: seconds"));
    let strategies: &[&str] = if asked.is_some() { &["gorgo", "round-robin"] } else { &["round-robin"] };
    for strategy in strategies {
        cluster.user.does(&format!("cluster restart-lb --strategy {strategy}"));
        cluster.is_whole();
        cluster.is_partitioned(strategy, Duration::from_secs(length), asked.is_some());
    }
    // Every agent sends to every other: whatever fails is met.
    cluster.user.does("cluster restart-lb --strategy round-robin");
    cluster.is_whole();
    cluster.traces_requests_from_node_to_node();
    cluster.has_a_peer_that_stands_still();
    cluster.has_a_line_that_carries_one_way_only();
    cluster.has_an_engine_that_comes_back_empty();
    cluster.has_an_agent_that_dies();
    cluster.user.does("cluster down --yes");
}

impl Cluster<'_> {
    fn victim(&self) -> &Host {
        self.nodes.last().expect("a node")
    }

    fn others(&self) -> &[Host] {
        &self.nodes[..self.nodes.len() - 1]
    }

    /// Replicas that a node's agent has in rotation.
    fn healthy(&self, node: &Host) -> usize {
        let count = "curl -s http://127.0.0.1:8001/metrics | grep -c '^gorgo_replica_healthy{.*} 1$'; true";
        self.hosts.say(node, count).parse().expect("a number")
    }

    /// Waits until every agent has every other in rotation.
    fn is_whole(&self) {
        for node in self.nodes {
            wait_until("all agents know each other", SOON, || self.healthy(node) == self.nodes.len());
        }
    }

    /// How often each agent took each node out of rotation, or in again, since it began: by (who, whom).
    fn turns(&self) -> BTreeMap<(String, String), u64> {
        let mut turns = BTreeMap::new();
        for node in self.nodes {
            let page = self
                .hosts
                .say(node, "curl -s http://127.0.0.1:8001/metrics | grep '^gorgo_replica_health_changes_total{'");
            for line in page.lines() {
                let other = line.split('"').nth(1).expect("a name");
                let times = line.rsplit(' ').next().and_then(|times| times.parse().ok()).expect("a number");
                turns.insert((node.name.clone(), other.to_owned()), times);
            }
        }
        assert_eq!(turns.len(), self.nodes.len() * self.nodes.len(), "each knows all");
        turns
    }

    /// Per failure each agent loses each node once at most, and takes it back. One that was started anew has a count that is.
    fn flaps_nowhere(&self, before: &BTreeMap<(String, String), u64>) {
        let now = self.turns();
        let more: Vec<u64> = now.iter().map(|(pair, turns)| turns.saturating_sub(before[pair])).collect();
        tell(format_args!("changes of health, by who saw them of whom: {more:?}"));
        assert!(more.iter().all(|&turns| turns <= 2), "it flaps: {more:?}");
    }

    /// What one host sends to another gets lost without a word, as in a network that has failed.
    fn lose(&self, from: &Host, to: &Host) {
        self.hosts.say(from, &format!("sudo ip neigh replace {} lladdr {NOBODY} nud permanent dev host0", to.address));
    }

    fn carry(&self, from: &Host, to: &Host) {
        self.hosts.say(from, &format!("sudo ip neigh del {} dev host0", to.address));
    }

    /// Both ways between the victim and all others, at the same time.
    fn around_victim(&self, act: impl Fn(&Host, &Host) + Sync) {
        thread::scope(|scope| {
            for other in self.others() {
                scope.spawn(|| act(other, self.victim()));
            }
            for other in self.others() {
                scope.spawn(|| act(self.victim(), other));
            }
        });
    }

    /// Nobody reaches the last node, and it reaches nobody; the clients of each still reach theirs.
    fn is_partitioned(&self, strategy: &str, length: Duration, promised: bool) {
        let turns = self.turns();
        let traffic = Traffic::start(&self.addresses(), RATE);
        thread::sleep(FAIR);
        let cut = traffic.elapsed();
        self.around_victim(|from, to| self.lose(from, to));
        thread::sleep(length);
        let healing = traffic.elapsed();
        self.around_victim(|from, to| self.carry(from, to));
        let healed = traffic.elapsed();
        thread::sleep(AFTER);
        let seen = traffic.end();
        self.is_whole();
        let (count, lost, broken) = toll(&seen);
        let before = p95_ms(&seen, Duration::from_secs(1), cut).0;
        let during = p95_ms(&seen, cut, healing).0;
        let after = p95_ms(&seen, healed + HEALED, healed + AFTER).0;
        report(strategy, &seen, (cut, healed));
        tell(format_args!(
            "{strategy}: {:.0} s of partition at {RATE} requests/s: {count} sent, {} lost without a byte, {} broken after one; \
             p95 of the time to first token {before:.0} ms before, {during:.0} ms during, {after:.0} ms from {} s after healing on",
            length.as_secs_f64(),
            lost.len(),
            broken.len(),
            HEALED.as_secs()
        ));
        assert_eq!((lost, broken), (Vec::<&str>::new(), Vec::<&str>::new()));
        self.is_used_again(&seen, healed + HEALED);
        // A machine that is busy with other things makes everybody slower, but not by what a line costs that is dead.
        let limit = if promised { before * 1.2 } else { before * 3.0 + 500.0 };
        assert!(after <= limit, "{after:.0} ms after, {before:.0} ms before");
        self.flaps_nowhere(&turns);
    }

    /// Who was away serves requests of others again.
    fn is_used_again(&self, seen: &[Seen], from: Duration) {
        let victim = &self.victim().name;
        let served = seen.iter().filter(|seen| seen.sent >= from && seen.replica.as_ref() == Some(victim)).count();
        assert!(served > 0, "{victim} serves nobody after healing");
    }

    /// Runs while requests go to those who can serve; returns what became of them.
    fn under_traffic(&self, nodes: &[Host], what: &str, fail: impl FnOnce()) -> Vec<Seen> {
        let turns = self.turns();
        let addresses: Vec<&str> = nodes.iter().map(|node| node.address.as_str()).collect();
        let traffic = Traffic::start(&addresses, RATE / 2.0);
        thread::sleep(Duration::from_millis(500));
        fail();
        self.is_whole();
        measured(what, traffic.elapsed());
        let seen = traffic.end();
        let (count, lost, broken) = toll(&seen);
        tell(format_args!(
            "{what}: {count} sent, {} lost without a byte, {} broken after one",
            lost.len(),
            broken.len()
        ));
        assert_eq!(lost, Vec::<&str>::new(), "{what}");
        self.flaps_nowhere(&turns);
        seen
    }

    fn signal(&self, node: &Host, signal: &str, service: &str) {
        let line = format!("sudo kill -{signal} $(systemctl show --property MainPID --value {service})");
        self.hosts.say(node, &line);
    }

    /// It takes connections, by its kernel, and never says a word.
    fn has_a_peer_that_stands_still(&self) {
        let seen = self.under_traffic(self.others(), "an agent that stands still", || {
            self.signal(self.victim(), "STOP", "gorgo-agent");
            for other in self.others() {
                wait_until("it is found out", SOON, || self.healthy(other) == self.nodes.len() - 1);
            }
            self.signal(self.victim(), "CONT", "gorgo-agent");
        });
        let (_, _, broken) = toll(&seen);
        assert_eq!(broken, Vec::<&str>::new(), "what had begun has gone on");
    }

    fn has_a_line_that_carries_one_way_only(&self) {
        let (from, to) = (&self.nodes[0], self.victim());
        let seen = self.under_traffic(self.nodes, "a line that is half open", || {
            self.lose(from, to);
            wait_until("it is found out where nothing comes back", SOON, || self.healthy(from) == self.nodes.len() - 1);
            wait_until("it is found out where nothing comes", SOON, || self.healthy(to) == self.nodes.len() - 1);
            self.carry(from, to);
        });
        let (_, _, broken) = toll(&seen);
        assert_eq!(broken, Vec::<&str>::new(), "what had begun has gone on");
    }

    /// Streams that went through it are broken; systemd starts it again.
    fn has_an_agent_that_dies(&self) {
        let restarts = || self.hosts.say(self.victim(), "systemctl show --property NRestarts --value gorgo-agent");
        let before = restarts();
        self.under_traffic(self.others(), "an agent that dies", || {
            self.signal(self.victim(), "KILL", "gorgo-agent");
            wait_until("systemd has restarted it", SOON, || restarts() != before);
        });
    }

    /// Its peers forget what it held.
    fn has_an_engine_that_comes_back_empty(&self) {
        let (name, other) = (&self.victim().name, &self.nodes[0]);
        let line =
            format!("curl -s http://127.0.0.1:8001/metrics | grep '^gorgo_peer_digest_blocks{{replica=\"{name}\"'");
        let blocks = || -> f64 {
            let said = self.hosts.say(other, &line);
            said.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
        };
        assert!(blocks() > 0.0, "it held something");
        self.signal(self.victim(), "KILL", "gorgo-engine");
        wait_until("what it held is forgotten", SOON, || blocks() == 0.0);
        self.is_whole();
    }
}

/// Second by second, from a little before the cut to the end.
fn report(strategy: &str, seen: &[Seen], (cut, healed): (Duration, Duration)) {
    let second = Duration::from_secs(1);
    for (what, from, seconds) in [("after the cut", cut, 5), ("after healing", healed, 10)] {
        let line: Vec<String> = (0..seconds)
            .map(|i| p95_ms(seen, from + second * i, from + second * (i + 1)))
            .map(|(p95, count)| format!("{p95:.0} ({count})"))
            .collect();
        tell(format_args!("{strategy}: p95 in ms (requests) second by second {what}: {}", line.join(", ")));
    }
}
