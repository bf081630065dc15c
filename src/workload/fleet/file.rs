//! From the text of a fleet file to a [`Fleet`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml::Table;

use super::entry::Doors;
use super::keys::{Keys, as_number, tables};
use super::{
    Clients, Entry, Fleet, FleetError, Form, Gpu, Hardware, Jitter, OrderKind, Overrides, OwnGpu, Replica, Router,
    SchedulerKind, Speed, StepConstants,
};
use crate::model::Region;
use crate::model::geo::Atlas;
use crate::workload::network::{RttMatrix, check_rtt_ms};

/// Most replicas that `count` may ask for at once.
const MAX_COUNT: u32 = 1000;

/// Largest KV capacity, tokens.
const MAX_KV_TOKENS: u32 = 1_000_000_000;

/// Reached share of the peak in linear layers of whole engines (kernels alone reach .65).
const COMPUTE_EFFICIENCY: f64 = 0.5;

/// Reached share of the memory bandwidth.
const BANDWIDTH_EFFICIENCY: f64 = 0.72;

const STEP_KEYS: [&str; 4] = ["linear_ms", "weights_ms", "quadratic_ms", "context_ms"];
const HARDWARE_KEYS: [&str; 3] = ["tflops", "bandwidth_gb_s", "memory_gib"];

/// The text of a fleet file, found to be TOML.
#[derive(Clone, Debug)]
pub struct FleetFile {
    name: String,
    table: Table,
}

impl FleetFile {
    /// Reads TOML.
    ///
    /// # Errors
    /// Text that is no TOML, with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, FleetError> {
        match text.parse::<Table>() {
            Ok(table) => Ok(Self { name: name.to_owned(), table }),
            Err(error) => {
                Err(FleetError { name: name.to_owned(), problems: vec![error.to_string().trim_end().to_owned()] })
            }
        }
    }

    /// The file that `network.matrix` names, as written; the caller reads it (beside the fleet file if it is relative) and
    /// gives it to [`Self::resolve`].
    #[must_use]
    pub fn matrix(&self) -> Option<&str> {
        self.table.get("network")?.get("matrix")?.as_str()
    }

    /// Checks everything and fills in what the file leaves open. `matrix` is the table that [`Self::matrix`] names, else the
    /// built-in one is used; `network.rtt_ms` stands before both. `check_engine` says whether a GPU can run a model, and if not
    /// why not.
    ///
    /// # Errors
    /// All problems of the file at once.
    pub fn resolve(
        &self,
        matrix: Option<RttMatrix>,
        check_engine: &dyn Fn(&Gpu, &str) -> Result<(), String>,
    ) -> Result<Fleet, FleetError> {
        let mut problems = Vec::new();
        let form = self.form(&mut problems);
        let gpus = gpus(&self.table, &mut problems);
        let engines = Engines { own: &gpus, declared: gpu_names(&self.table), check: check_engine };
        let replicas = replicas(&self.table, &engines, &mut problems);
        let routers = routers(&self.table, &mut problems);
        let (rtt, jitter) = network(&self.table, matrix, &mut problems);
        check_pairs(&routers, &replicas, &rtt, &mut problems);
        let mut places = Atlas::default();
        places.add_places(self.table.get("places"), &mut problems);
        let entry = entry(&self.table, &mut problems);
        let doors = Doors { routers: &routers, rtt: &rtt, places: &places };
        let clients = clients(&self.table, (&doors, entry), &mut problems);
        if problems.is_empty() {
            Ok(Fleet { routers, form, replicas, clients, entry, places: Arc::new(places), rtt, jitter })
        } else {
            Err(FleetError { name: self.name.clone(), problems })
        }
    }

    /// The one key outside of all tables; notes the names of tables that nobody knows.
    fn form(&self, problems: &mut Vec<String>) -> Form {
        let known = ["entry", "form", "router", "replica", "clients", "gpu", "network", "places"];
        for key in self.table.keys().filter(|key| !known.contains(&key.as_str())) {
            problems.push(format!("{key}: unknown key; known are {}", known.join(", ")));
        }
        let words = [("agents", Form::Agents), ("direct", Form::Direct)];
        Keys::new("", &self.table, problems).word("form", &words).unwrap_or_default()
    }
}

/// The file's own GPUs by name.
fn gpus(file: &Table, problems: &mut Vec<String>) -> BTreeMap<String, Arc<OwnGpu>> {
    let mut gpus = BTreeMap::new();
    for (path, table) in tables(file, "gpu", problems) {
        let mut keys = Keys::new(&path, table, problems);
        let name = keys.text("name");
        let name = keys.required("name", name);
        let usd_per_hour = keys.number("usd_per_hour", 0.0..=10_000.0);
        let speed = speed(&mut keys);
        let is_new = name.as_ref().is_none_or(|name| !gpus.contains_key(name));
        if !is_new {
            keys.problem("name", "the second GPU of this name");
        }
        keys.finish();
        if let (Some(name), Some(speed), true) = (name, speed, is_new) {
            gpus.insert(name.clone(), Arc::new(OwnGpu { name, speed, usd_per_hour }));
        }
    }
    gpus
}

