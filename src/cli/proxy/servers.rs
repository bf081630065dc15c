//! `gorgo proxy servers …`.

use anyhow::anyhow;
use clap::Subcommand;

use super::super::Context;
use super::super::client::{Change, Read, Write};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::human;
use super::super::table::{Column, Table};
use crate::config::replica::{ReplicaEntry, in_flag};
use crate::config::{Problem, Problems};
use crate::model::Region;
use crate::wire::{AddReplica, Health, Limits, Rates, Replica, ReplicaChange, Replicas, paths};

/// Arguments of `gorgo proxy servers`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    read: Read,
}

/// The changes.
#[derive(Debug, Subcommand)]
enum Command {
    /// Add replicas, or change those whose names are known
    Add {
        /// A replica, e.g. `name=a,url=http://10.0.0.5:30000,region=us-east-1` (keys as in `proxy start --replica`)
        #[arg(required = true, value_name = "KEY=VALUE,…")]
        replicas: Vec<String>,
        #[command(flatten)]
        write: Write,
    },
    /// Forget replicas; what they are answering still ends in peace
    Remove {
        /// Names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        write: Write,
    },
    /// Take replicas out of rotation without forgetting them
    Drain {
        /// Names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Take them back in
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        write: Write,
    },
}

/// Lists or changes the replicas.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    match &args.command {
        None => super::read(&args.read, paths::REPLICAS, context, show).await,
        Some(Command::Add { replicas, write }) => apply(write, additions(replicas)?, context).await,
        Some(Command::Remove { names, write }) => {
            let remove = |name: &String| (name.clone(), ReplicaChange::Remove { name: name.clone() });
            apply(write, names.iter().map(remove).collect(), context).await
        }
        Some(Command::Drain { names, undo, write }) => {
            let drain = |name: &String| (name.clone(), ReplicaChange::Drain { name: name.clone(), draining: !undo });
            apply(write, names.iter().map(drain).collect(), context).await
        }
    }
}

/// Reads and checks what is to be added; every problem is told at once.
fn additions(texts: &[String]) -> Result<Vec<(String, ReplicaChange)>, Failure> {
    let mut problems = Vec::new();
    let mut changes = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let place = format!("replica {}", i + 1);
        let entry = ReplicaEntry::from_flag(&place, text, &mut problems);
        entry.check(&in_flag(&place), &mut problems);
        if entry.api_key_file.is_some() {
            let message = "keys are not sent over the admin API; name the replica at the start of the router, where the key stays \
                           with its name and URL";
            problems.push(Problem::new(format!("{place}: api-key-file"), message));
        }
        changes.push((entry.name.clone().unwrap_or_default(), ReplicaChange::Add(addition(entry))));
    }
    Problems::or::<Vec<(String, ReplicaChange)>>(problems, changes).map_err(Failure::usage)
}

fn addition(entry: ReplicaEntry) -> AddReplica {
    AddReplica {
        name: entry.name.unwrap_or_default(),
        url: entry.url.unwrap_or_default(),
        region: Region::new(&entry.region.unwrap_or_default()),
        engine: entry.engine,
        models: entry.models.unwrap_or_default(),
        limits: Limits { kv_tokens: entry.kv_tokens },
        rates: Rates { prefill_ms_per_token: entry.prefill_ms_per_token, queue_ms_per_token: entry.queue_ms_per_token },
    }
}

/// Sends one change after the other. What fails is named at the end, and the rest is still done.
async fn apply(write: &Write, changes: Vec<(String, ReplicaChange)>, context: &Context) -> Outcome {
    let (total, mut failed) = (changes.len(), Vec::new());
    let mut exit = Exit::Done;
    let mut after = None;
    for (name, change) in changes {
        let change = Change::new(paths::REPLICAS, &change)?;
        match super::write::<Replicas>(write, &change, context).await {
            Ok(replicas) => {
                if replicas.is_some() {
                    context.printer.talk(format_args!("{name}: done"));
                }
                after = replicas.or(after);
            }
            Err(failure) if total == 1 => return Err(failure),
            Err(failure) => {
                context.printer.failure(&failure);
                exit = failure.exit;
                failed.push(name);
            }
        }
    }
    if let (true, Some(replicas)) = (write.json, &after) {
        context.printer.json(replicas)?;
    }
    match failed.len() {
        0 => Ok(Exit::Done),
        all if all == total => {
            Err(Failure { exit, error: anyhow!("none of {total} replicas was changed"), hint: None })
        }
        some => {
            let error = anyhow!("{some} of {total} replicas were not changed: {}", failed.join(", "));
            Err(Failure { exit: Exit::Partly, error, hint: None })
        }
    }
}

