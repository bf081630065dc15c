//! Firewall rulesets and the rules of the whole account.

use serde_json::Value;

use super::catalogue::WITHOUT_FIREWALL;
use super::fault::Name;
use super::machine::Machine;
use super::refusal::Refusal;
use super::rules::{LONGEST_NAME, body, firewall, length};
use super::world::World;
use crate::cloud::lambda::wire::{
    CreateRuleset, FirewallRule, GlobalRuleset, PatchGlobalRuleset, PatchRuleset, PortRange, Protocol, PutRules,
    RegionInfo, Ruleset,
};
use crate::model::Time;
use crate::model::date;

/// A ruleset as it is kept; who has it is counted when it is shown.
pub(super) struct Rules {
    pub(super) id: String,
    name: String,
    pub(super) region: RegionInfo,
    rules: Vec<FirewallRule>,
    created_us: u64,
}

/// What a new account lets in: SSH and ping.
pub(super) fn usual_rules() -> Vec<FirewallRule> {
    let rule = |protocol, port_range, description: &str| FirewallRule {
        protocol,
        port_range,
        source_network: "0.0.0.0/0".to_owned(),
        description: description.to_owned(),
    };
    vec![
        rule(Protocol::Tcp, Some(PortRange::single(22)), "Allow SSH from anywhere"),
        rule(Protocol::Icmp, None, "Allow ping from anywhere"),
    ]
}

impl World {
    pub(super) fn replace_rules(&mut self, now: Time, bytes: &[u8]) -> Result<Vec<FirewallRule>, Refusal> {
        let (value, _) = body::<PutRules>(bytes)?;
        self.global_rules = firewall(&value, "data")?.unwrap_or_default();
        self.record(now, "firewall_ruleset", "updated", "global");
        Ok(self.global_rules.clone())
    }

    pub(super) fn global_ruleset(&self) -> GlobalRuleset {
        GlobalRuleset {
            id: "global".to_owned(),
            name: "Global Firewall Rules".to_owned(),
            rules: self.global_rules.clone(),
        }
    }

    pub(super) fn change_global_ruleset(&mut self, now: Time, bytes: &[u8]) -> Result<GlobalRuleset, Refusal> {
        let (value, _) = body::<PatchGlobalRuleset>(bytes)?;
        let rules = firewall(&value, "rules")?;
        self.not_at_once()?;
        if let Some(rules) = rules {
            self.global_rules = rules;
            self.record(now, "firewall_ruleset", "updated", "global");
        }
        Ok(self.global_ruleset())
    }

    pub(super) fn list_rulesets(&self, now: Time) -> Vec<Ruleset> {
        self.rulesets.iter().map(|rules| self.ruleset_now(now, rules)).collect()
    }

    pub(super) fn ruleset(&self, now: Time, id: &str) -> Result<Ruleset, Refusal> {
        self.ruleset_at(id).map(|index| self.ruleset_now(now, &self.rulesets[index]))
    }

    pub(super) fn create_ruleset(&mut self, now: Time, bytes: &[u8]) -> Result<Ruleset, Refusal> {
        let (value, request) = body::<CreateRuleset>(bytes)?;
        length("name", &request.name, LONGEST_NAME)?;
        let region = self.region(request.region.as_str())?;
        let rules = firewall(&value, "rules")?.unwrap_or_default();
        self.not_at_once()?;
        if self.faults.number(Name::Quota).is_some_and(|quota| self.rulesets.len() as u64 >= quota) {
            return Err(Refusal::quota());
        }
        let made = Rules { id: self.id(), name: request.name, region, rules, created_us: self.date_us(now) };
        self.record(now, "firewall_ruleset", "created", &made.id);
        let shown = self.ruleset_now(now, &made);
        self.rulesets.push(made);
        Ok(shown)
    }

    /// Works while machines have it: their rules change at once.
    pub(super) fn change_ruleset(&mut self, now: Time, id: &str, bytes: &[u8]) -> Result<Ruleset, Refusal> {
        let index = self.ruleset_at(id)?;
        let (value, request) = body::<PatchRuleset>(bytes)?;
        length("name", request.name.as_deref().unwrap_or_default(), LONGEST_NAME)?;
        let rules = firewall(&value, "rules")?;
        self.not_at_once()?;
        let ruleset = &mut self.rulesets[index];
        ruleset.name = request.name.unwrap_or_else(|| ruleset.name.clone());
        if let Some(rules) = rules {
            ruleset.rules = rules;
        }
        self.record(now, "firewall_ruleset", "updated", id);
        self.ruleset(now, id)
    }

    pub(super) fn delete_ruleset(&mut self, now: Time, id: &str) -> Result<(), Refusal> {
        let index = self.ruleset_at(id)?;
        self.not_at_once()?;
        if self.holders(now, id).next().is_some() {
            return Err(Refusal::ruleset_in_use());
        }
        self.rulesets.remove(index);
        self.record(now, "firewall_ruleset", "deleted", id);
        Ok(())
    }

    /// What a machine lets in: the account's rules and those of its rulesets together, or everything where the firewall has no effect.
    /// (Whether rulesets add to the account's rules or replace them is not documented; adding is the cautious reading.)
    pub(super) fn inbound(&self, machine: &Machine) -> Value {
        if machine.region.name.as_str() == WITHOUT_FIREWALL {
            return Value::from("everything");
        }
        let own = self.rulesets.iter().filter(|ruleset| machine.rulesets.contains(&ruleset.id));
        let rules: Vec<&FirewallRule> =
            self.global_rules.iter().chain(own.flat_map(|ruleset| &ruleset.rules)).collect();
        serde_json::to_value(rules).expect("the wire types have string keys and no failing serialiser")
    }

    fn not_at_once(&mut self) -> Result<(), Refusal> {
        self.edits += 1;
        let one_in = self.faults.number(Name::ConcurrentEdit);
        if one_in.is_some_and(|one_in| self.edits.is_multiple_of(one_in.max(1))) {
            Err(Refusal::conflict())
        } else {
            Ok(())
        }
    }

    fn ruleset_at(&self, id: &str) -> Result<usize, Refusal> {
        let found = self.rulesets.iter().position(|ruleset| ruleset.id == id);
        found.ok_or_else(|| Refusal::missing("Firewall ruleset"))
    }

    fn holders<'a>(&'a self, now: Time, id: &'a str) -> impl Iterator<Item = &'a Machine> {
        let lag_s = self.faults.number(Name::RulesetInUse).unwrap_or(0);
        let has = move |machine: &&Machine| machine.rulesets.iter().any(|held| held == id);
        self.machines.iter().filter(has).filter(move |machine| machine.life.holds(now, lag_s))
    }

    fn ruleset_now(&self, now: Time, rules: &Rules) -> Ruleset {
        Ruleset {
            id: rules.id.clone(),
            name: rules.name.clone(),
            region: rules.region.clone(),
            rules: rules.rules.clone(),
            created: date::iso(rules.created_us),
            instance_ids: self.holders(now, &rules.id).map(|machine| machine.id.clone()).collect(),
        }
    }
}
