//! `gorgo launch`.

mod key;
mod plan;
mod wait;
mod wish;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::account::sync::ruleset_name;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::printer::Printer;
use crate::cli::progress::NodeLines;
use crate::cli::provider::{Provider, Setup, cloud_failure, random_bits};
use crate::cli::signal::{Stops, or_interrupted};
use crate::cli::{Context, instances};
use crate::cloud::lambda::wire::Ruleset;
use crate::cloud::{Cloud, CloudErrorKind, LaunchRequest};
use crate::cluster::crash::CrashHook;
use crate::cluster::inventory::ClusterInventory;
use crate::cluster::launch::{LaunchOptions, LaunchOutcome, LaunchReport, Machine, NodeLaunch, RunTag, launch};
use plan::Plan;
use wish::{Wish, wishes};

/// Arguments of `gorgo launch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes to get a machine for; those that have one keep it [default: every `[[node]]` of gorgo.toml]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Type of machine [default: that of the `[[node]]`]
    #[arg(long = "type", value_name = "TYPE")]
    instance_type: Option<String>,
    /// Where: one for all, or one for each name in the same order [default: that of the `[[node]]`]
    #[arg(long = "region", value_name = "REGION", num_args = 1..)]
    regions: Vec<String>,
    /// If there is no capacity, try the other regions that claim some
    #[arg(long)]
    any_region: bool,
    /// Name of the account's SSH key to install [default: the only one, or one of ~/.ssh]
    #[arg(long, value_name = "NAME")]
    ssh_key: Option<String>,
    /// Family of the image, e.g. lambda-stack-24-04 [default: the provider's newest]
    #[arg(long, value_name = "FAMILY")]
    image: Option<String>,
    /// A file system to attach, by name (repeatable); it must be in the same region
    #[arg(long = "filesystem", value_name = "NAME")]
    filesystems: Vec<String>,
    /// Wait until each machine has an address, lets us in and its GPU computes
    #[arg(long)]
    wait: bool,
    /// Longest wait, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1_500, requires = "wait")]
    wait_timeout: u64,
    #[command(flatten)]
    consent: Consent,
}

/// Exit code 3 if some nodes have a machine and some not, 4 if there was no capacity for any.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let setup = Setup::read(context)?;
    let provider = setup.provider()?;
    let cloud = provider.cloud("launch")?;
    let wishes = wishes(&args.names, args.instance_type.as_deref(), &args.regions, &setup.fleet)?;
    let mut inventory = setup.inventory()?;
    let offered = cloud.types().await.map_err(cloud_failure)?;
    let known = instances::available::known_regions(&provider);
    for wish in &wishes {
        instances::available::check_type(&wish.instance_type, &offered)?;
        instances::available::check_region(wish.region.as_str(), &offered, known)?;
    }
    let listed = cloud.list().await.map_err(cloud_failure)?;
    let requests = requests(&args, &wishes, &provider).await?;
    let rulesets = rulesets(&setup, &provider).await?;
    let plan = Plan::new(&requests, &offered, args.any_region, &rulesets, inventory.nodes(), &listed)?;
    let names: Vec<String> = wishes.iter().map(|wish| wish.name.clone()).collect();
    let limit = Duration::from_secs(args.wait_timeout);
    if plan.machines.is_empty() {
        context.printer.talk(plan.to_string().trim_end());
        if args.wait {
            return or_interrupted(wait::wait(&setup, &provider, &names, limit, &context.printer)).await;
        }
        return Ok(Exit::Done);
    }
    if args.consent.ask(&context.printer, plan.to_string().trim_end(), "launch that?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    let mut options = LaunchOptions::new(RunTag::from_bits(random_bits()));
    if provider.lists_at_once() {
        options.look_after = vec![Duration::ZERO];
    }
    let report = carry_out(cloud, &mut inventory, &plan.machines, &options, &context.printer).await?;
    for failure in failures(&report) {
        context.printer.failure(&failure);
    }
    context.printer.data(&report)?;
    if args.wait && report.complete() {
        return or_interrupted(wait::wait(&setup, &provider, &names, limit, &context.printer)).await;
    }
    Ok(exit(&report))
}

/// What each machine is to be, but for its firewall.
async fn requests(args: &Args, wishes: &[Wish], provider: &Provider) -> Result<Vec<LaunchRequest>, Failure> {
    let ssh_key = match provider {
        Provider::Lambda(cloud) => {
            let stored = cloud.ssh_keys().await.map_err(cloud_failure)?;
            Some(key::choose(args.ssh_key.as_deref(), &stored, &key::own_public_keys())?)
        }
        Provider::Hosts(_) | Provider::Local(_) => None,
    };
    let request = |wish: &Wish| LaunchRequest {
        name: wish.name.clone(),
        instance_type: wish.instance_type.clone(),
        region: wish.region.clone(),
        ssh_key: ssh_key.clone(),
        user_data: None,
        tags: [].into(),
        firewall_rulesets: Vec::new(),
        file_systems: args.filesystems.clone(),
        image_family: args.image.clone(),
    };
    Ok(wishes.iter().map(request).collect())
}

