//! What is known on disk about each launch, so that no crash hides a machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tag::RunTag;
use crate::cloud::InstanceId;
use crate::model::Region;

/// How far a launch got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LaunchState {
    /// It was about to be asked for, or was: there may be a machine. Look for the tag before asking again.
    Asked,
    /// There is a machine.
    Launched {
        /// Its id.
        id: InstanceId,
    },
    /// There is none, for certain.
    Refused {
        /// What the provider said.
        why: String,
    },
}

/// One node's launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchEntry {
    /// The node's name.
    pub node: String,
    /// The run that asked.
    pub run: RunTag,
    /// The type that was asked for.
    pub instance_type: String,
    /// Where.
    pub region: Region,
    /// Price, US cents per hour, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_cents_per_hour: Option<u32>,
    /// Public half of the host key that the machine was given; `None` = trust the first one that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// How far it got.
    #[serde(flatten)]
    pub state: LaunchState,
    /// More machines with the same tag, which nobody uses but somebody pays for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<InstanceId>,
}

/// Where entries are kept: one per node. The cluster's inventory file is one, [`MemoryJournal`] another.
pub trait LaunchJournal: Send {
    /// What is known about a node's launch.
    fn entry(&self, node: &str) -> Option<LaunchEntry>;

    /// Adds the entry, or replaces the one of the same node. It survives a crash once this has returned.
    ///
    /// # Errors
    /// It could not be saved; the launch that it announces must not be made.
    fn save(&mut self, entry: &LaunchEntry) -> anyhow::Result<()>;
}

/// A journal without a disk, for tests; it keeps every version.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    latest: BTreeMap<String, LaunchEntry>,
    /// All that was ever saved, in order.
    pub history: Vec<LaunchEntry>,
    room: Option<usize>,
}

impl MemoryJournal {
    /// A journal that refuses to save after this many saves, as a full disk does.
    #[must_use]
    pub fn full_after(saves: usize) -> Self {
        Self { room: Some(saves), ..Self::default() }
    }
}

impl LaunchJournal for MemoryJournal {
    fn entry(&self, node: &str) -> Option<LaunchEntry> {
        self.latest.get(node).cloned()
    }

    fn save(&mut self, entry: &LaunchEntry) -> anyhow::Result<()> {
        anyhow::ensure!(self.room.is_none_or(|limit| self.history.len() < limit), "no space left");
        self.latest.insert(entry.node.clone(), entry.clone());
        self.history.push(entry.clone());
        Ok(())
    }
}
