//! `gorgo cluster revoke`: certificates of nodes become worthless before their end.

use super::desired::seconds;
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::provider::Setup;
use crate::cluster::authority::Authority;

/// Arguments of `gorgo cluster revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes whose certificates somebody else may have; those that are gone, too
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Print what would be revoked, and revoke nothing
    #[arg(long)]
    dry_run: bool,
}

/// Notes it beside the CA. No machine is touched: `cluster setup` takes the list to all nodes.
pub(super) fn run(args: &Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    // Nobody issues certificates meanwhile.
    let held = setup.inventory()?;
    let authority = Authority::new(setup.cluster_folder(), &setup.fleet.cluster);
    let noted = authority.revoke(&args.names, seconds(), args.dry_run);
    let noted = noted.map_err(|error| Failure::from(error).with_hint("nothing was revoked"))?;
    drop(held);
    for identity in &noted {
        context.printer.data(identity)?;
    }
    match (noted.is_empty(), args.dry_run) {
        (true, _) => context.printer.talk("nothing to do: they are revoked already"),
        (false, true) => context.printer.talk("would be revoked"),
        (false, false) => context.printer.talk(
            "revoked; `gorgo cluster setup` tells all nodes now, without a restart, and gives these ones new certificates",
        ),
    }
    Ok(Exit::Done)
}
