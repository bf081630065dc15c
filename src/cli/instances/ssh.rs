//! `gorgo ssh`: a shell on a node, with the host key that the cluster knows.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::anyhow;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::nodes::{look, no_such_node};
use crate::cli::provider::Setup;
use crate::cli::reach::{remote_failure, settings, target};
use crate::remote::quoted_line;
use crate::remote::ssh::{config_entry, interactive};

/// Arguments of `gorgo ssh`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node
    name: String,
    /// Print the command instead of running it
    #[arg(long)]
    print: bool,
    /// Print an entry for `~/.ssh/config`, by which editors and other programs get to the node
    #[arg(long, conflicts_with_all = ["print", "command"])]
    print_config: bool,
    /// A command instead of a shell, with its arguments as they are; `sh -c '…'` for a shell's syntax
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Becomes ssh: its exit code is what the shell sees.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let nodes = look(&setup, &provider).await?;
    let Some(node) = nodes.iter().find(|node| node.name == args.name) else {
        let names = nodes.iter().map(|node| node.name.as_str());
        return Err(no_such_node(&setup.fleet.cluster, &args.name, names));
    };
    if args.print_config {
        let entry = config_entry(&node.name, &target(&setup, &provider, node)?, &settings(&setup));
        context.printer.data(entry.map_err(remote_failure)?.trim_end())?;
        return Ok(Exit::Done);
    }
    let config = setup.cluster_folder().join("ssh").join(format!("{}.conf", node.name));
    let mut line =
        interactive(&target(&setup, &provider, node)?, &settings(&setup), &config).map_err(remote_failure)?;
    if !args.command.is_empty() {
        // One word: ssh would put several together without quotes, and the node's shell would take them apart elsewhere.
        line.extend(["--".to_owned(), quoted_line(&args.command)]);
    }
    if args.print {
        context.printer.data(quoted_line(&line))?;
        return Ok(Exit::Done);
    }
    let error = Command::new(&line[0]).args(&line[1..]).exec();
    Err(Failure::from(anyhow!(error).context("cannot run `ssh`")).with_hint("install the OpenSSH client"))
}
