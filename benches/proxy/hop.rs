//! What a forward to a peer costs beyond the round trip: the same requests straight to an agent, and through others that send all
//! of them there, in plain text and by mutual TLS with certificates of a cluster's own CA; over loopback and over an emulated line.

use std::future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use gorgo::cluster::authority::Authority;
use gorgo::cluster::certificate::{EARLY_S, LIFE_S, Request};
use gorgo::emulator::wan::{self, Jitter, WanOptions};
use gorgo::gateway::clock::wall_micros;
use gorgo::gateway::{AgentConfig, Gateway, GatewayConfig, MutualConfig, ReplicaConfig};
use gorgo::inference::engine::SGLANG;
use gorgo::model::{Identity, Part, Region};
use gorgo::routing::{ReplicaKind, Settings};

use super::load::{Plan, Result, Shape, run};
use super::process::Child;
use super::{announce, parent_gone, size};

/// Round trip of the emulated line, ms.
const RTT_MS: f64 = 40.0;

/// Requests per second and connections: a forward is measured, not a queue.
const RATE: f64 = 100.0;
const CONNECTIONS: usize = 32;

/// Requests counted in a turn, and those before them that are not.
const REQUESTS: (usize, usize) = (400, 100);

/// Turns of all ways, one after the other, so that what else the machine does hits all of them.
const TURNS: usize = 4;

/// Stands for no engine and for no certificate.
const NONE: &str = "-";

/// The agents' cluster.
const CLUSTER: &str = "bench";

/// An agent in a process of its own: its name, an engine or `-`, a certificate or `-`, a peer. Its address and, with a certificate, that
/// for peers on stdout, its end with stdin's.
pub(super) async fn agent(arguments: &[String]) -> anyhow::Result<()> {
    let [name, engine, certificate, peer] = arguments else {
        anyhow::bail!("a name, an engine or `-`, a certificate or `-`, and a peer")
    };
    let mut config = GatewayConfig::new(Settings::default(), Vec::new());
    config.listen.set_port(0);
    config.admin.set_port(0);
    config.agent = Some(AgentConfig { name: name.clone(), region: Region::new(name) });
    if certificate != NONE {
        config.mutual =
            Some(MutualConfig::new(PathBuf::from(certificate), Some(SocketAddr::from(([127, 0, 0, 1], 0)))));
    }
    if engine != NONE {
        let mut own = ReplicaConfig::new(name, &format!("http://{engine}"), name);
        own.engine = Some(&SGLANG);
        config.replicas.push(own);
    }
    let (peer, address) = peer.split_once('=').context("a peer as NAME=ADDRESS")?;
    let scheme = if certificate == NONE { "http" } else { "mtls" };
    let peer = ReplicaConfig::new(peer, &format!("{scheme}://{address}"), peer);
    config.replicas.push(ReplicaConfig { kind: ReplicaKind::Peer, ..peer });
    let gateway = Gateway::start(config).await?;
    gateway.ready(Duration::from_secs(10)).await?;
    announce(gateway.listen());
    gateway.peer_listen().into_iter().for_each(announce);
    parent_gone().await
}

/// The line in a process of its own, so that its timers compete with nobody's.
pub(super) async fn line(arguments: &[String]) -> anyhow::Result<()> {
    let to = arguments.first().context("where to")?.parse()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let line = wan::start(WanOptions { listen, to, rtt_ms: RTT_MS, jitter: Jitter::None, seed: 1 }).await?;
    announce(line.address());
    tokio::select! {
        gone = parent_gone() => gone,
        () = future::pending() => Ok(()),
    }
}

fn start(arguments: &[&str], addresses: usize) -> anyhow::Result<(Child, Vec<SocketAddr>)> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Child::start(&arguments, addresses)
}

/// Certificates of both agents, each in a file of its own, as `gorgo cluster setup` makes them.
fn certificates(folder: &Path) -> anyhow::Result<[String; 2]> {
    let authority = Authority::new(folder.join("ca"), CLUSTER);
    let now = wall_micros() / 1_000_000;
    let make = |node: &str| -> anyhow::Result<String> {
        let request = Request {
            identity: Identity::new(CLUSTER, Part::Agent, node)?,
            addresses: [[127, 0, 0, 1].into()].into(),
            not_before: now - EARLY_S,
            not_after: now + LIFE_S,
        };
        let path = folder.join(format!("{node}.pem"));
        std::fs::write(&path, authority.issue(&request)?.reveal())?;
        Ok(path.display().to_string())
    };
    Ok([make("near")?, make("far")?])
}

