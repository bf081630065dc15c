//! `gorgo cluster restart-lb`: other strategy, limit or weights, node after node, without losing a request.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::binary;
use super::scene::{Access, Scene, told_otherwise};
use super::work::{Stopper, show};
use crate::cli::Context;
use crate::cli::assignment::{Assignment, by_key};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::progress::NodeLines;
use crate::cluster::balance::{Change, DRAIN_LIMIT, Means, PATIENCE, Way, restart_lb};
use crate::cluster::crash::CrashHook;
use crate::cluster::desired::{Balance, Desired};
use crate::cluster::layout::Role;
use crate::cluster::operations::{Member, status};
use crate::routing::policy::{Parameters, find, on_agent};

/// A limit of running requests, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<u32>);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" | "0" => Ok(Self(None)),
            text => {
                text.parse().map(|limit| Self(Some(limit))).map_err(|_| "wanted a whole number, or `none`".to_owned())
            }
        }
    }
}

/// Arguments of `gorgo cluster restart-lb`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes whose agents are to change [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Strategy from now on [default: as it is]
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Most requests running per engine; `none` or 0 = the strategy's own rule [default: as it is]
    #[arg(long, value_name = "N")]
    max_concurrent: Option<Limit>,
    /// Weight or rate of the strategy, e.g. `q=1` (repeatable); another strategy begins without those of the one before
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Assignment>,
    /// Begin with what gorgo.toml says instead of what earlier calls have set
    #[arg(long)]
    as_configured: bool,
    /// Drain and restart the agents even where they can change while they serve
    #[arg(long)]
    restart: bool,
    /// Print what would change, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// What is asked for, put over what is.
    fn over(&self, now: &Balance, configured: &Balance) -> Result<Balance, Failure> {
        let mut wanted = if self.as_configured { configured.clone() } else { now.clone() };
        if let Some(strategy) = self.strategy.as_ref().filter(|strategy| **strategy != wanted.strategy) {
            wanted.strategy.clone_from(strategy);
            let same = wanted.strategy == configured.strategy;
            wanted.weights = if same { configured.weights.clone() } else { BTreeMap::new() };
        }
        if let Some(Limit(limit)) = self.max_concurrent {
            wanted.max_concurrent = limit;
        }
        wanted.weights.extend(by_key(&self.set)?);
        let entry = find(on_agent(&wanted.strategy)).map_err(Failure::usage)?;
        let given: Vec<(String, f64)> = wanted.weights.clone().into_iter().collect();
        Parameters::resolve(entry.name, entry.parameters, &given)
            .map_err(|error| Failure::usage(anyhow!("--set: {error}")))?;
        Ok(wanted)
    }

    /// The cluster as it is to be afterwards.
    fn after(&self, before: &Desired, names: &[&str]) -> Result<Desired, Failure> {
        let configured = before.configured();
        let mut after = before.clone();
        for name in names {
            let wanted = self.over(&before.balance(name), &configured)?;
            if wanted == configured {
                after.pinned.remove(*name);
            } else {
                after.pinned.insert((*name).to_owned(), wanted);
            }
        }
        Ok(after)
    }
}

/// Exit code 1 if it failed; what had changed by then was taken back.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let mut scene = Scene::look(context, if args.dry_run { Access::Read } else { Access::Change }).await?;
    let before = scene.desired(binary::inspect(binary::own()?)?, scene.allowed_public_plaintext())?;
    let members = scene.members(&args.names)?;
    let names: Vec<&str> = members.iter().map(|member| member.spec.name.as_str()).collect();
    let after = args.after(&before, &names)?;
    if args.dry_run {
        return dry_run(args, &members, &after, context).await;
    }
    let Some(mut inventory) = scene.inventory.take() else { return Ok(Exit::Failed) };
    let stopper = Stopper::listen()?;
    let lines = NodeLines::new(&context.printer, names.iter().copied());
    let crash = CrashHook::from_environment();
    let mut means = Means {
        journal: &mut inventory,
        crash: &crash,
        stop: &stopper.token,
        events: &|event| show(&lines, &event),
        patience: PATIENCE,
        drain: DRAIN_LIMIT,
        restart: args.restart,
    };
    let change = restart_lb(&members, &before, &after, &mut means).await;
    drop(lines);
    if args.names.is_empty() && change.changed.len() == members.len() {
        let told = names.first().and_then(|name| after.pinned.get(*name)).cloned();
        // What holds for all holds for nodes to come as well.
        if names.iter().all(|name| after.pinned.get(*name) == told.as_ref()) {
            inventory.balance_all(told)?;
        }
    }
    report(args, &change, &names, &after, context)
}

