//! `gorgo proxy deploy`: the central router on a node, or gone from it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::anyhow;

use super::binary;
use super::desired::spec;
use super::front::not_carried;
use super::scene::{Access, Scene};
use super::work::{Task, carry_out, interruptions, plans};
use crate::cli::Context;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::progress::NodeLines;
use crate::cli::proxy::start::address;
use crate::cluster::desired::{NodeSpec, ProxyWish};
use crate::cluster::plan::dry_run;
use crate::routing::policy::registry;

/// Arguments of `gorgo proxy deploy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Node that it is to stand on, beside the node's own agent
    #[arg(value_name = "NAME")]
    name: String,
    /// Address for requests [default: that of the node's agent, port 8080]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Strategy that decides which node serves a request [default: `cluster.strategy` of gorgo.toml, or gorgo]
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Hold requests in the proxy while every node has this many running [default: the strategy's own rule]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_concurrent: Option<u32>,
    /// The gorgo to put on the node [default: the one that is there, else this one]
    #[arg(long, value_name = "PATH")]
    agent_binary: Option<PathBuf>,
    /// Let it listen on a public address although it speaks plain text there
    #[arg(long)]
    allow_public_plaintext: bool,
    /// Take it away again; the node's agent and engine stay
    #[arg(long, conflicts_with_all = ["listen", "strategy", "max_concurrent", "agent_binary", "allow_public_plaintext"])]
    remove: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Puts it there, or takes it away. The inventory remembers it, so that `cluster setup` keeps it up to date.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let access = if args.consent.is_dry_run() { Access::Read } else { Access::Change };
    let mut scene = Scene::look(context, access).await?;
    let names = std::slice::from_ref(&args.name);
    let node = spec(&scene.setup, scene.chosen(names)?[0])?;
    let wish = if args.remove { None } else { Some(wish(args, &node)?) };
    scene.wish_proxy(&args.name, wish.as_ref());
    let binary = binary::inspect(args.agent_binary.clone().map_or_else(binary::own, Ok)?)?;
    let desired = scene.desired(binary, args.allow_public_plaintext)?;
    if args.remove && !args.consent.is_dry_run() {
        let plan = format!("stop the proxy on {} when it has finished what is in flight, and remove it", args.name);
        if args.consent.ask(&context.printer, &plan, "do that?")? == Go::NoFurther {
            return Ok(Exit::Done);
        }
    }
    let members = scene.members(names)?;
    let lines = NodeLines::new(&context.printer, [args.name.as_str()]);
    let task = if args.remove { Task::RemoveProxy } else { Task::Proxy { exchange: args.agent_binary.is_some() } };
    let plans = plans(task, Some(&desired), &members, &lines, context).await;
    drop(lines);
    for told in not_carried(&scene.setup.fleet).filter(|_| !args.remove) {
        context.printer.warn(told);
    }
    if args.consent.is_dry_run() {
        context.printer.data(dry_run(&plans.plans).trim_end())?;
        return Ok(if plans.unreachable.is_empty() { Exit::Done } else { Exit::Failed });
    }
    // A removal has been asked about: it is what was typed.
    if let Some(question) = interruptions(&plans.interrupts).filter(|_| !args.remove) {
        args.consent.ask(&context.printer, &question, "do that?")?;
    }
    let Some(mut inventory) = scene.inventory.take() else { return Ok(Exit::Failed) };
    // Noted before anything is done, so that a run that is cut off is taken up by `cluster setup`; forgotten when all is gone.
    let possible = plans.unreachable.is_empty() && plans.plans.iter().all(|plan| plan.refusals.is_empty());
    if possible && wish.is_some() {
        inventory.change(&args.name, |node| node.proxy = wish)?;
    }
    let (exit, mut inventory) = carry_out(plans, &members, inventory, false, context).await?;
    if exit == Exit::Done && args.remove && inventory.node(&args.name).is_some() {
        inventory.change(&args.name, |node| node.proxy = None)?;
    }
    if let (Exit::Done, Some(proxy)) = (exit, desired.proxy_on(&args.name)) {
        context.printer.data(format_args!("requests  {}", proxy.url(&node, desired.front.scheme())))?;
        context.printer.talk(format_args!("`gorgo proxy --remote {} status` shows how it is", args.name));
    }
    Ok(exit)
}

/// What was asked for, as far as it can be.
fn wish(args: &Args, node: &NodeSpec) -> Result<ProxyWish, Failure> {
    if let Some(strategy) = &args.strategy {
        registry::find(strategy).map_err(|error| Failure::usage(anyhow!("--strategy: {error}")))?;
    }
    if let Some(listen) = args.listen {
        let ports = node.ports;
        let taken = [("engine", ports.engine), ("agent", ports.agent), ("agent's admin API", ports.agent_admin)];
        let taken = taken.into_iter().chain([("proxy's admin API", ports.proxy_admin), ("agent's peers", ports.peer)]);
        if let Some((who, port)) = taken.into_iter().find(|(_, port)| *port == listen.port()) {
            let error = anyhow!("--listen: port {port} of `{}` is that of the {who}", node.name);
            return Err(Failure::usage(error).with_hint(format!("wanted another one, e.g. {}", ports.proxy)));
        }
        if listen.port() == 0 {
            return Err(Failure::usage(anyhow!(
                "--listen: port 0 is any free one; wanted one that clients can be told"
            )));
        }
    }
    Ok(ProxyWish { listen: args.listen, strategy: args.strategy.clone(), max_concurrent: args.max_concurrent })
}
