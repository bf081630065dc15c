//! A node in memory that understands exactly the commands of the plans; an unknown one is a failed test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::apply::{Job, StepJournal, apply};
use super::certificate::{Certificates, Issued, LIFE_S};
use super::crash::CrashHook;
use super::desired::{AgentBinary, Container, Desired, EngineChoice, NodeSpec};
use super::inventory::FinishedStep;
use super::layout::{BINARY, Ports, Role};
use super::operations::{Member, plans};
use super::plan::{Plan, setup, sha256};
use super::step::{Action, Content};
use crate::model::{Region, Secret};
use crate::remote::{
    Forward, Output, Remote, RemoteCommand, RemoteError, RemoteErrorKind, ServiceAction, ServiceState, ServiceUnit,
    Source, Upload,
};

/// When the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// Before the operation took effect.
    Before,
    /// After it took effect, before it was answered.
    After,
}

pub(super) struct State {
    pub(super) arch: &'static str,
    pub(super) libc: &'static str,
    pub(super) gpus: Vec<&'static str>,
    pub(super) docker: Option<&'static str>,
    pub(super) disk_free: u64,
    pub(super) supervised: bool,
    pub(super) sudo: bool,
    pub(super) images: BTreeSet<String>,
    pub(super) models: BTreeSet<String>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) services: BTreeMap<String, Service>,
    /// Operations that still succeed, and how the next one breaks.
    pub(super) breaks: Option<(u32, Break)>,
    /// Operations that changed something.
    pub(super) changes: Vec<String>,
    /// The engine refuses to flush.
    pub(super) busy: bool,
    /// Agents come up without a healthy replica.
    pub(super) sick: bool,
    /// The agent's admin API does not answer.
    pub(super) deaf: bool,
    /// The agent's admin API cannot change how it balances.
    pub(super) old: bool,
    /// Requests that the agent has in flight; one ends at each look of a drain.
    pub(super) in_flight: u64,
}

pub(super) struct Service {
    pub(super) unit: ServiceUnit,
    pub(super) running: bool,
    /// Program, definition and environment that the process was started with.
    pub(super) started_with: Option<(String, String)>,
    pub(super) strategy: String,
    pub(super) max_concurrent: Option<u32>,
    pub(super) weights: BTreeMap<String, f64>,
    pub(super) draining: bool,
    pub(super) starts: u32,
}

pub(super) struct FakeNode {
    pub(super) spec: NodeSpec,
    pub(super) state: Mutex<State>,
    pub(super) latency: Duration,
    pub(super) gauge: Arc<Gauge>,
}

/// Operations under way at the same time, over all nodes that share it.
#[derive(Default)]
pub(super) struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    fn enter(&self) -> UnderWay<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        UnderWay(self)
    }
}

/// One operation, until it has ended or nobody wants it any more.
struct UnderWay<'a>(&'a Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn emulator() -> EngineChoice {
    EngineChoice::Emulator { gpu: "a100-80".into(), model: "mistral-7b".into() }
}

pub(super) fn container() -> Container {
    Container { model: super::desired::DEFAULT_MODEL.into(), image: None, arguments: vec![], kv_events: true }
}

pub(super) fn node(number: u8, region: &str, engine: EngineChoice) -> NodeSpec {
    let ports = Ports::default();
    let (listen, url) = NodeSpec::reach(core::net::IpAddr::from([10, 0, 0, number]), ports.agent);
    let addresses = vec![[10, 0, 0, number].into()];
    NodeSpec { name: format!("node{number}"), region: Region::new(region), engine, ports, listen, url, addresses }
}

/// When plans are made, s since 1970: 2027-01-15.
pub(super) const NOW: u64 = 1_800_000_000;

/// The content of the program that is uploaded; the checksum in [`desired`] is its own.
pub(super) const PROGRAM: &str = "program 1";

pub(super) fn binary(content: &str) -> AgentBinary {
    AgentBinary {
        path: PathBuf::from(content),
        sha256: sha256(content),
        bytes: 12_300_000,
        arch: "x86_64".into(),
        glibc: Some((2, 28)),
    }
}

/// What a fake node has for a certificate.
fn certificate(identity: &str) -> String {
    format!("certificate of {identity}")
}

