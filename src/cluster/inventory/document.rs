//! The inventory as written, and the reader that names everything that is wrong with it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::desired::{Balance, EngineChoice, ProxyWish};
use super::super::launch::{LaunchEntry, LaunchState, RunTag};
use super::super::layout::Ports;
use crate::cloud::InstanceId;
use crate::model::Region;

/// Version of the form.
const SCHEMA: &str = "gorgo.cluster/1";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) schema: String,
    pub(super) cluster: String,
    pub(super) provider: String,
    /// How all agents were told to balance, but for those that were told by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) balance: Option<Balance>,
    /// A set-up was told that agents may listen on public addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) allow_public_plaintext: bool,
    pub(super) nodes: Vec<NodeRecord>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Its name; unique in the cluster.
    pub name: String,
    /// How far its launch got, with the id; `None` = a machine that nobody launches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<LaunchState>,
    /// The run that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunTag>,
    /// More machines with its tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<InstanceId>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Its type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Its price, US cents per hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_cents_per_hour: Option<u32>,
    /// Its address, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The name under which its host key is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key_alias: Option<String>,
    /// Public half of the host key that it was given at launch; `None` = the first one that it showed is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// What its services listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// Which engine it was set up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineChoice>,
    /// The central router that stands on it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyWish>,
    /// How its agent was told to balance, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// Finished steps, oldest first; only the last ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<FinishedStep>,
}

/// A step that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedStep {
    /// Its name.
    pub step: String,
    /// When, seconds since 1970.
    pub at: u64,
}

impl Document {
    pub(super) fn new(cluster: &str, provider: &str) -> Self {
        let text = str::to_owned;
        Self {
            schema: text(SCHEMA),
            cluster: text(cluster),
            provider: text(provider),
            balance: None,
            allow_public_plaintext: false,
            nodes: Vec::new(),
        }
    }

    /// What is wrong although every value has the right form.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut names = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut problems = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if !is_name(&node.name) {
                let what = format!("{:?} is no name: letters, digits, `-`, `_` and `.`, at most 64", node.name);
                problems.push(Problem::new(format!("nodes[{at}].name"), what));
            }
            if !names.insert(&node.name) {
                problems.push(Problem::new(format!("nodes[{at}].name"), format!("`{}` stands there twice", node.name)));
            }
            if let Some(id) = node.id().filter(|id| !ids.insert(*id)) {
                let what = format!("machine {id} belongs to two nodes");
                problems.push(Problem::new(format!("nodes[{at}].launch.id"), what));
            }
            if node.run.is_some() != node.launch.is_some() {
                let what = "`launch` and `run` stand there together or not at all".to_owned();
                problems.push(Problem::new(format!("nodes[{at}].launch"), what));
            }
        }
        problems
    }
}

impl NodeRecord {
    /// A node of which nothing is known but its name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            launch: None,
            run: None,
            also: Vec::new(),
            region: None,
            instance_type: None,
            price_cents_per_hour: None,
            address: None,
            host_key_alias: None,
            host_key: None,
            ports: None,
            engine: None,
            proxy: None,
            balance: None,
            steps: Vec::new(),
        }
    }

    /// The provider's id, if it was launched.
    #[must_use]
    pub fn id(&self) -> Option<&InstanceId> {
        match &self.launch {
            Some(LaunchState::Launched { id }) => Some(id),
            _ => None,
        }
    }

    pub(super) fn launch_entry(&self) -> Option<LaunchEntry> {
        Some(LaunchEntry {
            node: self.name.clone(),
            run: self.run.clone()?,
            instance_type: self.instance_type.clone().unwrap_or_default(),
            region: self.region.clone().unwrap_or_else(|| Region::new("")),
            price_cents_per_hour: self.price_cents_per_hour,
            host_key: self.host_key.clone(),
            state: self.launch.clone()?,
            also: self.also.clone(),
        })
    }

    /// A new machine has nothing in common with the one before but the name.
    pub(super) fn set_launch(&mut self, entry: &LaunchEntry) {
        if self.run.as_ref() != Some(&entry.run) {
            *self = Self { ports: None, ..Self::new(&self.name) };
        }
        self.run = Some(entry.run.clone());
        self.launch = Some(entry.state.clone());
        self.also.clone_from(&entry.also);
        self.region = Some(entry.region.clone());
        self.instance_type = Some(entry.instance_type.clone());
        self.price_cents_per_hour = entry.price_cents_per_hour;
        self.host_key.clone_from(&entry.host_key);
    }
}

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key path, e.g. `nodes[1].address`; empty = the whole file.
    pub path: String,
    /// What was found and what was wanted.
    pub what: String,
}

