//! The nodes of a cluster: what its inventory says, together with what the provider says of their machines.

use std::env;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;

use super::exit::{Exit, Failure};
use super::provider::{Provider, Setup, cloud_failure};
use crate::cloud::{Instance, InstanceId, Status};
use crate::cluster::inventory::{ClusterInventory, InventoryError, NodeRecord, Owner};
use crate::cluster::launch::LaunchState;
use crate::config::ProviderKind;
use crate::model::spelling::hint;

/// One node.
#[derive(Clone)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// What the inventory says; a machine of your own need not stand in it.
    pub(crate) record: Option<NodeRecord>,
    /// What the provider says; `None` = it does not list the machine.
    pub(crate) instance: Option<Instance>,
}

impl Node {
    /// Its machine can be worked with.
    pub(crate) fn is_there(&self) -> bool {
        self.instance.as_ref().is_some_and(|it| !is_gone(&it.status))
    }

    /// Its machine, as the inventory or the provider names it.
    pub(crate) fn id(&self) -> Option<&InstanceId> {
        let known = self.record.as_ref().and_then(NodeRecord::id);
        known.or_else(|| self.instance.as_ref().map(|it| &it.id))
    }
}

/// The machine is gone or going.
pub(crate) fn is_gone(status: &Status) -> bool {
    matches!(status, Status::Terminating | Status::Terminated | Status::Preempted)
}

impl Setup {
    /// Folder of the cluster: its inventory and what else belongs to it.
    pub(crate) fn cluster_folder(&self) -> PathBuf {
        self.state_dir.join("clusters").join(&self.fleet.cluster)
    }

    /// The nodes of the inventory as they are, without a lock.
    pub(crate) fn records(&self) -> Result<Vec<NodeRecord>, Failure> {
        Ok(self.seen_inventory()?.map_or_else(Vec::new, |inventory| inventory.nodes().to_vec()))
    }

    /// The inventory as it is, without a lock; `None` = there is none yet.
    pub(crate) fn seen_inventory(&self) -> Result<Option<ClusterInventory>, Failure> {
        let seen = ClusterInventory::look(&self.cluster_folder()).map_err(inventory_failure)?;
        seen.iter().try_for_each(|inventory| self.check(inventory))?;
        Ok(seen)
    }

    /// The inventory for a change; nobody else can change it until it is dropped.
    pub(crate) fn inventory(&self) -> Result<ClusterInventory, Failure> {
        let (cluster, provider) = (&self.fleet.cluster, self.fleet.provider.name());
        let inventory =
            ClusterInventory::open(&self.cluster_folder(), cluster, provider, &owner()).map_err(inventory_failure)?;
        self.check(&inventory)?;
        Ok(inventory)
    }

    /// One cluster has its machines from one provider.
    fn check(&self, inventory: &ClusterInventory) -> Result<(), Failure> {
        let (provider, cluster) = (self.fleet.provider.name(), &self.fleet.cluster);
        if inventory.cluster() != cluster {
            let folder = self.cluster_folder();
            let error = anyhow!("the inventory in `{}` is that of cluster `{}`", folder.display(), inventory.cluster());
            return Err(
                Failure::usage(error).with_hint(format!("wanted that of `{cluster}`: put it back where it was"))
            );
        }
        if inventory.provider() != provider && !inventory.nodes().is_empty() {
            let theirs = inventory.provider();
            let error = anyhow!("cluster `{cluster}` has its machines from provider `{theirs}`, not from `{provider}`");
            return Err(
                Failure::usage(error).with_hint(format!("use `--provider {theirs}`, or another `cluster.name`"))
            );
        }
        Ok(())
    }
}

/// This process, for whoever finds the lock taken. Arguments hold no secrets: gorgo takes none there.
fn owner() -> Owner {
    let command: Vec<String> = env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    Owner::this_process(&format!("gorgo {}", command.join(" ")), wall_s())
}

#[expect(clippy::disallowed_methods, reason = "the edge where a command reads the clock")]
fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The texts say what to try.
fn inventory_failure(error: InventoryError) -> Failure {
    let exit = if matches!(error, InventoryError::Broken { .. }) { Exit::Usage } else { Exit::Failed };
    Failure { exit, error: error.into(), hint: None }
}

/// Its machine and all others that are known to carry its tag: what ends with it.
pub(crate) fn instance_ids(record: &NodeRecord) -> impl Iterator<Item = &InstanceId> {
    record.id().into_iter().chain(&record.also)
}

/// It was asked for, and nobody knows yet whether there is a machine.
pub(crate) fn is_uncertain(record: &NodeRecord) -> bool {
    record.launch == Some(LaunchState::Asked)
}

/// The nodes of the cluster in their order: those of the inventory, or for `hosts` the machines of the configuration.
pub(crate) fn nodes(setup: &Setup, records: &[NodeRecord], listed: &[Instance]) -> Vec<Node> {
    if setup.fleet.provider == ProviderKind::Hosts {
        let with_record = |it: &Instance| {
            let name = it.id.0.clone();
            let record = records.iter().find(|record| record.name == name).cloned();
            Node { record, instance: Some(it.clone()), name }
        };
        return listed.iter().map(with_record).collect();
    }
    let with_instance = |node: &NodeRecord| {
        let instance = node.id().and_then(|id| listed.iter().find(|it| it.id == *id)).cloned();
        Node { name: node.name.clone(), instance, record: Some(node.clone()) }
    };
    records.iter().map(with_instance).collect()
}

/// Refuses a name that no node of the cluster has, and lists those that there are.
pub(crate) fn no_such_node<'a>(cluster: &str, name: &str, names: impl Iterator<Item = &'a str> + Clone) -> Failure {
    let near = hint(name, names.clone());
    let names: Vec<&str> = names.collect();
    let known = match names.as_slice() {
        [] => "it has none yet: `gorgo launch` gets some".to_owned(),
        names => format!("it has: {}", names.join(", ")),
    };
    let error = anyhow!("cluster `{cluster}` has no node `{name}`{near}");
    Failure { exit: Exit::NothingSuitable, error, hint: Some(known) }
}

/// Reads the inventory and asks the provider.
pub(crate) async fn look(setup: &Setup, provider: &Provider) -> Result<Vec<Node>, Failure> {
    let records = setup.records()?;
    let listed = provider.inventory().list().await.map_err(cloud_failure)?;
    Ok(nodes(setup, &records, &listed))
}
