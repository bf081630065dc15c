//! `gorgo completions SHELL`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Context;
use super::args::Cli;
use super::exit::{Exit, Outcome};

/// Arguments of `gorgo completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shell to complete in
    shell: Shell,
}

/// Prints the completion script.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gorgo", &mut script);
    context.printer.data(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}
