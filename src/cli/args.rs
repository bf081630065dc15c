//! The command line as typed. Each command's own file holds its arguments and turns them into what is meant.
//!
//! A new command is one file beside this one (an `Args` and a `run`), one variant here, and one line in [`super::dispatch`].

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use super::{
    account, agent, bench, cluster, completions, config, demo, emulate, instances, proxy, simulate, supervise, tune,
    version,
};
use crate::config::ProviderKind;
use crate::config::fleet::PROVIDERS;

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
    /// Where machines come from [default: `provider.kind` of gorgo.toml, or lambda]
    #[arg(long, global = true, value_name = "KIND", value_parser = provider(), help_heading = "Global options")]
    pub(crate) provider: Option<ProviderKind>,
    /// Print results, warnings and errors only
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

fn provider() -> impl TypedValueParser<Value = ProviderKind> {
    PossibleValuesParser::new(PROVIDERS).map(|name| ProviderKind::by_name(&name).expect("only these names get here"))
}

/// The commands, in the order in which `--help` lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare strategies on an emulated fleet of three regions on this machine
    Demo(Box<demo::Args>),
    /// Compare strategies on any fleet in virtual time
    Simulate(Box<simulate::Args>),
    /// Search weights of a strategy in simulation, and check them where nothing was chosen
    Tune(Box<tune::Args>),
    /// Load a target and measure it
    Bench(Box<bench::Args>),
    /// Emulate an inference engine, a wide-area network or Lambda's API
    #[command(subcommand)]
    Emulate(Box<emulate::Command>),
    /// Show which types of machines can be had where, and at what price
    Available(instances::available::Args),
    /// Rent machines for the nodes of the cluster
    Launch(Box<instances::launch::Args>),
    /// Show the machines of the cluster and what they cost
    Status(instances::status::Args),
    /// Reboot machines
    Restart(instances::terminate::Restart),
    /// End machines for good
    Terminate(instances::terminate::Terminate),
    /// Open a shell on a node
    Ssh(instances::ssh::Args),
    /// Run a command on nodes
    Run(instances::run::Args),
    /// Set up, change or take down the cluster on its machines
    #[command(subcommand)]
    Cluster(Box<cluster::Command>),
    /// List the machines that the provider knows
    List(instances::list::Args),
    /// List, add or delete the account's SSH keys
    #[command(subcommand)]
    SshKeys(account::ssh_keys::Command),
    /// List, replace or sync the account's inbound firewall rules
    #[command(subcommand)]
    Firewall(account::firewall::Command),
    /// List, create or delete the account's file systems
    #[command(subcommand)]
    Filesystems(account::filesystems::Command),
    /// List the images that machines can start from
    Images(account::images::Args),
    /// Run the load balancer of one node: its engine, and the agents of other nodes
    Agent(Box<agent::Args>),
    /// Run the central router, or talk to a running one
    Proxy(Box<proxy::Args>),
    /// Check, show or describe gorgo.toml
    #[command(subcommand)]
    Config(config::Command),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Keep the services of a local node running (started by gorgo itself)
    #[command(hide = true)]
    Supervise(supervise::Args),
    /// Print the version
    Version(version::Args),
}