/// The names of the file's own GPUs, whatever else they lack.
fn gpu_names(file: &Table) -> BTreeSet<&str> {
    let gpus = file.get("gpu").and_then(|gpus| gpus.as_array());
    gpus.into_iter().flatten().filter_map(|gpu| gpu.get("name")?.as_str()).collect()
}

/// The constants of a GPU, in the form whose keys are there.
fn speed(keys: &mut Keys<'_>) -> Option<Speed> {
    let (steps, hardware) = (STEP_KEYS.iter().any(|key| keys.has(key)), HARDWARE_KEYS.iter().any(|key| keys.has(key)));
    match (steps, hardware) {
        (true, false) => step_constants(keys).map(Speed::Steps),
        (false, true) => hardware_figures(keys).map(Speed::Hardware),
        (both, _) => {
            let found = if both { "keys of both forms" } else { "keys of neither form" };
            let (steps, hardware) = (STEP_KEYS.join(", "), HARDWARE_KEYS.join(", "));
            let wanted = format!("step constants ({steps}, kv_tokens) or figures of the hardware ({hardware})");
            let keys_of_both = [STEP_KEYS.as_slice(), &HARDWARE_KEYS].concat();
            keys.problem_of(&keys_of_both, &format!("found {found}; wanted either {wanted}"));
            None
        }
    }
}

fn step_constants(keys: &mut Keys<'_>) -> Option<StepConstants> {
    let mut must = |key| {
        let ms = keys.number(key, 0.0..=1e6);
        keys.required(key, ms)
    };
    let [linear_ms, weights_ms, quadratic_ms, context_ms] = STEP_KEYS.map(&mut must);
    let mut may = |key| keys.number(key, 0.0..=1e6).unwrap_or(0.0);
    let (fixed_ms, decoding_ms, request_ms) = (may("fixed_ms"), may("decoding_ms"), may("request_ms"));
    let kv_tokens = keys.count("kv_tokens", 1..=MAX_KV_TOKENS);
    let kv_tokens = keys.required("kv_tokens", kv_tokens)?.into();
    Some(StepConstants {
        fixed_ms,
        weights_ms: weights_ms?,
        linear_ms: linear_ms?,
        quadratic_ms: quadratic_ms?,
        context_ms: context_ms?,
        decoding_ms,
        request_ms,
        kv_tokens,
    })
}

fn hardware_figures(keys: &mut Keys<'_>) -> Option<Hardware> {
    let mut must = |key| {
        let figure = keys.number(key, 1e-3..=1e6);
        keys.required(key, figure)
    };
    let [tflops, bandwidth_gb_s, memory_gib] = HARDWARE_KEYS.map(&mut must);
    let fp8_tflops = keys.number("fp8_tflops", 1e-3..=1e6);
    let compute_efficiency = keys.number("compute_efficiency", 0.01..=1.0).unwrap_or(COMPUTE_EFFICIENCY);
    let bandwidth_efficiency = keys.number("bandwidth_efficiency", 0.01..=1.0).unwrap_or(BANDWIDTH_EFFICIENCY);
    Some(Hardware {
        tflops: tflops?,
        fp8_tflops,
        bandwidth_gb_s: bandwidth_gb_s?,
        memory_gib: memory_gib?,
        compute_efficiency,
        bandwidth_efficiency,
    })
}

/// What a `[[replica]]` is checked against.
struct Engines<'a> {
    /// The file's own GPUs that can be used.
    own: &'a BTreeMap<String, Arc<OwnGpu>>,
    /// Names of all its own GPUs; what is wrong with one is told once, where it stands.
    declared: BTreeSet<&'a str>,
    check: &'a dyn Fn(&Gpu, &str) -> Result<(), String>,
}

fn replicas(file: &Table, engines: &Engines<'_>, problems: &mut Vec<String>) -> Vec<Replica> {
    let tables = tables(file, "replica", problems);
    if tables.is_empty() {
        problems.push("replica: missing; at least one `[[replica]]` is wanted".to_owned());
    }
    let mut names = BTreeSet::new();
    let mut replicas = Vec::new();
    for (path, table) in tables {
        let mut keys = Keys::new(&path, table, problems);
        replicas.extend(replica(&mut keys, engines, &mut names));
        keys.finish();
    }
    replicas
}

