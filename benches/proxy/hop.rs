//! What a forward to a peer costs beyond the round trip: the same requests straight to an agent, and through another one that sends all
//! of them there, over loopback and over an emulated line.

use std::future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use gorgo::emulator::wan::{self, Jitter, WanOptions};
use gorgo::gateway::{AgentConfig, Gateway, GatewayConfig, ReplicaConfig};
use gorgo::inference::engine::SGLANG;
use gorgo::model::Region;
use gorgo::routing::{ReplicaKind, Settings};

use super::load::{Plan, Shape, run};
use super::process::Child;
use super::{announce, parent_gone, size};

/// Round trip of the emulated line, ms.
const RTT_MS: f64 = 40.0;

/// Requests per second and connections: a forward is measured, not a queue.
const RATE: f64 = 100.0;
const CONNECTIONS: usize = 32;

/// Requests counted, and those before them that are not.
const REQUESTS: (usize, usize) = (1000, 200);

/// An agent in a process of its own: its name, an engine or `-`, a peer. Its address on stdout, its end with stdin's.
pub(super) async fn agent(arguments: &[String]) -> anyhow::Result<()> {
    let [name, engine, peer] = arguments else { anyhow::bail!("a name, an engine or `-`, and a peer") };
    let mut config = GatewayConfig::new(Settings::default(), Vec::new());
    config.listen.set_port(0);
    config.admin.set_port(0);
    config.agent = Some(AgentConfig { name: name.clone(), region: Region::new(name) });
    if engine != "-" {
        let mut own = ReplicaConfig::new(name, &format!("http://{engine}"), name);
        own.engine = Some(&SGLANG);
        config.replicas.push(own);
    }
    let (peer, address) = peer.split_once('=').context("a peer as NAME=ADDRESS")?;
    let peer = ReplicaConfig::new(peer, &format!("http://{address}"), peer);
    config.replicas.push(ReplicaConfig { kind: ReplicaKind::Peer, ..peer });
    let gateway = Gateway::start(config).await?;
    gateway.ready(Duration::from_secs(10)).await?;
    announce(gateway.listen());
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

fn start(arguments: &[&str]) -> anyhow::Result<(Child, SocketAddr)> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let (child, addresses) = Child::start(&arguments, 1)?;
    Ok((child, addresses[0]))
}

/// Measures and prints.
pub(super) async fn measure(engine: SocketAddr) -> anyhow::Result<()> {
    println!("\nforward to a peer, TTFT, streamed, open loop {RATE} requests/s (p50 / p99 ms)");
    println!("{:>8}  {:>12}  {:>17}  {:>17}  {:>15}", "prompt", "line", "peer itself", "through agent", "added");
    // The far one has to know the near one's name to tell it how it is; it never sends anything there.
    let (_far, far) = start(&["agent", "far", &engine.to_string(), "near=127.0.0.1:9"])?;
    let (_line, line) = start(&["wan", &far.to_string()])?;
    for (name, to) in [("loopback", far), ("emulated", line)] {
        let (_near, near) = start(&["agent", "near", "-", &format!("far={to}")])?;
        for bytes in [200, 8 << 10] {
            let plan = Plan {
                shape: Shape::Stream,
                bytes,
                rate: Some(RATE),
                connections: CONNECTIONS,
                requests: REQUESTS.0,
                warm_up: REQUESTS.1,
                first: 0,
                shared: true,
            };
            let itself = run(to, plan, || ()).await?;
            let through = run(near, plan, || ()).await?;
            let [i50, i99, t50, t99] =
                [itself.ttft_ms(0.5), itself.ttft_ms(0.99), through.ttft_ms(0.5), through.ttft_ms(0.99)];
            println!(
                "{:>8}  {name:>12}  {:>17}  {:>17}  {:>15}",
                size(bytes),
                format!("{i50:.3} / {i99:.3}"),
                format!("{t50:.3} / {t99:.3}"),
                format!("{:+.3} / {:+.3}", t50 - i50, t99 - i99),
            );
        }
    }
    println!("target: added p50 <= 0.5 ms; the emulated line adds one round trip of {RTT_MS} ms to both sides");
    Ok(())
}
