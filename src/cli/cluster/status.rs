//! `gorgo cluster status`: every node at once, one row each, whether it answers or not.

use std::time::Duration;

use super::binary;
use super::outcome::share;
use super::row::{Row, document, tables};
use super::scene::{Access, Scene};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::instances::cents_per_hour;
use crate::cli::signal::or_interrupted;
use crate::cli::{Context, human};
use crate::cluster::desired::AgentBinary;
use crate::cluster::operations::{Member, status};

/// Time between two looks of `--watch`: each asks every engine for a token, and Lambda for its list.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// Arguments of `gorgo cluster status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes to look at [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Look again every 5 s, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON; with --watch one line per look
    #[arg(long)]
    json: bool,
}

/// Exit code 3 if some nodes cannot be reached, 1 if none can.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let own = binary::inspect(binary::own()?)?;
    or_interrupted(async {
        loop {
            let exit = once(args, &own, context).await?;
            if !args.watch {
                return Ok(exit);
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    })
    .await
}

/// One look.
async fn once(args: &Args, own: &AgentBinary, context: &Context) -> Result<Exit, Failure> {
    let scene = Scene::look(context, Access::Read).await?;
    let rows = rows(&scene, &args.names).await?;
    let cents = cents_per_hour(rows.iter().filter_map(|row| row.node.instance.as_ref()));
    if args.json {
        let value = document(&scene.setup.fleet.cluster, &rows, cents, own);
        let text = if args.watch { value.to_string() } else { serde_json::to_string_pretty(&value)? };
        context.printer.data(text)?;
    } else {
        context.printer.data(tables(&rows, own))?;
        let serving = rows.iter().filter(|row| row.trouble().is_none()).count();
        context.printer.talk(format_args!(
            "{serving} of {} {} serving, {} in flight, {}",
            rows.len(),
            if rows.len() == 1 { "node" } else { "nodes" },
            rows.iter().filter_map(Row::agent).map(|agent| agent.requests.in_flight).sum::<u64>(),
            human::price(cents),
        ));
        if args.watch {
            context.printer.data("")?;
        }
    }
    Ok(share(rows.iter().filter(|row| row.seen.is_err()).count(), rows.len()))
}

/// Looks at all nodes at once. One without a machine is a row like any other that cannot be reached.
async fn rows<'a>(scene: &'a Scene, names: &[String]) -> Result<Vec<Row<'a>>, Failure> {
    let chosen = scene.chosen(names)?;
    let members: Vec<Result<Member, Failure>> = chosen.iter().map(|node| scene.member(node)).collect();
    let there: Vec<Member> = members.iter().filter_map(|member| member.as_ref().ok()).cloned().collect();
    let mut seen = status(&there).await.into_iter();
    let told = |name: &str| scene.inventory.as_ref().and_then(|inventory| inventory.balance(name)).cloned();
    let row = |(node, member): (&&'a crate::cli::nodes::Node, Result<Member, Failure>)| {
        let (spec, seen) = match member {
            Ok(member) => {
                let facts = seen.next().map(|(_, facts)| facts.map_err(|error| (error.message, error.hint)));
                (Some(member.spec), facts.unwrap_or_else(|| Err(("it was not looked at".to_owned(), None))))
            }
            Err(failure) => (None, Err((failure.error.to_string(), failure.hint))),
        };
        Row { node, spec, seen, told: told(&node.name) }
    };
    Ok(chosen.iter().zip(members).map(row).collect())
}
