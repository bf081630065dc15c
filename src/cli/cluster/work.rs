//! Observe, plan, apply: what `setup`, `upload`, `rollback` and `down` share.

use std::path::PathBuf;

use anyhow::anyhow;
use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::binary;
use super::desired::{desired, spec};
use crate::cli::Context;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::nodes::{Node, no_such_node, nodes};
use crate::cli::progress::NodeLines;
use crate::cli::provider::{Provider, Setup, cloud_failure};
use crate::cli::reach::{remote, remote_failure};
use crate::cli::signal::Stops;
use crate::cluster::apply::{ApplyReport, Job, apply};
use crate::cluster::crash::CrashHook;
use crate::cluster::desired::{Desired, NodeSpec, ProxyWish};
use crate::cluster::event::EventKind;
use crate::cluster::facts::Facts;
use crate::cluster::inventory::{ClusterInventory, NodeRecord};
use crate::cluster::observe::observe;
use crate::cluster::plan::{self, Plan, dry_run};
use crate::remote::Remote;

/// Nodes that are looked at at once.
const AT_ONCE: usize = 64;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Setup,
    Upload,
    Rollback,
    /// The central router; with the program of this run, or with the one that is there.
    Proxy {
        exchange: bool,
    },
    /// The central router gone.
    RemoveProxy,
    /// Away with everything; with the models or without.
    Down {
        models: bool,
    },
}

/// Which nodes, and whether to do it.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// Nodes to work on [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print the plan, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of commands that bring a program along.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) choice: Choice,
    /// The gorgo to put on the nodes [default: this one]
    #[arg(long, value_name = "PATH")]
    agent_binary: Option<PathBuf>,
    /// Let agents listen on public addresses although they speak plain text there
    #[arg(long)]
    allow_public_plaintext: bool,
}

/// Arguments of `gorgo cluster down`.
#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    /// Nodes to work on [default: all of the cluster]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Remove the files of the models as well
    #[arg(long)]
    models: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What is known before anything is done.
pub(super) struct Scene {
    pub(super) setup: Setup,
    provider: Provider,
    pub(super) nodes: Vec<Node>,
}

/// A node that is worked on.
pub(super) struct Site {
    spec: NodeSpec,
    remote: Box<dyn Remote>,
}

impl Scene {
    pub(super) async fn look(
        context: &Context,
        inventory: impl FnOnce(&Setup) -> Result<Option<ClusterInventory>, Failure>,
    ) -> Result<(Self, Option<ClusterInventory>), Failure> {
        let setup = Setup::read(context)?;
        let provider = setup.provider()?;
        let inventory = inventory(&setup)?;
        let listed = provider.inventory().list().await.map_err(cloud_failure)?;
        let records = match &inventory {
            Some(inventory) => inventory.nodes().to_vec(),
            None => setup.records()?,
        };
        let nodes = nodes(&setup, &records, &listed);
        if nodes.is_empty() {
            let error = anyhow!("cluster `{}` has no nodes", setup.fleet.cluster);
            let hint = Some("`gorgo launch` gets some".to_owned());
            return Err(Failure { exit: Exit::NothingSuitable, error, hint });
        }
        Ok((Self { setup, provider, nodes }, inventory))
    }

    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<&Node>, Failure> {
        let known = || self.nodes.iter().map(|node| node.name.as_str());
        if let Some(name) = names.iter().find(|name| !known().any(|it| it == name.as_str())) {
            return Err(no_such_node(&self.setup.fleet.cluster, name, known()));
        }
        Ok(self.nodes.iter().filter(|node| names.is_empty() || names.contains(&node.name)).collect())
    }

    /// Makes a central router on a node wanted, or unwanted; nothing is saved.
    pub(super) fn wish_proxy(&mut self, name: &str, wish: Option<ProxyWish>) {
        for node in self.nodes.iter_mut().filter(|node| node.name == name) {
            let record = node.record.get_or_insert_with(|| NodeRecord::new(name));
            record.proxy.clone_from(&wish);
        }
    }

    pub(super) fn sites(&self, names: &[String]) -> Result<Vec<Site>, Failure> {
        let site = |node: &&Node| {
            let remote = remote(&self.setup, &self.provider, node)?;
            Ok(Site { spec: spec(&self.setup, node)?, remote })
        };
        self.chosen(names)?.iter().map(site).collect()
    }
}

/// Exit code 3 if it failed on some nodes, 1 if on all.
pub(super) async fn run(task: Task, choice: &Choice, args: Option<&Args>, context: &Context) -> Outcome {
    let lock = |setup: &Setup| if choice.dry_run { Ok(None) } else { setup.inventory().map(Some) };
    let (scene, inventory) = Scene::look(context, lock).await?;
    let path = args.and_then(|args| args.agent_binary.clone());
    let binary = binary::inspect(path.map_or_else(binary::own, Ok)?)?;
    let allow = args.is_some_and(|args| args.allow_public_plaintext);
    let desired = desired(&scene.setup, &scene.nodes, binary, allow)?;
    let sites = scene.sites(&choice.names)?;
    let lines = NodeLines::new(&context.printer, sites.iter().map(|site| site.spec.name.as_str()));
    let (plans, unreachable) = plans(task, Some(&desired), &sites, &lines, context).await;
    let Some(inventory) = inventory else {
        drop(lines);
        context.printer.data(dry_run(&plans).trim_end())?;
        return Ok(if unreachable == 0 { Exit::Done } else { Exit::Partly });
    };
    Ok(carry_out(plans, unreachable, &sites, inventory, lines, context).await?.0)
}

