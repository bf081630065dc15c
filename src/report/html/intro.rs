//! What a page says first: who did what where, for a reader who sees nothing but the page.

use serde_json::Value;

use crate::report::schema::{Report, Run};

/// What was done, in one paragraph.
pub(super) fn experiment(report: &Report) -> String {
    let fleet = report.config.get("fleet");
    let part = |name: &str| fleet.and_then(|fleet| fleet.get(name));
    let list = |name: &str| part(name).and_then(Value::as_array);
    let routers = match (part("router").and_then(Value::as_str), list("routers")) {
        (Some(region), _) => Some(("a router".to_owned(), format!("clients next to the router in {region}"))),
        (None, Some(routers)) => Some((format!("{} routers", routers.len()), "clients in several regions".to_owned())),
        (None, None) => None,
    };
    let (Some(replicas), Some((routers, clients))) = (list("replicas"), routers) else { return load(report) };
    let (kind, time) = if simulated(report) { ("simulated", ", in virtual time") } else { ("emulated", "") };
    format!(
        "A strategy is the rule by which a router picks the GPU server (replica) that answers a request. Each strategy below had \
         {routers} and {} {kind} replicas of its own, behind {kind} wide-area links, and all of them were sent the same requests at \
         the same time by {clients}. The figures are what those clients saw{time}.",
        replicas.len()
    )
}

/// Of a fleet that is somebody else's.
fn load(report: &Report) -> String {
    match report.config.get("target").and_then(Value::as_str) {
        Some(target) => {
            format!("A load generator sent the requests of a trace to {target}; the figures are what it saw.")
        }
        None => "Requests of a trace were sent to a server; the figures are what their clients saw.".to_owned(),
    }
}

/// How much there is of it, and where it was made.
pub(super) fn lead(report: &Report) -> String {
    let counted = |run: &Run| run.requests.total + run.requests.unsent;
    let least = report.runs.iter().map(counted).min().unwrap_or(0);
    let most = report.runs.iter().map(counted).max().unwrap_or(0);
    let sent = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let runs = if report.runs.len() == 1 { "1 run".to_owned() } else { format!("{} runs", report.runs.len()) };
    format!(
        "{runs} of the trace {}, {sent} requests counted per run, {} with gorgo {} on {} {} ({} cores)",
        report.trace.name,
        if simulated(report) { "simulated" } else { "measured" },
        report.gorgo,
        report.machine.os,
        report.machine.arch,
        report.machine.cores
    )
}

/// In virtual time nothing can be late.
fn simulated(report: &Report) -> bool {
    report.client_lag_ms.is_none()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::{experiment, lead};
    use crate::report::example;

    #[test]
    fn a_page_says_whether_time_was_real() {
        let mut report = example::report();
        report.config.insert("fleet".into(), json!({"router": "us-east", "replicas": [{}, {}, {}]}));
        assert_snapshot!(experiment(&report), @"A strategy is the rule by which a router picks the GPU server (replica) that answers a request. Each strategy below had a router and 3 emulated replicas of its own, behind emulated wide-area links, and all of them were sent the same requests at the same time by clients next to the router in us-east. The figures are what those clients saw.");
        assert_snapshot!(lead(&report), @"4 runs of the trace bfcl, 600 to 612 requests counted per run, measured with gorgo 0.1.0 on linux x86_64 (2 cores)");
        report.client_lag_ms = None;
        report.config.insert("fleet".into(), json!({"routers": ["a", "b"], "replicas": [{}, {}]}));
        assert_snapshot!(experiment(&report), @"A strategy is the rule by which a router picks the GPU server (replica) that answers a request. Each strategy below had 2 routers and 2 simulated replicas of its own, behind simulated wide-area links, and all of them were sent the same requests at the same time by clients in several regions. The figures are what those clients saw, in virtual time.");
        assert_snapshot!(lead(&report), @"4 runs of the trace bfcl, 600 to 612 requests counted per run, simulated with gorgo 0.1.0 on linux x86_64 (2 cores)");
    }

    #[test]
    fn servers_of_others_are_named() {
        let mut report = example::report();
        report.config.clear();
        assert_snapshot!(experiment(&report), @"Requests of a trace were sent to a server; the figures are what their clients saw.");
        report.config.insert("target".into(), json!("http://10.0.0.5:8000"));
        assert_snapshot!(experiment(&report), @"A load generator sent the requests of a trace to http://10.0.0.5:8000; the figures are what it saw.");
    }
}
