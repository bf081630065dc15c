//! Finds what is wrong with a cluster, each finding with a way out. Changes nothing.

use serde::Serialize;

use super::certificate::{self, Need};
use super::check::refusals;
use super::desired::{AgentBinary, Desired, NodeSpec};
use super::facts::Facts;
use super::layout::Role;
use super::operations::{Member, status};
use super::plan::setup;
use super::step::serves;
use crate::model::date;
use crate::remote::RemoteError;

/// Something that is wrong with a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The node.
    pub node: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// What is wrong and what to do.
type Trouble = (String, String);

/// Everything that is wrong with these nodes. `version` is what this program says of itself; `whole` = they are all nodes of the cluster,
/// so that each must know exactly the others.
pub async fn doctor(members: &[Member], desired: &Desired, version: &str, whole: bool) -> Vec<Finding> {
    let seen = status(members).await;
    let programs: Vec<Program<'_>> =
        seen.iter().filter_map(|(name, facts)| program(name, facts.as_ref().ok()?)).collect();
    let mut findings = Vec::new();
    for ((node, facts), member) in seen.iter().zip(members) {
        let found = match facts {
            Err(error) => vec![unreachable(error)],
            Ok(facts) => {
                let mut found = diagnose(desired, &member.spec, facts, whole);
                found.extend(version_trouble(facts, version).or_else(|| mixed(facts, &programs)));
                found
            }
        };
        findings.extend(found.into_iter().map(|(what, hint)| Finding { node: node.clone(), what, hint }));
    }
    findings
}

/// The program that a node has.
struct Program<'a> {
    node: &'a str,
    arch: &'a str,
    sha256: &'a str,
}

fn program<'a>(node: &'a str, facts: &'a Facts) -> Option<Program<'a>> {
    Some(Program { node, arch: &facts.arch, sha256: facts.binary_sha256.as_deref()? })
}

fn unreachable(error: &RemoteError) -> Trouble {
    let hint = error.hint.clone().unwrap_or_else(|| "see with `gorgo status` that the machine runs".to_owned());
    (error.message.clone(), hint)
}

fn diagnose(desired: &Desired, node: &NodeSpec, facts: &Facts, whole: bool) -> Vec<Trouble> {
    // Judged with the program that is there: whether another one would run is a question for its upload.
    let there = facts.binary_sha256.as_ref().map(|sha256| AgentBinary {
        sha256: sha256.clone(),
        arch: facts.arch.clone(),
        glibc: None,
        ..desired.binary.clone()
    });
    let desired = Desired { binary: there.unwrap_or_else(|| desired.binary.clone()), ..desired.clone() };
    let mut found: Vec<Trouble> = refusals(&desired, node, facts).into_iter().map(|it| (it.what, it.hint)).collect();
    for role in Role::ALL {
        found.extend(ailing(role, node, facts));
        found.extend(ending(role, &desired, node, facts));
        let hint = "`gorgo cluster setup` brings them";
        found.extend(desired.front.outdated(role, facts).into_iter().map(|what| (what, hint.to_owned())));
    }
    let steps = setup(&desired, node, facts).steps.len();
    if whole && found.is_empty() && steps > 0 {
        let noun = if steps == 1 { "step" } else { "steps" };
        let what = format!("it is not what gorgo.toml would make of it: {steps} {noun} to go");
        found.push((what, "`gorgo cluster setup --dry-run` lists them, without `--dry-run` it takes them".to_owned()));
    }
    found
}

/// A certificate that nears its end, is past it, or does not tell of what was revoked.
fn ending(role: Role, desired: &Desired, node: &NodeSpec, facts: &Facts) -> Option<Trouble> {
    let installed = facts.file(&certificate::file(role)?)?;
    let need = certificate::needed(desired, node, role, Some(installed))?.1;
    let what = match need {
        Need::Ending { not_after } => {
            let ends = if not_after < desired.certificates.now { "expired" } else { "expires" };
            format!("the certificate of {} {ends} on {}", role.unit(), date::day(not_after))
        }
        Need::Revoked => format!("the certificate of {} has been revoked", role.unit()),
        Need::OthersRevoked => format!("{} has not been told of revoked certificates", role.unit()),
        Need::Missing | Need::OtherAuthority | Need::OtherAddresses => return None,
    };
    Some((what, "`gorgo cluster setup` renews it without a restart".to_owned()))
}

/// A service that is there and does not do its work, or did not all the time.
fn ailing(role: Role, node: &NodeSpec, facts: &Facts) -> Option<Trouble> {
    let state = facts.service(role);
    let (unit, times) = (role.unit(), times(state.restarts));
    let logs = format!("`gorgo cluster logs {} --service {role}` may tell why", node.name);
    if !state.installed {
        return None;
    }
    if !state.running {
        return Some((format!("{unit} does not run (restarted {times})"), logs));
    }
    let trouble = match (role, facts.status(role)) {
        (Role::Engine, _) if facts.engine_serves() => None,
        (Role::Engine, _) => Some(facts.answers.get(&role).map_or_else(
            || "does not answer a completion".to_owned(),
            |answer| format!("answers {} without a completion", answer.status),
        )),
        (_, None) => Some("does not answer on its admin port".to_owned()),
        (_, Some(status)) => serves(&status).err(),
    };
    match trouble {
        Some(trouble) if state.restarts > 0 => {
            Some((format!("{unit} runs, but: {trouble} (restarted {times} because it ended)"), logs))
        }
        Some(trouble) => Some((format!("{unit} runs, but: {trouble}"), logs)),
        None if state.restarts > 0 => Some((format!("{unit} runs, and was restarted {times} because it ended"), logs)),
        None => None,
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Its program does not start, or is of another version than this one.
fn version_trouble(facts: &Facts, version: &str) -> Option<Trouble> {
    let theirs = facts.binary_version.as_deref()?;
    if theirs == version {
        return None;
    }
    let hint = "`gorgo cluster upload` brings this one".to_owned();
    if theirs.is_empty() {
        return Some(("its program does not start: it does not tell its version".to_owned(), hint));
    }
    Some((format!("its program is {theirs}, this one is {version}"), hint))
}

/// Nodes of one kind with different programs of one version: a test of some that was not ended, or an upload that was cut short.
fn mixed(facts: &Facts, programs: &[Program<'_>]) -> Option<Trouble> {
    let own = facts.binary_sha256.as_deref()?;
    let first = programs.iter().find(|it| it.arch == facts.arch)?;
    (own != first.sha256).then(|| {
        let what = format!("its program is another build than that of {}", first.node);
        (what, "`gorgo cluster upload` brings the same to all".to_owned())
    })
}

#[cfg(test)]
mod tests;
