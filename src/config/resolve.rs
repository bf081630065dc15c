//! Flags over file over defaults, with the origin of every value and everything that is wrong with the outcome.

use std::collections::BTreeMap;
use std::fmt;
// The type only; sockets are opened elsewhere.
use core::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;

use super::face::{Face, FaceFlags};
use super::file::File;
use super::keys;
use super::problem::Problem;
use super::read::Document;
use super::replica::{ReplicaEntry, check_names};
use super::slo::SloFlags;
use crate::routing::Slo;
use crate::routing::policy::{Parameters, registry};

/// What was given on the command line of `gorgo proxy start`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--admin`.
    pub admin: Option<SocketAddr>,
    /// `--strategy`.
    pub strategy: Option<String>,
    /// `--max-concurrent`.
    pub max_concurrent: Option<u32>,
    /// `--set`, by key.
    pub weights: BTreeMap<String, f64>,
    /// `--replica`; if there are any, those of the file are left out.
    pub replicas: Vec<ReplicaEntry>,
    /// `--slo`.
    pub slo: SloFlags,
    /// About clients.
    pub face: FaceFlags,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// This line of the file.
    File(usize),
    /// Neither says anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.pad("flag"),
            Self::File(line) => f.pad(&format!("line {line}")),
            Self::Default => f.pad("default"),
        }
    }
}

/// One value that applies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Key path, e.g. `proxy.listen`.
    pub key: String,
    /// The value; `null` = none.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// What a central proxy is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    /// Address for requests.
    pub listen: SocketAddr,
    /// Address of the admin API.
    pub admin: SocketAddr,
    /// Registered strategy.
    pub strategy: String,
    /// Its weights and rates that differ from its own defaults.
    pub weights: BTreeMap<String, f64>,
    /// Most requests running per replica; `None` = the strategy's own rule.
    pub max_concurrent: Option<u32>,
    /// Most requests in the router's queue.
    pub queue_limit: u64,
    /// Longest wait there, ms.
    pub queue_timeout_ms: u64,
    /// Most replicas that one request is tried at.
    pub max_attempts: u32,
    /// Seed of the strategies that draw lots.
    pub seed: u64,
    /// Ask engines for usage.
    pub inject_usage: bool,
    /// What is promised to requests.
    pub slo: Slo,
    /// Region patterns by residency class.
    pub residency: BTreeMap<String, Vec<String>>,
    /// Residency class by pattern of a model's name.
    pub residency_by_model: BTreeMap<String, String>,
    /// What clients see.
    pub face: Face,
    /// The engines, each with the common engine and model filled in.
    pub replicas: Vec<ReplicaEntry>,
    /// Limits and intervals.
    pub limits: Limits,
}

/// Limits and intervals of `[proxy]`; the meaning of each stands in [`keys::SECTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of keys documents each")]
pub struct Limits {
    pub max_connections: u64,
    pub max_body_bytes: u64,
    pub max_bodies_bytes: u64,
    pub max_header_bytes: u64,
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub body_total_timeout_ms: u64,
    pub keep_alive_ms: u64,
    pub write_timeout_ms: u64,
    pub upstream_timeout_ms: u64,
    pub stream_timeout_ms: u64,
    pub drain_timeout_ms: u64,
    pub rtt_every_ms: u64,
    pub gauges_every_ms: u64,
    pub decisions_kept: u64,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// What to do; to be used only if there was no problem.
    pub proxy: Proxy,
    /// Every value with its origin, in the order of the table of keys.
    pub settings: Vec<Setting>,
    /// What is in the file and does not apply, in words.
    pub left_out: Vec<String>,
}

/// Puts flags over the file over the defaults. Problems of the file's own spelling are [`read()`](super::read())'s.
#[must_use]
pub fn resolve(document: &Document, flags: &Flags) -> (Resolved, Vec<Problem>) {
    let mut resolver = Resolver::new(document);
    let proxy = resolver.proxy(flags);
    (Resolved { proxy, settings: resolver.settings, left_out: resolver.left_out }, resolver.problems)
}

pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) settings: Vec<Setting>,
    pub(super) left_out: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self { document, settings: Vec::new(), left_out: Vec::new(), problems: Vec::new() }
    }

    fn proxy(&mut self, flags: &Flags) -> Proxy {
        let file = &self.document.file;
        let strategy = self.strategy(flags);
        let replicas = self.replicas(flags);
        let weights = self.weights(flags, &strategy);
        let routing = &file.routing;
        let max_concurrent = self.pick("routing.max_concurrent", flags.max_concurrent, routing.max_concurrent);
        if max_concurrent == Some(0) {
            self.wrong("routing.max_concurrent", "--max-concurrent", "0 would never run anything; wanted 1 or more");
        }
        let queue_limit = self.or_default("routing.queue_limit", routing.queue_limit);
        let queue_timeout_ms = self.or_default("routing.queue_timeout_ms", routing.queue_timeout_ms);
        let max_attempts = self.or_default("routing.max_attempts", routing.max_attempts);
        let seed = self.or_default("routing.seed", routing.seed);
        let inject_usage = self.or_default("routing.inject_usage", routing.inject_usage);
        let slo = self.slo(&flags.slo, &strategy);
        self.residency();
        let residency_by_model = self.residency_by_model();
        let (listen, admin) = self.addresses(flags);
        let face = self.face(&flags.face);
        self.admin(admin, &face);
        let limits = self.limits(file);
        Proxy {
            listen,
            admin,
            strategy,
            weights,
            max_concurrent,
            queue_limit,
            queue_timeout_ms,
            max_attempts,
            seed,
            inject_usage,
            slo,
            residency: file.residency.clone(),
            residency_by_model,
            face,
            replicas,
            limits,
        }
    }

    fn strategy(&mut self, flags: &Flags) -> String {
        let file = self.document.file.cluster.strategy.clone();
        let default = || parsed("cluster.strategy");
        let strategy = self.pick("cluster.strategy", flags.strategy.clone(), file).unwrap_or_else(default);
        if let Err(error) = registry::find(&strategy) {
            self.wrong("cluster.strategy", "--strategy", &error.to_string());
        }
        strategy
    }

    /// The weights of the file belong to the strategy of the file: another one from the command line leaves them out.
    fn weights(&mut self, flags: &Flags, strategy: &str) -> BTreeMap<String, f64> {
        let of_file: String = self.document.file.cluster.strategy.clone().unwrap_or_else(|| parsed("cluster.strategy"));
        let mut weights = BTreeMap::new();
        let written = &self.document.file.routing.weights;
        if of_file == strategy {
            weights.clone_from(written);
        } else if !written.is_empty() {
            self.left_out
                .push(format!("the weights of the file belong to `{of_file}` and do not apply to `{strategy}`"));
        }
        weights.extend(flags.weights.clone());
        let entry = registry::find(strategy).ok();
        for (key, value) in &weights {
            let path = format!("routing.weights.{key}");
            let given = flags.weights.get(key).copied();
            self.pick(&path, given, Some(*value));
            let known = entry.map(|entry| Parameters::resolve(entry.name, entry.parameters, &[(key.clone(), *value)]));
            if let Some(Err(error)) = known {
                let flag = format!("--set {key}");
                self.wrong(&path, &flag, &error.to_string());
            }
        }
        weights
    }

    fn replicas(&mut self, flags: &Flags) -> Vec<ReplicaEntry> {
        let cluster = &self.document.file.cluster;
        let engine = self.pick("cluster.engine", None, cluster.engine.clone());
        let model = self.pick("cluster.model", None, cluster.model.clone());
        let from_flags = !flags.replicas.is_empty();
        if from_flags && !self.document.file.replica.is_empty() {
            self.left_out.push("the replicas of the file do not apply, `--replica` names others".to_owned());
        }
        let mut replicas = if from_flags { flags.replicas.clone() } else { self.document.file.replica.clone() };
        let lines = &self.document.lines;
        let place = |i: usize, key: &str| {
            let path = format!("replica[{i}].{key}");
            let line = lines.get(&path).or_else(|| lines.get(&format!("replica[{i}]"))).copied();
            if from_flags { (format!("--replica {}: {}", i + 1, key.replace('_', "-")), None) } else { (path, line) }
        };
        for (i, replica) in replicas.iter().enumerate() {
            replica.check(&|key| place(i, key), &mut self.problems);
        }
        let named = replicas.iter().enumerate().map(|(i, replica)| {
            let (path, line) = place(i, "name");
            (path, line, replica)
        });
        check_names(named, &mut self.problems);
        for (i, replica) in replicas.iter_mut().enumerate() {
            self.note_replica(i, replica, from_flags);
            replica.engine = replica.engine.take().or_else(|| engine.clone());
            replica.models = replica.models.take().or_else(|| model.clone().map(|model| vec![model]));
        }
        replicas
    }

    /// Notes the keys that a replica sets itself.
    fn note_replica(&mut self, i: usize, replica: &ReplicaEntry, from_flags: bool) {
        let Ok(Value::Object(keys)) = serde_json::to_value(replica) else { return };
        let section = keys::section("replica").map_or(&[][..], keys::Section::keys);
        for key in section {
            let Some(value) = keys.get(key.name).filter(|value| !value.is_null()) else { continue };
            let path = format!("replica[{i}].{}", key.name);
            let origin = if from_flags { Origin::Flag } else { self.in_file(&path) };
            self.settings.push(Setting { key: path, value: value.clone(), origin });
        }
    }

    fn residency(&mut self) {
        for (class, patterns) in &self.document.file.residency {
            self.pick(&format!("residency.{class}"), None, Some(patterns.clone()));
        }
    }

    fn addresses(&mut self, flags: &Flags) -> (SocketAddr, SocketAddr) {
        let file = &self.document.file.proxy;
        let listen = self.address("proxy.listen", flags.listen, file.listen.as_deref());
        let admin = self.address("proxy.admin", flags.admin, file.admin.as_deref());
        if listen == admin && listen.port() != 0 {
            self.wrong(
                "proxy.admin",
                "--admin",
                &format!("{admin} is the address for requests already; wanted another port"),
            );
        }
        (listen, admin)
    }

    fn address(&mut self, path: &str, flag: Option<SocketAddr>, file: Option<&str>) -> SocketAddr {
        let default: String = parsed(path);
        let default: SocketAddr = default.parse().expect("the documented defaults are addresses; a test reads them");
        let text = file.map(str::to_owned);
        let chosen = self.pick(path, flag.map(|address| address.to_string()), text);
        let Some(text) = chosen else { return default };
        text.parse().unwrap_or_else(|_| {
            self.wrong(path, path, &format!("`{text}` is not ADDRESS:PORT; wanted e.g. {default}"));
            default
        })
    }

    fn limits(&mut self, file: &File) -> Limits {
        let proxy = &file.proxy;
        Limits {
            max_connections: self.or_default("proxy.max_connections", proxy.max_connections),
            max_body_bytes: self.or_default("proxy.max_body_bytes", proxy.max_body_bytes),
            max_bodies_bytes: self.or_default("proxy.max_bodies_bytes", proxy.max_bodies_bytes),
            max_header_bytes: self.or_default("proxy.max_header_bytes", proxy.max_header_bytes),
            header_timeout_ms: self.or_default("proxy.header_timeout_ms", proxy.header_timeout_ms),
            body_timeout_ms: self.or_default("proxy.body_timeout_ms", proxy.body_timeout_ms),
            body_total_timeout_ms: self.or_default("proxy.body_total_timeout_ms", proxy.body_total_timeout_ms),
            keep_alive_ms: self.or_default("proxy.keep_alive_ms", proxy.keep_alive_ms),
            write_timeout_ms: self.or_default("proxy.write_timeout_ms", proxy.write_timeout_ms),
            upstream_timeout_ms: self.or_default("proxy.upstream_timeout_ms", proxy.upstream_timeout_ms),
            stream_timeout_ms: self.or_default("proxy.stream_timeout_ms", proxy.stream_timeout_ms),
            drain_timeout_ms: self.or_default("proxy.drain_timeout_ms", proxy.drain_timeout_ms),
            rtt_every_ms: self.or_default("proxy.rtt_every_ms", proxy.rtt_every_ms),
            gauges_every_ms: self.or_default("proxy.gauges_every_ms", proxy.gauges_every_ms),
            decisions_kept: self.or_default("proxy.decisions_kept", proxy.decisions_kept),
        }
    }

    /// Flag over file, noted with its origin (the documented default where there is neither).
    pub(super) fn pick<T: Serialize>(&mut self, path: &str, flag: Option<T>, file: Option<T>) -> Option<T> {
        let (chosen, origin) = match (flag, file) {
            (Some(value), _) => (Some(value), Origin::Flag),
            (None, Some(value)) => (Some(value), self.in_file(path)),
            (None, None) => (None, Origin::Default),
        };
        let value = match &chosen {
            Some(value) => serde_json::to_value(value).unwrap_or(Value::Null),
            None => keys::default(path).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null),
        };
        self.settings.push(Setting { key: path.to_owned(), value, origin });
        chosen
    }

    /// File over the documented default.
    fn or_default<T: Serialize + serde::de::DeserializeOwned>(&mut self, path: &str, file: Option<T>) -> T {
        self.pick(path, None, file).unwrap_or_else(|| parsed(path))
    }

    fn in_file(&self, path: &str) -> Origin {
        Origin::File(self.document.lines.get(path).copied().unwrap_or(1))
    }

    /// A problem with the value at `path`, placed where that value comes from.
    pub(super) fn wrong(&mut self, path: &str, flag: &str, message: &str) {
        let origin = self.settings.iter().rev().find(|setting| setting.key == path).map(|setting| setting.origin);
        self.problems.push(match origin {
            Some(Origin::Flag) => Problem::new(flag, message),
            Some(Origin::File(line)) => Problem::new(path, message).at(Some(line)),
            _ => Problem::new(path, message),
        });
    }
}