/// The replicas of one table; none if something that they need is wrong.
fn replica(keys: &mut Keys<'_>, engines: &Engines<'_>, names: &mut BTreeSet<String>) -> Vec<Replica> {
    let [name, region, gpu, model] = ["name", "region", "gpu", "model"].map(|key| {
        let text = keys.text(key);
        keys.required(key, text)
    });
    let count = if keys.has("count") { keys.count("count", 1..=MAX_COUNT) } else { Some(1) };
    let overrides = overrides(keys);
    let gpu = gpu.map(|id| engines.find(keys, id, model.as_deref()));
    let names_here = name.zip(count).map(|(name, count)| numbered(&name, count)).unwrap_or_default();
    for name in &names_here {
        if !names.insert(name.clone()) {
            keys.problem("name", &format!("the second replica called `{name}`"));
        }
    }
    let (Some(region), Some(gpu), Some(model)) = (region, gpu, model) else { return Vec::new() };
    let one = Replica { name: String::new(), region: Region::new(&region), gpu, model, overrides };
    names_here.into_iter().map(|name| Replica { name, ..one.clone() }).collect()
}

impl Engines<'_> {
    /// The GPU with this id, checked against the model unless the file's own table is broken.
    fn find(&self, keys: &mut Keys<'_>, id: String, model: Option<&str>) -> Gpu {
        let is_broken = !self.own.contains_key(&id) && self.declared.contains(id.as_str());
        let gpu = self.own.get(&id).map_or(Gpu::Preset(id), |own| Gpu::Own(own.clone()));
        let verdict = model.filter(|_| !is_broken).map(|model| (self.check)(&gpu, model));
        if let Some(Err(why)) = verdict {
            keys.problem("gpu", &why);
        }
        gpu
    }
}

impl Fleet {
    /// Changes what is written in `text` on every replica: keys of a `[[replica]]` table that describe its engine, such as `chunk = 2048`.
    ///
    /// # Errors
    /// All that is wrong with the text.
    pub fn change_engines(&mut self, text: &str) -> Result<(), FleetError> {
        let file = FleetFile::parse("engine", text)?;
        let mut problems = Vec::new();
        let mut keys = Keys::new("", &file.table, &mut problems);
        let changed = overrides(&mut keys);
        keys.finish();
        if !problems.is_empty() {
            return Err(FleetError { name: file.name, problems });
        }
        for replica in &mut self.replicas {
            let own = &mut replica.overrides;
            own.kv_tokens = changed.kv_tokens.or(own.kv_tokens);
            own.max_running = changed.max_running.or(own.max_running);
            own.chunk = changed.chunk.or(own.chunk);
            own.block = changed.block.or(own.block);
            own.scheduler = changed.scheduler.or(own.scheduler);
            own.order = changed.order.or(own.order);
        }
        Ok(())
    }
}

/// `east`, or `east-1` to `east-n`.
fn numbered(name: &str, count: u32) -> Vec<String> {
    if count == 1 { vec![name.to_owned()] } else { (1..=count).map(|k| format!("{name}-{k}")).collect() }
}

fn overrides(keys: &mut Keys<'_>) -> Overrides {
    let schedulers = [("prefill-first", SchedulerKind::PrefillFirst), ("mixed", SchedulerKind::Mixed)];
    let orders = [("arrival", OrderKind::Arrival), ("longest-prefix", OrderKind::LongestPrefix)];
    Overrides {
        kv_tokens: keys.count("kv_tokens", 1..=MAX_KV_TOKENS).map(u64::from),
        max_running: keys.count("max_running", 1..=100_000),
        chunk: keys.count("chunk", 1..=10_000_000),
        block: keys.count("block", 1..=65_536),
        scheduler: keys.word("scheduler", &schedulers),
        order: keys.word("order", &orders),
    }
}

fn routers(file: &Table, problems: &mut Vec<String>) -> Vec<Router> {
    let tables = tables(file, "router", problems);
    if tables.is_empty() {
        problems.push("router: missing; at least one `[[router]]` is wanted".to_owned());
    }
    let with_share = tables.iter().filter(|(_, table)| table.contains_key("share")).count();
    let mut routers: Vec<Router> = Vec::new();
    for (path, table) in &tables {
        let mut keys = Keys::new(path, table, problems);
        let region = keys.text("region");
        let region = keys.required("region", region).map(|region| Region::new(&region));
        let share = keys.number("share", 1e-6..=1e6);
        if with_share > 0 && !keys.has("share") {
            keys.problem("share", "missing; either all routers have one or none has");
        }
        if routers.iter().any(|router| Some(&router.region) == region.as_ref()) {
            keys.problem("region", "the second router of this region");
        }
        keys.finish();
        routers.extend(region.map(|region| Router { region, share: share.unwrap_or(1.0) }));
    }
    let sum: f64 = routers.iter().map(|router| router.share).sum();
    for router in &mut routers {
        router.share /= sum;
    }
    routers
}

