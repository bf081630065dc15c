//! `gorgo proxy …`: the central router, and the commands that talk to a running one, here or on a node.

mod cache;
mod explain;
mod keys;
mod latency;
mod metrics;
mod policy;
mod route;
mod servers;
pub(super) mod start;
mod status;
mod stop;
mod trace;
mod tuner;

use clap::Subcommand;

use anyhow::anyhow;

use super::Context;
use super::client::{Change, Client, Read, Write};
use super::cluster::proxy as deploy;
use super::exit::{Exit, Failure, Outcome};
use super::printer::Printer;
use super::signal::or_interrupted;
pub(crate) use route::Route;

/// Arguments of `gorgo proxy`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: route::Choice,
    #[command(subcommand)]
    command: Command,
}

/// The commands of `gorgo proxy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the central router in front of these replicas until it is stopped
    Start(start::Args),
    /// Put the central router on a node of the cluster, in front of the agents of all nodes
    Deploy(Box<deploy::Args>),
    /// Finish what is in flight, then end the proxy
    Stop(stop::Args),
    /// Show version, strategy, queue and requests so far
    Status(Read),
    /// List, add, remove or drain replicas
    Servers(servers::Args),
    /// Show the strategy and those that could be, or switch to another
    Policy(policy::PolicyArgs),
    /// Show or change weights and limits of the strategy in charge, or have them tuned on live requests
    Tune(Box<policy::TuneArgs>),
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
    /// Collect spans of requests, and write them into a file for Perfetto
    #[command(subcommand)]
    Trace(trace::Command),
}

/// Every command and where it lives.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let Args { choice, command } = args;
    if !choice.is_named() {
        return here(command, context).await;
    }
    let hint = match &command {
        Command::Start(_) => Some("`gorgo proxy deploy NAME` puts it on a node"),
        Command::Deploy(_) => Some("name the node behind `deploy`, without `--remote`"),
        _ => None,
    };
    if let Some(hint) = hint {
        return Err(Failure::usage(anyhow!(
            "`--remote` and `--service` are for commands that talk to a running proxy"
        ))
        .with_hint(hint));
    }
    Box::pin(or_interrupted(on_node(&choice, command, context))).await
}

/// The same with the admin API of a node.
async fn on_node(choice: &route::Choice, command: Command, context: &Context) -> Outcome {
    let (node, route) = choice.open(context).await?;
    if let Command::Stop(args) = &command {
        return node.stop(args, context).await;
    }
    let printer = Printer::for_process(context.printer.is_quiet());
    let (config, provider) = (context.config.clone(), context.provider);
    here(command, &Context { printer, config, provider, route: Some(route) }).await
}

async fn here(command: Command, context: &Context) -> Outcome {
    match command {
        // It stays in charge of Ctrl-C: the first one drains.
        Command::Start(args) => start::run(&args, context).await,
        Command::Deploy(args) => Box::pin(deploy::run(&args, context)).await,
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
        Command::Trace(command) => or_interrupted(trace::run(&command, context)).await,
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
