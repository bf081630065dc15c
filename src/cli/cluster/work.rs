//! Observe, plan, apply: what `setup`, `upload`, `rollback` and `down` share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::binary;
use super::front::not_carried;
use super::outcome;
use super::scene::{Access, Scene, told_otherwise};
use crate::cli::Context;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::progress::NodeLines;
use crate::cli::reach::remote_failure;
use crate::cli::signal::Stops;
use crate::cluster::apply::{Job, apply};
use crate::cluster::authority::Authority;
use crate::cluster::crash::CrashHook;
use crate::cluster::desired::{Desired, NodeSpec};
use crate::cluster::event::{Event, EventKind};
use crate::cluster::facts::Facts;
use crate::cluster::inventory::ClusterInventory;
use crate::cluster::layout::Role;
use crate::cluster::operations::{Member, status};
use crate::cluster::plan::{self, Plan, dry_run};

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
    #[command(flatten)]
    consent: Consent,
    /// Print JSON: with --dry-run the plans, else how each node ended
    #[arg(long)]
    json: bool,
}

/// Arguments of commands that bring a program along.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) choice: Choice,
    /// The gorgo to put on the nodes (repeatable, one for each kind of machine: x86_64, aarch64) [default: this one]
    #[arg(long, value_name = "PATH")]
    agent_binary: Vec<PathBuf>,
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
    /// Print JSON: with --dry-run the plans, else how each node ended
    #[arg(long)]
    json: bool,
}

/// What is to be done on the nodes that could be looked at.
#[derive(Default)]
pub(super) struct Plans {
    pub(super) plans: Vec<Plan>,
    /// Nodes by the service that runs there and is stopped or started anew.
    pub(super) interrupts: BTreeMap<Role, Vec<String>>,
    /// Nodes that could not be looked at, and why.
    pub(super) unreachable: Vec<(String, String)>,
}

/// Exit code 3 if it failed on some nodes, 1 if on all.
pub(super) async fn run(task: Task, choice: &Choice, args: Option<&Args>, context: &Context) -> Outcome {
    let show_only = choice.consent.is_dry_run();
    let mut scene = Scene::look(context, if show_only { Access::Read } else { Access::Change }).await?;
    let mut programs = binary::named(args.map_or(&[], |args| &args.agent_binary))?;
    let allow = args.is_some_and(|args| args.allow_public_plaintext);
    let mut desired = scene.desired(programs.remove(0), allow)?;
    desired.others = programs;
    let members = scene.members(&choice.names)?;
    let lines = NodeLines::new(&context.printer, members.iter().map(|member| member.spec.name.as_str()));
    let plans = plans(task, Some(&desired), &members, &lines, context).await;
    drop(lines);
    if let Some(told) = told_otherwise(&desired).filter(|_| task == Task::Setup) {
        context.printer.talk(told);
    }
    for told in not_carried(&scene.setup.fleet).filter(|_| task == Task::Setup) {
        context.printer.warn(told);
    }
    if show_only {
        let shown = if choice.json {
            outcome::plans(&plans.plans, &plans.unreachable)?
        } else {
            dry_run(&plans.plans).trim_end().to_owned()
        };
        context.printer.data(shown)?;
        return Ok(outcome::share(plans.unreachable.len(), members.len()));
    }
    if let Some(question) = interruptions(&plans.interrupts) {
        choice.consent.ask(&context.printer, &question, "do that?")?;
    }
    let Some(mut inventory) = scene.inventory.take() else { return Ok(Exit::Failed) };
    if task == Task::Setup && allow {
        inventory.allow_public_plaintext()?;
    }
    let (exit, _) = carry_out(plans, &members, inventory, choice.json, context).await?;
    if task == Task::Setup && exit == Exit::Done && !choice.json {
        for member in &members {
            context.printer.data(format_args!("{} takes requests at {}", member.spec.name, member.spec.url))?;
        }
    }
    Ok(exit)
}

