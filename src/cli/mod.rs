//! The command line: arguments, the printer, exit codes, one file per command. Nothing else imports it.

mod account;
mod agent;
mod args;
mod assignment;
mod bench;
mod client;
mod cluster;
mod completions;
mod config;
mod config_file;
mod consent;
mod demo;
mod emulate;
mod exit;
mod face;
mod file;
mod human;
mod instances;
mod measure;
mod nodes;
mod printer;
mod progress;
mod provider;
mod proxy;
mod reach;
mod signal;
mod simulate;
mod state;
mod supervise;
mod table;
mod trace;
mod tune;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::{Cli, Command};
pub use exit::Exit;
use exit::Outcome;
use printer::{OutputClosed, Printer};

use crate::config::ProviderKind;

/// What every command gets beside its own arguments.
pub(crate) struct Context {
    /// Writes to stdout and stderr.
    pub(crate) printer: Printer,
    /// `--config` as given.
    pub(crate) config: Option<PathBuf>,
    /// `--provider`.
    pub(crate) provider: Option<ProviderKind>,
    /// The admin API on a node that `proxy --remote` names.
    pub(crate) route: Option<proxy::Route>,
}

/// A command line that could be parsed.
pub struct Invocation(Cli);

/// Reads the command line. Help, the version and usage errors are printed here and come back as the code to end with.
///
/// # Errors
/// The exit code, if there is nothing to run: 0 after help or the version, 2 after a usage error.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Exit> {
    Cli::try_parse_from(arguments).map(Invocation).map_err(|error| {
        let shown = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if shown.is_ok() => Exit::Done,
            _ => Exit::Usage,
        }
    })
}

/// Runs the command to its end and reports why it failed, if it did.
#[must_use]
pub fn run(invocation: Invocation) -> Exit {
    let Cli { global, command } = invocation.0;
    let printer = Printer::for_process(global.quiet);
    let context = Context { printer, config: global.config, provider: global.provider, route: None };
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(command, &context)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start the async runtime").into()),
    };
    outcome.unwrap_or_else(|failure| {
        if failure.error.is::<OutputClosed>() {
            return Exit::Done;
        }
        context.printer.failure(&failure);
        failure.exit
    })
}

/// Installs the process's one TLS provider; the first call wins, later ones change nothing.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Every command and where it lives.
async fn dispatch(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Agent(args) => Box::pin(agent::run(&args, context)).await,
        Command::Proxy(args) => Box::pin(proxy::run(*args, context)).await,
        Command::Emulate(command) => Box::pin(emulate::run(*command, context)).await,
        Command::Bench(args) => Box::pin(bench::run(*args, context)).await,
        Command::Simulate(args) => Box::pin(simulate::run(*args, context)).await,
        Command::Tune(args) => Box::pin(tune::run(*args, context)).await,
        Command::Demo(args) => Box::pin(demo::run(*args, context)).await,
        Command::Available(args) => Box::pin(instances::available::run(args, context)).await,
        Command::Launch(args) => Box::pin(instances::launch::run(*args, context)).await,
        Command::Status(args) => Box::pin(instances::status::run(&args, context)).await,
        Command::Restart(args) => Box::pin(instances::terminate::restart(args, context)).await,
        Command::Terminate(args) => Box::pin(instances::terminate::terminate(args, context)).await,
        Command::Ssh(args) => Box::pin(instances::ssh::run(args, context)).await,
        Command::Run(args) => Box::pin(instances::run::run(args, context)).await,
        Command::Cluster(command) => Box::pin(cluster::run(*command, context)).await,
        Command::List(args) => Box::pin(instances::list::run(&args, context)).await,
        Command::SshKeys(command) => Box::pin(account::ssh_keys::run(command, context)).await,
        Command::Firewall(command) => Box::pin(account::firewall::run(command, context)).await,
        Command::Filesystems(command) => Box::pin(account::filesystems::run(command, context)).await,
        Command::Images(args) => Box::pin(account::images::run(&args, context)).await,
        Command::Config(command) => config::run(&command, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Supervise(args) => supervise::run(&args).await,
        Command::Version(args) => version::run(&args, context),
    }
}
