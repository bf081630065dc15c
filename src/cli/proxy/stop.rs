//! `gorgo proxy stop`: ends the proxy that answers at the admin address, and nothing else. It never looks for a process id.

use std::time::Duration;

use anyhow::anyhow;

use super::super::Context;
use super::super::client::{Change, Client, Write};
use super::super::exit::{Exit, Failure, Outcome};
use crate::wire::{Drain, SetDrain, paths};

/// Pause between two looks at a proxy that is finishing.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Arguments of `gorgo proxy stop`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) write: Write,
    /// Longest wait for the end; after it the command fails and the proxy goes on finishing
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub(super) wait: f64,
}

/// Asks the proxy to finish and waits until its admin API is gone.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let change = Change::new(paths::DRAIN, &SetDrain { draining: true, stop: true })?;
    let Some(drain) = super::write::<Drain>(&args.write, &change, context).await? else {
        return Ok(Exit::Done);
    };
    let client = Client::new(&args.write.admin, context)?;
    let finishing = match drain.in_flight {
        0 => "with nothing in flight".to_owned(),
        1 => "when 1 request in flight has ended".to_owned(),
        requests => format!("when {requests} requests in flight have ended"),
    };
    context.printer.talk(format_args!("{} stops {finishing}", client.who()));
    if args.write.json {
        context.printer.json(&drain)?;
    }
    match tokio::time::timeout(Duration::from_secs_f64(args.wait), gone(&client)).await {
        Ok(()) => {
            context.printer.talk("stopped");
            Ok(Exit::Done)
        }
        Err(_) => Err(Failure::from(anyhow!("{} still runs after {} s", client.who(), args.wait))
            .with_hint("its longest request decides when it ends; wait longer with `--wait SECONDS`")),
    }
}

/// Returns once nothing answers any more.
async fn gone(client: &Client) {
    while client.get::<Drain>(paths::DRAIN).await.is_ok() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("wanted seconds between 0 and 86400".to_owned()),
    }
}
