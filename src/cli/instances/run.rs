//! `gorgo run`: one command on many nodes at once.

use anyhow::anyhow;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::nodes::{Node, look, no_such_node};
use crate::cli::printer::Printer;
use crate::cli::provider::{Provider, Setup};
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
    /// The command and its arguments as they are; `sh -c '…'` for a shell's syntax
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Run it as root
    #[arg(long)]
    sudo: bool,
    /// Longest run, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout: u32,
    /// Print what would be run where, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

/// One node's run.
struct Ran {
    node: String,
    result: Result<Output, Failure>,
}

/// On one node the exit code of the command; on several 1 if it failed on all of them, 3 if on some.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let nodes = look(&setup, &provider).await?;
    let chosen = chosen(&setup.fleet.cluster, &args.names, &nodes)?;
    let command = RemoteCommand { argv: args.command, sudo: args.sudo, stdin: Vec::new(), timeout_s: args.timeout };
    if args.dry_run {
        for node in &chosen {
            context.printer.data(format_args!("{}: {command}", node.name))?;
        }
        return Ok(Exit::Done);
    }
    let all = on_all(&setup, &provider, &chosen, &command, args.json, &context.printer);
    let exit = or_interrupted(all).await?;
    if exit == Exit::Interrupted {
        let limit = command.timeout_s;
        context
            .printer
            .warn(format_args!("interrupted; what runs on a node already may go on there, at most {limit} s"));
    }
    Ok(exit)
}

/// Tells of each node as soon as all before it are done.
async fn on_all(
    setup: &Setup,
    provider: &Provider,
    chosen: &[&Node],
    command: &RemoteCommand,
    json: bool,
    printer: &Printer,
) -> Outcome {
    let one = |node: &Node| {
        let (node, remote) = (node.name.clone(), remote(setup, provider, node));
        async move {
            let result = match remote {
                Ok(remote) => remote.run(command).await.map_err(remote_failure),
                Err(failure) => Err(failure),
            };
            Ran { node, result }
        }
    };
    let mut running = stream::iter(chosen.iter().map(|node| one(node))).buffered(AT_ONCE);
    let mut all = Vec::new();
    while let Some(ran) = running.next().await {
        if !json {
            ran.tell(chosen.len() > 1, printer)?;
        }
        all.push(ran);
    }
    if json {
        printer.json(&all.iter().map(Ran::json).collect::<Vec<_>>())?;
    }
    Ok(exit(&all))
}

fn exit(all: &[Ran]) -> Exit {
    let bad = all.iter().filter(|ran| !ran.result.as_ref().is_ok_and(Output::ok)).count();
    match (bad, all) {
        (0, _) => Exit::Done,
        (_, [Ran { result: Ok(output), .. }]) => {
            output.status.and_then(|status| u8::try_from(status).ok()).map_or(Exit::Failed, Exit::Remote)
        }
        (bad, all) if bad == all.len() => Exit::Failed,
        _ => Exit::Partly,
    }
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

impl Ran {
    fn json(&self) -> Value {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match &self.result {
            Ok(output) => json!({
                "node": self.node, "status": output.status, "stdout": text(&output.stdout), "stderr": text(&output.stderr)
            }),
            Err(failure) => json!({ "node": self.node, "error": failure.error.to_string() }),
        }
    }

    /// Output as it came, each line behind the node's name where there are several.
    fn tell(&self, several: bool, printer: &Printer) -> Result<(), Failure> {
        let prefix = if several { format!("{}: ", self.node) } else { String::new() };
        let lines = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.lines().map(|line| format!("{prefix}{line}")).collect::<Vec<_>>()
        };
        let output = match &self.result {
            Ok(output) => output,
            Err(failure) => {
                printer.failure(failure);
                return Ok(());
            }
        };
        for line in lines(&output.stdout) {
            printer.data(line)?;
        }
        for line in lines(&output.stderr) {
            printer.talk(line);
        }
        if !output.ok() {
            let status = output.status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}"));
            printer.warn(format_args!("{prefix}ended with {status}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Ran, exit};
    use crate::cli::exit::{Exit, Failure};
    use crate::remote::Output;

    #[test]
    fn one_nodes_code_is_passed_on_and_several_are_summed_up() {
        let ended =
            |status| Ran { node: "n".into(), result: Ok(Output { status, stdout: Vec::new(), stderr: Vec::new() }) };
        let lost = || Ran { node: "n".into(), result: Err(Failure::from(anyhow::anyhow!("no way there"))) };
        let cases = [
            (vec![ended(Some(0))], Exit::Done),
            (vec![ended(Some(7))], Exit::Remote(7)),
            (vec![ended(None)], Exit::Failed),
            (vec![lost()], Exit::Failed),
            (vec![ended(Some(0)), ended(Some(0))], Exit::Done),
            (vec![ended(Some(0)), ended(Some(7))], Exit::Partly),
            (vec![ended(Some(0)), lost()], Exit::Partly),
            (vec![ended(Some(7)), ended(Some(7))], Exit::Failed),
        ];
        for (all, expected) in cases {
            assert_eq!(exit(&all), expected);
        }
        assert_eq!(Exit::Remote(7).code(), 7);
    }
}