/// A line per replica.
fn show(replicas: &Replicas) -> String {
    if replicas.replicas.is_empty() {
        return "no replicas; add one with `gorgo proxy servers add name=…,url=…,region=…`".to_owned();
    }
    let mut table = Table::new(&[
        Column::Text("replica"),
        Column::Text("region"),
        Column::Text("url"),
        Column::Text("engine"),
        Column::Text("state"),
        Column::Number("rtt"),
        Column::Number("running"),
        Column::Number("waiting"),
        Column::Number("kv"),
        Column::Text("read"),
        Column::Number("prefilling"),
        Column::Number("decoding"),
        Column::Number("sent"),
        Column::Number("failed"),
    ]);
    for replica in &replicas.replicas {
        table.row(row(replica));
    }
    let reasons =
        replicas.replicas.iter().filter_map(|it| it.health_reason.as_ref().map(|why| format!("\n{}: {why}", it.name)));
    format!(
        "{table}\n\nrunning, waiting, kv: what the engine said when read; prefilling, decoding: what this proxy has in flight there{}",
        reasons.collect::<String>()
    )
}

fn row(it: &Replica) -> [String; 14] {
    let gauge = |value: Option<f64>| human::or_unknown(value, human::number);
    let gauges = it.gauges.unwrap_or_default();
    [
        it.name.clone(),
        it.region.to_string(),
        it.url.clone(),
        it.engine.clone(),
        state(it),
        human::or_unknown(it.rtt, |rtt| human::ms(rtt.ms)),
        gauge(gauges.running),
        gauge(gauges.waiting),
        human::or_unknown(gauges.kv_usage, human::share),
        human::or_unknown(it.gauges, |gauges| human::age_ms(gauges.age_ms)),
        human::count(u64::from(it.ledger.prefilling)),
        human::count(u64::from(it.ledger.decoding)),
        human::count(it.requests.dispatched),
        human::count(it.requests.failed),
    ]
}

fn state(replica: &Replica) -> String {
    let health = match replica.health {
        Health::Unknown => "not checked yet",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    };
    if replica.draining { format!("draining ({health})") } else { health.to_owned() }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{additions, show};
    use crate::cli::Exit;
    use crate::model::{Region, ReplicaId};
    use crate::wire::{Gauges, Health, Ledger, Limits, Rates, Replica, ReplicaRequests, Replicas, Rtt};

    #[test]
    fn servers_is_a_line_per_replica() {
        let east = Replica {
            id: ReplicaId(0),
            name: "east".into(),
            url: "http://10.0.0.5:30000".into(),
            region: Region::new("us-east-1"),
            engine: "sglang".into(),
            models: vec![],
            health: Health::Healthy,
            health_reason: None,
            draining: false,
            rtt: Some(Rtt { ms: 0.42, last_ms: 0.4, age_ms: 100.0 }),
            gauges: Some(Gauges {
                running: Some(4.0),
                waiting: Some(0.0),
                kv_usage: Some(0.61),
                age_ms: 480.0,
                ..Gauges::default()
            }),
            ledger: Ledger { prefilling: 1, uncached_tokens: 700, decoding: 3, queued_tokens: 16_000 },
            limits: Limits::default(),
            rates: Rates::default(),
            requests: ReplicaRequests { dispatched: 1_204, ok: 1_200, failed: 0, cancelled: 0, recalled: 0 },
        };
        let europe = Replica {
            name: "europe".into(),
            url: "http://10.1.0.5:30000".into(),
            region: Region::new("europe-central-1"),
            health: Health::Unhealthy,
            health_reason: Some("connection refused, 3 times in a row".into()),
            draining: true,
            rtt: None,
            gauges: None,
            ledger: Ledger::default(),
            requests: ReplicaRequests::default(),
            ..east.clone()
        };
        assert_snapshot!(show(&Replicas { replicas: vec![east, europe] }), @"
        REPLICA  REGION            URL                    ENGINE  STATE                     RTT  RUNNING  WAITING      KV  READ        PREFILLING  DECODING   SENT  FAILED
        east     us-east-1         http://10.0.0.5:30000  sglang  healthy               0.42 ms        4        0  61.0 %  480 ms ago           1         3  1,204       0
        europe   europe-central-1  http://10.1.0.5:30000  sglang  draining (unhealthy)        -        -        -       -  -                    0         0      0       0

        running, waiting, kv: what the engine said when read; prefilling, decoding: what this proxy has in flight there
        europe: connection refused, 3 times in a row
        ");
        assert_snapshot!(show(&Replicas::default()), @"no replicas; add one with `gorgo proxy servers add name=…,url=…,region=…`");
    }

    #[test]
    fn what_cannot_be_added_is_bad_usage_with_every_problem() {
        let failure = additions(&["name=a".into(), "url=x,region=r".into()]).expect_err("both lack something");
        assert_eq!(failure.exit, Exit::Usage);
        assert_snapshot!(failure, @"
        error: 4 problems in the configuration
          replica 1: url: is missing
          replica 1: region: is missing
          replica 2: name: is missing
          replica 2: url: `x` does not begin with http:// or https:// and a host; wanted e.g. http://10.0.0.5:30000
        ");
    }
}
