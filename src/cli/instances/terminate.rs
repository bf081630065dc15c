//! `gorgo terminate` and `gorgo restart`.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::sleep;

use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::nodes::{Node, instance_ids, is_gone, is_uncertain, no_such_node, nodes};
use crate::cli::provider::{Setup, cloud_failure};
use crate::cli::reach::settings;
use crate::cli::{Context, human};
use crate::cloud::{Cloud, Instance, InstanceId};
use crate::cluster::inventory::{ClusterInventory, NodeRecord};
use crate::remote::ssh::forget_host_key;

/// How often, and how long apart, machines are looked at that were terminated, before they count as there all the same.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The same where the provider is on this machine.
const LOOK_SOON: Duration = Duration::from_millis(50);

/// Arguments of `gorgo terminate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Terminate {
    /// Nodes of the cluster, or ids of other machines of the account
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// All nodes of the cluster, and no other machine
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Arguments of `gorgo restart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restart {
    /// Nodes of the cluster, or ids of other machines of the account
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// What a name stands for.
struct Target {
    /// The name as given.
    name: String,
    /// It is a node of the cluster.
    of_cluster: bool,
    /// Its machines: one, none, or more if others carry its tag.
    ids: Vec<InstanceId>,
    /// What is to be said of it.
    line: String,
}

/// Ends machines for good and forgets their nodes.
pub(crate) async fn terminate(args: Terminate, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let cloud = provider.cloud("terminate")?;
    let mut inventory = setup.inventory()?;
    let listed = cloud.list().await.map_err(cloud_failure)?;
    let names = if args.all { all_nodes(&inventory) } else { args.names };
    if names.is_empty() {
        context.printer.talk(format_args!("cluster {} has no nodes", setup.fleet.cluster));
        return Ok(Exit::Done);
    }
    let targets = targets(&setup, &names, inventory.nodes(), &listed, "terminate")?;
    let plan: Vec<&str> = targets.iter().map(|it| it.line.as_str()).collect();
    if args.consent.ask(&context.printer, &plan.join("\n"), "terminate that? What is on them is lost")? == Go::NoFurther
    {
        return Ok(Exit::Done);
    }
    let ids: Vec<InstanceId> = targets.iter().flat_map(|it| it.ids.clone()).collect();
    cloud.terminate(&ids).await.map_err(cloud_failure)?;
    still_there(cloud, &ids, provider.lists_at_once()).await?;
    for target in targets.iter().filter(|it| it.of_cluster) {
        inventory.remove(&target.name)?;
    }
    forget_host_keys(&setup, &ids, context);
    let left = cents_left(&listed, &ids);
    context.printer.talk(format_args!(
        "terminated {}; the account's other machines cost {}",
        names.join(", "),
        human::price(left)
    ));
    Ok(Exit::Done)
}

/// Looks until none of them is there any more, or all are on their way out: an accepted call has been seen to end nothing. What stays is
/// an error, and its node is not forgotten.
async fn still_there(cloud: &dyn Cloud, ids: &[InstanceId], lists_at_once: bool) -> Result<(), Failure> {
    let pause = if lists_at_once { LOOK_SOON } else { LOOK_AGAIN };
    let mut there = Vec::new();
    for look in 0..LOOKS {
        if look > 0 {
            sleep(pause).await;
        }
        let listed = cloud.list().await.map_err(cloud_failure)?;
        there = listed
            .iter()
            .filter(|it| ids.contains(&it.id) && !is_gone(&it.status))
            .map(|it| it.id.to_string())
            .collect();
        if there.is_empty() {
            return Ok(());
        }
    }
    let error =
        anyhow!("the provider took the call, but goes on listing {} as there, and costing money", there.join(", "));
    Err(Failure::from(error).with_hint("terminate again, and look at the provider's console if that does not help"))
}

fn all_nodes(inventory: &ClusterInventory) -> Vec<String> {
    inventory.nodes().iter().map(|node| node.name.clone()).collect()
}

/// A machine that is gone never comes back; an entry that cannot be removed does no harm, since no machine will have its id.
fn forget_host_keys(setup: &Setup, ids: &[InstanceId], context: &Context) {
    let file = settings(setup).known_hosts;
    for id in ids {
        if let Err(error) = forget_host_key(&file, &id.0) {
            context.printer.warn(format_args!("the host key of {id} stays in {}: {error}", file.display()));
        }
    }
}

/// Reboots machines; their host keys stay as they are.
pub(crate) async fn restart(args: Restart, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let cloud = provider.cloud("restart")?;
    let inventory = setup.inventory()?;
    let listed = cloud.list().await.map_err(cloud_failure)?;
    let targets = targets(&setup, &args.names, inventory.nodes(), &listed, "restart")?;
    if let Some(none) = targets.iter().find(|it| it.ids.is_empty()) {
        return Err(Failure {
            exit: Exit::NothingSuitable,
            error: anyhow!("`{}` has no machine", none.name),
            hint: None,
        });
    }
    let plan: Vec<&str> = targets.iter().map(|it| it.line.as_str()).collect();
    if args.consent.ask(&context.printer, &plan.join("\n"), "restart that? Requests in flight there are lost")?
        == Go::NoFurther
    {
        return Ok(Exit::Done);
    }
    let ids: Vec<InstanceId> = targets.iter().flat_map(|it| it.ids.clone()).collect();
    cloud.restart(&ids).await.map_err(cloud_failure)?;
    context.printer.talk(format_args!("restarting {}", args.names.join(", ")));
    Ok(Exit::Done)
}

fn cents_left(listed: &[Instance], ended: &[InstanceId]) -> u64 {
    super::cents_per_hour(listed.iter().filter(|it| !ended.contains(&it.id) && !is_gone(&it.status)))
}

/// Names are those of the cluster's nodes only; whatever else the account has must be named by its id.
fn targets(
    setup: &Setup,
    names: &[String],
    records: &[NodeRecord],
    listed: &[Instance],
    verb: &str,
) -> Result<Vec<Target>, Failure> {
    let nodes = nodes(setup, records, listed);
    let mut targets: Vec<Target> = Vec::new();
    for name in names {
        let target = match (nodes.iter().find(|node| node.name == *name), listed.iter().find(|it| it.id.0 == *name)) {
            (Some(node), _) => of_node(node, listed, verb),
            (None, Some(instance)) => of_instance(instance, records, verb)?,
            (None, None) => {
                return Err(no_such_node(&setup.fleet.cluster, name, nodes.iter().map(|node| node.name.as_str())));
            }
        };
        if !targets.iter().any(|it| it.name == target.name) {
            targets.push(target);
        }
    }
    Ok(targets)
}

fn of_node(node: &Node, listed: &[Instance], verb: &str) -> Target {
    let mut ids: Vec<InstanceId> = node.record.iter().flat_map(instance_ids).cloned().collect();
    if let Some(run) = node.record.as_ref().and_then(|it| it.run.as_ref()) {
        // An answer that was lost may have left machines that only their tag tells.
        let tagged = listed.iter().filter(|it| run.marks(&node.name, it) && !ids.contains(&it.id));
        let tagged: Vec<InstanceId> = tagged.map(|it| it.id.clone()).collect();
        ids.extend(tagged);
    }
    if verb == "restart" {
        ids.truncate(1);
    }
    let machines: Vec<String> = ids.iter().map(|id| machine(id, listed)).collect();
    let what = match (machines.is_empty(), node.record.as_ref().is_some_and(is_uncertain)) {
        (false, _) => machines.join(", "),
        (true, false) => "it has no machine".to_owned(),
        (true, true) => "no machine with its tag is listed, though one was asked for".to_owned(),
    };
    Target { name: node.name.clone(), of_cluster: true, ids, line: format!("{verb} {}: {what}", node.name) }
}

fn of_instance(instance: &Instance, records: &[NodeRecord], verb: &str) -> Result<Target, Failure> {
    let owner = records.iter().find(|node| instance_ids(node).any(|id| *id == instance.id));
    if let Some(owner) = owner {
        let error = anyhow!("{} is the machine of node `{}`", instance.id, owner.name);
        return Err(Failure::usage(error).with_hint(format!("`gorgo {verb} {}`", owner.name)));
    }
    let called = instance.name.as_deref().map_or_else(String::new, |name| format!(" called {name}"));
    let line = format!(
        "{verb} a machine{called} that is not of this cluster: {}",
        machine(&instance.id, std::slice::from_ref(instance))
    );
    Ok(Target { name: instance.id.0.clone(), of_cluster: false, ids: vec![instance.id.clone()], line })
}

/// `0123, gpu_1x_a100 in us-east-1, $1.29/h`
fn machine(id: &InstanceId, listed: &[Instance]) -> String {
    let Some(instance) = listed.iter().find(|it| it.id == *id) else { return format!("{id} (gone already)") };
    let price =
        instance.price_cents_per_hour.map_or_else(String::new, |cents| format!(" at {}", human::price(cents.into())));
    format!("{id} ({} in {}{price})", instance.instance_type, instance.region)
}
