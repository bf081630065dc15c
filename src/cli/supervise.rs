//! `gorgo supervise`: the process behind a node of the local provider. Hidden, because gorgo itself starts and ends it.

use std::env;
use std::path::PathBuf;

use anyhow::Context as _;

use super::exit::{Exit, Failure, Outcome};
use crate::remote::RemoteError;
use crate::remote::local::{LocalRemote, supervise};

/// Arguments of `gorgo supervise`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the node
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Stop its services and its supervisor, instead
    #[arg(long)]
    stop: bool,
    /// Stop and start its services and its supervisor, instead, as a reboot would
    #[arg(long, conflicts_with = "stop")]
    restart: bool,
}

/// Supervises until told to end, or tells the one that does.
pub(crate) async fn run(args: &Args) -> Outcome {
    if !args.stop && !args.restart {
        supervise(&args.dir).await.with_context(|| format!("cannot supervise {}", args.dir.display()))?;
        return Ok(Exit::Done);
    }
    let gorgo = env::current_exe().context("cannot tell where this program is")?;
    let name = args.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let node = LocalRemote::new(&name, &args.dir, &gorgo).map_err(failure)?;
    node.shut_down().await.map_err(failure)?;
    if args.restart {
        node.boot().await.map_err(failure)?;
    }
    Ok(Exit::Done)
}

fn failure(error: RemoteError) -> Failure {
    let hint = error.hint.clone();
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
