//! Regions as answers name them.

use serde::{Deserialize, Serialize};

use crate::model::Region;

/// A region with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionInfo {
    /// Its code, e.g. `us-west-1`.
    pub name: Region,
    /// The place, e.g. `California, USA`.
    #[serde(default)]
    pub description: String,
}
