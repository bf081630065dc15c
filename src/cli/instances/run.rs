//! `gorgo run`: one command on many nodes at once.

use anyhow::anyhow;
use futures_util::stream::{self, StreamExt as _};
use serde_json::json;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::nodes::{Node, look, no_such_node};
use crate::cli::provider::Setup;
use crate::cli::reach::{remote, remote_failure};
use crate::cli::signal::or_interrupted;
use crate::remote::{Output, RemoteCommand};

/// Nodes that are worked on at once.
const AT_ONCE: usize = 16;

/// Arguments of `gorgo run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The command and its arguments; `sh -c '…'` for a shell's syntax
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Run it as root
    #[arg(long)]
    sudo: bool,
    /// Longest run, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 if it failed on all nodes, 3 if on some.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let nodes = look(&setup, &provider).await?;
    let chosen = chosen(&setup.fleet.cluster, &args.names, &nodes)?;
    let command = RemoteCommand { argv: args.command, sudo: args.sudo, stdin: Vec::new(), timeout_s: args.timeout };
    or_interrupted(async {
        let one = |node: &Node| {
            let (name, remote, command) = (node.name.clone(), remote(&setup, &provider, node), &command);
            async move {
                let ran = match remote {
                    Ok(remote) => remote.run(command).await.map_err(remote_failure),
                    Err(failure) => Err(failure),
                };
                (name, ran)
            }
        };
        let all: Vec<_> = stream::iter(chosen.iter().map(|node| one(node))).buffered(AT_ONCE).collect().await;
        let bad = all.iter().filter(|(_, ran)| !ran.as_ref().is_ok_and(Output::ok)).count();
        if args.json {
            let entry = |(name, ran): &(String, Result<Output, Failure>)| match ran {
                Ok(output) => {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    json!({ "node": name, "status": output.status, "stdout": text(&output.stdout), "stderr": text(&output.stderr) })
                }
                Err(failure) => json!({ "node": name, "error": failure.error.to_string() }),
            };
            context.printer.json(&all.iter().map(entry).collect::<Vec<_>>())?;
        } else {
            for (name, ran) in &all {
                tell(context, (all.len() > 1).then_some(name), ran)?;
            }
        }
        Ok(match bad {
            0 => Exit::Done,
            bad if bad == all.len() => Exit::Failed,
            _ => Exit::Partly,
        })
    })
    .await
}

fn chosen<'a>(cluster: &str, names: &[String], nodes: &'a [Node]) -> Result<Vec<&'a Node>, Failure> {
    if nodes.is_empty() {
        return Err(Failure {
            exit: Exit::NothingSuitable,
            error: anyhow!("cluster `{cluster}` has no nodes"),
            hint: Some("`gorgo launch` gets some".to_owned()),
        });
    }
    if names.is_empty() {
        return Ok(nodes.iter().collect());
    }
    let known = || nodes.iter().map(|node| node.name.as_str());
    let one = |name: &String| {
        nodes.iter().find(|node| node.name == *name).ok_or_else(|| no_such_node(cluster, name, known()))
    };
    names.iter().map(one).collect()
}

/// Output as it came, each line behind the node's name where there are several.
fn tell(context: &Context, name: Option<&String>, ran: &Result<Output, Failure>) -> Result<(), Failure> {
    let lines = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let prefix = name.map_or_else(String::new, |name| format!("{name}: "));
        text.lines().map(|line| format!("{prefix}{line}")).collect::<Vec<_>>()
    };
    match ran {
        Ok(output) => {
            for line in lines(&output.stdout) {
                context.printer.data(line)?;
            }
            for line in lines(&output.stderr) {
                context.printer.talk(line);
            }
            if !output.ok() {
                let status = output.status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}"));
                context
                    .printer
                    .warn(format_args!("{}ended with {status}", name.map_or_else(String::new, |it| format!("{it}: "))));
            }
        }
        Err(failure) => context.printer.failure(failure),
    }
    Ok(())
}
