//! Machine images.

use serde::{Deserialize, Serialize};

use super::region::RegionInfo;

/// An image. Its id belongs to one region; its family is the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// When it was made, ISO 8601.
    #[serde(default)]
    pub created_time: String,
    /// When it was changed, ISO 8601.
    #[serde(default)]
    pub updated_time: String,
    /// Its name.
    pub name: String,
    /// More about it.
    #[serde(default)]
    pub description: String,
    /// Its family, e.g. `lambda-stack-24-04`.
    pub family: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Processor that it runs on.
    pub architecture: Architecture,
    /// Where it can be used.
    pub region: RegionInfo,
}

/// A kind of processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// Intel and AMD.
    #[serde(rename = "x86_64")]
    X86,
    /// 64-bit ARM, such as the GH200's.
    #[serde(rename = "arm64")]
    Arm,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}
