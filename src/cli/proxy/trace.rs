//! `gorgo proxy trace start` and `stop`: spans of one router. `gorgo cluster start-trace` and `stop-trace` do it for all nodes.

use std::path::PathBuf;

use clap::Subcommand;

use super::super::client::{Change, Client, Write};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::trace::{Buffer, check, finish};
use super::super::{Context, human};
use crate::gateway::clock::Clock;
use crate::wire::paths;
use crate::wire::span::{Dump, StopTrace, TraceStarted, Trip};

/// The commands of `gorgo proxy trace`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begin to collect spans, in the router's memory
    Start(StartArgs),
    /// End it and write what was collected into a file; a second time gives the same again
    Stop(StopArgs),
}

/// Arguments of `gorgo proxy trace start`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    buffer: Buffer,
}

/// Arguments of `gorgo proxy trace stop`.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    write: Write,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Starts or stops.
pub(super) async fn run(command: &Command, context: &Context) -> Outcome {
    match command {
        Command::Start(args) => start(args, context).await,
        Command::Stop(args) => stop(args, context).await,
    }
}

async fn start(args: &StartArgs, context: &Context) -> Outcome {
    let change = Change::new(paths::TRACE_START, &args.buffer.request())?;
    if let Some(started) = super::write::<TraceStarted>(&args.write, &change, context).await? {
        if args.write.json {
            context.printer.json(&started)?;
        }
        let buffer = human::bytes(started.buffer_bytes);
        context.printer.talk(format_args!("{} collects spans, the last {buffer} of them", started.node));
    }
    Ok(Exit::Done)
}

async fn stop(args: &StopArgs, context: &Context) -> Outcome {
    check(&args.output)?;
    let client = Client::new(&args.write.admin, context)?;
    let change = Change::new(paths::TRACE_STOP, &StopTrace {})?;
    if args.write.dry_run {
        context.printer.data(client.describe(&change)?)?;
        return Ok(Exit::Done);
    }
    let clock = Clock::start();
    let asked_us = clock.now().micros();
    let text = client.post_text(&change).await?;
    let trip = Trip { asked_us, answered_us: clock.now().micros() };
    let dump = Dump::parse(&text)
        .map_err(|error| Failure::from(anyhow::Error::new(error).context(client.who().to_owned())))?;
    finish(&args.output, &[dump], &[trip], &[], args.write.json, context)?;
    Ok(Exit::Done)
}
