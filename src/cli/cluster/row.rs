//! What `gorgo cluster status` says of a node, for people and for programs.

use serde_json::{Map, Value, json};

use crate::cli::human::{self, or_unknown};
use crate::cli::nodes::Node;
use crate::cli::table::{Column, Table};
use crate::cluster::desired::{AgentBinary, Balance, NodeSpec};
use crate::cluster::facts::Facts;
use crate::cluster::layout::Role;
use crate::cluster::script;
use crate::wire::Status;

/// Differences of clocks below this are the network's, ms.
const CLOCK_NOISE_MS: i64 = 1_000;

/// One node.
pub(super) struct Row<'a> {
    pub(super) node: &'a Node,
    /// What it is to be; `None` = it has no machine.
    pub(super) spec: Option<NodeSpec>,
    /// What was seen, or why nothing was, with a hint.
    pub(super) seen: Result<Facts, (String, Option<String>)>,
    /// How `restart-lb` told its agent to balance.
    pub(super) told: Option<Balance>,
}

impl Row<'_> {
    fn facts(&self) -> Option<&Facts> {
        self.seen.as_ref().ok()
    }

    /// What its agent says.
    pub(super) fn agent(&self) -> Option<Status> {
        self.facts()?.status(Role::Agent)
    }

    /// Why it does not serve.
    pub(super) fn trouble(&self) -> Option<String> {
        let facts = match &self.seen {
            Ok(facts) => facts,
            Err((why, _)) => return Some(format!("unreachable: {why}")),
        };
        if Role::ALL.iter().all(|role| !facts.service(*role).installed) {
            return Some("nothing is installed".to_owned());
        }
        let engine = engine_trouble(facts).map(|what| format!("engine {what}"));
        engine.or_else(|| agent_trouble(facts).map(|what| format!("agent {what}")))
    }

    /// `sglang v0.5.19-cu129`, `emulator 0.1.0`.
    fn engine(&self) -> Option<String> {
        let (spec, facts) = (self.spec.as_ref()?, self.facts()?);
        let kind = spec.engine.description().name;
        Some(match self.engine_version(spec, facts) {
            Some(version) => format!("{kind} {version}"),
            None => kind.to_owned(),
        })
    }

    /// The tag of its image; an emulated engine is of the program's version.
    fn engine_version(&self, spec: &NodeSpec, facts: &Facts) -> Option<String> {
        if !facts.service(Role::Engine).installed {
            return None;
        }
        match spec.engine.container() {
            None => version(facts),
            Some(_) => Some(script::image_of(spec, facts)?.rsplit_once(':')?.1.to_owned()),
        }
    }

    /// What the engine calls the model that completed something.
    fn model(&self) -> Option<String> {
        let answer = self.facts()?.answers.get(&Role::Engine)?;
        let body: Value = serde_json::from_str(&answer.body).ok()?;
        body["model"].as_str().map(str::to_owned)
    }

    fn services(&self) -> Option<String> {
        let facts = self.facts()?;
        let installed = Role::ALL.into_iter().filter(|role| facts.service(*role).installed);
        let words: Vec<String> = installed.map(|role| service(role, facts)).collect();
        Some(if words.is_empty() { "none".to_owned() } else { words.join(", ") })
    }
}

/// `engine`, `agent (restarted 2 times)`, `proxy (down)`.
fn service(role: Role, facts: &Facts) -> String {
    let state = facts.service(role);
    let mut notes = Vec::new();
    if !state.running {
        notes.push("down".to_owned());
    }
    match state.restarts {
        0 => {}
        1 => notes.push("restarted once".to_owned()),
        times => notes.push(format!("restarted {times} times")),
    }
    if notes.is_empty() { role.to_string() } else { format!("{role} ({})", notes.join(", ")) }
}

/// Why the engine does not serve. Running is not enough: it must have completed something.
fn engine_trouble(facts: &Facts) -> Option<String> {
    let state = facts.service(Role::Engine);
    match facts.answers.get(&Role::Engine) {
        _ if facts.engine_serves() => None,
        _ if !state.installed => Some("not installed".to_owned()),
        _ if !state.running => Some("down".to_owned()),
        Some(answer) => Some(format!("answers {} without a completion", answer.status)),
        None => Some("does not answer".to_owned()),
    }
}

