//! How fast the simulator is on one core: `cargo bench --bench simulate`, or with `-- --large` also a million requests on a thousand
//! replicas in twenty regions, by one router and by a router per region.
//!
//! Prints events and requests per second, and the most memory that the process had so far; asserts nothing, since a speed is a property of a machine. Run it on an idle one.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]

use std::env;
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use gorgo::bench::demo::fleet::{default_max_input, resolve, specs};
use gorgo::bench::machine;
use gorgo::routing::Settings;
use gorgo::sim::world::{Edge, Measured, Scenario, Unobserved, run};
use gorgo::workload::fleet::FleetFile;
use gorgo::workload::{Arrivals, Fleet, Generator, PlanOptions, build, homes};

/// Requests of the large case.
const LARGE_REQUESTS: f64 = 1_000_000.0;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches too, without this flag and without optimisation.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing measured: run `cargo bench --bench simulate`");
        return Ok(());
    }
    let about = machine::describe();
    println!("machine: {} {}, {} cores", about.os, about.cpu.unwrap_or(about.arch), about.cores);
    println!(
        "{:<34} {:>10} {:>10} {:>12} {:>12} {:>8} {:>8}",
        "case", "requests", "events", "events/s", "requests/s", "s", "GiB"
    );
    let three = fleet(3, 1, false)?;
    for strategy in ["gorgo", "least-load", "round-robin"] {
        measure(&format!("3 replicas, art-like, {strategy}"), &three, Generator::ArtLike, 1.0, None, strategy)?;
    }
    measure("3 replicas, wild-like, gorgo", &three, Generator::WildLike, 1.0, None, "gorgo")?;
    if arguments.iter().any(|argument| argument == "--large") {
        for (name, agents) in
            [("1000 replicas, 20 agents, gorgo-v1", true), ("1000 replicas, one router, gorgo", false)]
        {
            let strategy = if agents { "gorgo-v1" } else { "gorgo" };
            measure(name, &fleet(1000, 20, agents)?, Generator::WildLike, 1.0, Some(LARGE_REQUESTS), strategy)?;
        }
    }
    Ok(())
}

/// H100s spread evenly over regions, one router in the first, or an agent in each.
fn fleet(replicas: u32, regions: u32, agents: bool) -> Result<Fleet> {
    let mut text = String::new();
    for region in 0..if agents { regions } else { 1 } {
        writeln!(text, "[[router]]\nregion = \"r{region}\"")?;
    }
    for region in 0..regions {
        let count = (replicas / regions).max(1);
        writeln!(text, "[[replica]]\nname = \"r{region}\"\nregion = \"r{region}\"\ncount = {count}")?;
        text.push_str("gpu = \"h100\"\nmodel = \"mistral-7b\"\n");
    }
    text.push_str("[network.rtt_ms]\n");
    for region in 1..regions {
        for nearer in 0..region {
            writeln!(text, "\"r{nearer}/r{region}\" = {}", 10 * (region - nearer))?;
        }
    }
    Ok(resolve(&FleetFile::parse("benchmark", &text)?, None)?)
}

fn measure(
    name: &str,
    fleet: &Fleet,
    generator: Generator,
    time_scale: f64,
    requests: Option<f64>,
    strategy: &str,
) -> Result<()> {
    let specs = specs(fleet)?;
    let mut trace = generator.trace(1);
    trace.drop_longer_than(default_max_input(&specs));
    let arrivals = match requests {
        // As many starts per second as the replicas of the small case get each.
        Some(_) => Arrivals::Poisson { per_s: 4.0 * fleet.replicas.len() as f64 },
        None => Arrivals::Replay { time_scale, window: None },
    };
    let seconds = requests.map(|requests| requests / (4.0 * fleet.replicas.len() as f64));
    let plan = build(&trace, &PlanOptions { seconds, ..PlanOptions::new(arrivals, 1) }).context("a plan")?;
    let scenario = Scenario {
        fleet,
        specs: &specs,
        plan: &plan,
        homes: &homes(&fleet.clients, &plan, 1, 0.0),
        routing: &Settings { strategy: strategy.into(), ..Settings::default() },
        edge: Edge::default(),
        faults: &[],
        measured: Measured { from_ms: 0.0, to_ms: f64::INFINITY, drain_ms: 3.6e6 },
        seed: 1,
    };
    let began = now();
    let played = run(&scenario, &mut Unobserved)?;
    let seconds = (now() - began).as_secs_f64();
    let (requests, events) = (played.samples.len(), played.events.total());
    let (events_per_s, requests_per_s) = (events as f64 / seconds, requests as f64 / seconds);
    let gib = peak_gib().map_or("-".to_owned(), |gib| format!("{gib:.2}"));
    println!(
        "{name:<34} {requests:>10} {events:>10} {events_per_s:>12.0} {requests_per_s:>12.0} {seconds:>8.2} {gib:>8}"
    );
    Ok(())
}

/// Most memory that this process has had so far, where the system tells it.
fn peak_gib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}
