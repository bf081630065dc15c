//! Launches: what the document and its prose ask of one, then what the account and the stock allow.

use std::net::Ipv4Addr;

use rand::RngExt as _;
use serde_json::Value;

use super::catalogue::{KINDS, Kind};
use super::fault::Name;
use super::life::Life;
use super::machine::Machine;
use super::refusal::Refusal;
use super::rules::{LONGEST_NAME, body, hostname, length, mount, tag, wanted};
use super::world::World;
use crate::cloud::lambda::wire::{ImageChoice, LaunchRequest, LaunchedInstances, Mount, RegionInfo};
use crate::model::Time;

/// Longest cloud-init text, bytes.
const LONGEST_USER_DATA: usize = 1_000_000;
/// First three parts of made-up addresses: the blocks for documentation (RFC 5737).
const MADE_UP: [[u8; 3]; 3] = [[203, 0, 113], [198, 51, 100], [192, 0, 2]];

/// A launch that names only things that exist.
struct Wish {
    kind: &'static Kind,
    region: RegionInfo,
    mounts: Vec<(String, Mount)>,
    rulesets: Vec<String>,
}

impl World {
    pub(super) fn launch(&mut self, now: Time, bytes: &[u8]) -> Result<LaunchedInstances, Refusal> {
        let (value, request) = body::<LaunchRequest>(bytes)?;
        well_formed(&value, &request)?;
        let wish = self.wish(&request)?;
        if self.faults.has(Name::NoAddress) {
            return Err(Refusal::no_address());
        }
        let held = self.machines.iter().filter(|machine| machine.life.holds(now, 0)).count() as u64;
        if self.faults.number(Name::Quota).is_some_and(|quota| held >= quota) {
            return Err(Refusal::quota());
        }
        let ip = self.place(now, &wish)?;
        let machine = Machine {
            id: self.id(),
            token: self.id(),
            life: Life::begin(now, &mut self.rng, &mut self.faults),
            private_ip: Ipv4Addr::new(
                10,
                self.rng.random_range(0..128),
                self.rng.random_range(0..255),
                self.rng.random_range(2..255),
            ),
            name: request.name,
            kind: wish.kind,
            region: wish.region,
            key: request.ssh_key_names[0].clone(),
            mounts: wish.mounts,
            hostname: request.hostname,
            user_data: request.user_data,
            tags: request.tags.unwrap_or_default(),
            rulesets: wish.rulesets,
            ip,
        };
        let id = machine.id.clone();
        self.launches += 1;
        self.record(now, "instance", "created", &id);
        self.machines.push(machine);
        Ok(LaunchedInstances { instance_ids: vec![id] })
    }

