//! The command line as typed. Each command's own file holds its arguments and turns them into what is meant.
//!
//! A new command is one file beside this one (an `Args` and a `run`), one variant here, and one line in [`super::dispatch`].

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{bench, completions, config, demo, emulate, proxy, version};

/// Serve LLMs from GPUs in several regions with the lowest time to first token
#[derive(Debug, Parser)]
#[command(name = "gorgo", version, propagate_version = false, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Configuration file [default: $GORGO_CONFIG, else ./gorgo.toml, else gorgo/gorgo.toml in the user's config folder]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Print results, warnings and errors only
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

/// The commands, in the order in which `--help` lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare strategies on an emulated fleet of three regions on this machine
    Demo(Box<demo::Args>),
    /// Load a target and measure it
    Bench(Box<bench::Args>),
    /// Emulate an inference engine or a wide-area network
    #[command(subcommand)]
    Emulate(Box<emulate::Command>),
    /// Run the central router, or talk to a running one
    #[command(subcommand)]
    Proxy(Box<proxy::Command>),
    /// Check, show or describe gorgo.toml
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the version
    Version(version::Args),
}
