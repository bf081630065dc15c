//! What the proxy costs: added TTFT, a forward between agents, CPU per request, memory.
//! `cargo bench --bench proxy`, some two minutes; `-- hop` for one part.
//!
//! Instant mock engines, the proxy and the client are three processes on loopback; an open loop of
//! 300 requests/s over 64 connections for latency, a closed loop for CPU, 50,000 distinct prompts for memory. Each figure stands
//! beside a direct connection in the same run and beside its target; nothing is asserted, since a speed is a property of a machine.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]

mod hop;
mod load;
mod mock;
mod process;

use std::env;
use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use gorgo::gateway::{Gateway, GatewayConfig, ReplicaConfig};
use gorgo::inference::engine::SGLANG;
use gorgo::routing::Settings;
use gorgo::wire::paths::{TRACE_START, TRACE_STOP};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use self::load::{Plan, Shape, run};
use self::process::{Child, cores};

/// Mock engines behind the proxy, in one process.
const ENGINES: usize = 2;

/// Requests per second of the open loop, and its connections.
const RATE: f64 = 300.0;
const CONNECTIONS: usize = 64;

/// Requests counted of each part, and those before them that are not.
const OPEN: (usize, usize) = (1500, 300);
const CLOSED: (usize, usize) = (4000, 500);

/// Distinct prompts after which memory is read.
const MEMORY_AT: [usize; 3] = [10_000, 30_000, 50_000];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("mock") => runtime(1).and_then(|runtime| runtime.block_on(mock::child(ENGINES))),
        Some("agent") => runtime(2).and_then(|runtime| runtime.block_on(hop::agent(&arguments[1..]))),
        Some("wan") => runtime(1).and_then(|runtime| runtime.block_on(hop::line(&arguments[1..]))),
        Some("proxy") => runtime(2).and_then(|runtime| runtime.block_on(proxy(&arguments[1..]))),
        _ if arguments.iter().any(|argument| argument == "--bench") => {
            runtime(1).and_then(|runtime| runtime.block_on(bench(&arguments)))
        }
        // `cargo test --all-targets` runs benches too, without this flag and without optimisation.
        _ => {
            println!("nothing measured: run `cargo bench --bench proxy`");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads).enable_all().build().context("failed to start a runtime")
}

/// The proxy in a process of its own: strategy and engines as arguments, its address on stdout, its end with stdin's.
async fn proxy(arguments: &[String]) -> anyhow::Result<()> {
    let (strategy, engines) = arguments.split_first().context("a strategy and engines")?;
    let replica = |(i, address): (usize, &String)| {
        let mut replica = ReplicaConfig::new(&format!("r{i}"), &format!("http://{address}"), "here");
        replica.engine = Some(&SGLANG);
        replica
    };
    let routing = Settings { strategy: strategy.clone(), ..Settings::default() };
    let mut config = GatewayConfig::new(routing, engines.iter().enumerate().map(replica).collect());
    config.listen.set_port(0);
    config.admin.set_port(0);
    let gateway = Gateway::start(config).await?;
    gateway.ready(Duration::from_secs(10)).await?;
    announce(gateway.listen());
    announce(gateway.admin());
    parent_gone().await
}

/// Returns when stdin has ended: the parent holds its other end.
async fn parent_gone() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// Tells the parent an address.
fn announce(address: SocketAddr) {
    println!("{address}");
}

/// Starts the proxy over the engines.
fn start_proxy(strategy: &str, engines: &[SocketAddr]) -> anyhow::Result<(Child, SocketAddr)> {
    let (child, [listen, _]) = start_with_admin(strategy, engines)?;
    Ok((child, listen))
}

/// The same with the address of its admin API behind that for requests.
fn start_with_admin(strategy: &str, engines: &[SocketAddr]) -> anyhow::Result<(Child, [SocketAddr; 2])> {
    let mut arguments = vec!["proxy".to_owned(), strategy.to_owned()];
    arguments.extend(engines.iter().map(ToString::to_string));
    let (child, addresses) = Child::start(&arguments, 2)?;
    Ok((child, [addresses[0], addresses[1]]))
}

/// All parts, or those that are named: `latency`, `hop`, `cost`, `tracing`, `memory`.
async fn bench(arguments: &[String]) -> anyhow::Result<()> {
    println!("machine: {} cores; three processes share them: read differences, not absolutes", cores());
    let (mock, engines) = Child::start(&["mock".to_owned()], ENGINES)?;
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| *name == part);
    if wanted("latency") {
        latency(&engines).await?;
    }
    if wanted("hop") {
        hop::measure(engines[0]).await?;
    }
    if wanted("cost") {
        cost(&engines).await?;
    }
    if wanted("tracing") {
        tracing(&engines).await?;
    }
    if wanted("memory") {
        memory(&engines).await?;
    }
    drop(mock);
    Ok(())
}

