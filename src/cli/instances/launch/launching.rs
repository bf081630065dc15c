//! Carries a launch out with a line per node, and again where only capacity was missing, as long as the user has patience.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cli::exit::Failure;
use crate::cli::printer::Printer;
use crate::cli::progress::NodeLines;
use crate::cli::provider::{Provider, random_bits};
use crate::cli::signal::Stops;
use crate::cloud::Cloud;
use crate::cluster::crash::CrashHook;
use crate::cluster::inventory::ClusterInventory;
use crate::cluster::launch::{LaunchOptions, LaunchOutcome, LaunchReport, Machine, RunTag, launch};

/// Least pause before capacity is asked for again; up to twice as long, so that many who wait do not ask together. Windows of
/// capacity of less than a minute and a half have been seen, and one launch in 12 s is allowed.
const PAUSE: Duration = Duration::from_secs(15);
/// The same where the provider is on this machine.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// What a launch is carried out with.
pub(super) struct Launching<'a> {
    provider: &'a Provider,
    printer: &'a Printer,
    /// How long capacity is asked for again.
    patience: Duration,
    crash: CrashHook,
}

impl<'a> Launching<'a> {
    pub(super) fn new(provider: &'a Provider, printer: &'a Printer, patience: Duration) -> Self {
        Self { provider, printer, patience, crash: CrashHook::from_environment() }
    }

    /// Ctrl-C ends it after the call that is under way.
    pub(super) async fn carry_out(
        &self,
        inventory: &mut ClusterInventory,
        machines: &[Machine],
    ) -> Result<LaunchReport, Failure> {
        let cloud = self.provider.cloud("launch")?;
        let stop = CancellationToken::new();
        let mut stops = Stops::listen()?;
        let token = stop.clone();
        let listener = tokio::spawn(async move {
            stops.next().await;
            token.cancel();
        });
        let report = self.rounds(cloud, inventory, machines, &stop).await;
        listener.abort();
        Ok(report)
    }

    async fn rounds(
        &self,
        cloud: &dyn Cloud,
        inventory: &mut ClusterInventory,
        machines: &[Machine],
        stop: &CancellationToken,
    ) -> LaunchReport {
        let mut options = LaunchOptions::new(RunTag::from_bits(random_bits()));
        if self.provider.lists_at_once() {
            options.look_after = vec![Duration::ZERO];
        }
        let end = now() + self.patience;
        let mut report = self.round(cloud, inventory, machines, &options, stop).await;
        loop {
            let short = short_of_capacity(machines, &report);
            let pause = self.pause();
            if short.is_empty() || !only_capacity(&report) || stop.is_cancelled() || now() + pause > end {
                report.interrupted = stop.is_cancelled();
                return report;
            }
            let names: Vec<&str> = short.iter().map(|machine| machine.node.as_str()).collect();
            let seconds = pause.as_secs_f64();
            self.printer.talk(format_args!("no capacity for {}; asking again in {seconds:.0} s", names.join(", ")));
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => continue,
            }
            let again = self.round(cloud, inventory, &short, &options, stop).await;
            replace(&mut report, again);
        }
    }

    async fn round(
        &self,
        cloud: &dyn Cloud,
        inventory: &mut ClusterInventory,
        machines: &[Machine],
        options: &LaunchOptions,
        stop: &CancellationToken,
    ) -> LaunchReport {
        let lines = NodeLines::new(self.printer, machines.iter().map(|machine| machine.node.as_str()));
        launch(cloud, inventory, machines, options, stop, &mut |event| {
            lines.say(&event.node, &event.progress.to_string());
            self.crash.boundary();
        })
        .await
    }

    fn pause(&self) -> Duration {
        let least = if self.provider.lists_at_once() { SHORT_PAUSE } else { PAUSE };
        least + least.mul_f64((random_bits() % 1000) as f64 / 1000.0)
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge where a command reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn short_of_capacity(machines: &[Machine], report: &LaunchReport) -> Vec<Machine> {
    let short = |machine: &&Machine| {
        let no_capacity = |outcome: &LaunchOutcome| matches!(outcome, LaunchOutcome::NoCapacity(_));
        report.nodes.iter().any(|node| node.node == machine.node && no_capacity(&node.outcome))
    };
    machines.iter().filter(short).cloned().collect()
}

/// Nothing else went wrong, so that asking again can help.
fn only_capacity(report: &LaunchReport) -> bool {
    report.nodes.iter().all(|node| matches!(node.outcome, LaunchOutcome::Running(_) | LaunchOutcome::NoCapacity(_)))
}

/// What a later round came to counts.
fn replace(report: &mut LaunchReport, again: LaunchReport) {
    for later in again.nodes {
        if let Some(node) = report.nodes.iter_mut().find(|node| node.node == later.node) {
            *node = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{only_capacity, replace, short_of_capacity};
    use crate::cloud::{CloudError, CloudErrorKind, InstanceId};
    use crate::cluster::launch::{LaunchOutcome, LaunchReport, Machine, NodeLaunch};
    use crate::model::Region;

    fn node(name: &str, outcome: LaunchOutcome) -> NodeLaunch {
        let (node, region) = (name.to_owned(), Region::new("r"));
        NodeLaunch {
            node,
            instance_type: "t".into(),
            region,
            price_cents_per_hour: None,
            outcome,
            also: Vec::new(),
            unsaved: None,
            uncertain: false,
        }
    }

    #[test]
    fn only_what_lacked_capacity_is_asked_for_again() {
        let error = |kind| CloudError { kind, code: None, message: "no".into(), hint: None };
        let runs = |id: &str| LaunchOutcome::Running(InstanceId(id.into()));
        let full = || LaunchOutcome::NoCapacity(error(CloudErrorKind::Capacity));
        let machine = |name: &str| Machine { node: name.into(), candidates: Vec::new(), host_key: None };
        let machines = ["a", "b", "c"].map(machine);
        let nodes = vec![node("a", runs("1")), node("b", full()), node("c", full())];
        let mut report = LaunchReport { nodes, interrupted: false };
        let short = short_of_capacity(&machines, &report);
        assert_eq!(short.iter().map(|it| it.node.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert!(only_capacity(&report));
        replace(&mut report, LaunchReport { nodes: vec![node("c", runs("2")), node("b", full())], interrupted: false });
        assert_eq!(report.to_string(), "running at $0.00/h: a 1, c 2; not launched: b (no capacity)");
        report.nodes[1].outcome = LaunchOutcome::Failed(error(CloudErrorKind::Quota));
        assert!(!only_capacity(&report), "asking again cannot help");
    }
}
