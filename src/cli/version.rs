//! `gorgo version`.

use serde_json::json;

use super::Context;
use super::exit::{Exit, Outcome};

/// Arguments of `gorgo version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the version.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        context.printer.json(&json!({ "gorgo": version }))?;
    } else {
        context.printer.data(format_args!("gorgo {version}"))?;
    }
    Ok(Exit::Done)
}
