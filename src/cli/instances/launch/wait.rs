//! `--wait`: a machine is there when it has an address, lets us in, and its GPU computes. Each is a gate of its own, because each of them
//! can be missing while the provider calls the machine active.

use std::collections::BTreeMap;
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
use crate::cloud::{CloudErrorKind, Status};
use crate::remote::RemoteCommand;

/// Time between two looks at machines that are rented: Lambda allows one call per second in all.
const LOOK_EVERY: Duration = Duration::from_secs(10);
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
    /// It is on its way, and this is what is waited for.
    Before(String),
    /// It can be used.
    Passed,
    /// It will never be.
    Failed(String),
}

/// Waits until every one of `names` has passed, at most `limit`. Exit code 3 if some have not.
pub(super) async fn wait(
    setup: &Setup,
    provider: &Provider,
    names: &[String],
    limit: Duration,
    printer: &Printer,
) -> Outcome {
    let lines = NodeLines::new(printer, names.iter().map(String::as_str));
    let mut gates: BTreeMap<String, Gate> = BTreeMap::new();
    let end = now() + limit;
    let waiting = async {
        loop {
            match look(setup, provider).await {
                Ok(nodes) => {
                    let left = nodes.iter().filter(|it| names.contains(&it.name) && !is_over(gates.get(&it.name)));
                    for (name, gate) in join_all(left.map(|node| probed(setup, provider, node))).await {
                        if gates.get(&name) != Some(&gate) {
                            lines.say(&name, &text(&gate));
                        }
                        gates.insert(name, gate);
                    }
                }
                Err(failure) if is_passing(&failure) => printer.warn(&failure.error),
                Err(failure) => return Err(failure),
            }
            if names.iter().all(|name| is_over(gates.get(name))) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    };
    let ended = timeout_at(end, waiting).await;
    drop(lines);
    if let Ok(result) = ended {
        result?;
    }
    let missing: Vec<&str> =
        names.iter().filter(|name| gates.get(*name) != Some(&Gate::Passed)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    let waited = human::duration_s(limit.as_secs_f64());
    printer.warn(format_args!(
        "not ready, and costing money all the same: {} (waited up to {waited})",
        missing.join(", ")
    ));
    Ok(Exit::Partly)
}

#[expect(clippy::disallowed_methods, reason = "the edge where a command reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn is_over(gate: Option<&Gate>) -> bool {
    matches!(gate, Some(Gate::Passed | Gate::Failed(_)))
}

fn is_passing(failure: &Failure) -> bool {
    let error = failure.error.downcast_ref::<crate::cloud::CloudError>();
    error.is_some_and(|error| error.kind == CloudErrorKind::Transient)
}

fn text(gate: &Gate) -> String {
    match gate {
        Gate::Before(what) => format!("waiting for {what}"),
        Gate::Passed => "ready".to_owned(),
        Gate::Failed(why) => why.clone(),
    }
}

/// What the provider says of it, if that settles the matter already.
fn by_status(node: &Node) -> Option<Gate> {
    let Some(instance) = &node.instance else { return Some(Gate::Before("the provider to list it".to_owned())) };
    match instance.status {
        Status::Terminating | Status::Terminated | Status::Preempted => Some(Gate::Failed("it is gone".to_owned())),
        _ if instance.address.is_none() => Some(Gate::Before("an address".to_owned())),
        _ => None,
    }
}

async fn probed(setup: &Setup, provider: &Provider, node: &Node) -> (String, Gate) {
    let gate = match by_status(node) {
        Some(gate) => gate,
        None => match probe(setup, provider, node).await {
            Ok(gate) => gate,
            Err(failure) => Gate::Before(format!("a login: {}", failure.error)),
        },
    };
    (node.name.clone(), gate)
}

/// Logs in, then makes a CUDA context. Local machines have no GPU.
async fn probe(setup: &Setup, provider: &Provider, node: &Node) -> Result<Gate, Failure> {
    let remote = remote(setup, provider, node)?;
    let run = |argv: &[&str]| {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        RemoteCommand { argv, sudo: false, stdin: Vec::new(), timeout_s: PROBE_S }
    };
    remote.run(&run(&["true"])).await?;
    if matches!(provider, Provider::Local(_)) {
        return Ok(Gate::Passed);
    }
    let output = remote.run(&run(&["python3", "-c", CUDA_PROBE])).await?;
    Ok(if output.ok() { Gate::Passed } else { Gate::Before(format!("its GPU: {}", output.complaint())) })
}

#[cfg(test)]
mod tests {
    use super::{Gate, by_status};
    use crate::cli::nodes::Node;
    use crate::cloud::{Instance, InstanceId, Status};
    use crate::model::Region;

    #[test]
    fn the_provider_settles_only_what_it_knows() {
        let machine = |status: Status, address: Option<[u8; 4]>| Instance {
            id: InstanceId("1".into()),
            name: None,
            status,
            address: address.map(Into::into),
            region: Region::new("r"),
            instance_type: "t".into(),
            price_cents_per_hour: None,
            tags: [].into(),
        };
        let there = Some([198, 51, 100, 7]);
        let before = |what: &str| Some(Gate::Before(what.to_owned()));
        let cases = [
            (None, before("the provider to list it")),
            (Some(machine(Status::Booting, None)), before("an address")),
            (Some(machine(Status::Active, None)), before("an address")),
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
}
