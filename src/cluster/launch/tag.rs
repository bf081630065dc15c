//! The mark by which a machine is found again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cloud::{Instance, Status};

/// Tag that holds the run. Tag keys at Lambda have no underscores and no capitals.
pub const RUN_TAG: &str = "gorgo:run";
/// Tag that holds the node's name; with the run it is unique, which names alone are not.
pub const NODE_TAG: &str = "gorgo:node";

/// Tag that holds the cluster's name: for people who look at an account that several share. Nothing is decided by it.
pub const CLUSTER_TAG: &str = "gorgo:cluster";

/// A random mark of one launch command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunTag(String);

impl RunTag {
    /// A mark from 64 random bits: enough that no two runs of an account ever share one.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}"))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This machine was asked for as `node` in this run, and is not on its way out.
    #[must_use]
    pub fn marks(&self, node: &str, instance: &Instance) -> bool {
        let tagged = |key: &str, value: &str| instance.tags.get(key).is_some_and(|found| found == value);
        let leaving = matches!(instance.status, Status::Terminating | Status::Terminated | Status::Preempted);
        tagged(RUN_TAG, &self.0) && tagged(NODE_TAG, node) && !leaving
    }
}

impl fmt::Display for RunTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