    /// Machines of this kind that the region has left.
    pub(super) fn stock(&self, now: Time, kind: &Kind, region: &RegionInfo) -> u32 {
        let name = region.name.as_str();
        let added = self.faults.word(Name::UnknownRegion) == Some(name);
        let total = kind.stock.iter().find(|(place, _)| *place == name).map_or(u32::from(added), |(_, number)| *number);
        let here = |machine: &&Machine| machine.kind.name == kind.name && machine.region.name == region.name;
        let taken = self.machines.iter().filter(here).filter(|machine| machine.life.holds(now, 0)).count();
        total.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    fn wish(&self, request: &LaunchRequest) -> Result<Wish, Refusal> {
        let region = self.region(request.region_name.as_str())?;
        let missing = |what: String| {
            let refusal = Refusal::missing(&what);
            if self.faults.has(Name::NotFoundAs400) { refusal.with_status(400) } else { refusal }
        };
        let named = KINDS.iter().find(|kind| kind.name == request.instance_type_name);
        let kind = named.ok_or_else(|| missing(format!("Instance type {}", request.instance_type_name)))?;
        let key = &request.ssh_key_names[0];
        if !self.keys.iter().any(|known| known.name == *key) {
            return Err(missing(format!("SSH key {key}")));
        }
        let mounts = self.mounts(request, &region, &missing)?;
        let mut rulesets = Vec::new();
        for wanted in request.firewall_rulesets.iter().flatten() {
            let found = self.rulesets.iter().find(|ruleset| ruleset.id == wanted.id);
            let ruleset = found.ok_or_else(|| missing(format!("Firewall ruleset {}", wanted.id)))?;
            if ruleset.region.name != region.name {
                return Err(Refusal::invalid(format!("Firewall ruleset {} is in another region.", wanted.id)));
            }
            rulesets.push(ruleset.id.clone());
        }
        self.image(request.image.as_ref(), kind, &region, &missing)?;
        Ok(Wish { kind, region, mounts, rulesets })
    }

    /// Places that the request names win over the usual place.
    fn mounts(
        &self,
        request: &LaunchRequest,
        region: &RegionInfo,
        missing: &dyn Fn(String) -> Refusal,
    ) -> Result<Vec<(String, Mount)>, Refusal> {
        let mut mounts: Vec<(String, Mount)> = Vec::new();
        for wanted in request.file_system_mounts.iter().flatten() {
            let found = self.filesystems.iter().find(|filesystem| filesystem.id == wanted.file_system_id);
            let filesystem = found.ok_or_else(|| missing(format!("Filesystem {}", wanted.file_system_id)))?;
            mounts.push((filesystem.name.clone(), wanted.clone()));
        }
        for name in request.file_system_names.iter().flatten() {
            let found = self.filesystems.iter().find(|filesystem| filesystem.name == *name);
            let filesystem = found.ok_or_else(|| missing(format!("Filesystem {name}")))?;
            if !mounts.iter().any(|(mounted, _)| mounted == name) {
                let usual = Mount { mount_point: filesystem.mount_point(), file_system_id: filesystem.id.clone() };
                mounts.push((name.clone(), usual));
            }
        }
        let abroad = |name: &str| {
            self.filesystems.iter().any(|filesystem| filesystem.name == name && filesystem.region.name != region.name)
        };
        match mounts.iter().find(|(name, _)| abroad(name)) {
            Some((name, _)) => Err(Refusal::wrong_region(name)),
            None => Ok(mounts),
        }
    }

    fn image(
        &self,
        choice: Option<&ImageChoice>,
        kind: &Kind,
        region: &RegionInfo,
        missing: &dyn Fn(String) -> Refusal,
    ) -> Result<(), Refusal> {
        let here = || self.images.iter().filter(|image| image.region.name == region.name);
        let (chosen, what): (Vec<_>, _) = match choice {
            None => return Ok(()),
            Some(ImageChoice::Id { id }) => (here().filter(|image| image.id == *id).collect(), id),
            Some(ImageChoice::Family { family }) => (here().filter(|image| image.family == *family).collect(), family),
        };
        if chosen.is_empty() {
            return Err(missing(format!("Image {what}")));
        }
        let runs = chosen.iter().any(|image| image.architecture == kind.architecture());
        wanted(runs, || format!("Image {what} does not run on {}.", kind.name))
    }

    /// An address for the machine, if there is room for one.
    fn place(&mut self, now: Time, wish: &Wish) -> Result<Ipv4Addr, Refusal> {
        let closed = self.faults.word(Name::NoCapacityIn) == Some(wish.region.name.as_str());
        if closed || self.faults.strikes(Name::CapacityLoss) || self.stock(now, wish.kind, &wish.region) == 0 {
            return Err(Refusal::no_capacity());
        }
        let held = |ip: &Ipv4Addr| self.machines.iter().any(|machine| machine.ip == *ip && machine.life.holds(now, 0));
        if self.faults.has(Name::ReusedIp) {
            let ended = self.machines.iter().rev().find(|machine| !machine.life.holds(now, 0) && !held(&machine.ip));
            if let Some(machine) = ended {
                return Ok(machine.ip);
            }
        }
        if self.addresses.is_empty() {
            let number = self.machines.len() % (MADE_UP.len() * 254);
            let [a, b, c] = MADE_UP[number / 254];
            return Ok(Ipv4Addr::new(a, b, c, (number % 254 + 1) as u8));
        }
        self.addresses.iter().find(|ip| !held(ip)).copied().ok_or_else(Refusal::no_capacity)
    }
}

/// Everything that can be told from the request alone. Schemas say some of it; one key, one machine, one way to name the image and the size
/// of the text stand in the document's prose only.
fn well_formed(value: &Value, request: &LaunchRequest) -> Result<(), Refusal> {
    let one_machine = value.get("quantity").is_none_or(|quantity| *quantity == 1);
    wanted(one_machine, || "Requested too many instances.".to_owned())?;
    wanted(request.ssh_key_names.len() == 1, || "Exactly one SSH key must be specified.".to_owned())?;
    let one_name = |image: &Value| image["id"].is_string() != image["family"].is_string();
    wanted(value.get("image").is_none_or(one_name), || "image takes an id or a family.".to_owned())?;
    length("name", request.name.as_deref().unwrap_or_default(), LONGEST_NAME)?;
    request.hostname.as_deref().map_or(Ok(()), hostname)?;
    request.tags.iter().flatten().try_for_each(tag)?;
    request.file_system_mounts.iter().flatten().try_for_each(mount)?;
    let text = request.user_data.as_ref().map_or("", |text| text.reveal());
    wanted(text.len() <= LONGEST_USER_DATA && !text.contains('\0'), || {
        "user_data must be plain text of at most 1 MB.".to_owned()
    })
}
