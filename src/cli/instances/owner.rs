//! Whose a machine of the account is: what inventories and run tags say, never its name.

use std::fmt;
use std::fs;

use serde::Serialize;

use crate::cli::nodes::{Node, instance_ids, is_gone};
use crate::cli::provider::Setup;
use crate::cloud::Instance;
use crate::cluster::inventory::{ClusterInventory, NodeRecord};
use crate::cluster::launch::{CLUSTER_TAG, NODE_TAG, RUN_TAG};
use crate::config::ProviderKind;

/// Whose a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Owner {
    /// The machine of a node of this cluster.
    Node { node: String },
    /// It carries the tag of a node of this cluster, whose machine is another one or not known yet.
    Tagged { node: String },
    /// A node of another cluster that this computer knows.
    Cluster { cluster: String, node: String },
    /// Launched by a gorgo on another computer, or of a cluster that was forgotten here.
    Elsewhere { cluster: Option<String>, node: String },
    /// It is gone or going, and no inventory here has it any more, wherever it was launched.
    Gone { cluster: Option<String>, node: String },
    /// No gorgo launched it.
    Nobody,
}

impl Owner {
    /// Of this cluster.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Node { .. } | Self::Tagged { .. })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node } => f.pad(node),
            Self::Tagged { node } => f.pad(&format!("{node} (by its tag only)")),
            Self::Cluster { cluster, node } => f.pad(&format!("{node} of {cluster}")),
            Self::Elsewhere { cluster: Some(cluster), node } => f.pad(&format!("{node} of {cluster}, elsewhere")),
            Self::Elsewhere { cluster: None, node } => f.pad(&format!("{node}, elsewhere")),
            Self::Gone { cluster: Some(cluster), node } => f.pad(&format!("was {node} of {cluster}")),
            Self::Gone { cluster: None, node } => f.pad(&format!("was {node}")),
            Self::Nobody => f.pad("nobody here"),
        }
    }
}

/// What is known of all clusters of this computer.
pub(crate) struct Owners {
    provider: ProviderKind,
    own: Vec<NodeRecord>,
    others: Vec<(String, NodeRecord)>,
}

impl Owners {
    /// Reads every inventory; one of another cluster that cannot be read tells nothing.
    pub(crate) fn new(setup: &Setup, own: Vec<NodeRecord>) -> Self {
        let mut folders: Vec<_> = fs::read_dir(setup.state_dir.join("clusters"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        folders.sort();
        let mut others = Vec::new();
        for inventory in folders.iter().filter_map(|folder| ClusterInventory::look(folder).ok().flatten()) {
            if inventory.cluster() != setup.fleet.cluster && inventory.provider() == setup.fleet.provider.name() {
                let records = inventory.nodes().iter().cloned();
                others.extend(records.map(|record| (inventory.cluster().to_owned(), record)));
            }
        }
        Self { provider: setup.fleet.provider, own, others }
    }

    pub(crate) fn of(&self, instance: &Instance) -> Owner {
        let tag = |key: &str| instance.tags.get(key).cloned();
        if self.provider == ProviderKind::Hosts {
            return Owner::Node { node: instance.id.0.clone() };
        }
        if let Some(record) = self.own.iter().find(|record| record.id() == Some(&instance.id)) {
            return Owner::Node { node: record.name.clone() };
        }
        if let Some(record) = self.own.iter().find(|record| claims(record, instance)) {
            return Owner::Tagged { node: record.name.clone() };
        }
        if let Some((cluster, record)) = self.others.iter().find(|(_, record)| claims(record, instance)) {
            return Owner::Cluster { cluster: cluster.clone(), node: record.name.clone() };
        }
        match (tag(RUN_TAG), tag(NODE_TAG)) {
            (Some(_), Some(node)) if is_gone(&instance.status) => Owner::Gone { cluster: tag(CLUSTER_TAG), node },
            (Some(_), Some(node)) => Owner::Elsewhere { cluster: tag(CLUSTER_TAG), node },
            _ => Owner::Nobody,
        }
    }
}

/// The record names the machine, or the run that its tag names.
fn claims(record: &NodeRecord, instance: &Instance) -> bool {
    let by_tag = record.run.as_ref().is_some_and(|run| run.marks(&record.name, instance));
    by_tag || instance_ids(record).any(|id| *id == instance.id)
}

/// Machines of this cluster that only their tag tells, with the node's name: each costs money, and the inventory does not know it.
pub(crate) fn untaken<'a>(nodes: &'a [Node], listed: &'a [Instance]) -> Vec<(&'a str, &'a Instance)> {
    let tagged = |node: &'a Node| {
        let record = node.record.as_ref();
        let known = move |it: &Instance| record.is_some_and(|record| instance_ids(record).any(|id| *id == it.id));
        let ours =
            move |it: &Instance| record.and_then(|it| it.run.as_ref()).is_some_and(|run| run.marks(&node.name, it));
        listed.iter().filter(move |it| ours(it) && !known(it)).map(|it| (node.name.as_str(), it))
    };
    nodes.iter().flat_map(tagged).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Owners;
    use crate::cloud::{Instance, InstanceId, Status};
    use crate::cluster::inventory::NodeRecord;
    use crate::config::ProviderKind;
    use crate::model::Region;

    fn instance(id: &str, tags: &[(&str, &str)]) -> Instance {
        Instance {
            id: InstanceId(id.into()),
            name: Some("east".into()),
            status: Status::Active,
            address: None,
            private_address: None,
            region: Region::new("r"),
            instance_type: "t".into(),
            price_cents_per_hour: Some(100),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn record(name: &str, run: &str, launch: &serde_json::Value, also: &[&str]) -> NodeRecord {
        serde_json::from_value(json!({ "name": name, "run": run, "launch": launch, "also": also })).expect("a record")
    }

    #[test]
    fn inventory_and_tag_say_whose_a_machine_is_and_its_name_never() {
        let launched = |id: &str| json!({ "state": "launched", "id": id });
        let owners = Owners {
            provider: ProviderKind::Lambda,
            own: vec![
                record("east", "01", &launched("1"), &["2"]),
                record("eu", "01", &json!({ "state": "asked" }), &[]),
            ],
            others: vec![("lab".to_owned(), record("east", "02", &launched("5"), &[]))],
        };
        let run = |run, node| [("gorgo:run", run), ("gorgo:node", node), ("gorgo:cluster", "lab")];
        let gone = |id, tags: &[_]| Instance { status: Status::Terminating, ..instance(id, tags) };
        let cases = [
            (instance("1", &[]), "east"),
            (instance("2", &[]), "east (by its tag only)"),
            (instance("3", &run("01", "east")), "east (by its tag only)"),
            (instance("4", &run("01", "eu")), "eu (by its tag only)"),
            (instance("5", &[]), "east of lab"),
            (instance("6", &run("02", "east")), "east of lab"),
            (instance("7", &run("03", "east")), "east of lab, elsewhere"),
            (instance("8", &run("03", "east")[..2]), "east, elsewhere"),
            (gone("1", &[]), "east"),
            (gone("7", &run("03", "east")), "was east of lab"),
            (gone("8", &run("03", "east")[..2]), "was east"),
            (gone("9", &[]), "nobody here"),
            (instance("9", &[]), "nobody here"),
            (instance("9", &[("gorgo:node", "east")]), "nobody here"),
        ];
        for (machine, expected) in cases {
            assert_eq!(owners.of(&machine).to_string(), expected, "{}", machine.id);
        }
    }
}
