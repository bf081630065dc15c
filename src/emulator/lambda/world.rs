//! The account: requests and the time go in, answers come out. Pure; random numbers come from the seed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};

use super::LambdaOptions;
use super::audit::Deed;
use super::catalogue::{self, KINDS};
use super::fault::{Fault, Faults, Name};
use super::firewall::{Rules, usual_rules};
use super::life::{Phase, after};
use super::limit::Limiter;
use super::machine::Machine;
use super::refusal::Refusal;
use super::route::{Operation, Route, route};
use super::rules::{LONGEST_NAME, body, length};
use super::storage::Store;
use crate::cloud::lambda::wire::{
    Empty, FirewallRule, Image, Instance, InstanceIds, InstanceTypes, Offer, RegionInfo, Rename, RestartedInstances,
    SshKey, TerminatedInstances,
};
use crate::model::{Secret, Time};

/// A request, as far as the account looks at it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) authorization: Option<String>,
    pub(super) body: Vec<u8>,
}

/// How an answer gets to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    /// Half of the body, as if it were all.
    Half,
    /// The connection drops instead.
    Dropped,
    /// Nothing ever comes.
    Stalled,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content: Content,
    pub(super) retry_after_s: Option<u64>,
    /// Methods that the path has, for a 405.
    pub(super) allow: Option<&'static str>,
    pub(super) delivery: Delivery,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Json(Value),
    Html,
    Text(&'static str),
}

impl Answer {
    fn new(status: u16, content: Content) -> Self {
        Self { status, content, retry_after_s: None, allow: None, delivery: Delivery::Whole }
    }

    fn refused(refusal: &Refusal) -> Self {
        Self::new(refusal.status, Content::Json(refusal.body()))
    }
}

/// What a stand-in was asked and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LambdaCounts {
    /// Requests, also those that were turned away.
    pub requests: u64,
    /// Requests that were answered with 429.
    pub turned_away: u64,
    /// Machines that were made.
    pub launches: u64,
}

/// Everything that the account has.
pub(super) struct World {
    key: Option<Secret>,
    epoch_us: u64,
    limiter: Option<Limiter>,
    requests: u64,
    turned_away: u64,
    regions: Vec<RegionInfo>,
    pub(super) rng: ChaCha8Rng,
    pub(super) faults: Faults,
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) account: String,
    pub(super) launches: u64,
    /// Changes of rulesets so far.
    pub(super) edits: u64,
    /// Every machine that ever was, in the order of launches.
    pub(super) machines: Vec<Machine>,
    pub(super) keys: Vec<SshKey>,
    pub(super) filesystems: Vec<Store>,
    pub(super) images: Vec<Image>,
    pub(super) rulesets: Vec<Rules>,
    pub(super) global_rules: Vec<FirewallRule>,
    pub(super) log: Vec<Deed>,
}

impl World {
    /// A new account; [`Time::ZERO`] is the second `epoch_s` since 1970.
    pub(super) fn new(options: LambdaOptions, epoch_s: u64) -> Self {
        let mut world = Self {
            key: options.key,
            epoch_us: epoch_s.saturating_mul(1_000_000),
            limiter: options.limits.then(Limiter::default),
            requests: 0,
            turned_away: 0,
            images: Vec::new(),
            regions: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            faults: Faults::default(),
            addresses: options.addresses,
            account: String::new(),
            launches: 0,
            edits: 0,
            machines: Vec::new(),
            keys: Vec::new(),
            filesystems: Vec::new(),
            rulesets: Vec::new(),
            global_rules: usual_rules(),
            log: Vec::new(),
        };
        world.account = world.id();
        world.suffer(options.faults);
        world
    }

    /// From now on these faults and no others; machines that there are keep their dates.
    pub(super) fn suffer(&mut self, faults: Vec<Fault>) {
        self.faults = Faults::new(faults);
        self.regions = catalogue::regions(self.faults.word(Name::UnknownRegion));
        self.images = catalogue::images(&self.regions);
    }

    pub(super) fn counts(&self) -> LambdaCounts {
        LambdaCounts { requests: self.requests, turned_away: self.turned_away, launches: self.launches }
    }

    /// Answers one request: first what never gets to the account, then the key, then the operation.
    pub(super) fn answer(&mut self, now: Time, ask: &Ask) -> Answer {
        self.requests += 1;
        let operation = match route(&ask.method, &ask.path) {
            Route::Found(operation) => operation,
            Route::WrongMethod(allow) => {
                return Answer { allow: Some(allow), ..Answer::new(405, Content::Text("Method Not Allowed")) };
            }
            Route::Nowhere => return Answer::new(404, Content::Text("Not Found")),
        };
        if let Some(answer) = self.at_the_edge(now, operation) {
            return answer;
        }
        if !self.knows(ask.authorization.as_deref()) {
            return Answer::refused(&Refusal::unauthorized());
        }
        if self.faults.has(Name::AccountInactive) {
            return Answer::refused(&Refusal::inactive());
        }
        if operation == Operation::Launch && self.faults.strikes(Name::LostRequest) {
            return Answer { delivery: Delivery::Dropped, ..Answer::new(200, Content::Text("")) };
        }
        let mut answer = match self.perform(now, operation, ask) {
            Ok(data) => Answer::new(200, Content::Json(json!({"data": self.dressed(data)}))),
            Err(refusal) => return Answer::refused(&refusal),
        };
        if operation == Operation::Launch {
            self.after_launch(&mut answer);
        } else if ask.method == "GET" && self.faults.strikes(Name::Truncated) {
            answer.delivery = Delivery::Half;
        }
        answer
    }

