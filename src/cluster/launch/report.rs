//! What a launch came to: every machine that costs money, or may, is named in it.

use std::fmt;

use super::event::{list, per_hour};
use crate::cloud::{CloudError, InstanceId};
use crate::model::Region;

/// How a node's launch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchOutcome {
    /// There is a machine: launched now, adopted, or there already.
    Running(InstanceId),
    /// No candidate had capacity.
    NoCapacity(CloudError),
    /// Refused; there is no machine.
    Failed(CloudError),
    /// There may be a machine.
    Unknown(CloudError),
    /// Not asked for, because the launch stopped before its turn.
    NotAsked,
}

/// One node's launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLaunch {
    /// The node.
    pub node: String,
    /// Type asked for last.
    pub instance_type: String,
    /// Region asked last.
    pub region: Region,
    /// Price, US cents per hour, if known.
    pub price_cents_per_hour: Option<u32>,
    /// How it ended.
    pub outcome: LaunchOutcome,
    /// More machines with the same tag.
    pub also: Vec<InstanceId>,
    /// Why the journal does not know of it, if it could not be saved.
    pub unsaved: Option<String>,
    /// There may be a machine although it ended otherwise: an earlier answer was lost, and what was asked for since was refused.
    pub uncertain: bool,
}

/// All of them, in the order of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchReport {
    /// One per machine that was wanted.
    pub nodes: Vec<NodeLaunch>,
    /// Stopped by the user.
    pub interrupted: bool,
}

impl LaunchReport {
    /// Every machine that was wanted runs.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.outcome, LaunchOutcome::Running(_)))
    }

    /// The node has a machine.
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.node == name && matches!(node.outcome, LaunchOutcome::Running(_)))
    }

    /// What the running ones cost together, US cents per hour, as far as prices are known; surplus machines count.
    #[must_use]
    pub fn cents_per_hour(&self) -> u64 {
        self.nodes.iter().map(NodeLaunch::cents_per_hour).sum()
    }

    fn named(&self, name: impl Fn(&NodeLaunch) -> Option<String>) -> Option<String> {
        let names: Vec<String> = self.nodes.iter().filter_map(name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl NodeLaunch {
    fn cents_per_hour(&self) -> u64 {
        let machines = self.also.len() as u64 + u64::from(matches!(self.outcome, LaunchOutcome::Running(_)));
        machines * u64::from(self.price_cents_per_hour.unwrap_or(0))
    }

    fn running(&self) -> Option<String> {
        let LaunchOutcome::Running(id) = &self.outcome else { return None };
        let note = self.unsaved.as_ref().map_or_else(String::new, |why| format!(" (not in the inventory: {why})"));
        Some(format!("{} {id}{note}", self.node))
    }

    fn surplus(&self) -> Option<String> {
        (!self.also.is_empty()).then(|| format!("{} (same tag as {})", list(&self.also), self.node))
    }

    /// Nobody knows whether there is a machine.
    #[must_use]
    pub fn may_run_unseen(&self) -> bool {
        self.uncertain || matches!(self.outcome, LaunchOutcome::Unknown(_))
    }

    fn perhaps(&self) -> Option<String> {
        self.may_run_unseen().then(|| format!("{} ({} in {})", self.node, self.instance_type, self.region))
    }

    fn missing(&self) -> Option<String> {
        match &self.outcome {
            _ if self.uncertain => None,
            LaunchOutcome::NoCapacity(_) => Some(format!("{} (no capacity)", self.node)),
            LaunchOutcome::Failed(_) => Some(format!("{} (refused)", self.node)),
            LaunchOutcome::NotAsked => Some(format!("{} (not asked for)", self.node)),
            LaunchOutcome::Running(_) | LaunchOutcome::Unknown(_) => None,
        }
    }
}

/// The last line of the command.
impl fmt::Display for LaunchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self
            .named(NodeLaunch::running)
            .map(|names| format!("running at {}: {names}", per_hour(self.cents_per_hour())));
        let surplus = self.named(NodeLaunch::surplus).map(|names| format!("running but not wanted: {names}"));
        let perhaps =
            self.named(NodeLaunch::perhaps).map(|names| format!("perhaps running and not known by id: {names}"));
        let missing = self.named(NodeLaunch::missing).map(|names| format!("not launched: {names}"));
        let parts: Vec<String> = [running, surplus, perhaps, missing].into_iter().flatten().collect();
        if parts.is_empty() { f.write_str("nothing to launch") } else { f.write_str(&parts.join("; ")) }
    }
}