fn agent_trouble(facts: &Facts) -> Option<String> {
    let state = facts.service(Role::Agent);
    match facts.status(Role::Agent) {
        Some(status) => crate::cluster::step::serves(&status).err().map(|why| format!("cannot serve: {why}")),
        None if !state.installed => Some("not installed".to_owned()),
        None if !state.running => Some("down".to_owned()),
        None => Some("does not answer".to_owned()),
    }
}

/// `0.1.0` of `gorgo 0.1.0`.
fn version(facts: &Facts) -> Option<String> {
    let said = facts.binary_version.as_deref()?;
    match said.strip_prefix("gorgo ").unwrap_or(said) {
        "" => Some("does not start".to_owned()),
        version => Some(version.to_owned()),
    }
}

/// The version there, and whether it is this very program.
fn program(facts: &Facts, own: &AgentBinary) -> Option<String> {
    let version = version(facts)?;
    let same = facts.binary_sha256.as_ref() == Some(&own.sha256);
    let note = match (same, version == env!("CARGO_PKG_VERSION")) {
        (true, _) => "",
        (false, true) => " (another build)",
        (false, false) => " (not this one)",
    };
    Some(version + note)
}

/// `in step`, `+31.2 s`, `-2.0 s`.
fn clock(ahead_ms: i64) -> String {
    if ahead_ms.abs() < CLOCK_NOISE_MS {
        return "in step".to_owned();
    }
    let sign = if ahead_ms > 0 { "+" } else { "-" };
    format!("{sign}{}", human::duration_s(ahead_ms.unsigned_abs() as f64 / 1000.0))
}

