//! `gorgo list`.

use serde_json::json;

use super::{cents_per_hour, table};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::{Context, human};

/// Arguments of `gorgo list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that the provider knows, of this cluster or not.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let instances = provider.inventory().list().await.map_err(cloud_failure)?;
    let cents = cents_per_hour(&instances);
    if args.json {
        let provider = setup.fleet.provider;
        context.printer.json(&json!({ "provider": provider, "instances": instances, "cents_per_hour": cents }))?;
        return Ok(Exit::Done);
    }
    if !instances.is_empty() {
        context.printer.data(table(&instances))?;
    }
    let noun = if instances.len() == 1 { "machine" } else { "machines" };
    context.printer.talk(format_args!("{} {noun}, {}", instances.len(), human::price(cents)));
    Ok(Exit::Done)
}