async fn latency(engines: &[SocketAddr]) -> anyhow::Result<()> {
    let (mut proxy, address) = start_proxy("gorgo", engines)?;
    println!("\nTTFT, streamed, open loop {RATE} requests/s over {CONNECTIONS} connections (p50 / p99 ms)");
    println!(
        "{:>8}  {:>15}  {:>15}  {:>15}  {:>14}  {:>8}",
        "prompt", "direct", "proxy", "added", "CPU-s per 1000", "late ms"
    );
    for bytes in [200, 8 << 10, 64 << 10] {
        let plan = Plan {
            shape: Shape::Stream,
            bytes,
            rate: Some(RATE),
            connections: CONNECTIONS,
            requests: OPEN.0,
            warm_up: OPEN.1,
            first: 0,
            shared: true,
        };
        let direct = run(engines[0], plan, || ()).await?;
        let mut before = 0.0;
        let through = run(address, plan, || before = proxy.cpu_s()).await?;
        let cpu = (proxy.cpu_s() - before) / OPEN.0 as f64 * 1000.0;
        let (d50, d99, p50, p99) =
            (direct.ttft_ms(0.5), direct.ttft_ms(0.99), through.ttft_ms(0.5), through.ttft_ms(0.99));
        println!(
            "{:>8}  {:>15}  {:>15}  {:>15}  {cpu:>14.3}  {:>8.2}",
            size(bytes),
            format!("{d50:.3} / {d99:.3}"),
            format!("{p50:.3} / {p99:.3}"),
            format!("{:+.3} / {:+.3}", p50 - d50, p99 - d99),
            through.late_ms.max(direct.late_ms),
        );
    }
    println!("target: added p50 at 8 KB <= 0.5 ms");
    Ok(())
}

async fn cost(engines: &[SocketAddr]) -> anyhow::Result<()> {
    let (mut proxy, address) = start_proxy("gorgo", engines)?;
    println!("\nCPU of the proxy, closed loop over {CONNECTIONS} connections");
    println!(
        "{:>8}  {:>6}  {:>15}  {:>15}  {:>14}",
        "prompt", "answer", "direct req/s", "proxy req/s", "CPU-s per 1000"
    );
    for bytes in [200, 8 << 10, 64 << 10] {
        for shape in [Shape::Json, Shape::Stream] {
            let plan = Plan {
                shape,
                bytes,
                rate: None,
                connections: CONNECTIONS,
                requests: CLOSED.0,
                warm_up: CLOSED.1,
                first: 0,
                shared: true,
            };
            let direct = run(engines[0], plan, || ()).await?;
            let mut before = 0.0;
            let through = run(address, plan, || before = proxy.cpu_s()).await?;
            let cpu = (proxy.cpu_s() - before) / CLOSED.0 as f64 * 1000.0;
            let shape = if shape == Shape::Json { "JSON" } else { "SSE" };
            println!(
                "{:>8}  {shape:>6}  {:>15.0}  {:>15.0}  {cpu:>14.3}",
                size(bytes),
                direct.per_s(),
                through.per_s()
            );
        }
    }
    println!(
        "for orientation (measured on another machine with 2 cores): plain hyper 0.015 (8 KB JSON), 0.096 (8 KB SSE); sglang-router 0.3.2 0.073, 0.136"
    );
    Ok(())
}

/// What spans cost: the same load with and without them, in turns, so that a drifting machine shows.
async fn tracing(engines: &[SocketAddr]) -> anyhow::Result<()> {
    let (mut proxy, [address, admin]) = start_with_admin("gorgo", engines)?;
    println!("\nspans of requests, 8 KB JSON, closed loop over {CONNECTIONS} connections");
    println!("{:>8}  {:>14}", "spans", "CPU-s per 1000");
    for on in [false, true, false, true, false, true] {
        let plan = Plan {
            shape: Shape::Json,
            bytes: 8 << 10,
            rate: None,
            connections: CONNECTIONS,
            requests: CLOSED.0,
            warm_up: CLOSED.1,
            first: 0,
            shared: true,
        };
        if on {
            post(admin, TRACE_START).await?;
        }
        let mut before = 0.0;
        run(address, plan, || before = proxy.cpu_s()).await?;
        println!("{:>8}  {:>14.3}", if on { "on" } else { "off" }, (proxy.cpu_s() - before) / CLOSED.0 as f64 * 1000.0);
        if on {
            post(admin, TRACE_STOP).await?;
        }
    }
    println!("off costs one relaxed load per request: what differs between the runs without spans is the machine");
    Ok(())
}

/// Asks the admin API for a change that has no body.
async fn post(admin: SocketAddr, path: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(format!("POST {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.0 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

async fn memory(engines: &[SocketAddr]) -> anyhow::Result<()> {
    let (mut proxy, address) = start_proxy("gorgo", engines)?;
    println!("\nmemory of the proxy, distinct 8 KB prompts, JSON, closed loop over 32 connections");
    println!("{:>8}  {:>8}", "requests", "RSS MB");
    println!("{:>8}  {:>8.1}", 0, proxy.rss_mb());
    let mut sent = 0;
    for upto in MEMORY_AT {
        let plan = Plan {
            shape: Shape::Json,
            bytes: 8 << 10,
            rate: None,
            connections: 32,
            requests: upto - sent,
            warm_up: 0,
            first: sent,
            shared: false,
        };
        run(address, plan, || ()).await?;
        sent = upto;
        println!("{sent:>8}  {:>8.1}", proxy.rss_mb());
    }
    println!(
        "target: does not grow with the number of requests served (engines of {} tokens of KV, so the index is full early)",
        mock::KV_TOKENS
    );
    Ok(())
}

fn size(bytes: usize) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} KB", bytes / 1024) }
}