/// Ids of the cluster's firewall rulesets by region; they can be attached at launch only.
async fn rulesets(setup: &Setup, provider: &Provider) -> Result<plan::Rulesets, Failure> {
    let Provider::Lambda(cloud) = provider else { return Ok(plan::Rulesets::new()) };
    let all = cloud.rulesets().await.map_err(cloud_failure)?;
    let own = |it: &&Ruleset| it.name == ruleset_name(&setup.fleet.cluster, &it.region.name);
    Ok(all.iter().filter(own).map(|it| (it.region.name.clone(), it.id.clone())).collect())
}

/// Launches, with a line per node. Ctrl-C ends it after the call that is under way.
async fn carry_out(
    cloud: &dyn Cloud,
    inventory: &mut ClusterInventory,
    machines: &[Machine],
    options: &LaunchOptions,
    printer: &Printer,
) -> Result<LaunchReport, Failure> {
    let stop = CancellationToken::new();
    let mut stops = Stops::listen()?;
    let token = stop.clone();
    let listener = tokio::spawn(async move {
        stops.next().await;
        token.cancel();
    });
    let lines = NodeLines::new(printer, machines.iter().map(|machine| machine.node.as_str()));
    let crash = CrashHook::from_environment();
    let report = launch(cloud, inventory, machines, options, &stop, &mut |event| {
        lines.say(&event.node, &event.progress.to_string());
        crash.boundary();
    })
    .await;
    listener.abort();
    Ok(report)
}

/// What went wrong, node by node.
fn failures(report: &LaunchReport) -> Vec<Failure> {
    let told = |node: &NodeLaunch| match &node.outcome {
        LaunchOutcome::NoCapacity(error) | LaunchOutcome::Failed(error) | LaunchOutcome::Unknown(error) => {
            let mut failure = cloud_failure(error.clone());
            failure.error = failure.error.context(format!("`{}` was not launched", node.node));
            if matches!(node.outcome, LaunchOutcome::Unknown(_)) {
                failure.error = anyhow::Error::from(error.clone());
            }
            Some(failure)
        }
        LaunchOutcome::Running(_) | LaunchOutcome::NotAsked => None,
    };
    report.nodes.iter().filter_map(told).collect()
}

fn exit(report: &LaunchReport) -> Exit {
    let errors = report.nodes.iter().filter_map(|node| match &node.outcome {
        LaunchOutcome::NoCapacity(error) | LaunchOutcome::Failed(error) | LaunchOutcome::Unknown(error) => Some(error),
        LaunchOutcome::Running(_) | LaunchOutcome::NotAsked => None,
    });
    let kinds: Vec<CloudErrorKind> = errors.map(|error| error.kind).collect();
    let some_run = report.nodes.iter().any(|node| matches!(node.outcome, LaunchOutcome::Running(_)));
    if report.complete() {
        Exit::Done
    } else if report.interrupted {
        Exit::Interrupted
    } else if some_run {
        Exit::Partly
    } else if kinds.iter().all(|kind| *kind == CloudErrorKind::Capacity) {
        Exit::NothingSuitable
    } else if kinds.iter().all(|kind| matches!(kind, CloudErrorKind::Credentials | CloudErrorKind::Invalid)) {
        Exit::Usage
    } else {
        Exit::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::exit;
    use crate::cli::Exit;
    use crate::cloud::{CloudError, CloudErrorKind, InstanceId};
    use crate::cluster::launch::{LaunchOutcome, LaunchReport, NodeLaunch};
    use crate::model::Region;

    #[test]
    fn the_exit_code_says_how_much_was_done() {
        let error = |kind| CloudError { kind, code: None, message: "no".into(), hint: None };
        let runs = || LaunchOutcome::Running(InstanceId("1".into()));
        let capacity = || LaunchOutcome::NoCapacity(error(CloudErrorKind::Capacity));
        let cases = [
            (vec![runs(), runs()], false, Exit::Done),
            (vec![runs(), capacity()], false, Exit::Partly),
            (vec![capacity(), capacity()], false, Exit::NothingSuitable),
            (vec![LaunchOutcome::Failed(error(CloudErrorKind::Invalid)), LaunchOutcome::NotAsked], false, Exit::Usage),
            (vec![LaunchOutcome::Failed(error(CloudErrorKind::Quota))], false, Exit::Failed),
            (vec![LaunchOutcome::Unknown(error(CloudErrorKind::UnknownOutcome))], false, Exit::Failed),
            (vec![runs(), LaunchOutcome::NotAsked], true, Exit::Interrupted),
        ];
        for (outcomes, interrupted, expected) in cases {
            let node = |outcome| NodeLaunch {
                node: "a".into(),
                instance_type: "t".into(),
                region: Region::new("r"),
                price_cents_per_hour: None,
                outcome,
                also: Vec::new(),
                unsaved: None,
            };
            let report = LaunchReport { nodes: outcomes.into_iter().map(node).collect(), interrupted };
            assert_eq!(exit(&report), expected, "{report}");
        }
    }
}