/// What each agent does now, and what it would do.
async fn dry_run(args: &Args, members: &[Member], after: &Desired, context: &Context) -> Outcome {
    let (mut shown, mut nodes, mut silent) = (Vec::new(), Vec::new(), 0);
    for (name, facts) in status(members).await {
        let wanted = after.balance(&name);
        let now = match facts {
            Ok(facts) => facts.status(Role::Agent).ok_or_else(|| "its agent does not answer".to_owned()),
            Err(error) => Err(error.message),
        };
        silent += usize::from(now.is_err());
        let text = match &now {
            Ok(now) => {
                let limit =
                    now.max_concurrent.map_or_else(|| "no limit".to_owned(), |it| format!("at most {it} running"));
                format!("{}, {limit}", now.strategy)
            }
            Err(why) => format!("unknown ({why})"),
        };
        let way = if args.restart { "by a restart" } else { "live if it can" };
        shown.push(format!("{name}: {text} -> {wanted}, {way}"));
        let now = now.ok().map(|now| json!({ "strategy": now.strategy, "max_concurrent": now.max_concurrent }));
        nodes.push(json!({ "node": name, "now": now, "wanted": wanted }));
    }
    if args.json {
        context.printer.json(&json!({ "nodes": nodes }))?;
    } else {
        context.printer.data(shown.join("\n"))?;
    }
    Ok(super::outcome::share(silent, members.len()))
}

fn report(args: &Args, change: &Change, names: &[&str], after: &Desired, context: &Context) -> Outcome {
    if args.json {
        context.printer.json(&json(change, names, after))?;
    } else {
        let lines: Vec<String> =
            names.iter().map(|name| format!("{name}: {}", words(end(change, name), &after.balance(name)))).collect();
        context.printer.data(lines.join("\n"))?;
    }
    if let Some((_, fault)) = &change.failed {
        let failure = Failure { exit: Exit::Failed, error: anyhow!("{}", fault.what), hint: fault.hint.clone() };
        context.printer.failure(&failure);
        return Ok(Exit::Failed);
    }
    if let Some(told) = told_otherwise(after) {
        context.printer.talk(format_args!("from now on, for `gorgo cluster setup` as well, there are {told}"));
    }
    Ok(if change.interrupted { Exit::Interrupted } else { Exit::Done })
}

/// How it ended on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Changed(Way),
    TakenBack,
    Astray,
    NotReached,
}

fn end(change: &Change, name: &str) -> End {
    let among = |names: &[String]| names.iter().any(|it| it == name);
    match change.changed.iter().find(|(it, _)| it == name) {
        Some((_, way)) => End::Changed(*way),
        None if among(&change.taken_back) => End::TakenBack,
        None if among(&change.astray) => End::Astray,
        None => End::NotReached,
    }
}

fn words(end: End, wanted: &Balance) -> String {
    match end {
        End::Changed(Way::Already) => format!("{wanted}: it was so already"),
        End::Changed(Way::Live) => format!("{wanted}: changed while it served"),
        End::Changed(Way::Restarted) => format!("{wanted}: drained and restarted"),
        End::TakenBack => "as before: taken back".to_owned(),
        End::Astray => "NOT as wanted and NOT as before: it could not be taken back and needs a look".to_owned(),
        End::NotReached => "as before: it was not reached".to_owned(),
    }
}

