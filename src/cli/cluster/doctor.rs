//! `gorgo cluster doctor`: what is wrong, each with a way out.

use serde_json::json;

use super::binary;
use super::scene::{Access, Scene};
use crate::cli::Context;
use crate::cli::exit::{Exit, Outcome};
use crate::cli::nodes::Node;
use crate::cli::signal::or_interrupted;
use crate::cluster::doctor::{Finding, doctor};
use crate::cluster::operations::Member;

/// Arguments of `gorgo cluster doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 if there is a finding.
pub(super) async fn run(args: &Args, context: &Context) -> Outcome {
    let scene = Scene::look(context, Access::Read).await?;
    or_interrupted(async {
        let findings = findings(&scene).await?;
        let nodes = scene.nodes.len();
        if args.json {
            context.printer.json(&json!({ "nodes": nodes, "findings": findings }))?;
        } else if !findings.is_empty() {
            context.printer.data(text(&findings))?;
        }
        let noun = if nodes == 1 { "node" } else { "nodes" };
        match findings.len() {
            0 => context.printer.talk(format_args!("nothing is wrong with {nodes} {noun}")),
            1 => context.printer.talk(format_args!("1 finding on {nodes} {noun}")),
            many => context.printer.talk(format_args!("{many} findings on {nodes} {noun}")),
        }
        Ok(if findings.is_empty() { Exit::Done } else { Exit::Failed })
    })
    .await
}

/// Those without a machine first, then what the others say.
async fn findings(scene: &Scene) -> Result<Vec<Finding>, crate::cli::exit::Failure> {
    let mut findings = Vec::new();
    let mut members: Vec<Member> = Vec::new();
    let mut there: Vec<Node> = Vec::new();
    for node in &scene.nodes {
        match scene.member(node) {
            Ok(member) => {
                members.push(member);
                there.push(node.clone());
            }
            Err(failure) => findings.push(Finding {
                node: node.name.clone(),
                what: failure.error.to_string(),
                hint: failure.hint.unwrap_or_else(|| "`gorgo status` shows the machines".to_owned()),
            }),
        }
    }
    let whole = there.len() == scene.nodes.len();
    let desired = scene.desired_of(&there, binary::inspect(binary::own()?)?, scene.allowed_public_plaintext())?;
    let version = format!("gorgo {}", env!("CARGO_PKG_VERSION"));
    findings.extend(doctor(&members, &desired, &version, whole).await);
    Ok(findings)
}

/// A finding and, below it, what to do.
fn text(findings: &[Finding]) -> String {
    let line = |it: &Finding| {
        // Errors of a connection name the node already.
        let what = it.what.strip_prefix(&format!("{}: ", it.node)).unwrap_or(&it.what);
        format!("{}: {what}\n  hint: {}", it.node, it.hint)
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Finding, text};

    #[test]
    fn every_finding_has_its_hint() {
        let finding = |what: &str, hint: &str| Finding { node: "east".into(), what: what.into(), hint: hint.into() };
        let findings =
            [finding("east: the connection broke", "see that it runs"), finding("its clock is off", "set it")];
        assert_snapshot!(text(&findings), @"
        east: the connection broke
          hint: see that it runs
        east: its clock is off
          hint: set it
        ");
    }
}