/// The far agent with an engine, as it is reached without a certificate and with one.
struct Far {
    /// Where clients go.
    clients: SocketAddr,
    /// Where agents without certificates go.
    plain: SocketAddr,
    /// Where agents with certificates go.
    mutual: SocketAddr,
}

impl Far {
    /// The same at the other end of emulated lines.
    fn behind_lines(&self, lines: &mut Vec<Child>) -> anyhow::Result<Self> {
        let mut line = |to: SocketAddr| -> anyhow::Result<SocketAddr> {
            let (child, addresses) = start(&["wan", &to.to_string()], 1)?;
            lines.push(child);
            Ok(addresses[0])
        };
        Ok(Self { clients: line(self.clients)?, plain: line(self.plain)?, mutual: line(self.mutual)? })
    }
}

/// Measures and prints.
pub(super) async fn measure(engine: SocketAddr) -> anyhow::Result<()> {
    println!(
        "\nforward to a peer, TTFT, streamed, open loop {RATE} requests/s, {TURNS} turns of {} (p50 / p99 ms)",
        REQUESTS.0
    );
    println!(
        "{:>8}  {:>8}  {:>17}  {:>17}  {:>15}  {:>17}  {:>15}",
        "prompt", "line", "peer itself", "by plain HTTP", "added", "by mutual TLS", "added"
    );
    let folder = tempfile::tempdir()?;
    let [near_pem, far_pem] = certificates(folder.path())?;
    let engine = engine.to_string();
    // The far ones have to know the near one's name to tell it how they are; they never send anything there.
    let (_plain, plain) = start(&["agent", "far", &engine, NONE, "near=127.0.0.1:9"], 1)?;
    let (_mutual, mutual) = start(&["agent", "far", &engine, &far_pem, "near=127.0.0.1:9"], 2)?;
    let beside = Far { clients: mutual[0], plain: plain[0], mutual: mutual[1] };
    let mut lines = Vec::new();
    let away = beside.behind_lines(&mut lines)?;
    for (name, far) in [("loopback", beside), ("emulated", away)] {
        let (_plain, plain) = start(&["agent", "near", NONE, NONE, &format!("far={}", far.plain)], 1)?;
        let (_mutual, mutual) = start(&["agent", "near", NONE, &near_pem, &format!("far={}", far.mutual)], 2)?;
        for bytes in [200, 8 << 10] {
            let [itself, plain, mutual] = in_turns([far.clients, plain[0], mutual[0]], bytes).await?;
            let shown = |result: &Result| format!("{:.3} / {:.3}", result.ttft_ms(0.5), result.ttft_ms(0.99));
            let added = |result: &Result| {
                let more = |share: f64| result.ttft_ms(share) - itself.ttft_ms(share);
                format!("{:+.3} / {:+.3}", more(0.5), more(0.99))
            };
            println!(
                "{:>8}  {name:>8}  {:>17}  {:>17}  {:>15}  {:>17}  {:>15}",
                size(bytes),
                shown(&itself),
                shown(&plain),
                added(&plain),
                shown(&mutual),
                added(&mutual),
            );
        }
    }
    println!("target: added p50 <= 0.5 ms; the emulated line adds one round trip of {RTT_MS} ms to all of them");
    Ok(())
}

/// The same requests to each target, in turns.
async fn in_turns(targets: [SocketAddr; 3], bytes: usize) -> anyhow::Result<[Result; 3]> {
    let mut results = [Result::default(), Result::default(), Result::default()];
    for turn in 0..TURNS {
        let plan = Plan {
            shape: Shape::Stream,
            bytes,
            rate: Some(RATE),
            connections: CONNECTIONS,
            requests: REQUESTS.0,
            warm_up: REQUESTS.1,
            first: turn * (REQUESTS.0 + REQUESTS.1),
            shared: true,
        };
        for (result, target) in results.iter_mut().zip(targets) {
            *result = std::mem::take(result).and(run(target, plan, || ()).await?);
        }
    }
    Ok(results)
}