    /// Faults of the service in front of the account, and its limits.
    fn at_the_edge(&mut self, now: Time, operation: Operation<'_>) -> Option<Answer> {
        let hasty = self.limiter.as_mut().is_some_and(|limiter| !limiter.admits(now, operation == Operation::Launch));
        if self.faults.strikes(Name::Storm) || hasty {
            self.turned_away += 1;
            let content = match self.faults.word(Name::StormShape) {
                Some("empty") => Content::Text(""),
                Some("html") => Content::Html,
                _ => Content::Json(Refusal::too_many().body()),
            };
            let retry_after_s = self.faults.number(Name::RetryAfter);
            return Some(Answer { retry_after_s, ..Answer::new(429, content) });
        }
        if self.faults.strikes(Name::Error500) {
            return Some(Answer::refused(&Refusal::unknown()));
        }
        if self.faults.strikes(Name::Error502) {
            return Some(Answer::new(502, Content::Html));
        }
        self.faults.strikes(Name::Error503).then(|| Answer::refused(&Refusal::upstream()))
    }

    /// A launch that happened, and an answer that may not say so.
    fn after_launch(&mut self, answer: &mut Answer) {
        if self.faults.strikes(Name::LostAnswer) {
            answer.delivery = Delivery::Dropped;
        } else if self.faults.strikes(Name::StalledAnswer) {
            answer.delivery = Delivery::Stalled;
        } else if self.faults.strikes(Name::ErrorAfterLaunch) {
            *answer = Answer::refused(&Refusal::unknown());
        }
    }

    fn perform(&mut self, now: Time, operation: Operation<'_>, ask: &Ask) -> Result<Value, Refusal> {
        let bytes = &ask.body;
        Ok(match operation {
            Operation::Instances => written(&self.list_machines(now, ask.query.contains_key("cluster_id"))),
            Operation::Instance(id) => written(&self.machine(now, id)?),
            Operation::Rename(id) => written(&self.rename(now, id, bytes)?),
            Operation::Types => written(&self.types(now)),
            Operation::Launch => written(&self.launch(now, bytes)?),
            Operation::Restart => written(&self.restart(now, bytes)?),
            Operation::Terminate => written(&self.terminate(now, bytes)?),
            Operation::Keys => written(&self.keys),
            Operation::AddKey => written(&self.add_key(now, bytes)?),
            Operation::DeleteKey(id) => written(&self.delete_key(now, id).map(|()| Empty {})?),
            Operation::Filesystems => written(&self.list_filesystems(now)),
            Operation::CreateFilesystem => written(&self.create_filesystem(now, bytes)?),
            Operation::DeleteFilesystem(id) => written(&self.delete_filesystem(now, id)?),
            Operation::Images => written(&self.images),
            Operation::Rules => written(&self.global_rules),
            Operation::PutRules => written(&self.replace_rules(now, bytes)?),
            Operation::Rulesets => written(&self.list_rulesets(now)),
            Operation::CreateRuleset => written(&self.create_ruleset(now, bytes)?),
            Operation::GlobalRuleset => written(&self.global_ruleset()),
            Operation::ChangeGlobalRuleset => written(&self.change_global_ruleset(now, bytes)?),
            Operation::Ruleset(id) => written(&self.ruleset(now, id)?),
            Operation::ChangeRuleset(id) => written(&self.change_ruleset(now, id, bytes)?),
            Operation::DeleteRuleset(id) => written(&self.delete_ruleset(now, id).map(|()| Empty {})?),
            Operation::Audit => written(&self.audit(&ask.query)?),
        })
    }

    /// All machines that are not gone. None belongs to one of the service's own clusters, which are another product.
    fn list_machines(&self, now: Time, of_a_cluster: bool) -> Vec<Instance> {
        let lag_s = self.faults.number(Name::LateList).unwrap_or(0);
        let shown = self.machines.iter().filter(|machine| now >= after(machine.life.born, lag_s) && !of_a_cluster);
        let shown = shown.filter(|machine| machine.life.phase(now) != Phase::Gone);
        shown.map(|machine| machine.wire(now, &self.faults)).collect()
    }

    fn machine(&self, now: Time, id: &str) -> Result<Instance, Refusal> {
        self.machine_at(now, id).map(|index| self.machines[index].wire(now, &self.faults))
    }

    fn rename(&mut self, now: Time, id: &str, bytes: &[u8]) -> Result<Instance, Refusal> {
        let index = self.machine_at(now, id)?;
        let (_, request) = body::<Rename>(bytes)?;
        length("name", request.name.as_deref().unwrap_or_default(), LONGEST_NAME)?;
        if let Some(name) = request.name {
            self.machines[index].name = Some(name);
            self.record(now, "instance", "updated", id);
        }
        self.machine(now, id)
    }

