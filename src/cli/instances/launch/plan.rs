//! What a launch is going to do and cost. Pure; its `Display` is what is shown before the question.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::anyhow;

use crate::cli::exit::Failure;
use crate::cli::human;
use crate::cli::nodes::{is_gone, is_uncertain};
use crate::cloud::{Instance, InstanceId, InstanceType, LaunchRequest};
use crate::cluster::inventory::NodeRecord;
use crate::cluster::launch::{Candidate, Machine, NODE_TAG, RUN_TAG, candidates};
use crate::model::Region;

/// Firewall rulesets of the cluster: id by region.
pub(super) type Rulesets = BTreeMap<Region, String>;

/// The machines to get, and those that are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) machines: Vec<Machine>,
    /// Names of the nodes that have a machine.
    there: Vec<String>,
    /// Nodes that an earlier run asked for and never heard of.
    uncertain: Vec<String>,
}

impl Plan {
    /// Leaves out what is there. Refuses names that somebody else's machine has, and machines that the provider does not list any more.
    pub(super) fn new(
        requests: &[LaunchRequest],
        offered: &[InstanceType],
        any_region: bool,
        rulesets: &Rulesets,
        records: &[NodeRecord],
        listed: &[Instance],
    ) -> Result<Self, Failure> {
        let mut plan = Self { machines: Vec::new(), there: Vec::new(), uncertain: Vec::new() };
        for request in requests {
            let node = records.iter().find(|node| node.name == request.name);
            if let Some(id) = node.and_then(NodeRecord::id) {
                check_there(&request.name, listed.iter().find(|it| it.id == *id), id)?;
                plan.there.push(request.name.clone());
                continue;
            }
            if node.is_some_and(is_uncertain) {
                plan.uncertain.push(request.name.clone());
            } else {
                check_free(&request.name, listed)?;
            }
            let types = [request.instance_type.as_str()];
            let mut ways = candidates(request, &types, any_region, offered);
            for way in &mut ways {
                attach(way, rulesets);
            }
            plan.machines.push(Machine { node: request.name.clone(), candidates: ways, host_key: None });
        }
        Ok(plan)
    }

    /// The node has a machine from an earlier launch.
    pub(super) fn has(&self, name: &str) -> bool {
        self.there.iter().any(|it| it == name)
    }

    /// US cents per hour of all that is to be launched, as far as prices are known.
    fn cents_per_hour(&self) -> u64 {
        let first = self.machines.iter().filter_map(|machine| machine.candidates.first());
        first.map(|way| u64::from(way.price_cents_per_hour.unwrap_or(0))).sum()
    }
}

fn attach(way: &mut Candidate, rulesets: &Rulesets) {
    way.request.firewall_rulesets = rulesets.get(&way.request.region).into_iter().cloned().collect();
}

fn check_there(name: &str, listed: Option<&Instance>, id: &InstanceId) -> Result<(), Failure> {
    if listed.is_some_and(|it| !is_gone(&it.status)) {
        return Ok(());
    }
    let error = anyhow!("the machine of `{name}`, {id}, is gone, but the inventory still names it");
    Err(Failure::usage(error).with_hint(format!("`gorgo terminate {name}` forgets it; then launch again")))
}

