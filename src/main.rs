//! The `gorgo` binary: arguments in, one command, an exit code out.

use std::env;
use std::process::ExitCode;

use gorgo::cli;

fn main() -> ExitCode {
    cli::install_tls();
    let exit = match cli::parse(env::args_os()) {
        Ok(invocation) => cli::run(invocation),
        Err(exit) => exit,
    };
    exit.into()
}