/// The documented default of a key. TOML's literals for text, numbers and switches are JSON's.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(path: &str) -> T {
    keys::default(path)
        .and_then(|text| serde_json::from_str(text).ok())
        .expect("only keys with a default are asked for; a test resolves an empty file")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Flags, Problem, Resolved, resolve};
    use crate::config::keys::SECTIONS;
    use crate::config::read::read;
    use crate::config::replica::ReplicaEntry;

    fn resolved(text: &str, flags: &Flags) -> (Resolved, Vec<Problem>) {
        let (document, problems) = read(text);
        assert_eq!(problems, vec![], "the text itself is right");
        resolve(&document, flags)
    }

    fn lines<T: ToString>(items: &[T]) -> String {
        items.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn an_empty_file_gives_the_documented_defaults() {
        let (resolved, problems) = resolved("", &Flags::default());
        assert_eq!(problems, vec![]);
        let of_fleet = crate::config::fleet(&crate::config::Document::default(), None).0.settings;
        let all: Vec<_> = resolved.settings.iter().chain(&of_fleet).collect();
        for section in &SECTIONS {
            for key in section.keys().iter().filter(|key| !key.default.is_empty()) {
                let path = format!("{}.{}", section.name, key.name);
                let setting = all.iter().find(|setting| setting.key == path).expect(&path);
                assert_eq!(setting.value.to_string(), key.default, "{path}");
            }
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_both_over_the_default() {
        let text = "[cluster]\nstrategy = \"gorgo\"\nengine = \"vllm\"\nmodel = \"m\"\n[[replica]]\nname = \"a\"\nurl = \"http://a\"\n\
                    region = \"eu\"\n[routing]\nseed = 3\nweights = { w_queue = 0.2 }\n[residency]\neu = [\"europe-*\"]\n[proxy]\nlisten = \"0.0.0.0:80\"\n";
        let flags = Flags {
            listen: Some(([127, 0, 0, 1], 9000).into()),
            max_concurrent: Some(5),
            weights: [("w_rtt".to_owned(), 2.0)].into(),
            ..Flags::default()
        };
        let (resolved, problems) = resolved(text, &flags);
        assert_eq!(problems, vec![]);
        let shown: Vec<_> = resolved
            .settings
            .iter()
            .filter(|setting| !setting.key.starts_with("proxy.") || setting.key.contains("listen"))
            .map(|setting| format!("{:<24} {:<24} {}", setting.key, setting.value.to_string(), setting.origin))
            .collect();
        assert_snapshot!(lines(&shown), @r#"
        cluster.strategy         "gorgo"                  line 2
        cluster.engine           "vllm"                   line 3
        cluster.model            "m"                      line 4
        replica[0].name          "a"                      line 6
        replica[0].url           "http://a"               line 7
        replica[0].region        "eu"                     line 8
        routing.weights.w_queue  0.2                      line 11
        routing.weights.w_rtt    2.0                      flag
        routing.max_concurrent   5                        flag
        routing.queue_limit      10000                    default
        routing.queue_timeout_ms 60000                    default
        routing.max_attempts     3                        default
        routing.seed             3                        line 10
        routing.inject_usage     false                    default
        slo.ttft_ms              null                     default
        slo.itl_ms               null                     default
        slo.late                 "refuse"                 default
        residency.eu             ["europe-*"]             line 13
        proxy.listen             "127.0.0.1:9000"         flag
        "#);
        let replica = &resolved.proxy.replicas[0];
        assert_eq!((replica.engine.as_deref(), replica.models.as_deref()), (Some("vllm"), Some(&["m".to_owned()][..])));
    }

    #[test]
    fn replicas_of_flags_take_the_place_of_those_in_the_file() {
        let given = ReplicaEntry {
            name: Some("b".into()),
            url: Some("http://b".into()),
            region: Some("us".into()),
            ..ReplicaEntry::default()
        };
        let flags = Flags { replicas: vec![given.clone()], ..Flags::default() };
        let (resolved, problems) = resolved("[[replica]]\nname = \"a\"\n", &flags);
        assert_eq!(resolved.left_out.len(), 1, "and that is said");
        assert_eq!((resolved.proxy.replicas, problems), (vec![given], vec![]));
    }

    #[test]
    fn weights_of_the_file_stay_with_the_strategy_of_the_file() {
        let text = "[routing.weights]\nw_queue = 0.2\n";
        let other = Flags { strategy: Some("round-robin".into()), ..Flags::default() };
        let (resolved, problems) = resolved(text, &other);
        assert_eq!((resolved.proxy.weights.len(), problems), (0, vec![]));
        assert_eq!(
            resolved.left_out,
            ["the weights of the file belong to `predictive` and do not apply to `round-robin`"]
        );
    }

    #[test]
    fn what_cannot_work_is_told_by_key_and_line_or_by_flag() {
        let text = "[cluster]\nstrategy = \"gorgoo\"\n[[replica]]\nname = \"a\"\n[[replica]]\nname = \"a\"\nurl = \"a\"\nregion = \"eu\"\n\
                    [proxy]\nlisten = \"8000\"\nadmin = \"0.0.0.0:8001\"\n";
        assert_snapshot!(lines(&resolved(text, &Flags::default()).1), @r"
        line 2: cluster.strategy: unknown strategy `gorgoo`; known strategies: predictive, gorgo, gorgo-score, gorgo-v1, gorgo-v3, gorgo-online, gorgo-proxy, prefix-tree, least-load, least-request, session-affinity, consistent-hash, geo, power-of-two, round-robin, random, sglang-cache-aware, dynamo, aibrix-prefix, preble, skywalker, llm-d; did you mean `gorgo`?
        line 3: replica[0].url: is missing
        line 3: replica[0].region: is missing
        line 7: replica[1].url: `a` does not begin with http:// or https:// and a host; wanted e.g. http://10.0.0.5:30000
        line 6: replica[1].name: the name `a` is taken by replica[0].name
        line 10: proxy.listen: `8000` is not ADDRESS:PORT; wanted e.g. 127.0.0.1:8000
        line 11: proxy.admin: 0.0.0.0:8001 can be reached from outside and no token is asked for; wanted a loopback address, e.g. 127.0.0.1:8001, or `admin_token_file`
        ");
        let flags = Flags {
            listen: Some(([127, 0, 0, 1], 8001).into()),
            strategy: Some("gorgo".into()),
            max_concurrent: Some(0),
            weights: [("w_rt".to_owned(), 2.0), ("w_queue".to_owned(), -1.0)].into(),
            replicas: vec![ReplicaEntry { name: Some("x".into()), kv_tokens: Some(0), ..ReplicaEntry::default() }],
            ..Flags::default()
        };
        assert_snapshot!(lines(&resolved("", &flags).1), @"
        --replica 1: url: is missing
        --replica 1: region: is missing
        --replica 1: kv-tokens: 0 would never fit anything; wanted 1 or more
        --set w_queue: `w_queue` is -1, wanted 0 to 100
        --set w_rt: strategy `gorgo` has no parameter `w_rt`; it has: w_rtt, prefill_ms_per_token, queue_ms_per_token, w_queue; did you mean `w_rtt`?
        --max-concurrent: 0 would never run anything; wanted 1 or more
        proxy.admin: 127.0.0.1:8001 is the address for requests already; wanted another port
        ");
    }
}
