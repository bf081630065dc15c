//! `gorgo cluster start-trace` and `stop-trace`: spans of requests from all routers, in one file with one time line.

use std::path::PathBuf;

use serde_json::json;

use super::outcome::share;
use super::scene::{Access, Scene};
use crate::cli::Context;
use crate::cli::exit::{Exit, Outcome};
use crate::cli::progress::NodeLines;
use crate::cli::signal::or_interrupted;
use crate::cli::trace::{Buffer, Missing, check, finish};
use crate::cluster::operations::Member;
use crate::cluster::trace::{Answered, Collected, start, stop};
use crate::gateway::clock::Clock;

/// Arguments of `gorgo cluster start-trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// Nodes whose requests are to be traced [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    buffer: Buffer,
    /// Print what would be asked of each node, and ask nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `gorgo cluster stop-trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// Nodes whose traces are wanted [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Print what would be asked of each node, and ask nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 3 if some routers do not trace now, 1 if none does.
pub(super) async fn run_start(args: &StartArgs, context: &Context) -> Outcome {
    let members = Scene::look(context, Access::Read).await?.members(&args.names)?;
    if args.dry_run {
        return dry_run(&members, "start to collect spans", context);
    }
    or_interrupted(async {
        let lines = lines(&members, context);
        let started = start(&members, args.buffer.request(), &|node, what| lines.say(node, what)).await;
        drop(lines);
        let missing = missing(&started, context);
        if args.json {
            let started: Vec<_> = started.iter().filter_map(|answered| answered.result.as_ref().ok()).collect();
            context.printer.json(&json!({ "started": started, "failed": missing }))?;
        }
        Ok(share(missing.len(), started.len()))
    })
    .await
}

/// Exit code 3 if some routers gave nothing: the file has the others. 1 if none did: there is no file then.
pub(super) async fn run_stop(args: &StopArgs, context: &Context) -> Outcome {
    check(&args.output)?;
    let members = Scene::look(context, Access::Read).await?.members(&args.names)?;
    if args.dry_run {
        return dry_run(&members, "stop to collect spans, and hand them out", context);
    }
    or_interrupted(async {
        let (lines, clock) = (lines(&members, context), Clock::start());
        let answered = stop(&members, &|| clock.now().micros(), &|node, what| lines.say(node, what)).await;
        drop(lines);
        let missing = missing(&answered, context);
        let exit = share(missing.len(), answered.len());
        let collected = answered.into_iter().filter_map(|answered| answered.result.ok());
        let (dumps, trips): (Vec<_>, Vec<_>) = collected.map(|Collected { dump, trip }| (dump, trip)).unzip();
        if dumps.is_empty() {
            context.printer.warn(format_args!("no router gave anything: `{}` is not written", args.output.display()));
            return Ok(exit);
        }
        finish(&args.output, &dumps, &trips, &missing, args.json, context)?;
        Ok(exit)
    })
    .await
}

fn dry_run(members: &[Member], what: &str, context: &Context) -> Outcome {
    let names: Vec<&str> = members.iter().map(|member| member.spec.name.as_str()).collect();
    context.printer.data(format_args!("{what}: the routers of {}", names.join(", ")))?;
    Ok(Exit::Done)
}

fn lines<'a>(members: &[Member], context: &'a Context) -> NodeLines<'a> {
    NodeLines::new(&context.printer, members.iter().map(|member| member.spec.name.as_str()))
}

/// Routers that did not do it, each told with its reason.
fn missing<T>(answered: &[Answered<T>], context: &Context) -> Vec<Missing> {
    let failed = answered.iter().filter_map(|it| it.result.as_ref().err().map(|why| (it.name(), why)));
    failed
        .map(|(node, why)| {
            context.printer.warn(format_args!("{node}: {why}"));
            Missing { node, why: why.clone() }
        })
        .collect()
}
