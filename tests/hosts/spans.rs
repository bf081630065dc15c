//! The spans of all nodes in one file, with arrows from node to node, over the links of a real cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::cluster::{Cluster, tell};
use super::load::complete;

/// Requests to each node: with a strategy that takes all nodes in turn most of them are forwarded.
const REQUESTS: usize = 6;

impl Cluster<'_> {
    pub(super) fn traces_requests_from_node_to_node(&self) {
        self.user.does("cluster start-trace");
        for node in self.nodes {
            for number in 0..REQUESTS {
                complete(&node.address, &format!("traced {number}"), 4, true).expect("served");
            }
        }
        self.user.does("cluster stop-trace --output trace.json");
        let text = fs::read_to_string(self.user.path("trace.json")).expect("a file");
        let file: Value = serde_json::from_str(&text).expect("JSON");
        let events = file["traceEvents"].as_array().expect("events");
        let nodes = nodes(events);
        let wanted: BTreeSet<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(nodes.values().copied().collect::<BTreeSet<_>>(), wanted, "every node is in it");
        let chains = chains(events, &nodes);
        let across = chains.values().filter(|met| met.len() > 1).count();
        let requests = REQUESTS * self.nodes.len();
        tell(format_args!(
            "{} chains of arrows for {requests} requests, {across} of them from node to node",
            chains.len()
        ));
        assert!(chains.len() == requests && across >= requests / 2, "{across} of {} chains", chains.len());
    }
}

/// Names of nodes by process; a process is called `node1: router (region)`, say.
fn nodes(events: &[Value]) -> BTreeMap<u64, &str> {
    let named = events.iter().filter(|event| event["name"] == "process_name");
    named
        .map(|event| {
            let name = event["args"]["name"].as_str().expect("a name");
            (event["pid"].as_u64().expect("a number"), name.split(':').next().expect("a part"))
        })
        .collect()
}

/// The nodes on the way of each request. An arrow that ends has begun before, by the common clock: else the importer counts an error.
fn chains<'a>(events: &'a [Value], nodes: &BTreeMap<u64, &'a str>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut chains: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut begins: BTreeMap<&str, i64> = BTreeMap::new();
    for event in events.iter().filter(|event| event["bind_id"].is_string()) {
        let chain = event["bind_id"].as_str().expect("a string");
        let (at, pid) = (event["ts"].as_i64().expect("a time"), event["pid"].as_u64().expect("a number"));
        chains.entry(chain).or_default().insert(nodes[&pid]);
        if event["flow_in"] == true {
            assert!(begins.get(chain).is_some_and(|begin| *begin <= at), "an arrow from nowhere: {event}");
        }
        if event["flow_out"] == true {
            begins.entry(chain).or_insert(at);
        }
    }
    chains
}