/// The provider allows the same name twice; people do not tell two machines of one name apart.
fn check_free(name: &str, listed: &[Instance]) -> Result<(), Failure> {
    let same = |it: &&Instance| it.name.as_deref() == Some(name) && !is_gone(&it.status);
    let Some(other) = listed.iter().find(same) else { return Ok(()) };
    let whose = if other.tags.contains_key(RUN_TAG) && other.tags.get(NODE_TAG).is_some_and(|node| node == name) {
        "which another cluster or another computer launched with gorgo"
    } else {
        "which is not of this cluster"
    };
    let error = anyhow!("the name `{name}` is taken by the machine {} in {}, {whose}", other.id, other.region);
    Err(Failure::usage(error).with_hint("choose another name; `gorgo list` shows every machine of the account"))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.there {
            writeln!(f, "{name} has a machine already")?;
        }
        for machine in &self.machines {
            let [first, others @ ..] = machine.candidates.as_slice() else { continue };
            if self.uncertain.contains(&machine.node) {
                write!(f, "look for the machine of an earlier launch of {}, and if there is none ", machine.node)?;
            }
            let request = &first.request;
            write!(f, "launch {}: {} in {}", machine.node, request.instance_type, request.region)?;
            if let Some(cents) = first.price_cents_per_hour {
                write!(f, " at {}", human::price(cents.into()))?;
            }
            if !others.is_empty() {
                let regions: Vec<String> = others.iter().map(|way| way.request.region.to_string()).collect();
                write!(f, ", else in {}", regions.join(", "))?;
            }
            match request.firewall_rulesets.as_slice() {
                [] => writeln!(f)?,
                ids => writeln!(f, ", firewall ruleset {}", ids.join(", "))?,
            }
        }
        if self.machines.is_empty() {
            return writeln!(f, "nothing to launch");
        }
        writeln!(f, "together {} until they are terminated", human::price(self.cents_per_hour()))
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::{Plan, Rulesets};
    use crate::cloud::{Instance, InstanceId, InstanceType, LaunchRequest, Status};
    use crate::cluster::inventory::NodeRecord;
    use crate::model::Region;

    fn request(name: &str) -> LaunchRequest {
        LaunchRequest {
            name: name.into(),
            instance_type: "a100".into(),
            region: Region::new("us-east-1"),
            ssh_key: Some("me".into()),
            user_data: None,
            tags: [].into(),
            firewall_rulesets: Vec::new(),
            file_systems: Vec::new(),
            image_family: None,
        }
    }

    fn offer() -> InstanceType {
        InstanceType {
            name: "a100".into(),
            description: String::new(),
            gpu: "A100".into(),
            gpus: 1,
            vram_gib: Some(40),
            vcpus: 30,
            memory_gib: 200,
            storage_gib: 512,
            price_cents_per_hour: 129,
            capacity: vec![Region::new("us-east-1"), Region::new("us-west-1")],
        }
    }

    /// The node `old` with this `launch`.
    fn records(launch: &serde_json::Value) -> Vec<NodeRecord> {
        serde_json::from_value(json!([{ "name": "old", "launch": launch, "run": "01" }])).expect("a record")
    }

    fn launched() -> Vec<NodeRecord> {
        records(&json!({ "state": "launched", "id": "1" }))
    }

    fn listed(id: &str, name: &str, status: Status) -> Instance {
        Instance {
            id: InstanceId(id.into()),
            name: Some(name.into()),
            status,
            address: None,
            private_address: None,
            region: Region::new("us-east-1"),
            instance_type: "a100".into(),
            price_cents_per_hour: Some(129),
            tags: [].into(),
        }
    }

    fn planned(names: &[&str], any_region: bool, records: &[NodeRecord], machines: &[Instance]) -> String {
        let requests: Vec<_> = names.iter().map(|name| request(name)).collect();
        let rulesets: Rulesets = [(Region::new("us-west-1"), "r-west".to_owned())].into();
        match Plan::new(&requests, &[offer()], any_region, &rulesets, records, machines) {
            Ok(plan) => plan.to_string(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn the_plan_names_machines_and_their_price() {
        let there = [listed("1", "old", Status::Booting), listed("2", "gone", Status::Terminated)];
        assert_snapshot!(planned(&["old", "new", "gone"], true, &launched(), &there), @"
        old has a machine already
        launch new: a100 in us-east-1 at $1.29/h, else in us-west-1
        launch gone: a100 in us-east-1 at $1.29/h, else in us-west-1
        together $2.58/h until they are terminated
        ");
        assert_snapshot!(planned(&["old"], false, &launched(), &there), @"
        old has a machine already
        nothing to launch
        ");
        assert_snapshot!(planned(&["old"], false, &records(&json!({ "state": "asked" })), &[listed("9", "old", Status::Active)]), @"
        look for the machine of an earlier launch of old, and if there is none launch old: a100 in us-east-1 at $1.29/h
        together $1.29/h until they are terminated
        ");
    }

    #[test]
    fn rulesets_go_with_their_region() {
        let rulesets: Rulesets = [(Region::new("us-west-1"), "r-west".to_owned())].into();
        let plan = Plan::new(&[request("a")], &[offer()], true, &rulesets, &[], &[]).expect("planned");
        let attached: Vec<_> =
            plan.machines[0].candidates.iter().map(|way| way.request.firewall_rulesets.clone()).collect();
        assert_eq!(attached, [vec![], vec!["r-west".to_owned()]]);
    }

    #[test]
    fn taken_names_and_machines_that_are_gone_are_refused() {
        assert_snapshot!(planned(&["new"], false, &launched(), &[listed("7", "new", Status::Active)]), @"
        error: the name `new` is taken by the machine 7 in us-east-1, which is not of this cluster

        hint: choose another name; `gorgo list` shows every machine of the account
        ");
        assert_snapshot!(planned(&["old"], false, &launched(), &[]), @"
        error: the machine of `old`, 1, is gone, but the inventory still names it

        hint: `gorgo terminate old` forgets it; then launch again
        ");
    }
}
