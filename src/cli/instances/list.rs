//! `gorgo list`.

use serde_json::{Value, json};

use super::owner::{Owner, Owners};
use super::{cents_per_hour, table};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::{Context, human};
use crate::cloud::Instance;

/// Arguments of `gorgo list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that the provider knows, with whose it is.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let instances = provider.inventory().list().await.map_err(cloud_failure)?;
    let owners = Owners::new(&setup, setup.records()?);
    let all: Vec<(Instance, Owner)> = instances
        .into_iter()
        .map(|it| {
            let owner = owners.of(&it);
            (it, owner)
        })
        .collect();
    let cents = cents_per_hour(all.iter().map(|(instance, _)| instance));
    let ours: Vec<&Instance> = all.iter().filter(|(_, owner)| owner.is_ours()).map(|(instance, _)| instance).collect();
    let ours_cents = cents_per_hour(ours.iter().copied());
    if args.json {
        let entries: Vec<Value> = all.iter().map(|(instance, owner)| entry(instance, owner)).collect();
        context.printer.json(&json!({
            "provider": setup.fleet.provider, "cluster": setup.fleet.cluster, "instances": entries,
            "cents_per_hour": cents, "cluster_cents_per_hour": ours_cents,
        }))?;
        return Ok(Exit::Done);
    }
    if !all.is_empty() {
        context.printer.data(table(&all))?;
    }
    let noun = if all.len() == 1 { "machine" } else { "machines" };
    let of_cluster = if ours.len() == all.len() {
        String::new()
    } else {
        format!("; {} of them in cluster {}, {}", ours.len(), setup.fleet.cluster, human::price(ours_cents))
    };
    context.printer.talk(format_args!("{} {noun}, {}{of_cluster}", all.len(), human::price(cents)));
    Ok(Exit::Done)
}

fn entry(instance: &Instance, owner: &Owner) -> Value {
    let mut entry = json!(instance);
    entry["owner"] = json!(owner);
    entry
}
