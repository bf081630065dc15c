//! Kinds of machines, their prices and where they can be had.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::image::Architecture;
use super::region::RegionInfo;

/// The answer of `GET /instance-types`: type name to offer.
pub type InstanceTypes = BTreeMap<String, Offer>;

/// A type and the regions that claim to have it now. Advice: a launch there may still be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The type.
    pub instance_type: InstanceType,
    /// Regions that claim capacity, in the order of the service.
    #[serde(default)]
    pub regions_with_capacity_available: Vec<RegionInfo>,
}

/// A kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceType {
    /// Its name, e.g. `gpu_1x_a100`.
    pub name: String,
    /// E.g. `1x A100 (40 GB PCIe)`.
    #[serde(default)]
    pub description: String,
    /// E.g. `A100 (40 GB PCIe)`.
    #[serde(default)]
    pub gpu_description: String,
    /// US cents per hour.
    pub price_cents_per_hour: u32,
    /// Sizes.
    pub specs: Specs,
    /// Processor; newer than the document, so often absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
}

/// Sizes of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specs {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, GiB.
    pub memory_gib: u32,
    /// Disk, GiB.
    pub storage_gib: u32,
    /// GPUs; 0 for a machine without.
    pub gpus: u32,
}