/// Two tables, so that each fits on a screen: what is served, and on what.
pub(super) fn tables(rows: &[Row<'_>], own: &AgentBinary) -> String {
    format!("{}\n\n{}", serving(rows, own), machines(rows))
}

fn serving(rows: &[Row<'_>], own: &AgentBinary) -> Table {
    let mut table = Table::new(&[
        Column::Text("node"),
        Column::Text("strategy"),
        Column::Number("in flight"),
        Column::Number("queued"),
        Column::Number("limit"),
        Column::Text("engine"),
        Column::Text("model"),
        Column::Text("gorgo"),
        Column::Text("services"),
        Column::Text("state"),
    ]);
    for row in rows {
        let agent = row.agent();
        let agent = agent.as_ref();
        let limit = |status: &Status| status.max_concurrent.map_or_else(|| "none".to_owned(), |it| it.to_string());
        table.row([
            row.node.name.clone(),
            or_unknown(agent, |it| it.strategy.clone()),
            or_unknown(agent, |it| human::count(it.requests.in_flight)),
            or_unknown(agent, |it| human::count(it.queue.waiting)),
            or_unknown(agent, limit),
            or_unknown(row.engine(), |it| it),
            or_unknown(row.model(), |it| it),
            or_unknown(row.facts().and_then(|facts| program(facts, own)), |it| it),
            or_unknown(row.services(), |it| it),
            row.trouble().unwrap_or_else(|| "serving".to_owned()),
        ]);
    }
    table
}

/// How busy and how full a node's cards are, on average: `97 %, 90 % full`, `8x 50 %, 61 % full`; `None` = it has none.
fn cards(facts: &Facts) -> Option<String> {
    let gpus = &facts.gpus;
    let busy: Option<Vec<u32>> = gpus.iter().map(|gpu| gpu.busy_percent.map(u32::from)).collect();
    let used: Option<u64> = gpus.iter().map(|gpu| gpu.memory_used_mib).sum();
    let all: u64 = gpus.iter().map(|gpu| gpu.memory_mib).sum();
    let count = u32::try_from(gpus.len()).ok().filter(|count| *count > 0)?;
    let busy = busy.map(|busy| format!("{} %", busy.iter().sum::<u32>() / count));
    let full = used.and_then(|used| (100 * used).checked_div(all)).map(|full| format!("{full} % full"));
    let told: Vec<String> = busy.into_iter().chain(full).collect();
    let told = if told.is_empty() { "?".to_owned() } else { told.join(", ") };
    Some(if count == 1 { told } else { format!("{count}x {told}") })
}

/// A column for graphics cards only where there are some.
fn machines(rows: &[Row<'_>]) -> Table {
    let with_cards = rows.iter().filter_map(Row::facts).any(|facts| !facts.gpus.is_empty());
    let mut columns = vec![Column::Text("node"), Column::Text("region"), Column::Text("type"), Column::Text("address")];
    columns.extend(with_cards.then_some(Column::Text("gpu")));
    columns.extend(["disk free", "clock", "price"].map(Column::Number));
    let mut table = Table::new(&columns);
    for row in rows {
        let instance = row.node.instance.as_ref();
        let record = row.node.record.as_ref();
        let region = instance.map(|it| &it.region).or_else(|| record?.region.as_ref());
        let kind = instance.map(|it| &it.instance_type).or_else(|| record?.instance_type.as_ref());
        let mut cells = vec![
            row.node.name.clone(),
            or_unknown(region, ToString::to_string),
            or_unknown(kind.filter(|it| !it.is_empty()), Clone::clone),
            or_unknown(instance.and_then(|it| it.address), |it| it.to_string()),
        ];
        cells.extend(with_cards.then(|| or_unknown(row.facts().and_then(cards), |it| it)));
        cells.extend([
            or_unknown(row.facts(), |it| human::bytes(it.disk_free)),
            or_unknown(row.facts(), |it| clock(it.clock_ahead_ms)),
            or_unknown(instance.and_then(|it| it.price_cents_per_hour), |cents| human::price(cents.into())),
        ]);
        table.row(cells);
    }
    table
}

/// All of it, for programs.
pub(super) fn document(cluster: &str, rows: &[Row<'_>], cents_per_hour: u64, own: &AgentBinary) -> Value {
    let nodes: Vec<Value> = rows.iter().map(|row| entry(row, own)).collect();
    json!({
        "cluster": cluster,
        "gorgo": { "version": env!("CARGO_PKG_VERSION"), "sha256": own.sha256 },
        "nodes": nodes,
        "cents_per_hour": cents_per_hour,
    })
}

fn entry(row: &Row<'_>, own: &AgentBinary) -> Value {
    let instance = row.node.instance.as_ref();
    let mut entry = json!({
        "name": row.node.name,
        "region": instance.map(|it| &it.region),
        "type": instance.map(|it| &it.instance_type),
        "address": instance.and_then(|it| it.address),
        "url": row.spec.as_ref().map(|spec| &spec.url),
        "price_cents_per_hour": instance.and_then(|it| it.price_cents_per_hour),
        "reachable": row.seen.is_ok(),
        "serving": row.trouble().is_none(),
        "trouble": row.trouble(),
        "told": row.told,
    });
    let more = match &row.seen {
        Ok(facts) => seen(row, facts, own),
        Err((_, hint)) => json!({ "hint": hint }),
    };
    if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
        entry.extend(more);
    }
    entry
}

fn seen(row: &Row<'_>, facts: &Facts, own: &AgentBinary) -> Value {
    let services: Map<String, Value> = Role::ALL
        .into_iter()
        .map(|role| (role, facts.service(role)))
        .filter(|(_, state)| state.installed)
        .map(|(role, state)| {
            (role.to_string(), json!({ "running": state.running, "pid": state.pid, "restarts": state.restarts }))
        })
        .collect();
    json!({
        "engine": {
            "up": facts.engine_serves(),
            "kind": row.spec.as_ref().map(|spec| spec.engine.description().name),
            "version": row.spec.as_ref().and_then(|spec| row.engine_version(spec, facts)),
            "model": row.model(),
        },
        "agent": row.agent(),
        "proxy": facts.status(Role::Proxy),
        "services": services,
        "binary": {
            "version": version(facts),
            "sha256": facts.binary_sha256,
            "same": facts.binary_sha256.as_ref().map(|sha256| *sha256 == own.sha256),
        },
        "disk_free_bytes": facts.disk_free,
        "clock_ahead_ms": facts.clock_ahead_ms,
        "os": facts.os,
        "gpus": facts.gpus,
    })
}

#[cfg(test)]
mod tests;