fn json(change: &Change, names: &[&str], after: &Desired) -> Value {
    let node = |name: &&str| {
        let end = end(change, name);
        let outcome = match end {
            End::Changed(Way::Already) => "already",
            End::Changed(Way::Live) => "live",
            End::Changed(Way::Restarted) => "restarted",
            End::TakenBack => "taken_back",
            End::Astray => "astray",
            End::NotReached => "not_reached",
        };
        json!({ "node": name, "outcome": outcome, "wanted": after.balance(name) })
    };
    let failed = change.failed.as_ref();
    json!({
        "nodes": names.iter().map(node).collect::<Vec<_>>(),
        "failed": failed.map(|(node, fault)| json!({ "node": node, "what": fault.what, "hint": fault.hint })),
        "interrupted": change.interrupted,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use insta::assert_snapshot;

    use super::{Args, Balance, Change, End, Way, end, words};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(["restart-lb"].into_iter().chain(line.split_whitespace())).expect("arguments").args
    }

    fn balance(strategy: &str, max_concurrent: Option<u32>, weights: &[(&str, f64)]) -> Balance {
        let weights = weights.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        Balance { strategy: strategy.to_owned(), max_concurrent, weights }
    }

    #[test]
    fn what_is_asked_for_goes_over_what_is() {
        let configured = balance("gorgo", Some(9), &[("q", 2.0)]);
        let now = balance("least-load", Some(50), &[]);
        let cases = [
            ("", &now, "least-load, at most 50 running"),
            ("--as-configured", &now, "gorgo, at most 9 running, q=2"),
            ("--strategy gorgo", &now, "gorgo, at most 50 running, q=2"),
            ("--strategy gorgo --set q=3", &now, "gorgo, at most 50 running, q=3"),
            ("--strategy random", &configured, "random, at most 9 running"),
            ("--max-concurrent 0", &now, "least-load, no limit"),
            ("--max-concurrent none --as-configured", &now, "gorgo, no limit, q=2"),
            (
                "--max-concurrent 7 --set running_threshold=1",
                &configured,
                "gorgo, at most 7 running, q=2, running_threshold=1",
            ),
        ];
        for (line, now, wanted) in cases {
            assert_eq!(args(line).over(now, &configured).expect(line).to_string(), wanted, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_touched() {
        let now = balance("gorgo", None, &[]);
        let shown = ["--strategy grogo", "--set w_rtt=1", "--set q=-1", "--set q=1 --set q=2"]
            .map(|line| args(line).over(&now, &now).expect_err(line).to_string());
        assert_snapshot!(shown.join("\n"), @r"
        error: unknown strategy `grogo`; known strategies: predictive, gorgo, gorgo-score, gorgo-v1, gorgo-v3, gorgo-online, gorgo-proxy, prefix-tree, least-load, least-request, session-affinity, consistent-hash, geo, power-of-two, round-robin, random, sglang-cache-aware, dynamo, aibrix-prefix, preble, skywalker, llm-d
        error: --set: strategy `gorgo-v1` has no parameter `w_rtt`; it has: prefill_ms_per_token, q, running_threshold, max_running, max_kv_usage
        error: --set: `q` is -1, wanted 0 to 100
        error: `--set q=…` is given twice
        ");
        for line in ["--max-concurrent -1", "--max-concurrent many", "--set q"] {
            assert!(Line::try_parse_from(["restart-lb"].into_iter().chain(line.split_whitespace())).is_err(), "{line}");
        }
    }

    #[test]
    fn each_node_is_told_how_it_ended() {
        let change = Change {
            changed: vec![("a".into(), Way::Live)],
            taken_back: vec!["b".into()],
            astray: vec!["c".into()],
            ..Change::default()
        };
        let wanted = balance("least-load", None, &[]);
        let shown = ["a", "b", "c", "d"].map(|name| words(end(&change, name), &wanted));
        assert_snapshot!(shown.join("\n"), @"
        least-load, no limit: changed while it served
        as before: taken back
        NOT as wanted and NOT as before: it could not be taken back and needs a look
        as before: it was not reached
        ");
        assert_eq!(end(&Change::default(), "a"), End::NotReached);
    }
}
