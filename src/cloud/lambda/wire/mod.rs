//! What Lambda's API says, in both directions: version 1.8.3 of its OpenAPI document, and whatever later versions add to it.
//!
//! Sets that the document closes (regions, statuses, protocols …) are open here, because the live service is ahead of the document.
//! Unknown fields are ignored. The client reads answers with these types, the stand-in for the API writes them.

mod audit;
mod envelope;
mod filesystem;
mod firewall;
mod image;
mod instance;
mod instance_type;
mod launch;
mod region;
mod secret;
mod ssh_key;
mod tag;
#[cfg(test)]
mod tests;

pub use audit::{AuditEvent, AuditPage, AuditQuery};
pub use envelope::{ApiError, Data, Empty, Failure};
pub use filesystem::{CreateFilesystem, DeletedFilesystems, Filesystem, User};
pub use firewall::{
    CreateRuleset, FirewallRule, GlobalRuleset, PatchGlobalRuleset, PatchRuleset, PortRange, Protocol, PutRules,
    Ruleset,
};
pub use image::{Architecture, Image};
pub use instance::{Action, Actions, Instance, InstanceIds, Mount, Rename, RestartedInstances, TerminatedInstances};
pub use instance_type::{InstanceType, InstanceTypes, Offer, Specs};
pub use launch::{ImageChoice, LaunchRequest, LaunchedInstances};
pub use region::RegionInfo;
pub use ssh_key::{AddSshKey, AddedSshKey, SshKey};
pub use tag::{RulesetRef, Tag};
