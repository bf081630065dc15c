//! `--wait`: a machine is there when it has an address, lets us in, and its GPU computes. Each is a gate of its own, because each of them
//! can be missing while the provider calls the machine active.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::human;
use crate::cli::nodes::{Node, look};
use crate::cli::printer::Printer;
use crate::cli::progress::NodeLines;
use crate::cli::provider::{Provider, Setup};
use crate::cli::reach::remote;
use crate::cli::signal::or_interrupted;
use crate::cloud::{CloudErrorKind, InstanceType, Status};
use crate::remote::{RemoteCommand, RemoteError, RemoteErrorKind};

/// Time between two looks at machines that are rented: Lambda allows one call per second in all.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same where the provider is on this machine.
const LOOK_OFTEN: Duration = Duration::from_millis(200);
/// Longest single probe, seconds.
const PROBE_S: u32 = 60;
/// Makes a CUDA context through the driver alone. There have been machines whose `nvidia-smi` looked healthy while this failed with 802.
const CUDA_PROBE: &str = "import ctypes, sys
cuda = ctypes.CDLL('libcuda.so.1')
device, context = ctypes.c_int(), ctypes.c_void_p()
for step in (lambda: cuda.cuInit(0), lambda: cuda.cuDeviceGet(ctypes.byref(device), 0), lambda: cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)):
    code = step()
    if code:
        sys.exit('CUDA error %d' % code)
";

/// How far a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gate {
    /// First gate: the provider has not given it an address.
    Address(String),
    /// Second gate: it does not let us in.
    Login(String),
    /// Third gate: its GPU does not compute.
    Gpu(String),
    /// It can be used.
    Passed,
    /// It will never be.
    Failed(String),
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(what) => write!(f, "1 of 3, address: {what}"),
            Self::Login(why) => write!(f, "2 of 3, login: {why}"),
            Self::Gpu(why) => write!(f, "3 of 3, GPU: {why}"),
            Self::Passed => f.write_str("ready"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Gate {
    fn is_over(&self) -> bool {
        matches!(self, Self::Passed | Self::Failed(_))
    }
}

/// What is waited with.
pub(super) struct Wait<'a> {
    pub(super) setup: &'a Setup,
    pub(super) provider: &'a Provider,
    pub(super) offered: &'a [InstanceType],
    pub(super) printer: &'a Printer,
}

