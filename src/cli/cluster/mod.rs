//! `gorgo cluster …`: from machines to a serving cluster.

mod binary;
mod desired;
mod doctor;
mod flush;
mod front;
mod logs;
mod outcome;
pub(crate) mod proxy;
mod restart_lb;
mod revoke;
mod row;
mod scene;
mod status;
mod trace;
mod work;

use clap::Subcommand;

use super::Context;
use super::exit::Outcome;
use work::Task;

/// The commands of `gorgo cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install and start what makes the nodes a serving cluster; a second run changes nothing
    Setup(work::Args),
    /// Show what every node serves, on what, and what it costs
    Status(status::Args),
    /// Change strategy, limit or weights of the agents without losing a request
    RestartLb(restart_lb::Args),
    /// Empty the caches of the engines and what the routers know of them
    FlushCache(flush::Args),
    /// Make the certificates of nodes worthless before their end; `cluster setup` then tells all nodes and makes new ones
    Revoke(revoke::Args),
    /// Begin to collect spans of requests on all nodes
    StartTrace(trace::StartArgs),
    /// End it and write the spans of all nodes into one file for Perfetto
    StopTrace(trace::StopArgs),
    /// Find what is wrong, and say what to do about it
    Doctor(doctor::Args),
    /// Put this version of gorgo, or another file, on every node
    Upload(work::Args),
    /// Go back to the version of gorgo that was there before
    Rollback(work::Choice),
    /// Print the logs of the services
    Logs(logs::Args),
    /// Stop and remove everything that was installed; the machines stay
    Down(work::Down),
}

/// Every command and where it lives.
pub(crate) async fn run(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Setup(args) => work::run(Task::Setup, &args.choice, Some(&args), context).await,
        Command::Upload(args) => work::run(Task::Upload, &args.choice, Some(&args), context).await,
        Command::Rollback(choice) => work::run(Task::Rollback, &choice, None, context).await,
        Command::Status(args) => Box::pin(status::run(&args, context)).await,
        Command::RestartLb(args) => Box::pin(restart_lb::run(&args, context)).await,
        Command::FlushCache(args) => Box::pin(flush::run(&args, context)).await,
        Command::Revoke(args) => revoke::run(&args, context),
        Command::StartTrace(args) => Box::pin(trace::run_start(&args, context)).await,
        Command::StopTrace(args) => Box::pin(trace::run_stop(&args, context)).await,
        Command::Doctor(args) => Box::pin(doctor::run(&args, context)).await,
        Command::Down(args) => work::down(&args, context).await,
        Command::Logs(args) => Box::pin(logs::run(&args, context)).await,
    }
}