/// How clients find their routers.
fn entry(file: &Table, problems: &mut Vec<String>) -> Entry {
    let Some(value) = file.get("entry") else { return Entry::default() };
    let entry = value.as_str().ok_or_else(|| format!("found {value}; wanted text")).and_then(str::parse);
    entry.unwrap_or_else(|problem| {
        problems.push(format!("entry: {problem}"));
        Entry::default()
    })
}

/// The `[[clients]]`, each with its nearest router; without any, clients stand beside the routers.
fn clients(file: &Table, (doors, entry): (&Doors<'_>, Entry), problems: &mut Vec<String>) -> Vec<Clients> {
    let mut clients: Vec<Clients> = Vec::new();
    for (path, table) in &tables(file, "clients", problems) {
        let mut keys = Keys::new(path, table, problems);
        let region = keys.text("region");
        let region = keys.required("region", region).map(|region| Region::new(&region));
        let share = keys.number("share", 1e-6..=1e6);
        let share = keys.required("share", share);
        if clients.iter().any(|group| Some(&group.region) == region.as_ref()) {
            keys.problem("region", "the second clients of this region");
        }
        let router = region.as_ref().map(|region| doors.choose(region, entry));
        if let (Some(Err(problem)), false) = (&router, doors.routers.is_empty()) {
            keys.problem("region", problem);
        }
        keys.finish();
        if let (Some(region), Some(share), Some(Ok(router))) = (region, share, router) {
            clients.push(Clients { region, share, router });
        }
    }
    if clients.is_empty() {
        let beside = |(router, at): (usize, &Router)| Clients { region: at.region.clone(), share: at.share, router };
        return doors.routers.iter().enumerate().map(beside).collect();
    }
    let sum: f64 = clients.iter().map(|group| group.share).sum();
    for group in &mut clients {
        group.share /= sum;
    }
    clients
}

fn network(file: &Table, matrix: Option<RttMatrix>, problems: &mut Vec<String>) -> (RttMatrix, Jitter) {
    let empty = Table::new();
    let table = match file.get("network") {
        None => &empty,
        Some(value) => value.as_table().unwrap_or_else(|| {
            problems.push(format!("network: found {value}; wanted a table"));
            &empty
        }),
    };
    let mut keys = Keys::new("network", table, problems);
    let named = keys.text("matrix");
    if named.is_some() && matrix.is_none() {
        keys.problem("matrix", "the file was not read");
    }
    let mut rtt = matrix.unwrap_or_else(RttMatrix::built_in);
    let words = [("none", Jitter::None), ("backbone", Jitter::Backbone), ("internet", Jitter::Internet)];
    let jitter = keys.word("jitter", &words).unwrap_or_default();
    match keys.value("rtt_ms") {
        None => {}
        Some(toml::Value::Table(pairs)) => set_pairs(&mut keys, pairs, &mut rtt),
        Some(other) => keys.problem("rtt_ms", &format!("found {other}; wanted a table such as {{ \"a/b\" = 97 }}")),
    }
    keys.finish();
    (rtt, jitter)
}

fn set_pairs(keys: &mut Keys<'_>, pairs: &Table, rtt: &mut RttMatrix) {
    let mut set: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for (pair, value) in pairs {
        let path = format!("rtt_ms.\"{pair}\"");
        let Some((a, b)) = pair.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
            keys.problem(&path, "wanted two regions, such as \"us-east-1/europe-central-1\"");
            continue;
        };
        let ms = as_number(value).ok_or_else(|| format!("found {value}; wanted an RTT in ms")).and_then(check_rtt_ms);
        match ms {
            Err(problem) => keys.problem(&path, &problem),
            Ok(ms) if set.get(&(b, a)).is_some_and(|back| *back != ms) => {
                keys.problem(&path, "differs from the other direction; an RTT has one value");
            }
            Ok(ms) => {
                set.insert((a, b), ms);
                rtt.set(&Region::new(a), &Region::new(b), ms);
            }
        }
    }
}

/// Every router has to know its way to every replica.
fn check_pairs(routers: &[Router], replicas: &[Replica], rtt: &RttMatrix, problems: &mut Vec<String>) {
    let mut told = BTreeSet::new();
    for router in routers {
        for replica in replicas {
            let pair = (&router.region, &replica.region);
            if rtt.rtt_ms(pair.0, pair.1).is_none() && told.insert(pair) {
                problems.push(format!(
                    "network.rtt_ms: no RTT between {} and {}; add \"{}/{}\" = …",
                    pair.0, pair.1, pair.0, pair.1
                ));
            }
        }
    }
}
