//! `gorgo cluster logs`.

use futures_util::future::join_all;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::nodes::{Node, look, no_such_node};
use crate::cli::provider::Setup;
use crate::cli::reach::{remote, remote_failure};
use crate::cli::signal::or_interrupted;
use crate::cluster::layout::Role;

/// Arguments of `gorgo cluster logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Which service
    #[arg(long, value_name = "SERVICE", value_parser = ["engine", "agent", "proxy"], default_value = "agent")]
    service: String,
    /// Lines of the past
    #[arg(long, value_name = "N", default_value_t = 100)]
    lines: u32,
    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
}

/// Each line behind its node's name.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let nodes = look(&setup, &provider).await?;
    let known = || nodes.iter().map(|node| node.name.as_str());
    if let Some(name) = args.names.iter().find(|name| !known().any(|it| it == name.as_str())) {
        return Err(no_such_node(&setup.fleet.cluster, name, known()));
    }
    let unit = Role::ALL.into_iter().find(|role| role.name() == args.service).map_or("", Role::unit);
    let chosen: Vec<&Node> = nodes.iter().filter(|it| args.names.is_empty() || args.names.contains(&it.name)).collect();
    or_interrupted(async {
        let one = |node: &Node| {
            let (name, remote) = (node.name.clone(), remote(&setup, &provider, node));
            async move {
                let remote = remote?;
                let mut lines = remote.logs(unit, args.lines, args.follow).await.map_err(remote_failure)?;
                while let Some(line) = lines.recv().await {
                    context.printer.data(format_args!("{name}: {line}"))?;
                }
                Ok::<(), Failure>(())
            }
        };
        let ended = join_all(chosen.iter().map(|node| one(node))).await;
        let failures: Vec<Failure> = ended.into_iter().filter_map(Result::err).collect();
        for failure in &failures {
            context.printer.failure(failure);
        }
        Ok(match failures.len() {
            0 => Exit::Done,
            failed if failed == chosen.len() => Exit::Failed,
            _ => Exit::Partly,
        })
    })
    .await
}