/// As the certificates of these nodes were issued last.
fn certificates(nodes: &[NodeSpec]) -> Certificates {
    let issued = nodes.iter().flat_map(|node| {
        let loopback = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let own: BTreeSet<_> = node.addresses.iter().copied().collect();
        let both = own.iter().copied().chain(loopback).collect();
        [("agent", own), ("proxy", both)].map(|(part, addresses)| {
            let identity = format!("gorgo://lab/{part}/{}", node.name);
            let sha256 = sha256(&certificate(&identity));
            (identity, Issued { addresses, not_after: NOW + LIFE_S, authority: "ca".into(), sha256 })
        })
    });
    Certificates { now: NOW, authority: Some("ca".into()), issued: issued.collect() }
}

/// Makes the certificates that a plan asks for.
pub(super) fn certified(mut plan: Plan) -> Plan {
    for step in &mut plan.steps {
        if let Action::Put { content, .. } = &mut step.action
            && let Content::Certificate(request) = content
        {
            *content = Content::Secret(Secret::new(certificate(&request.identity.to_string())));
        }
    }
    plan
}

pub(super) fn desired(nodes: Vec<NodeSpec>) -> Desired {
    Desired {
        cluster: "lab".into(),
        strategy: "gorgo".into(),
        max_concurrent: None,
        weights: BTreeMap::new(),
        pinned: BTreeMap::new(),
        allow_public_plaintext: false,
        binary: binary(PROGRAM),
        others: Vec::new(),
        hf_token: None,
        certificates: certificates(&nodes),
        nodes,
        proxies: Vec::new(),
    }
}

/// Nodes with emulated engines, nothing installed: what they are to be, the fakes, and the ways to them.
pub(super) fn fleet(nodes: u8) -> (Desired, Vec<Arc<FakeNode>>, Vec<Member>) {
    let desired = Desired {
        strategy: "least-load".into(),
        ..desired((1..=nodes).map(|number| node(number, "us-east-1", emulator())).collect())
    };
    let fakes: Vec<Arc<FakeNode>> = desired.nodes.iter().map(|node| Arc::new(FakeNode::new(node.clone()))).collect();
    let members = fakes.iter().map(|fake| {
        let remote: Arc<dyn Remote> = Arc::clone(fake) as Arc<dyn Remote>;
        Member { spec: fake.spec.clone(), remote }
    });
    let members = members.collect();
    (desired, fakes, members)
}

pub(super) fn node_names(nodes: u8) -> Vec<String> {
    (1..=nodes).map(|number| format!("node{number}")).collect()
}

/// Sets the nodes up.
pub(super) async fn set_up(desired: &Desired, members: &[Member]) {
    let plans = plans(members, |node, facts| setup(desired, node, facts)).await;
    let jobs: Vec<Job<'_>> = plans
        .into_iter()
        .zip(members)
        .map(|((_, plan), member)| Job { plan: certified(plan.unwrap()), remote: member.remote.as_ref() })
        .collect();
    let report = apply(&jobs, &mut Nobody, &CrashHook::default(), &CancellationToken::new(), &|_| {}).await;
    assert!(report.failed().is_empty(), "{report}");
}

/// There is nothing that a set-up would do.
pub(super) async fn assert_settled(desired: &Desired, members: &[Member]) {
    for (name, plan) in plans(members, |node, facts| setup(desired, node, facts)).await {
        let plan = plan.unwrap();
        assert!(plan.is_empty(), "{name}: {plan:?}");
    }
}

/// Keeps nothing.
pub(super) struct Nobody;

impl StepJournal for Nobody {
    fn finished(&mut self, _: &str, _: FinishedStep) -> anyhow::Result<()> {
        Ok(())
    }
}

pub(super) fn token() -> Secret {
    Secret::new("hf_hush".into())
}

impl FakeNode {
    pub(super) fn new(spec: NodeSpec) -> Self {
        let state = State {
            arch: "x86_64",
            libc: "glibc 2.31",
            gpus: Vec::new(),
            docker: None,
            disk_free: 400_000_000_000,
            supervised: true,
            sudo: true,
            images: BTreeSet::new(),
            models: BTreeSet::new(),
            files: BTreeMap::new(),
            services: BTreeMap::new(),
            breaks: None,
            changes: Vec::new(),
            busy: false,
            sick: false,
            deaf: false,
            old: false,
            in_flight: 0,
        };
        Self { spec, state: Mutex::new(state), latency: Duration::ZERO, gauge: Arc::default() }
    }

