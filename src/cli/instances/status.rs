//! `gorgo status`: the machines of the cluster.

use serde_json::json;

use super::{cents_per_hour, state};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::nodes::{Node, is_uncertain, look};
use crate::cli::provider::Setup;
use crate::cli::table::{Column, Table};
use crate::cli::{Context, human};

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
    let nodes = look(&setup, &setup.provider()?).await?;
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
    for node in &nodes {
        for id in node.record.iter().flat_map(|it| &it.also) {
            let name = &node.name;
            context.printer.warn(format_args!(
                "{id} has the tag of {name}, is not wanted and costs money; `gorgo terminate {name}` ends it too"
            ));
        }
    }
    Ok(if nodes.iter().all(Node::is_there) { Exit::Done } else { Exit::Partly })
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