impl Wait<'_> {
    /// Waits until every one of `names` has passed, at most `limit`. Exit code 3 if some have not, 1 if none has, 130 if the user had enough.
    pub(super) async fn until_ready(&self, names: &[&str], limit: Duration) -> Outcome {
        let exit = or_interrupted(self.bounded(names, limit)).await?;
        if exit == Exit::Interrupted {
            self.printer
                .warn(format_args!("no longer waiting; the machines go on costing money: {}", names.join(", ")));
        }
        Ok(exit)
    }

    async fn bounded(&self, names: &[&str], limit: Duration) -> Outcome {
        let lines = NodeLines::new(self.printer, names.iter().copied());
        let mut gates: BTreeMap<String, Gate> = BTreeMap::new();
        let end = now() + limit;
        let ended = timeout_at(end, self.all_over(names, &mut gates, &lines)).await;
        drop(lines);
        ended.unwrap_or(Ok(()))?;
        let shown = |name: &&str| gates.get(*name).map_or_else(|| "not seen".to_owned(), ToString::to_string);
        let missing: Vec<&&str> = names.iter().filter(|name| gates.get(**name) != Some(&Gate::Passed)).collect();
        if missing.is_empty() {
            return Ok(Exit::Done);
        }
        let waited = human::duration_s(limit.as_secs_f64());
        self.printer.warn(format_args!(
            "not ready, and costing money all the same: {} (waited up to {waited})",
            missing.iter().map(|name| format!("{name} ({})", shown(name))).collect::<Vec<_>>().join(", ")
        ));
        Ok(if missing.len() == names.len() { Exit::Failed } else { Exit::Partly })
    }

    async fn all_over(
        &self,
        names: &[&str],
        gates: &mut BTreeMap<String, Gate>,
        lines: &NodeLines<'_>,
    ) -> Result<(), Failure> {
        let every = if self.provider.lists_at_once() { LOOK_OFTEN } else { LOOK_EVERY };
        loop {
            match look(self.setup, self.provider).await {
                Ok(nodes) => {
                    let over = |name: &str| gates.get(name).is_some_and(Gate::is_over);
                    let left = nodes.iter().filter(|it| names.contains(&it.name.as_str()) && !over(&it.name));
                    let left: Vec<&Node> = left.collect();
                    for node in left.iter().filter(|node| by_status(node).is_none()) {
                        if !matches!(gates.get(&node.name), Some(Gate::Login(_) | Gate::Gpu(_))) {
                            let trying = Gate::Login("trying".to_owned());
                            lines.say(&node.name, &trying.to_string());
                            gates.insert(node.name.clone(), trying);
                        }
                    }
                    for (name, gate) in join_all(left.into_iter().map(|node| self.probed(node))).await {
                        if gates.get(&name) != Some(&gate) {
                            lines.say(&name, &gate.to_string());
                        }
                        gates.insert(name, gate);
                    }
                }
                Err(failure) if is_passing(&failure) => self.printer.warn(&failure.error),
                Err(failure) => return Err(failure),
            }
            if names.iter().all(|name| gates.get(*name).is_some_and(Gate::is_over)) {
                return Ok(());
            }
            sleep(every).await;
        }
    }

    async fn probed(&self, node: &Node) -> (String, Gate) {
        let gate = match by_status(node) {
            Some(gate) => gate,
            None => self.probe(node).await.unwrap_or_else(|failure| refused_login(&failure)),
        };
        (node.name.clone(), gate)
    }

    /// Logs in, then makes a CUDA context, unless the machine has no GPU. Local machines have none.
    async fn probe(&self, node: &Node) -> Result<Gate, Failure> {
        let remote = remote(self.setup, self.provider, node)?;
        let run = |argv: &[&str]| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            RemoteCommand { argv, sudo: false, stdin: Vec::new(), timeout_s: PROBE_S }
        };
        remote.run(&run(&["true"])).await?;
        if matches!(self.provider, Provider::Local(_)) || self.is_without_gpu(node) {
            return Ok(Gate::Passed);
        }
        let output = remote.run(&run(&["python3", "-c", CUDA_PROBE])).await?;
        Ok(if output.ok() { Gate::Passed } else { Gate::Gpu(output.complaint()) })
    }

    fn is_without_gpu(&self, node: &Node) -> bool {
        let kind = node.instance.as_ref().map(|it| it.instance_type.as_str());
        self.offered.iter().any(|it| Some(it.name.as_str()) == kind && it.gpus == 0)
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge where a command reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn is_passing(failure: &Failure) -> bool {
    let error = failure.error.downcast_ref::<crate::cloud::CloudError>();
    error.is_some_and(|error| error.kind == CloudErrorKind::Transient)
}

/// A login may fail while the machine boots, in any way but one: a host key that is not the known one stays so.
fn refused_login(failure: &Failure) -> Gate {
    let error = failure.error.downcast_ref::<RemoteError>();
    match error.filter(|error| error.kind == RemoteErrorKind::HostKey) {
        Some(error) => Gate::Failed(format!("{error}; {}", error.hint.as_deref().unwrap_or_default())),
        None => Gate::Login(failure.error.to_string()),
    }
}

/// What the provider says of it, if that settles the matter already.
fn by_status(node: &Node) -> Option<Gate> {
    let Some(instance) = &node.instance else {
        return Some(Gate::Address("the provider does not list it yet".to_owned()));
    };
    match instance.status {
        Status::Terminating | Status::Terminated | Status::Preempted => Some(Gate::Failed("it is gone".to_owned())),
        _ if instance.address.is_none() => Some(Gate::Address("it has none yet".to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, by_status, refused_login};
    use crate::cli::nodes::Node;
    use crate::cloud::{Instance, InstanceId, Status};
    use crate::model::Region;
    use crate::remote::{RemoteError, RemoteErrorKind};

    #[test]
    fn the_provider_settles_only_what_it_knows() {
        let machine = |status: Status, address: Option<[u8; 4]>| Instance {
            id: InstanceId("1".into()),
            name: None,
            status,
            address: address.map(Into::into),
            private_address: None,
            region: Region::new("r"),
            instance_type: "t".into(),
            price_cents_per_hour: None,
            tags: [].into(),
        };
        let there = Some([198, 51, 100, 7]);
        let before = |what: &str| Some(Gate::Address(what.to_owned()));
        let cases = [
            (None, before("the provider does not list it yet")),
            (Some(machine(Status::Booting, None)), before("it has none yet")),
            (Some(machine(Status::Active, None)), before("it has none yet")),
            (Some(machine(Status::Booting, there)), None),
            (Some(machine(Status::Active, there)), None),
            (Some(machine(Status::Unhealthy, there)), None),
            (Some(machine(Status::Terminated, there)), Some(Gate::Failed("it is gone".to_owned()))),
        ];
        for (instance, expected) in cases {
            let node = Node { name: "east".into(), record: None, instance };
            assert_eq!(by_status(&node), expected);
        }
    }

    #[test]
    fn a_login_that_fails_may_come_but_not_past_another_host_key() {
        let cases = [
            (RemoteErrorKind::Unreachable, "2 of 3, login: east: no"),
            (RemoteErrorKind::Denied, "2 of 3, login: east: no"),
            (RemoteErrorKind::HostKey, "east: no; look"),
        ];
        for (kind, expected) in cases {
            let error = RemoteError::new(kind, "east", "no").with_hint("look");
            assert_eq!(refused_login(&error.into()).to_string(), expected);
        }
    }
}
