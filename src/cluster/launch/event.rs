//! Progress of a launch. The terminal draws these; `Display` is the plain line.

use std::fmt;

use crate::cloud::InstanceId;
use crate::model::Region;

/// Something happened to a node's launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchEvent {
    /// The node.
    pub node: String,
    /// What.
    pub progress: LaunchProgress,
}

/// What happened. Each is a step boundary: what came before it is on disk, except after `Answered`, which is the moment before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchProgress {
    /// The journal has it; the call comes now (or when the provider's limit of launches allows).
    Asking {
        /// Type.
        instance_type: String,
        /// Region.
        region: Region,
        /// Price, US cents per hour, if known.
        price_cents_per_hour: Option<u32>,
    },
    /// The provider gave an id; it is not saved yet.
    Answered(InstanceId),
    /// The id is saved.
    Launched(InstanceId),
    /// An earlier run launched it.
    Already(InstanceId),
    /// The answer was lost, but the tag was found.
    Adopted(InstanceId),
    /// No capacity for this one.
    NoCapacity {
        /// Type.
        instance_type: String,
        /// Region.
        region: Region,
    },
    /// The outcome is not known.
    Lost(String),
    /// The list of machines is searched for the tag.
    Looking,
    /// More machines carry the tag than were wanted.
    Surplus(Vec<InstanceId>),
    /// It stopped, and there is no machine.
    Failed(String),
    /// It stopped, and there may be a machine.
    Unknown(String),
}

impl fmt::Display for LaunchEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.progress)
    }
}

impl fmt::Display for LaunchProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking { instance_type, region, price_cents_per_hour } => {
                write!(f, "asking for {instance_type} in {region}")?;
                price_cents_per_hour.map_or(Ok(()), |cents| write!(f, " at {}", per_hour(cents.into())))
            }
            Self::Answered(id) => write!(f, "the provider gave {id}"),
            Self::Launched(id) => write!(f, "launched as {id}"),
            Self::Already(id) => write!(f, "runs already as {id}"),
            Self::Adopted(id) => write!(f, "found by its tag as {id}"),
            Self::NoCapacity { instance_type, region } => write!(f, "no capacity for {instance_type} in {region}"),
            Self::Lost(why) => f.write_str(why),
            Self::Looking => f.write_str("looking for its tag among the account's machines"),
            Self::Surplus(ids) => write!(f, "more machines carry its tag: {}", list(ids)),
            Self::Failed(why) => f.write_str(why),
            Self::Unknown(why) => write!(f, "not known whether there is a machine: {why}"),
        }
    }
}

/// `$1.99/h`.
pub(super) fn per_hour(cents: u64) -> String {
    format!("${}.{:02}/h", cents / 100, cents % 100)
}

pub(super) fn list(ids: &[InstanceId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
