//! `gorgo proxy metrics`.

use super::super::Context;
use super::super::client::{Admin, Client};
use super::super::exit::{Exit, Outcome};
use crate::wire::paths;

/// Arguments of `gorgo proxy metrics`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: Admin,
}

/// Prints the text that a Prometheus server would scrape.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let text = Client::new(&args.admin, context)?.text(paths::METRICS).await?;
    context.printer.data(text.trim_end())?;
    Ok(Exit::Done)
}
