//! How work on nodes ended, for scripts: JSON and exit code.

use serde_json::{Value, json};

use crate::cli::exit::{Exit, Failure};
use crate::cluster::apply::{ApplyReport, Outcome};
use crate::cluster::plan::Plan;

/// `--dry-run --json`: every step with what exactly is done.
pub(super) fn plans(plans: &[Plan], unreachable: &[(String, String)]) -> Result<String, Failure> {
    let plan = |plan: &Plan| {
        let refusals: Vec<Value> = plan.refusals.iter().map(|it| json!({ "what": it.what, "hint": it.hint })).collect();
        let step = |step: &crate::cluster::step::Step| json!({ "name": step.name, "text": step.text, "detail": step.detail() });
        let steps: Vec<Value> = plan.steps.iter().map(step).collect();
        json!({ "node": plan.node, "refusals": refusals, "steps": steps })
    };
    let all: Vec<Value> = plans.iter().map(plan).collect();
    let away: Vec<Value> = unreachable.iter().map(|(node, why)| json!({ "node": node, "what": why })).collect();
    Ok(serde_json::to_string_pretty(&json!({ "plans": all, "unreachable": away }))?)
}

/// How each node ended.
pub(super) fn report(report: &ApplyReport, unreachable: &[(String, String)]) -> Value {
    let away = unreachable.iter().map(|(node, why)| json!({ "node": node, "outcome": "unreachable", "what": why }));
    let worked = report.nodes.iter().map(|(node, outcome)| match outcome {
        Outcome::Done(steps) => json!({ "node": node, "outcome": "done", "steps": steps }),
        Outcome::Refused(refusals) => {
            let refusals: Vec<Value> = refusals.iter().map(|it| json!({ "what": it.what, "hint": it.hint })).collect();
            json!({ "node": node, "outcome": "refused", "refusals": refusals })
        }
        Outcome::Failed { step, fault } => {
            json!({ "node": node, "outcome": "failed", "step": step, "what": fault.what, "hint": fault.hint })
        }
        Outcome::Interrupted(left) => json!({ "node": node, "outcome": "interrupted", "steps_left": left }),
    });
    json!({ "nodes": worked.chain(away).collect::<Vec<_>>() })
}

/// 3 if it failed on some nodes, 1 if on all, 130 if the user stopped it.
pub(super) fn exit(report: &ApplyReport, unreachable: usize) -> Exit {
    let failed = report.failed().len() + unreachable;
    if report.interrupted() { Exit::Interrupted } else { share(failed, report.nodes.len() + unreachable) }
}

/// The exit code where `failed` of `all` nodes failed.
pub(super) fn share(failed: usize, all: usize) -> Exit {
    match failed {
        0 => Exit::Done,
        failed if failed >= all => Exit::Failed,
        _ => Exit::Partly,
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{exit, report, share};
    use crate::cli::Exit;
    use crate::cluster::apply::{ApplyReport, Fault, Outcome};
    use crate::cluster::check::Refusal;

    #[test]
    fn each_node_says_how_it_ended() {
        let fault = Fault { what: "no space".into(), hint: None };
        let refusal = Refusal { what: "no systemd".into(), hint: "get some".into() };
        let nodes = [
            ("a", Outcome::Done(3)),
            ("b", Outcome::Failed { step: "upload gorgo".into(), fault }),
            ("c", Outcome::Refused(vec![refusal])),
            ("d", Outcome::Interrupted(2)),
        ];
        let ended = ApplyReport { nodes: nodes.into_iter().map(|(node, end)| (node.to_owned(), end)).collect() };
        assert_eq!(exit(&ended, 0), Exit::Interrupted);
        let json = report(&ended, &[("e".into(), "no answer".into())]);
        let lines: Vec<String> = json["nodes"].as_array().unwrap().iter().map(ToString::to_string).collect();
        assert_snapshot!(lines.join("\n"), @r#"
        {"node":"a","outcome":"done","steps":3}
        {"hint":null,"node":"b","outcome":"failed","step":"upload gorgo","what":"no space"}
        {"node":"c","outcome":"refused","refusals":[{"hint":"get some","what":"no systemd"}]}
        {"node":"d","outcome":"interrupted","steps_left":2}
        {"node":"e","outcome":"unreachable","what":"no answer"}
        "#);
    }

    #[test]
    fn some_is_partly_and_all_is_failed() {
        let cases = [(0, 0, Exit::Done), (0, 3, Exit::Done), (1, 3, Exit::Partly), (3, 3, Exit::Failed)];
        for (failed, all, wanted) in cases {
            assert_eq!(share(failed, all), wanted);
        }
    }
}
