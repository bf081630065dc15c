//! What the commands of a cluster know before they do anything: configuration, machines, and what the inventory keeps.

use std::sync::Arc;

use anyhow::anyhow;

use super::desired::{desired, spec};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::nodes::{Node, no_such_node, nodes};
use crate::cli::provider::{Provider, Setup, cloud_failure};
use crate::cli::reach::remote;
use crate::cluster::desired::{AgentBinary, Balance, Desired, ProxyWish};
use crate::cluster::inventory::{ClusterInventory, NodeRecord};
use crate::cluster::operations::Member;
use crate::routing::policy::{Parameters, find, on_agent};

/// What is known before anything is done.
pub(super) struct Scene {
    pub(super) setup: Setup,
    pub(super) provider: Provider,
    /// All nodes of the cluster, in order.
    pub(super) nodes: Vec<Node>,
    /// The inventory: held for changes, or only read; `None` = there is none yet.
    pub(super) inventory: Option<ClusterInventory>,
}

/// What is to be done with the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nobody else may change the cluster meanwhile.
    Change,
    /// Only look.
    Read,
}

impl Scene {
    /// Exit code 4 if the cluster has no nodes.
    pub(super) async fn look(context: &Context, access: Access) -> Result<Self, Failure> {
        let setup = Setup::read(context)?;
        let provider = setup.provider()?;
        let inventory = match access {
            Access::Change => Some(setup.inventory()?),
            Access::Read => setup.seen_inventory()?,
        };
        let listed = provider.inventory().list().await.map_err(cloud_failure)?;
        let records = inventory.as_ref().map_or(&[][..], ClusterInventory::nodes);
        let nodes = nodes(&setup, records, &listed);
        if nodes.is_empty() {
            let error = anyhow!("cluster `{}` has no nodes", setup.fleet.cluster);
            let hint = Some("`gorgo launch` gets some".to_owned());
            return Err(Failure { exit: Exit::NothingSuitable, error, hint });
        }
        Ok(Self { setup, provider, nodes, inventory })
    }

    /// The nodes of these names; all without any.
    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<&Node>, Failure> {
        let known = || self.nodes.iter().map(|node| node.name.as_str());
        if let Some(name) = names.iter().find(|name| !known().any(|it| it == name.as_str())) {
            return Err(no_such_node(&self.setup.fleet.cluster, name, known()));
        }
        Ok(self.nodes.iter().filter(|node| names.is_empty() || names.contains(&node.name)).collect())
    }

    /// Makes a central router on a node wanted, or unwanted; nothing is saved.
    pub(super) fn wish_proxy(&mut self, name: &str, wish: Option<&ProxyWish>) {
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            let record = node.record.get_or_insert_with(|| NodeRecord::new(name));
            record.proxy = wish.cloned();
        }
    }

    /// A node that can be worked with, or why not.
    pub(super) fn member(&self, node: &Node) -> Result<Member, Failure> {
        let spec = spec(&self.setup, node)?;
        let remote = Arc::from(remote(&self.setup, &self.provider, node)?);
        Ok(Member { spec, remote })
    }

    /// The nodes of these names; all of them must have a machine.
    pub(super) fn members(&self, names: &[String]) -> Result<Vec<Member>, Failure> {
        self.chosen(names)?.into_iter().map(|node| self.member(node)).collect()
    }

    /// What the cluster is to be, with what `restart-lb` has set.
    pub(super) fn desired(&self, binary: AgentBinary, allow_public_plaintext: bool) -> Result<Desired, Failure> {
        self.desired_of(&self.nodes, binary, allow_public_plaintext)
    }

    /// The same, of some of its nodes.
    pub(super) fn desired_of(
        &self,
        nodes: &[Node],
        binary: AgentBinary,
        allow_public_plaintext: bool,
    ) -> Result<Desired, Failure> {
        let mut desired = desired(&self.setup, nodes, binary, allow_public_plaintext)?;
        // One file serves agents and central routers, whose strategies have other weights under the same name.
        let foreign = foreign_weights(&desired.configured())?;
        desired.weights.retain(|key, _| !foreign.contains(key));
        let configured = desired.configured();
        if let Some(inventory) = &self.inventory {
            let told = |name: &str| inventory.balance(name).filter(|told| **told != configured).cloned();
            desired.pinned = nodes.iter().filter_map(|node| Some((node.name.clone(), told(&node.name)?))).collect();
        }
        Ok(desired)
    }

    /// Agents may listen on public addresses: an earlier set-up was told so.
    pub(super) fn allowed_public_plaintext(&self) -> bool {
        self.inventory.as_ref().is_some_and(ClusterInventory::allows_public_plaintext)
    }
}

/// Weights of the file that the agents' strategy does not have.
fn foreign_weights(configured: &Balance) -> Result<Vec<String>, Failure> {
    let entry = find(on_agent(&configured.strategy)).map_err(Failure::usage)?;
    let known = |key: &str| entry.parameters.iter().any(|parameter| parameter.key == key);
    let (own, foreign): (Vec<_>, Vec<_>) = configured.weights.clone().into_iter().partition(|(key, _)| known(key));
    Parameters::resolve(entry.name, entry.parameters, &own)
        .map_err(|error| Failure::usage(anyhow!("routing.weights: {error}")))?;
    Ok(foreign.into_iter().map(|(key, _)| key).collect())
}

/// What `restart-lb` has set otherwise than `gorgo.toml`, in a sentence; `None` = nothing.
pub(super) fn told_otherwise(desired: &Desired) -> Option<String> {
    let pinned: Vec<String> = desired.pinned.iter().map(|(node, balance)| format!("{node} ({balance})")).collect();
    (!pinned.is_empty()).then(|| {
        format!(
            "agents that balance as `gorgo cluster restart-lb` told them, not as gorgo.toml says ({}): {}; `gorgo cluster restart-lb --as-configured` goes back",
            desired.configured(),
            pinned.join(", ")
        )
    })
}
