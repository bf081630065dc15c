//! One rented machine, and how answers show it.

use std::net::Ipv4Addr;

use super::catalogue::Kind;
use super::fault::{Faults, Name};
use super::life::{Life, Phase};
use crate::cloud::Status;
use crate::cloud::lambda::wire::{Action, Actions, Instance, Mount, RegionInfo, RulesetRef, Tag};
use crate::model::{Secret, Time};

pub(super) struct Machine {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) kind: &'static Kind,
    pub(super) region: RegionInfo,
    pub(super) key: String,
    /// Names and places of its file systems.
    pub(super) mounts: Vec<(String, Mount)>,
    pub(super) hostname: Option<String>,
    pub(super) tags: Vec<Tag>,
    pub(super) rulesets: Vec<String>,
    pub(super) ip: Ipv4Addr,
    pub(super) private_ip: Ipv4Addr,
    pub(super) token: String,
    /// Its cloud-init text, which nothing runs here.
    pub(super) user_data: Option<Secret>,
    pub(super) life: Life,
}

impl Machine {
    pub(super) fn status(&self, now: Time, faults: &Faults) -> Status {
        match self.life.phase(now) {
            Phase::Booting => Status::Booting,
            Phase::Active => {
                faults.word(Name::UnknownStatus).map_or(Status::Active, |word| Status::Other(word.to_owned()))
            }
            Phase::Unhealthy => Status::Unhealthy,
            Phase::Preempted => Status::Preempted,
            Phase::Terminating => Status::Terminating,
            Phase::Terminated | Phase::Gone => Status::Terminated,
        }
    }

    /// The address, once it has one.
    pub(super) fn address(&self, now: Time, faults: &Faults) -> Option<Ipv4Addr> {
        (now >= self.life.addressed && !faults.has(Name::NoIp)).then_some(self.ip)
    }

    pub(super) fn wire(&self, now: Time, faults: &Faults) -> Instance {
        let address = self.address(now, faults);
        let runs = matches!(self.life.phase(now), Phase::Active | Phase::Unhealthy);
        let jupyter = |text: String| runs.then(|| Secret::new(text));
        let mounts: Vec<Mount> = self.mounts.iter().map(|(_, mount)| mount.clone()).collect();
        let made_up_name = address.map(|ip| ip.to_string());
        Instance {
            id: self.id.clone(),
            name: self.name.clone().filter(|_| !faults.has(Name::Nameless)),
            ip: address.map(|ip| ip.to_string()),
            private_ip: address.filter(|_| !faults.has(Name::NoPrivateIp)).map(|_| self.private_ip.to_string()),
            status: self.status(now, faults),
            ssh_key_names: vec![self.key.clone()],
            file_system_names: self.mounts.iter().map(|(name, _)| name.clone()).collect(),
            file_system_mounts: (!mounts.is_empty()).then_some(mounts),
            region: self.region.clone(),
            instance_type: self.kind.wire(),
            hostname: self.hostname.clone().or(made_up_name),
            jupyter_token: jupyter(self.token.clone()),
            jupyter_url: jupyter(format!("https://jupyter-{}.lambdaspaces.com/?token={}", self.id, self.token)),
            actions: actions(self.life.phase(now)),
            tags: Some(self.tags.clone()),
            firewall_rulesets: Some(self.rulesets.iter().map(|id| RulesetRef { id: id.clone() }).collect()),
        }
    }
}

/// What can be done with it; the two reasons are the document's.
fn actions(phase: Phase) -> Actions {
    let blocked = match phase {
        Phase::Booting => Some(("vm-has-not-launched", "The instance has not launched yet.")),
        Phase::Active | Phase::Unhealthy => None,
        _ => Some(("vm-is-terminating", "The instance is terminating.")),
    };
    let action = |blocked: Option<(&str, &str)>| Action {
        available: blocked.is_none(),
        reason_code: blocked.map(|(code, _)| code.to_owned()),
        reason_description: blocked.map(|(_, why)| why.to_owned()),
    };
    // A machine that still boots can be ended.
    let ending = blocked.filter(|_| phase != Phase::Booting);
    Actions {
        migrate: action(blocked),
        rebuild: action(blocked),
        restart: action(blocked),
        cold_reboot: action(blocked),
        terminate: action(ending),
    }
}
