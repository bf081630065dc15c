//! Counters while a trace runs: the queue, what is in flight, and round trips.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Tracer;
use crate::gateway::brain::Brain;
use crate::wire::span::{Counters, Line, ReplicaCounters};

/// Between two samples: as often as a state worth seeing lasts, and a thousandth of a core's time for a fleet of hundreds.
const EVERY: Duration = Duration::from_millis(100);

/// Takes samples until the run is over, or everything is.
pub(in crate::gateway) async fn sample(
    tracer: Arc<Tracer>,
    brain: Arc<Brain>,
    over: CancellationToken,
    stopped: CancellationToken,
) {
    let Some(run) = tracer.number() else { return };
    let sampling = async {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            tracer.keep(run, &Line::Counters(counters(&brain)));
        }
    };
    tokio::select! {
        () = sampling => {}
        () = over.cancelled() => {}
        () = stopped.cancelled() => {}
    }
}

fn counters(brain: &Brain) -> Counters {
    let (now, snapshot) = {
        let state = brain.lock();
        let now = brain.clock().now();
        (now, state.router.snapshot(now))
    };
    let replicas = snapshot.replicas.iter().map(|replica| ReplicaCounters {
        replica: replica.name().to_owned(),
        in_flight: replica.in_flight as u64,
        rtt_ms: replica.rtt_ms,
    });
    Counters { at_us: now.micros(), queue: snapshot.queue.len as u64, replicas: replicas.collect() }
}