    pub(super) fn with_gpus(self, gpus: &[&'static str]) -> Self {
        self.change(|state| {
            state.gpus = gpus.to_vec();
            state.docker = Some("24.0.7");
        });
        self
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub(super) fn changes(&self) -> Vec<String> {
        self.change(|state| std::mem::take(&mut state.changes))
    }

    /// Does it, if the connection holds.
    async fn with<T>(&self, act: impl FnOnce(&mut State) -> Result<T, RemoteError>) -> Result<T, RemoteError> {
        if !self.latency.is_zero() {
            let _under_way = self.gauge.enter();
            tokio::time::sleep(self.latency).await;
        }
        let lost = || RemoteError::new(RemoteErrorKind::Unreachable, &self.spec.name, "the connection broke");
        self.change(|state| {
            match &mut state.breaks {
                Some((0, Break::Before)) => return Err(lost()),
                Some((0, Break::After)) => {
                    act(state)?;
                    return Err(lost());
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            act(state)
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn said(status: i32, stdout: impl Into<String>) -> Output {
    Output { status: Some(status), stdout: stdout.into().into_bytes(), stderr: Vec::new() }
}

#[async_trait]
impl Remote for FakeNode {
    async fn run(&self, command: &RemoteCommand) -> Result<Output, RemoteError> {
        let name = self.spec.name.clone();
        self.with(|state| {
            if command.sudo && !state.sudo {
                return Err(RemoteError::new(RemoteErrorKind::Sudo, &name, "sudo asks for a password"));
            }
            Ok(state.run(&self.spec, command))
        })
        .await
    }

    async fn put(&self, upload: &Upload<'_>) -> Result<(), RemoteError> {
        let content = match upload.source {
            Source::File(path) => path.to_str().unwrap().as_bytes().to_vec(),
            Source::Bytes(bytes) => bytes.to_vec(),
        };
        self.with(|state| {
            state.changes.push(format!("put {} {:o}", upload.path, upload.mode));
            let old = state.files.insert(upload.path.to_owned(), content);
            if let Some(old) = old.filter(|_| upload.keep_old) {
                state.files.insert(format!("{}.old", upload.path), old);
            }
            Ok(())
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, RemoteError> {
        self.with(|state| Ok(state.files.get(path).cloned().unwrap_or_default())).await
    }

    async fn forward(&self, _: u16) -> Result<Forward, RemoteError> {
        panic!("nobody needs a tunnel");
    }

    async fn service(&self, unit: &str, action: &ServiceAction) -> Result<ServiceState, RemoteError> {
        let name = self.spec.name.clone();
        self.with(|state| {
            if !state.supervised {
                return Err(RemoteError::new(RemoteErrorKind::Unsuitable, &name, "no systemd"));
            }
            Ok(state.service(unit, action))
        })
        .await
    }

    async fn logs(&self, unit: &str, lines: u32, _: bool) -> Result<mpsc::Receiver<String>, RemoteError> {
        let (sender, receiver) = mpsc::channel(8);
        self.with(|_| Ok(())).await?;
        for number in 0..lines.min(3) {
            sender.try_send(format!("{unit} line {number}")).unwrap();
        }
        Ok(receiver)
    }
}

impl State {
    fn run(&mut self, spec: &NodeSpec, command: &RemoteCommand) -> Output {
        let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        match argv[..] {
            ["true"] => said(0, ""),
            ["bash", "-s", "--", ..] => said(0, self.describe(&argv[7..])),
            ["bash", "-c", _, "talk", port, _] => self.talk(spec, port, &command.stdin),
            ["df", ..] => said(0, "Used\n1000\n"),
            ["nvidia-smi", ..] => said(if self.gpus.is_empty() { 127 } else { 0 }, ""),
            _ => {
                self.changes.push(argv.iter().take(4).copied().collect::<Vec<_>>().join(" "));
                self.change(&argv)
            }
        }
    }

    fn change(&mut self, argv: &[&str]) -> Output {
        match argv {
            ["install", "-d", ..] => {}
            ["docker", "pull", "--quiet", image] => _ = self.images.insert((*image).to_owned()),
            ["docker", "run", .., image, "-c", code] if code.contains("torch") => {
                assert!(self.images.contains(*image), "a container of an image that is not there");
            }
            ["docker", "run", .., image, "-c", code, model] if code.contains("snapshot_download") => {
                assert!(self.images.contains(*image));
                if argv.iter().any(|word| word.contains("HF_TOKEN_PATH")) {
                    assert!(self.files.contains_key("/etc/gorgo/hf-token"), "the token is mounted");
                }
                self.models.insert((*model).to_owned());
            }
            ["sh", "-c", _, "take", path, _] => {
                let new = self.files.remove(&format!("{path}.new")).expect("it was put there");
                self.files.insert((*path).to_owned(), new);
            }
            ["rm", "-f", path] => _ = self.files.remove(*path),
            ["rm", "-rf", ..] | ["sh", "-c", _, "remove", ..] => self.files.clear(),
            ["sh", "-c", _, "restore", path] => {
                let before = self.files.remove(&format!("{path}.old")).unwrap();
                self.files.insert((*path).to_owned(), before);
            }
            other => panic!("nobody knows the command {other:?}"),
        }
        said(0, "")
    }

    /// What the looking script prints.
    fn describe(&self, questions: &[&str]) -> String {
        #[expect(clippy::disallowed_methods, reason = "the clock of a node")]
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let mut text = format!("clock_ms {clock}\narch {}\nlibc {}\nos Debian\n", self.arch, self.libc);
        text += &format!("systemd 252\ndisk_free {}\n", self.disk_free);
        self.gpus.iter().for_each(|gpu| text += &format!("gpu {gpu}\n"));
        self.docker.iter().for_each(|version| text += &format!("docker {version}\n"));
        self.images.iter().for_each(|image| text += &format!("image {image}\n"));
        for (path, content) in &self.files {
            let sum = hex(content);
            if path == BINARY {
                text += &format!("binary_sha256 {sum}\nbinary_version gorgo 0.1.0\n");
            } else if path.ends_with(".old") {
                text += &format!("binary_old_sha256 {sum}\n");
            } else {
                let mut parts = path.rsplit('/');
                let (name, folder) = (parts.next().unwrap(), parts.next().unwrap());
                text += &format!("file {sum} {folder}/{name}\n");
            }
        }
        for question in questions.chunks(4) {
            let role = Role::ALL.into_iter().find(|role| role.name() == question[0]).unwrap();
            let (method, path) = question[2].split_once(' ').unwrap();
            if let Some((status, body)) = self.reply(role, method, path, &Value::Null) {
                text += &format!("answer {role} {status} {body}\n");
            }
        }
        text + "end\n"
    }

    fn talk(&mut self, spec: &NodeSpec, port: &str, request: &[u8]) -> Output {
        let port: u16 = port.parse().unwrap();
        let role = Role::ALL.into_iter().find(|role| spec.ports.control(*role) == port).unwrap();
        let text = String::from_utf8_lossy(request);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        if method == "POST" && self.reply(role, method, path, &body).is_some() {
            self.accept(role, path, &body);
        }
        let reply = self.reply(role, method, path, &body);
        if path == "/admin/v1/drain" && method == "GET" {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        match reply {
            Some((status, body)) => said(0, format!("HTTP/1.0 {status} OK\r\n\r\n{body}")),
            None => Output { stderr: b"Connection refused".to_vec(), ..said(1, "") },
        }
    }

    fn accept(&mut self, role: Role, path: &str, body: &Value) {
        let service = self.services.get_mut(role.unit()).unwrap();
        let weights: BTreeMap<String, f64> = serde_json::from_value(body["parameters"].clone()).unwrap_or_default();
        match path {
            "/admin/v1/policy" if self.old || body["strategy"] == "unknown" => return,
            "/admin/v1/tune" if self.old => return,
            "/admin/v1/policy" => {
                service.strategy = body["strategy"].as_str().unwrap().to_owned();
                service.weights = weights;
            }
            "/admin/v1/drain" => service.draining = body["draining"].as_bool().unwrap(),
            "/admin/v1/tune" => {
                service.weights.extend(weights);
                if let Some(limit) = body["max_concurrent"].as_u64() {
                    service.max_concurrent = (limit > 0).then_some(limit as u32);
                }
            }
            _ => return,
        }
        self.changes.push(format!("POST {role} {path} {body}"));
    }

    fn reply(&self, role: Role, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let service = self.services.get(role.unit()).filter(|service| service.running)?;
        if role == Role::Engine {
            return Some(match path {
                "/flush_cache" if self.busy => (400, json!("busy")),
                _ => (200, json!({ "choices": [{ "text": "a" }] })),
            });
        }
        if self.deaf {
            return None;
        }
        let replicas =
            json!({ "total": 1, "healthy": u32::from(!self.sick), "unhealthy": 0, "unknown": 0, "draining": 0 });
        if self.old
            && ["/admin/v1/policy", "/admin/v1/tune", "/admin/v1/trace/start", "/admin/v1/trace/stop"].contains(&path)
        {
            return Some((404, json!({ "error": { "message": "no such path" } })));
        }
        let q = service.weights.get("q").copied().unwrap_or(0.0);
        let parameters = json!([{ "key": "q", "value": q, "default": 0.0, "min": 0.0, "max": null, "help": "" }]);
        Some((
            200,
            match path {
                "/admin/v1/status" => json!({
                    "version": "0.1.0", "pid": 1, "uptime_s": 1.0, "listen": "x", "strategy": service.strategy,
                    "max_concurrent": service.max_concurrent, "draining": service.draining, "replicas": replicas,
                    "queue": { "waiting": 0, "limit": 1, "timeout_ms": 1.0, "oldest_ms": null },
                    "requests": { "total": 0, "in_flight": 0, "ok": 0, "failed": 0, "refused": 0, "cancelled": 0, "retried": 0 },
                }),
                "/admin/v1/policy" if method == "POST" && body["strategy"] == "unknown" => {
                    return Some((400, json!({ "error": { "message": "unknown strategy" } })));
                }
                "/admin/v1/policy" => json!({ "strategy": service.strategy, "parameters": parameters, "known": [] }),
                "/admin/v1/tune" => {
                    json!({ "strategy": service.strategy, "parameters": parameters, "max_concurrent": service.max_concurrent })
                }
                "/admin/v1/cache" => json!({ "replicas": ["local"], "blocks": 42 }),
                "/admin/v1/drain" => {
                    json!({ "draining": service.draining, "stopping": false, "in_flight": self.in_flight })
                }
                "/admin/v1/trace/start" => {
                    json!({ "node": role.name(), "started_us": 1, "buffer_bytes": body["buffer_bytes"] })
                }
                "/admin/v1/trace/stop" => json!({
                    "kind": "node", "schema": "gorgo.trace/1", "node": role.name(), "region": null, "started_us": 1, "stopped_us": 2,
                    "now_us": 600_000_000, "buffer_bytes": 4096, "dropped": 0, "unfinished": 0, "lines": 0,
                }),
                other => panic!("nobody knows {method} {other}"),
            },
        ))
    }

    fn service(&mut self, unit: &str, action: &ServiceAction) -> ServiceState {
        if *action != ServiceAction::Status {
            let word = format!("{action:?}");
            self.changes.push(format!("{} {unit}", word.split('(').next().unwrap().to_lowercase()));
        }
        let program = self.files.get(BINARY).map(|content| hex(content)).unwrap_or_default();
        match action {
            ServiceAction::Install(new) => {
                let old = self.services.remove(unit);
                let service = Service {
                    unit: new.clone(),
                    running: old.as_ref().is_some_and(|old| old.running),
                    started_with: old.as_ref().and_then(|old| old.started_with.clone()),
                    strategy: old.as_ref().map(|old| old.strategy.clone()).unwrap_or_default(),
                    max_concurrent: old.as_ref().and_then(|old| old.max_concurrent),
                    weights: old.as_ref().map(|old| old.weights.clone()).unwrap_or_default(),
                    draining: old.as_ref().is_some_and(|old| old.draining),
                    starts: old.map_or(0, |old| old.starts),
                };
                self.services.insert(unit.to_owned(), service);
            }
            ServiceAction::Remove => _ = self.services.remove(unit),
            ServiceAction::Status => {}
            ServiceAction::Stop => self.services.get_mut(unit).unwrap().running = false,
            ServiceAction::Start | ServiceAction::Restart => {
                let service = self.services.get_mut(unit).expect("it is installed");
                service.running = true;
                service.starts += 1;
                service.started_with = Some((program, service.unit.definition_sha256()));
                let option = |name: &str| {
                    let argv = &service.unit.argv;
                    argv.iter().position(|word| word == name).map(|at| argv[at + 1].clone())
                };
                let (strategy, limit) = (option("--strategy"), option("--max-concurrent"));
                let set = service.unit.argv.iter().filter_map(|word| word.strip_prefix("q="));
                service.weights = set.map(|value| ("q".to_owned(), value.parse().unwrap())).collect();
                service.draining = false;
                let strategy = strategy.unwrap_or_default();
                service.strategy = if strategy == "gorgo" { "gorgo-v1".to_owned() } else { strategy };
                service.max_concurrent = limit.and_then(|limit| limit.parse().ok());
            }
        }
        self.services.get(unit).map_or_else(ServiceState::default, |service| ServiceState {
            installed: true,
            running: service.running,
            pid: service.running.then_some(1),
            restarts: 0,
            definition_sha256: Some(service.unit.definition_sha256()),
        })
    }
}