impl Problem {
    fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

/// Reads the file. Each value is tried by itself, so that one mistake does not hide another.
pub(super) fn parse(bytes: &[u8]) -> Result<Document, Vec<Problem>> {
    let whole: Value =
        serde_json::from_slice(bytes).map_err(|error| vec![Problem::new("", format!("not JSON: {error}"))])?;
    let mut problems = Vec::new();
    let Some(top) = whole.as_object() else {
        return Err(vec![Problem::new("", format!("found {}, wanted an object", kind(&whole)))]);
    };
    if top.get("schema").is_some_and(|schema| schema != SCHEMA) {
        let what = format!("found {}, wanted {SCHEMA:?}: another version of gorgo wrote it", top["schema"]);
        return Err(vec![Problem::new("schema", what)]);
    }
    only("", top, &["schema", "cluster", "provider", "balance", "allow_public_plaintext", "nodes"], &mut problems);
    text("schema", top.get("schema"), &mut problems);
    text("cluster", top.get("cluster"), &mut problems);
    one_of("provider", top.get("provider"), &["lambda", "hosts", "local"], &mut problems);
    optional::<Balance>("balance", top.get("balance"), &mut problems);
    optional::<bool>("allow_public_plaintext", top.get("allow_public_plaintext"), &mut problems);
    match top.get("nodes") {
        Some(Value::Array(nodes)) => {
            for (at, value) in nodes.iter().enumerate() {
                node(&format!("nodes[{at}]"), value, &mut problems);
            }
        }
        other => problems.push(wanted("nodes", other, "a list")),
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let document: Document =
        serde_json::from_value(whole).map_err(|error| vec![Problem::new("", error.to_string())])?;
    let problems = document.problems();
    if problems.is_empty() { Ok(document) } else { Err(problems) }
}

/// The keys of a node, each with the reader of its value.
fn node(path: &str, value: &Value, problems: &mut Vec<Problem>) {
    let Some(map) = value.as_object() else { return problems.push(wanted(path, Some(value), "an object")) };
    if !map.contains_key("name") {
        problems.push(wanted(&format!("{path}.name"), None, "a text"));
    }
    for (key, value) in map {
        let path = format!("{path}.{key}");
        let fault = match key.as_str() {
            "name" | "type" | "address" | "host_key_alias" | "host_key" | "run" | "region" => fits::<String>(value),
            "launch" => fits::<LaunchState>(value),
            "also" => fits::<Vec<InstanceId>>(value),
            "price_cents_per_hour" => fits::<u32>(value),
            "ports" => fits::<Ports>(value),
            "engine" => fits::<EngineChoice>(value),
            "proxy" => fits::<ProxyWish>(value),
            "balance" => fits::<Balance>(value),
            "steps" => fits::<Vec<FinishedStep>>(value),
            _ => Err("no such key".to_owned()),
        };
        problems.extend(fault.err().map(|what| Problem::new(path, what)));
    }
}

fn fits<T: for<'a> Deserialize<'a>>(value: &Value) -> Result<(), String> {
    T::deserialize(value).map(|_| ()).map_err(|error| error.to_string())
}

fn optional<T: for<'a> Deserialize<'a>>(path: &str, value: Option<&Value>, problems: &mut Vec<Problem>) {
    let fault = value.and_then(|value| fits::<T>(value).err());
    problems.extend(fault.map(|what| Problem::new(path, what)));
}

fn only(path: &str, map: &Map<String, Value>, known: &[&str], problems: &mut Vec<Problem>) {
    let unknown = map.keys().filter(|key| !known.contains(&key.as_str()));
    problems.extend(unknown.map(|key| Problem::new(format!("{path}{key}"), "no such key")));
}

fn text(path: &str, value: Option<&Value>, problems: &mut Vec<Problem>) {
    if value.and_then(Value::as_str).is_none_or(str::is_empty) {
        problems.push(wanted(path, value, "a text"));
    }
}

fn one_of(path: &str, value: Option<&Value>, known: &[&str], problems: &mut Vec<Problem>) {
    if !value.and_then(Value::as_str).is_some_and(|text| known.contains(&text)) {
        problems.push(wanted(path, value, &format!("one of {}", known.join(", "))));
    }
}

fn wanted(path: &str, value: Option<&Value>, what: &str) -> Problem {
    let found = value.map_or_else(
        || "nothing".to_owned(),
        |value| match value {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => value.to_string(),
            other => kind(other).to_owned(),
        },
    );
    Problem::new(path, format!("found {found}, wanted {what}"))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a switch",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A name that can stand in a path, a tag and a command line.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
