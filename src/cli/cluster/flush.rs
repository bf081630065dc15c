//! `gorgo cluster flush-cache`: empties the engines' caches and the routers' picture of them.

use serde_json::json;

use super::outcome::share;
use super::scene::{Access, Scene};
use crate::cli::exit::Outcome;
use crate::cli::signal::or_interrupted;
use crate::cli::table::{Column, Table};
use crate::cli::{Context, human};
use crate::cluster::flush::{Flush, NodeFlush, flush_cache};
use crate::cluster::operations::Member;

/// Arguments of `gorgo cluster flush-cache`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes whose caches are to be emptied [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 3 if some node's caches are not empty, 1 if no node's are.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let scene = Scene::look(context, Access::Read).await?;
    let members: Vec<Member> = scene.members(&args.names)?;
    or_interrupted(async {
        let flushed = flush_cache(&members).await;
        if args.json {
            context.printer.json(&json!({ "nodes": flushed }))?;
        } else {
            context.printer.data(table(&flushed))?;
        }
        if flushed.iter().any(|node| node.engine == Flush::Busy) {
            context.printer.warn("an engine keeps its cache while requests run or wait: try again when it is idle");
        }
        if flushed.iter().any(|node| node.engine == Flush::Unsupported) {
            context.printer.warn("vLLM empties its cache only when it was started with VLLM_SERVER_DEV_MODE=1; a restart empties it as well");
        }
        Ok(share(flushed.iter().filter(|node| !node.is_done()).count(), flushed.len()))
    })
    .await
}

fn table(nodes: &[NodeFlush]) -> Table {
    let mut table =
        Table::new(&[Column::Text("node"), Column::Text("engine"), Column::Text("agent"), Column::Text("proxy")]);
    for node in nodes {
        let proxy = human::or_unknown(node.proxy.as_ref(), words);
        table.row([node.node.clone(), words(&node.engine), words(&node.agent), proxy]);
    }
    table
}

fn words(flush: &Flush) -> String {
    match flush {
        Flush::Done { blocks: None } => "emptied".to_owned(),
        Flush::Done { blocks: Some(blocks) } => format!("emptied, {} blocks forgotten", human::count(*blocks)),
        Flush::Busy => "refused: it is busy".to_owned(),
        Flush::Unsupported => "cannot".to_owned(),
        Flush::Failed { why } => format!("failed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Flush, NodeFlush, table};

    #[test]
    fn each_node_says_what_became_of_each_cache() {
        let node = |node: &str, engine, agent, proxy| NodeFlush { node: node.to_owned(), engine, agent, proxy };
        let done = |blocks| Flush::Done { blocks };
        let nodes = [
            node("east", done(None), done(Some(1_234)), Some(done(Some(0)))),
            node("eu", Flush::Busy, Flush::Failed { why: "nothing listens".to_owned() }, None),
            node("west", Flush::Unsupported, done(Some(1)), None),
        ];
        assert_snapshot!(table(&nodes), @"
        NODE  ENGINE               AGENT                            PROXY
        east  emptied              emptied, 1,234 blocks forgotten  emptied, 0 blocks forgotten
        eu    refused: it is busy  failed: nothing listens          -
        west  cannot               emptied, 1 blocks forgotten      -
        ");
    }
}
