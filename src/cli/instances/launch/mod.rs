//! `gorgo launch`.

mod key;
mod launching;
mod plan;
mod request;
mod wait;
mod wish;

use std::time::Duration;

use crate::cli::account::sync::ruleset_name;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::provider::{Provider, Setup, cloud_failure};
use crate::cli::{Context, instances};
use crate::cloud::lambda::wire::Ruleset;
use crate::cloud::{Cloud, CloudErrorKind, InstanceType};
use crate::cluster::launch::{LaunchOutcome, LaunchReport, Machine, NodeLaunch};
use crate::remote::ssh::HostKey;
use launching::Launching;
use plan::Plan;
use request::requests;
use wait::Wait;
use wish::{Wish, wishes};

/// What to do after a launch whose outcome is unknown.
const LOOKED_FOR: &str = "launch again with the same names: gorgo looks for its tag before it asks again; `gorgo status` shows what it finds";

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
    /// If there is no capacity anywhere, ask again and again for so long, seconds
    #[arg(long, value_name = "SECONDS")]
    retry_capacity: Option<u64>,
    /// Name of the account's SSH key to install [default: the only one, or one of ~/.ssh]
    #[arg(long, value_name = "NAME")]
    ssh_key: Option<String>,
    /// Family of the image, e.g. lambda-stack-24-04 [default: the provider's newest]
    #[arg(long, value_name = "FAMILY")]
    image: Option<String>,
    /// A file system to attach, by name (repeatable); it must be in the same region
    #[arg(long = "filesystem", value_name = "NAME")]
    filesystems: Vec<String>,
    /// Give the machines no host key of ours; the first one that each shows is trusted from then on
    #[arg(long)]
    trust_first_key: bool,
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
    let offered = offered(cloud, &provider, &wishes).await?;
    let listed = cloud.list().await.map_err(cloud_failure)?;
    let requests = requests(&args, &wishes, &setup, &provider).await?;
    let rulesets = rulesets(&setup, &provider).await?;
    let mut plan = Plan::new(&requests, &offered, args.any_region, &rulesets, inventory.nodes(), &listed)?;
    let names: Vec<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
    let wait = Wait { setup: &setup, provider: &provider, offered: &offered, printer: &context.printer };
    let limit = Duration::from_secs(args.wait_timeout);
    if plan.machines.is_empty() {
        context.printer.talk(plan.to_string().trim_end());
        return if args.wait { wait.until_ready(&names, limit).await } else { Ok(Exit::Done) };
    }
    if args.consent.ask(&context.printer, plan.to_string().trim_end(), "launch that?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    if matches!(provider, Provider::Lambda(_)) && !args.trust_first_key {
        plan.machines.iter_mut().try_for_each(give_host_key)?;
    }
    let patience = Duration::from_secs(args.retry_capacity.unwrap_or(0));
    let report =
        Launching::new(&provider, &context.printer, patience).carry_out(&mut inventory, &plan.machines).await?;
    // From here on nobody needs the lock: a wait may be long, and other commands are welcome meanwhile.
    drop(inventory);
    failures(&report).iter().for_each(|failure| context.printer.failure(failure));
    context.printer.data(&report)?;
    let there: Vec<&str> = names.into_iter().filter(|name| plan.has(name) || report.runs(name)).collect();
    if !args.wait || report.interrupted || there.is_empty() {
        return Ok(exit(&report));
    }
    let ready = wait.until_ready(&there, limit).await?;
    Ok(if ready == Exit::Done { exit(&report) } else { ready })
}

/// What the provider has, once every wish is for something that exists.
async fn offered(cloud: &dyn Cloud, provider: &Provider, wishes: &[Wish]) -> Result<Vec<InstanceType>, Failure> {
    let offered = cloud.types().await.map_err(cloud_failure)?;
    let known = instances::available::known_regions(provider);
    for wish in wishes {
        instances::available::check_type(&wish.instance_type, &offered)?;
        instances::available::check_region(wish.region.as_str(), &offered, known)?;
    }
    Ok(offered)
}

/// The private half goes into the request and nowhere else.
fn give_host_key(machine: &mut Machine) -> Result<(), Failure> {
    let key = HostKey::generate()?;
    for way in &mut machine.candidates {
        way.request.user_data = Some(key.cloud_config());
    }
    machine.host_key = Some(key.public().to_owned());
    Ok(())
}

/// Ids of the cluster's firewall rulesets by region; they can be attached at launch only.
async fn rulesets(setup: &Setup, provider: &Provider) -> Result<plan::Rulesets, Failure> {
    let Provider::Lambda(cloud) = provider else { return Ok(plan::Rulesets::new()) };
    let all = cloud.rulesets().await.map_err(cloud_failure)?;
    let own = |it: &&Ruleset| it.name == ruleset_name(&setup.fleet.cluster, &it.region.name);
    Ok(all.iter().filter(own).map(|it| (it.region.name.clone(), it.id.clone())).collect())
}

/// What went wrong, node by node.
fn failures(report: &LaunchReport) -> Vec<Failure> {
    let told = |node: &NodeLaunch| match &node.outcome {
        LaunchOutcome::NoCapacity(error) | LaunchOutcome::Failed(error) | LaunchOutcome::Unknown(error) => {
            let mut failure = cloud_failure(error.clone());
            failure.error = failure.error.context(format!("`{}` was not launched", node.node));
            if node.may_run_unseen() {
                if !node.uncertain {
                    failure.error = anyhow::Error::from(error.clone());
                }
                failure.hint = Some(LOOKED_FOR.to_owned());
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
    } else if report.nodes.iter().any(NodeLaunch::may_run_unseen) {
        Exit::Failed
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
                uncertain: false,
            };
            let report = LaunchReport { nodes: outcomes.into_iter().map(node).collect(), interrupted };
            assert_eq!(exit(&report), expected, "{report}");
        }
    }
}
