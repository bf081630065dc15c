//! `gorgo proxy status`.

use super::super::Context;
use super::super::client::Read;
use super::super::exit::Outcome;
use super::super::human;
use crate::wire::{ReplicaCounts, RequestCounts, Status, paths};

/// Prints the status.
pub(super) async fn run(args: &Read, context: &Context) -> Outcome {
    super::read(args, paths::STATUS, context, show).await
}

/// One fact per line.
fn show(status: &Status) -> String {
    let queue = &status.queue;
    let oldest = queue.oldest_ms.map(|age| format!(", oldest {}", human::ms(age))).unwrap_or_default();
    let facts = [
        ("state", state(status).to_owned()),
        ("version", status.version.clone()),
        ("process", format!("{}, up {}", status.pid, human::duration_s(status.uptime_s))),
        ("listens at", status.listen.clone()),
        ("strategy", status.strategy.clone()),
        ("per replica", limit(status.max_concurrent)),
        ("replicas", replicas(&status.replicas)),
        ("queue", format!("{} of {}{oldest}", human::count(queue.waiting), human::count(queue.limit))),
        ("requests", requests(&status.requests)),
    ];
    facts.map(|(name, value)| format!("{name:<13}{value}")).join("\n")
}

fn state(status: &Status) -> &'static str {
    let replicas = &status.replicas;
    match status.draining {
        true => "draining",
        false if replicas.total == 0 => "cannot serve: it has no replica",
        false if replicas.healthy + replicas.unknown == 0 => "cannot serve: no replica is healthy",
        false => "serving",
    }
}

fn limit(max_concurrent: Option<u32>) -> String {
    max_concurrent.map_or_else(|| "as the strategy says".to_owned(), |limit| format!("at most {limit} running"))
}

fn replicas(counts: &ReplicaCounts) -> String {
    let mut text = format!("{} of {} healthy", counts.healthy, counts.total);
    for (number, state) in
        [(counts.unhealthy, "unhealthy"), (counts.unknown, "not checked yet"), (counts.draining, "draining")]
    {
        if number > 0 {
            text += &format!(", {number} {state}");
        }
    }
    text
}

fn requests(counts: &RequestCounts) -> String {
    format!(
        "{} taken: {} ok, {} failed, {} refused, {} cancelled, {} in flight; {} retried",
        human::count(counts.total),
        human::count(counts.ok),
        human::count(counts.failed),
        human::count(counts.refused),
        human::count(counts.cancelled),
        human::count(counts.in_flight),
        human::count(counts.retried),
    )
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::show;
    use crate::wire::{QueueStatus, ReplicaCounts, RequestCounts, Status};

    #[test]
    fn status_is_one_fact_per_line() {
        let status = Status {
            version: "0.1.0".into(),
            pid: 4242,
            uptime_s: 11_220.0,
            listen: "127.0.0.1:8000".into(),
            strategy: "gorgo".into(),
            max_concurrent: None,
            draining: false,
            replicas: ReplicaCounts { total: 3, healthy: 2, unhealthy: 1, unknown: 0, draining: 0 },
            queue: QueueStatus { waiting: 2, limit: 1000, timeout_ms: 60_000.0, oldest_ms: Some(120.0) },
            requests: RequestCounts {
                total: 12_345,
                in_flight: 5,
                ok: 12_300,
                failed: 10,
                refused: 20,
                cancelled: 10,
                retried: 3,
            },
        };
        assert_snapshot!(show(&status), @"
        state        serving
        version      0.1.0
        process      4242, up 3 h 07 min
        listens at   127.0.0.1:8000
        strategy     gorgo
        per replica  as the strategy says
        replicas     2 of 3 healthy, 1 unhealthy
        queue        2 of 1,000, oldest 120 ms
        requests     12,345 taken: 12,300 ok, 10 failed, 20 refused, 10 cancelled, 5 in flight; 3 retried
        ");
        let dead = ReplicaCounts { total: 1, unhealthy: 1, ..ReplicaCounts::default() };
        assert!(
            show(&Status { replicas: dead, ..status.clone() })
                .starts_with("state        cannot serve: no replica is healthy\n")
        );
        let draining = Status { draining: true, max_concurrent: Some(10), queue: QueueStatus::default(), ..status };
        assert_snapshot!(show(&draining).lines().filter(|line| !line.starts_with("re")).collect::<Vec<_>>().join("\n"), @"
        state        draining
        version      0.1.0
        process      4242, up 3 h 07 min
        listens at   127.0.0.1:8000
        strategy     gorgo
        per replica  at most 10 running
        queue        0 of 0
        ");
    }
}
