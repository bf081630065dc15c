//! `gorgo status`: the machines of the cluster.

use serde_json::json;

use super::owner::{Owners, untaken};
use super::{cents_per_hour, state};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::nodes::{Node, is_gone, is_uncertain, nodes};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::table::{Column, Table};
use crate::cli::{Context, human};
use crate::cloud::Instance;

/// Arguments of `gorgo status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 3 if a node has no machine to work with.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let records = setup.records()?;
    let listed = setup.provider()?.inventory().list().await.map_err(cloud_failure)?;
    let nodes = nodes(&setup, &records, &listed);
    let cents = cents_per_hour(nodes.iter().filter_map(|node| node.instance.as_ref()));
    if args.json {
        let entry = |node: &Node| json!({ "name": node.name, "state": word(node), "id": node.id(), "instance": node.instance, "record": node.record });
        let all: Vec<_> = nodes.iter().map(entry).collect();
        context.printer.json(&json!({ "cluster": setup.fleet.cluster, "provider": setup.fleet.provider, "nodes": all, "cents_per_hour": cents }))?;
    } else if nodes.is_empty() {
        context.printer.talk(format_args!("cluster {} has no nodes; `gorgo launch` gets some", setup.fleet.cluster));
    } else {
        context.printer.data(table(&nodes))?;
        let noun = if nodes.len() == 1 { "node" } else { "nodes" };
        context.printer.talk(format_args!("{} {noun}, {}", nodes.len(), human::price(cents)));
    }
    if !args.json {
        say_the_rest(&Owners::new(&setup, records), &listed, context);
    }
    warn_unknown(&nodes, &listed, context);
    Ok(if nodes.iter().all(Node::is_there) { Exit::Done } else { Exit::Partly })
}

/// Machines of the account that are none of this cluster's, so that nobody forgets them.
fn say_the_rest(owners: &Owners, listed: &[Instance], context: &Context) {
    let rest: Vec<&Instance> = listed.iter().filter(|it| !is_gone(&it.status) && !owners.of(it).is_ours()).collect();
    if !rest.is_empty() {
        let noun = if rest.len() == 1 { "machine" } else { "machines" };
        let price = human::price(cents_per_hour(rest.iter().copied()));
        context.printer.talk(format_args!(
            "the account has {} more {noun}, {price}, not of this cluster; `gorgo list` shows whose",
            rest.len()
        ));
    }
}

/// Machines of this cluster that cost money and are not used.
fn warn_unknown(nodes: &[Node], listed: &[Instance], context: &Context) {
    for node in nodes {
        for id in node.record.iter().flat_map(|it| &it.also) {
            let name = &node.name;
            context.printer.warn(format_args!(
                "{id} has the tag of {name}, is not wanted and costs money; `gorgo terminate {name}` ends it too"
            ));
        }
    }
    for (name, instance) in untaken(nodes, listed) {
        let uncertain = nodes.iter().any(|it| it.name == name && it.record.as_ref().is_some_and(is_uncertain));
        let hint = if uncertain { format!("`gorgo launch {name}` takes it up, ") } else { String::new() };
        let price =
            instance.price_cents_per_hour.map_or_else(String::new, |cents| format!(", {}", human::price(cents.into())));
        context.printer.warn(format_args!(
            "{} has the tag of {name} and costs money{price}, but the inventory does not have it; {hint}`gorgo terminate {name}` ends it",
            instance.id
        ));
    }
}

/// The machine's state, or why there is none.
fn word(node: &Node) -> String {
    match (&node.instance, &node.record) {
        (Some(instance), _) => state(&instance.status),
        (None, Some(record)) if is_uncertain(record) => "unknown".to_owned(),
        (None, Some(record)) if record.id().is_some() => "gone".to_owned(),
        (None, _) => "none".to_owned(),
    }
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new(&[
        Column::Text("node"),
        Column::Text("machine"),
        Column::Text("state"),
        Column::Text("address"),
        Column::Text("region"),
        Column::Text("type"),
        Column::Number("price"),
    ]);
    for node in nodes {
        let instance = node.instance.as_ref();
        let record = node.record.as_ref();
        let region = instance.map(|it| &it.region).or_else(|| record?.region.as_ref());
        let kind = instance.map(|it| &it.instance_type).or_else(|| record?.instance_type.as_ref());
        table.row([
            node.name.clone(),
            human::or_unknown(node.id(), ToString::to_string),
            word(node),
            human::or_unknown(instance.and_then(|it| it.address), |address| address.to_string()),
            human::or_unknown(region, ToString::to_string),
            human::or_unknown(kind.filter(|it| !it.is_empty()), Clone::clone),
            human::or_unknown(instance.and_then(|it| it.price_cents_per_hour), |cents| human::price(cents.into())),
        ]);
    }
    table
}