/// Asks first: what is served ends.
pub(super) async fn down(args: &Down, context: &Context) -> Outcome {
    let (scene, inventory) = Scene::look(context, |setup| setup.inventory().map(Some)).await?;
    let names: Vec<&str> = scene.chosen(&args.names)?.iter().map(|node| node.name.as_str()).collect();
    let files = if args.models { "and all files, models too" } else { "and all files but the models" };
    let plan =
        format!("remove the services {files} from {}; the machines stay, and cost what they cost", names.join(", "));
    if args.consent.ask(&context.printer, &plan, "do that?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let sites = scene.sites(&args.names)?;
    let lines = NodeLines::new(&context.printer, sites.iter().map(|site| site.spec.name.as_str()));
    let task = Task::Down { models: args.models };
    let (plans, unreachable) = plans(task, None, &sites, &lines, context).await;
    let Some(inventory) = inventory else { return Ok(Exit::Failed) };
    let (exit, mut inventory) = carry_out(plans, unreachable, &sites, inventory, lines, context).await?;
    if exit == Exit::Done {
        // What was put there by name is not brought back by a later set-up.
        for name in sites.iter().map(|site| site.spec.name.as_str()) {
            if inventory.node(name).is_some_and(|node| node.proxy.is_some()) {
                inventory.change(name, |node| node.proxy = None)?;
            }
        }
    }
    Ok(exit)
}

/// Looks at each node and plans for it. Nodes that cannot be looked at are told and counted.
pub(super) async fn plans(
    task: Task,
    desired: Option<&Desired>,
    sites: &[Site],
    lines: &NodeLines<'_>,
    context: &Context,
) -> (Vec<Plan>, usize) {
    for site in sites {
        lines.say(&site.spec.name, "looking at it");
    }
    let looks: Vec<_> = sites.iter().map(|site| observe(&site.spec, site.remote.as_ref())).collect();
    let seen: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    let (mut plans, mut unreachable) = (Vec::new(), 0);
    for (facts, site) in seen.into_iter().zip(sites) {
        match facts {
            Ok(facts) => plans.push(planned(task, desired, &site.spec, &facts)),
            Err(error) => {
                unreachable += 1;
                context.printer.failure(&remote_failure(error));
            }
        }
    }
    (plans, unreachable)
}

fn planned(task: Task, desired: Option<&Desired>, spec: &NodeSpec, facts: &Facts) -> Plan {
    match (task, desired) {
        (Task::Setup, Some(desired)) => plan::setup(desired, spec, facts),
        (Task::Upload, Some(desired)) => plan::upload(desired, spec, facts),
        (Task::Proxy { exchange }, Some(desired)) => plan::deploy_proxy(desired, spec, facts, exchange),
        (Task::RemoveProxy, _) => plan::remove_proxy(spec, facts),
        (Task::Down { models }, _) => plan::down(spec, facts, models),
        (Task::Proxy { .. } | Task::Setup | Task::Upload | Task::Rollback, _) => plan::rollback(spec, facts),
    }
}

pub(super) async fn carry_out(
    plans: Vec<Plan>,
    unreachable: usize,
    sites: &[Site],
    mut inventory: ClusterInventory,
    lines: NodeLines<'_>,
    context: &Context,
) -> Result<(Exit, ClusterInventory), Failure> {
    let stop = CancellationToken::new();
    let (mut stops, token) = (Stops::listen()?, stop.clone());
    let listener = tokio::spawn(async move {
        stops.next().await;
        token.cancel();
    });
    let nothing = plans.iter().all(Plan::is_empty);
    let job = |plan: Plan| {
        let site = sites.iter().find(|site| site.spec.name == plan.node)?;
        Some(Job { plan, remote: site.remote.as_ref() })
    };
    let jobs: Vec<Job<'_>> = plans.into_iter().filter_map(job).collect();
    let crash = CrashHook::from_environment();
    let report = apply(&jobs, &mut inventory, &crash, &stop, &|event| {
        let place = event.place.map_or_else(String::new, |(number, of)| format!("{number}/{of} "));
        let what = match &event.kind {
            EventKind::Started => event.step.clone(),
            EventKind::Progress(what) => format!("{}: {what}", event.step),
            EventKind::Done => format!("{}: done ({:.1} s)", event.step, event.elapsed.as_secs_f64()),
            EventKind::Failed(why) => format!("{}: failed: {why}", event.step),
        };
        lines.say(&event.node, &format!("{place}{what}"));
    })
    .await;
    listener.abort();
    drop(lines);
    if nothing && unreachable == 0 {
        context.printer.talk("nothing to do: every node is as it is to be");
    }
    let told = report.to_string();
    if !told.is_empty() {
        context.printer.warn(told);
    }
    Ok((exit(&report, unreachable), inventory))
}

fn exit(report: &ApplyReport, unreachable: usize) -> Exit {
    let failed = report.failed().len() + unreachable;
    let all = report.nodes.len() + unreachable;
    match failed {
        _ if report.interrupted() => Exit::Interrupted,
        0 => Exit::Done,
        failed if failed == all => Exit::Failed,
        _ => Exit::Partly,
    }
}
