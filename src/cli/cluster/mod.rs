//! `gorgo cluster …`: from machines to a serving cluster.

mod binary;
mod desired;
mod logs;
pub(crate) mod proxy;
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
        Command::Down(args) => work::down(&args, context).await,
        Command::Logs(args) => Box::pin(logs::run(&args, context)).await,
    }
}
