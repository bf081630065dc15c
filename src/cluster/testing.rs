//! A node in memory that understands exactly the commands of the plans; an unknown one is a failed test.

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::apply::{Job, StepJournal, apply};
use super::certificate::{Certificates, Issued, LIFE_S};
use super::crash::CrashHook;
use super::desired::{AgentBinary, Container, Desired, EngineChoice, NodeSpec, ProxySpec};
use super::inventory::FinishedStep;
use super::layout::Ports;
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
            (
                identity,
                Issued {
                    addresses,
                    not_after: NOW + LIFE_S,
                    authority: "ca".into(),
                    serial: sha256.clone(),
                    told: BTreeSet::new(),
                    earlier: BTreeMap::new(),
                    sha256,
                },
            )
        })
    });
    Certificates { now: NOW, authority: Some("ca".into()), issued: issued.collect(), revoked: BTreeMap::new() }
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
        front: super::front::Front::default(),
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

/// A central router on the node with this number.
pub(super) fn router_on(number: u8) -> ProxySpec {
    ProxySpec {
        node: format!("node{number}"),
        listen: format!("10.0.0.{number}:8080").parse().unwrap(),
        strategy: "gorgo-proxy".into(),
        max_concurrent: None,
    }
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
