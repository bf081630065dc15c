//! What is done with a cluster that serves: looked at, balanced otherwise, its caches emptied, its faults found.

use std::thread;

use serde_json::Value;

use super::SOON;
use super::cluster::{Cluster, STREAMS, measured};
use super::harness::wait_until;
use super::load::{Load, complete};

/// Tokens of a stream that outlasts the drain of another node.
const LONG: usize = 400;

impl Cluster<'_> {
    pub(super) fn shows_itself(&self) {
        let shown = self.user.does("cluster status");
        let all = self.nodes.len();
        assert!(shown.err.contains(&format!("{all} of {all} nodes serving, 0 in flight")), "{}", shown.shown());
        for (node, entry) in self.nodes.iter().zip(self.status()) {
            assert_eq!((&entry["name"], &entry["serving"]), (&node.name.as_str().into(), &true.into()), "{entry}");
            assert_eq!((&entry["reachable"], &entry["binary"]["same"]), (&true.into(), &true.into()), "{entry}");
            assert_eq!(
                (&entry["engine"]["up"], &entry["engine"]["kind"]),
                (&true.into(), &"emulator".into()),
                "{entry}"
            );
            assert_eq!((&entry["agent"]["strategy"], &entry["told"]), (&"predictive".into(), &Value::Null), "{entry}");
            let row = shown.out.lines().find(|line| line.starts_with(&node.name) && line.ends_with("serving"));
            assert!(row.is_some_and(|row| row.contains("engine, agent")), "{}", shown.out);
        }
        measured(&format!("status of {all} hosts"), shown.took);
    }

    /// Live, with as many streams before as after; then back, drained and restarted, with streams that were there first.
    pub(super) fn balances_otherwise_without_losing_a_stream(&self) {
        let processes = || self.everywhere("systemctl show --property MainPID gorgo-agent");
        let first = processes();
        let load = Load::start(&self.addresses(), STREAMS);
        wait_until("as many streams have ended as run at once", SOON, || load.finished() >= STREAMS);
        let changed = self.user.does("cluster restart-lb --strategy least-load --max-concurrent 40");
        let then = load.finished();
        let status = self.status();
        let busy = self.user.gorgo("cluster flush-cache");
        wait_until("as many have ended under the other strategy", SOON, || load.finished() >= then + STREAMS);
        let streams = load.end().unwrap_or_else(|lost| panic!("a stream is lost: {lost}"));
        assert!(streams >= 2 * STREAMS, "{streams}");
        measured(&format!("restart-lb of {} hosts, live, while {STREAMS} streams run", self.nodes.len()), changed.took);
        for (node, entry) in self.nodes.iter().zip(status) {
            let line = format!("{}: least-load, at most 40 running: changed while it served", node.name);
            assert!(changed.out.lines().any(|it| it == line), "{}", changed.out);
            assert_eq!(
                (&entry["agent"]["strategy"], &entry["agent"]["max_concurrent"]),
                (&"least-load".into(), &40.into())
            );
            assert_eq!(
                (&entry["told"]["strategy"], &entry["told"]["max_concurrent"]),
                (&"least-load".into(), &40.into())
            );
            assert!(entry["agent"]["requests"]["in_flight"].as_u64() > Some(0), "{entry}");
        }
        assert_eq!(busy.out.matches("refused: it is busy").count(), self.nodes.len(), "{}", busy.shown());
        assert_eq!(busy.code, Some(1), "{}", busy.shown());
        assert_eq!(processes(), first, "nothing was restarted");
        self.is_left_alone_by_setup();
        self.goes_back_by_a_restart();
        assert!(processes().iter().zip(&first).all(|(now, first)| now != first), "everything was restarted");
        self.is_left_alone_by_setup();
    }

    /// New requests are refused while an agent restarts, so these are all there before.
    fn goes_back_by_a_restart(&self) {
        let place = |number: usize| {
            let address = self.nodes[number % self.nodes.len()].address.clone();
            thread::spawn(move || complete(&address, &format!("long {number}"), LONG, true))
        };
        let streams: Vec<_> = (0..STREAMS).map(place).collect();
        let running = |status: &[Value]| {
            status.iter().filter_map(|it| it["agent"]["requests"]["in_flight"].as_u64()).sum::<u64>()
        };
        wait_until("all streams run", SOON, || running(&self.status()) >= STREAMS as u64);
        let back = self.user.does("cluster restart-lb --as-configured --restart");
        for stream in streams {
            stream.join().expect("no panic").unwrap_or_else(|lost| panic!("a stream is lost: {lost}"));
        }
        measured(&format!("restart-lb of {} hosts, drained and restarted", self.nodes.len()), back.took);
        for (node, entry) in self.nodes.iter().zip(self.status()) {
            let line = format!("{}: predictive, no limit: drained and restarted", node.name);
            assert!(back.out.lines().any(|it| it == line), "{}", back.out);
            assert_eq!((&entry["agent"]["strategy"], &entry["told"]), (&"predictive".into(), &Value::Null), "{entry}");
        }
    }

    /// What `restart-lb` set stands in the units and in the inventory, so that there is nothing to do.
    fn is_left_alone_by_setup(&self) {
        let set_up = self.user.does("cluster setup");
        assert!(set_up.err.contains("nothing to do: every node is as it is to be"), "{}", set_up.err);
    }

    pub(super) fn forgets_what_it_has_cached(&self) {
        let prompt = "one prompt that is long enough to fill some blocks ".repeat(20);
        for node in self.nodes {
            complete(&node.address, &prompt, 4, false).expect("served");
        }
        let flushed = self.flush();
        for entry in &flushed {
            assert_eq!(
                (&entry["engine"]["outcome"], &entry["agent"]["outcome"]),
                (&"done".into(), &"done".into()),
                "{entry}"
            );
            assert!(entry["agent"]["blocks"].as_u64() > Some(0), "{entry}");
        }
        for entry in self.flush() {
            assert_eq!(entry["agent"]["blocks"], 0, "nothing is left: {entry}");
        }
    }

    fn flush(&self) -> Vec<Value> {
        nodes(&self.user.does("cluster flush-cache --json").out)
    }

    pub(super) fn has_its_faults_found(&self) {
        let clean = self.user.does("cluster doctor");
        let all = self.nodes.len();
        assert!(clean.out.is_empty(), "{}", clean.shown());
        assert!(clean.err.contains(&format!("nothing is wrong with {all} nodes")), "{}", clean.shown());
        let node = &self.nodes[0];
        self.hosts.say(node, "sudo systemctl stop gorgo-agent");
        let found = self.user.gorgo("cluster doctor");
        let status = self.user.does("cluster status").out;
        self.hosts.say(node, "sudo systemctl start gorgo-agent");
        assert_eq!(found.code, Some(1), "{}", found.shown());
        let line = format!("{}: gorgo-agent.service does not run (restarted 0 times)", node.name);
        assert!(found.out.lines().any(|it| it == line), "{}", found.shown());
        let hint = format!("  hint: `gorgo cluster logs {} --service agent` may tell why", node.name);
        assert!(found.out.lines().any(|it| it == hint), "{}", found.shown());
        assert!(status.lines().any(|it| it.starts_with(&node.name) && it.ends_with("agent down")), "{status}");
        wait_until("nothing is wrong any more", SOON, || self.user.gorgo("cluster doctor").code == Some(0));
    }

    /// The nodes as `cluster status --json` tells of them, in order.
    fn status(&self) -> Vec<Value> {
        nodes(&self.user.does("cluster status --json").out)
    }
}

fn nodes(text: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(text).expect("JSON");
    document["nodes"].as_array().expect("nodes").clone()
}