/// Asks first: what is served ends.
pub(super) async fn down(args: &Down, context: &Context) -> Outcome {
    let show_only = args.consent.is_dry_run();
    let mut scene = Scene::look(context, if show_only { Access::Read } else { Access::Change }).await?;
    let names: Vec<&str> = scene.chosen(&args.names)?.iter().map(|node| node.name.as_str()).collect();
    let files = if args.models { "and all files, models too" } else { "and all files but the models" };
    let plan =
        format!("remove the services {files} from {}; the machines stay, and cost what they cost", names.join(", "));
    // JSON shows the plans themselves, for which the nodes have to be looked at.
    let show_plans = show_only && args.json;
    if !show_plans && args.consent.ask(&context.printer, &plan, "do that?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let members = scene.members(&args.names)?;
    let lines = NodeLines::new(&context.printer, members.iter().map(|member| member.spec.name.as_str()));
    let task = Task::Down { models: args.models };
    let plans = plans(task, None, &members, &lines, context).await;
    drop(lines);
    if show_plans {
        context.printer.data(outcome::plans(&plans.plans, &plans.unreachable)?)?;
        return Ok(outcome::share(plans.unreachable.len(), members.len()));
    }
    let Some(inventory) = scene.inventory.take() else { return Ok(Exit::Failed) };
    let (exit, mut inventory) = carry_out(plans, &members, inventory, args.json, context).await?;
    if exit == Exit::Done {
        // What was put there by name is not brought back by a later set-up.
        for name in members.iter().map(|member| member.spec.name.as_str()) {
            if inventory.node(name).is_some_and(|node| node.proxy.is_some()) {
                inventory.change(name, |node| node.proxy = None)?;
            }
        }
    }
    Ok(exit)
}

/// What runs and is cut off or started anew, for whoever has to say yes to it; `None` = nothing.
pub(super) fn interruptions(interrupts: &BTreeMap<Role, Vec<String>>) -> Option<String> {
    let line = |(role, nodes): (&Role, &Vec<String>)| {
        let what = match role {
            Role::Engine => "the requests that it runs end, and its cache is lost",
            Role::Agent | Role::Proxy => "it finishes what it has in flight first, and refuses new requests meanwhile",
        };
        format!("restart {} on {}: {what}", role.unit(), nodes.join(", "))
    };
    (!interrupts.is_empty()).then(|| interrupts.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Looks at each node and plans for it. Nodes that cannot be looked at are told and counted.
pub(super) async fn plans(
    task: Task,
    desired: Option<&Desired>,
    members: &[Member],
    lines: &NodeLines<'_>,
    context: &Context,
) -> Plans {
    for member in members {
        lines.say(&member.spec.name, "looking at it");
    }
    let mut plans = Plans::default();
    for ((name, facts), member) in status(members).await.into_iter().zip(members) {
        match facts {
            Ok(facts) => {
                let plan = planned(task, desired, &member.spec, &facts);
                for role in plan.interrupts(&facts) {
                    plans.interrupts.entry(role).or_default().push(name.clone());
                }
                plans.plans.push(plan);
            }
            Err(error) => {
                plans.unreachable.push((name, error.message.clone()));
                context.printer.failure(&remote_failure(error));
            }
        }
    }
    plans
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

/// Ends a command's work in order at the first Ctrl-C or SIGTERM.
pub(super) struct Stopper {
    pub(super) token: CancellationToken,
    listener: tokio::task::JoinHandle<()>,
}

impl Stopper {
    pub(super) fn listen() -> Result<Self, Failure> {
        let token = CancellationToken::new();
        let (mut stops, stopped) = (Stops::listen()?, token.clone());
        let listener = tokio::spawn(async move {
            stops.next().await;
            stopped.cancel();
        });
        Ok(Self { token, listener })
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What a node does, on its line.
pub(super) fn show(lines: &NodeLines<'_>, event: &Event) {
    let place = event.place.map_or_else(String::new, |(number, of)| format!("{number}/{of} "));
    let what = match &event.kind {
        EventKind::Started => event.step.clone(),
        EventKind::Progress(what) => format!("{}: {what}", event.step),
        EventKind::Done => format!("{}: done ({:.1} s)", event.step, event.elapsed.as_secs_f64()),
        EventKind::Failed(why) => format!("{}: failed: {why}", event.step),
    };
    lines.say(&event.node, &format!("{place}{what}"));
}

pub(super) async fn carry_out(
    mut plans: Plans,
    members: &[Member],
    mut inventory: ClusterInventory,
    json: bool,
    context: &Context,
) -> Result<(Exit, ClusterInventory), Failure> {
    let stopper = Stopper::listen()?;
    let nothing = plans.plans.iter().all(Plan::is_empty);
    Authority::new(inventory.folder().to_owned(), inventory.cluster()).fill(&mut plans.plans)?;
    let job = |plan: Plan| {
        let member = members.iter().find(|member| member.spec.name == plan.node)?;
        Some(Job { plan, remote: member.remote.as_ref() })
    };
    let jobs: Vec<Job<'_>> = plans.plans.into_iter().filter_map(job).collect();
    let crash = CrashHook::from_environment();
    let lines = NodeLines::new(&context.printer, members.iter().map(|member| member.spec.name.as_str()));
    let report = apply(&jobs, &mut inventory, &crash, &stopper.token, &|event| show(&lines, &event)).await;
    drop(lines);
    if nothing && plans.unreachable.is_empty() {
        context.printer.talk("nothing to do: every node is as it is to be");
    }
    report.complaints().iter().for_each(|complaint| context.printer.warn(complaint));
    if json {
        context.printer.json(&outcome::report(&report, &plans.unreachable))?;
    }
    Ok((outcome::exit(&report, plans.unreachable.len()), inventory))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use insta::assert_snapshot;

    use super::interruptions;
    use crate::cluster::layout::Role;

    #[test]
    fn only_what_runs_is_asked_about() {
        assert_eq!(interruptions(&BTreeMap::new()), None);
        let both = vec!["east".to_owned(), "eu".to_owned()];
        let interrupts = BTreeMap::from([(Role::Agent, both), (Role::Engine, vec!["eu".to_owned()])]);
        assert_snapshot!(interruptions(&interrupts).unwrap(), @"
        restart gorgo-engine.service on eu: the requests that it runs end, and its cache is lost
        restart gorgo-agent.service on east, eu: it finishes what it has in flight first, and refuses new requests meanwhile
        ");
    }
}
