//! `gorgo proxy …`: the central router, and the commands that talk to a running one.

mod cache;
mod explain;
mod keys;
mod latency;
mod metrics;
mod policy;
mod servers;
pub(super) mod start;
mod status;
mod stop;

use clap::Subcommand;

use super::Context;
use super::client::{Change, Client, Read, Write};
use super::exit::{Exit, Failure, Outcome};
use super::signal::or_interrupted;

/// The commands of `gorgo proxy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the central router in front of these replicas until it is stopped
    Start(start::Args),
    /// Finish what is in flight, then end the proxy
    Stop(stop::Args),
    /// Show version, strategy, queue and requests so far
    Status(Read),
    /// List, add, remove or drain replicas
    Servers(servers::Args),
    /// Show the strategy and those that could be, or switch to another
    Policy(policy::PolicyArgs),
    /// Show or change weights and limits of the strategy in charge
    Tune(policy::TuneArgs),
    /// Empty the prefix index; the engines keep their caches
    ClearCache(cache::ClearArgs),
    /// Show what the prefix index holds and how often it is right
    PrefixStats(Read),
    /// Show round trips, and predicted against actual time to first token
    Latency(Read),
    /// Print the metrics (Prometheus text)
    Metrics(metrics::Args),
    /// Make, list and revoke the API keys of clients
    #[command(subcommand)]
    Keys(keys::Command),
    /// List the last decisions, or explain one: every candidate and every term
    Explain(explain::Args),
}

/// Every command and where it lives.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        // It stays in charge of Ctrl-C: the first one drains.
        Command::Start(args) => start::run(&args, context).await,
        Command::Stop(args) => or_interrupted(stop::run(&args, context)).await,
        Command::Status(args) => or_interrupted(status::run(&args, context)).await,
        Command::Servers(args) => or_interrupted(servers::run(&args, context)).await,
        Command::Policy(args) => or_interrupted(policy::run(&args, context)).await,
        Command::Tune(args) => or_interrupted(policy::run_tune(&args, context)).await,
        Command::ClearCache(args) => or_interrupted(cache::run_clear(&args, context)).await,
        Command::PrefixStats(args) => or_interrupted(cache::run(&args, context)).await,
        Command::Latency(args) => or_interrupted(latency::run(&args, context)).await,
        Command::Metrics(args) => or_interrupted(metrics::run(&args, context)).await,
        Command::Keys(command) => keys::run(&command, context),
        Command::Explain(args) => or_interrupted(explain::run(&args, context)).await,
    }
}

/// Reads the document at `path` and prints it: as it came with `--json`, else through `show`.
async fn read<T>(args: &Read, path: &str, context: &Context, show: impl FnOnce(&T) -> String) -> Outcome
where
    T: serde::de::DeserializeOwned + serde::Serialize,
{
    let document: T = Client::new(&args.admin, context)?.get(path).await?;
    print(&document, args.json, context, show)?;
    Ok(Exit::Done)
}

/// Prints a document.
fn print<T: serde::Serialize>(
    document: &T,
    json: bool,
    context: &Context,
    show: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    if json { context.printer.json(document) } else { context.printer.data(show(document)) }
}

/// Sends a change and returns the state after it; with `--dry-run` prints what would be sent and returns nothing.
async fn write<T>(args: &Write, change: &Change, context: &Context) -> Result<Option<T>, Failure>
where
    T: serde::de::DeserializeOwned,
{
    let client = Client::new(&args.admin, context)?;
    if args.dry_run {
        context.printer.data(client.describe(change)?)?;
        return Ok(None);
    }
    client.post(change).await.map(Some)
}