    fn restart(&mut self, now: Time, bytes: &[u8]) -> Result<RestartedInstances, Refusal> {
        let indices = self.named(now, bytes)?;
        for index in &indices {
            self.machines[*index].life.restart(now);
            self.record(now, "instance", "restarted", &self.machines[*index].id.clone());
        }
        Ok(RestartedInstances { restarted_instances: self.shown(now, &indices) })
    }

    fn terminate(&mut self, now: Time, bytes: &[u8]) -> Result<TerminatedInstances, Refusal> {
        let indices = self.named(now, bytes)?;
        for index in &indices {
            self.machines[*index].life.end(now);
            self.record(now, "instance", "terminated", &self.machines[*index].id.clone());
        }
        Ok(TerminatedInstances { terminated_instances: self.shown(now, &indices) })
    }

    /// The machines of a request; one unknown id among them and nothing happens.
    fn named(&self, now: Time, bytes: &[u8]) -> Result<Vec<usize>, Refusal> {
        let (_, request) = body::<InstanceIds>(bytes)?;
        request.instance_ids.iter().map(|id| self.machine_at(now, id)).collect()
    }

    fn machine_at(&self, now: Time, id: &str) -> Result<usize, Refusal> {
        let there = |machine: &Machine| machine.id == id && machine.life.phase(now) != Phase::Gone;
        self.machines.iter().position(there).ok_or_else(|| Refusal::missing("Specified instance"))
    }

    fn shown(&self, now: Time, indices: &[usize]) -> Vec<Instance> {
        indices.iter().map(|index| self.machines[*index].wire(now, &self.faults)).collect()
    }

    fn types(&self, now: Time) -> InstanceTypes {
        let offer = |kind: &catalogue::Kind| {
            let left = self.regions.iter().filter(|region| self.stock(now, kind, region) > 0);
            Offer { instance_type: kind.wire(), regions_with_capacity_available: left.cloned().collect() }
        };
        KINDS.iter().map(|kind| (kind.name.to_owned(), offer(kind))).collect()
    }

    /// The machines that are not gone, with what their firewall lets in and their cloud-init text (which a real machine would find in its
    /// metadata): for tests, which cannot ask the service that.
    pub(super) fn overview(&self, now: Time) -> Value {
        let there = self.machines.iter().filter(|machine| machine.life.phase(now) != Phase::Gone);
        let line = |machine: &Machine| {
            json!({
                "id": machine.id,
                "name": machine.name,
                "status": machine.status(now, &self.faults),
                "ip": machine.ip,
                "region": machine.region.name,
                "tags": machine.tags,
                "inbound": self.inbound(machine),
                "user_data": machine.user_data.as_ref().map(Secret::reveal),
            })
        };
        there.map(line).collect()
    }

    pub(super) fn region(&self, name: &str) -> Result<RegionInfo, Refusal> {
        let found = self.regions.iter().find(|region| region.name.as_str() == name);
        found.cloned().ok_or_else(|| Refusal::invalid(format!("{name} is no region.")))
    }

    /// 32 hexadecimal digits.
    pub(super) fn id(&mut self) -> String {
        format!("{:032x}", self.rng.random::<u128>())
    }

    /// Microseconds since 1970.
    pub(super) fn date_us(&self, now: Time) -> u64 {
        self.epoch_us.saturating_add(now.micros())
    }

    /// `Bearer KEY`, or Basic with the key as the user and no password.
    fn knows(&self, authorization: Option<&str>) -> bool {
        let (scheme, given) = authorization.and_then(|text| text.split_once(' ')).unwrap_or_default();
        match (scheme, &self.key) {
            ("Bearer", Some(key)) => given == key.reveal(),
            ("Basic", Some(key)) => given == base64(format!("{}:", key.reveal()).as_bytes()),
            ("Bearer" | "Basic", None) => !given.is_empty(),
            _ => false,
        }
    }

    /// With fields of a later version, if a fault asks for them.
    fn dressed(&self, mut data: Value) -> Value {
        if self.faults.has(Name::ExtraFields) {
            dress(&mut data);
        }
        data
    }
}

fn dress(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(dress),
        Value::Object(fields) => {
            fields.values_mut().for_each(dress);
            // Not into maps by name, such as that of the types.
            if fields.contains_key("id") || fields.contains_key("name") {
                fields.insert("is_reserved".to_owned(), Value::Bool(false));
                fields.insert("came_later".to_owned(), json!({"version": [1, 10, 0]}));
            }
        }
        _ => {}
    }
}

fn written(data: &impl Serialize) -> Value {
    serde_json::to_value(data).expect("the wire types have string keys and no failing serialiser")
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let three = [0, 1, 2].map(|index| u32::from(group.get(index).copied().unwrap_or(0)));
        let bits = three[0] << 16 | three[1] << 8 | three[2];
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn the_vectors_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
