//! What is done to a cluster besides setting it up: look, change strategy or limits, empty caches, read logs, explain.
//!
//! Each works on the nodes it is given, tells per node how it went, and never takes "somewhere else it worked" for an answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::{Fault, PARALLEL};
use super::check::refusals;
use super::desired::{Desired, NodeSpec};
use super::facts::{Answer, Facts};
use super::http::{self, Request};
use super::layout::Role;
use super::observe::observe;
use super::plan::{Plan, setup};
use super::script;
use super::step::serves;
use crate::inference::engine::Flushed;
use crate::remote::{Remote, RemoteError, RemoteErrorKind};
use crate::wire::{ClearCache, Cleared, paths};

/// Nodes that are looked at at the same time: looking is one round trip, so more than are worked on.
const LOOKED_AT: usize = 16;
/// Longest answer of a service to a question of an operator, s.
const ANSWER_LIMIT_S: u32 = 30;
/// Between two tries of a gate.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// A node and the way to it.
#[derive(Clone)]
pub struct Member {
    /// What it is to be.
    pub spec: NodeSpec,
    /// The way.
    pub remote: Arc<dyn Remote>,
}

/// Looks at all nodes at once, in their order.
pub async fn status(members: &[Member]) -> Vec<(String, Result<Facts, RemoteError>)> {
    let looks = members
        .iter()
        .map(|member| async move { (member.spec.name.clone(), observe(&member.spec, member.remote.as_ref()).await) });
    stream::iter(looks).buffered(LOOKED_AT).collect().await
}

/// Looks at all nodes and makes their plans with `plan`, e.g. [`setup`].
pub async fn plans(
    members: &[Member],
    plan: impl Fn(&NodeSpec, &Facts) -> Plan,
) -> Vec<(String, Result<Plan, RemoteError>)> {
    let seen = status(members).await;
    let planned = seen.into_iter().zip(members).map(|((name, facts), member)| {
        let plan = facts.map(|facts| plan(&member.spec, &facts));
        (name, plan)
    });
    planned.collect()
}

/// Waits until ssh answers, and, for an engine in a container, until the driver does: both come minutes after the provider calls a machine
/// active. `say` hears what is waited for.
///
/// # Errors
/// Not within `limit`; another reason than time, at once. [`RemoteErrorKind::Timeout`] if `stop` came first.
pub async fn until_ready(
    member: &Member,
    limit: Duration,
    stop: &CancellationToken,
    say: &(dyn Fn(&str) + Sync),
) -> Result<(), RemoteError> {
    let name = &member.spec.name;
    let mut last = RemoteError::new(RemoteErrorKind::Unreachable, name, "no answer yet");
    let trying = async {
        loop {
            say("waiting for ssh");
            match member.remote.run(&script::nothing(false)).await {
                Err(error) if matches!(error.kind, RemoteErrorKind::Unreachable | RemoteErrorKind::Timeout) => {
                    last = error;
                }
                Err(error) => return Err(error),
                Ok(_) if member.spec.engine.container().is_none() => return Ok(()),
                Ok(_) => {
                    say("waiting for the NVIDIA driver");
                    let output = member.remote.run(&script::driver()).await?;
                    // 127 = there is none: the plan refuses then, and says what to do
                    if output.ok() || output.status == Some(127) {
                        return Ok(());
                    }
                    last = RemoteError::new(
                        RemoteErrorKind::Unsuitable,
                        name,
                        format_args!("nvidia-smi: {}", output.complaint()),
                    );
                }
            }
            sleep(TRY_AGAIN).await;
        }
    };
    let end = tokio::select! {
        end = timeout(limit, trying) => end,
        () = stop.cancelled() => return Err(RemoteError::new(RemoteErrorKind::Timeout, name, "interrupted")),
    };
    end.unwrap_or_else(|_| {
        let hint = last.hint.clone().unwrap_or_else(|| "run the command again: it goes on where it stopped".to_owned());
        Err(RemoteError { message: format!("{} (waited {} s)", last.message, limit.as_secs()), ..last }.with_hint(hint))
    })
}

/// Asks a service on a node.
pub(super) async fn ask(member: &Member, role: Role, request: &Request) -> Result<Answer, Fault> {
    let port = member.spec.ports.control(role);
    let output = member.remote.run(&request.command(port, ANSWER_LIMIT_S)).await?;
    http::answer(&output).map_err(|what| Fault { what: format!("{}: {role}: {what}", member.spec.name), hint: None })
}

/// What came of emptying one cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Flush {
    /// It is empty.
    Done {
        /// Blocks that a router forgot; engines do not tell.
        blocks: Option<u64>,
    },
    /// The engine refused, because requests run or wait.
    Busy,
    /// The engine cannot.
    Unsupported,
    /// It could not be asked, or answered something else.
    Failed {
        /// What happened.
        why: String,
    },
}

/// What came of emptying the caches of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeFlush {
    /// The node.
    pub node: String,
    /// The engine's prefix cache.
    pub engine: Flush,
    /// The agent's picture of all engines' caches.
    pub agent: Flush,
}

impl NodeFlush {
    /// Both are empty.
    #[must_use]
    pub fn is_done(&self) -> bool {
        [&self.engine, &self.agent].iter().all(|flush| matches!(flush, Flush::Done { .. }))
    }
}

/// Empties the caches of all engines and then the indexes of all routers: the other way round, a router would learn of what is about to go.
pub async fn flush_cache(members: &[Member]) -> Vec<NodeFlush> {
    let engines = members.iter().map(flush_engine);
    let engines: Vec<Flush> = stream::iter(engines).buffered(LOOKED_AT).collect().await;
    let agents = members.iter().map(clear_index);
    let agents: Vec<Flush> = stream::iter(agents).buffered(LOOKED_AT).collect().await;
    let named = members.iter().zip(engines).zip(agents);
    named.map(|((member, engine), agent)| NodeFlush { node: member.spec.name.clone(), engine, agent }).collect()
}

async fn flush_engine(member: &Member) -> Flush {
    let flush = member.spec.engine.description().flush;
    let request = Request { method: flush.method, path: flush.path.to_owned(), body: String::new() };
    match ask(member, Role::Engine, &request).await {
        Err(fault) => Flush::Failed { why: fault.what },
        Ok(answer) => match flush.outcome(answer.status, answer.body.as_bytes()) {
            Flushed::Done => Flush::Done { blocks: None },
            Flushed::Busy => Flush::Busy,
            Flushed::Unsupported => Flush::Unsupported,
            Flushed::Failed => Flush::Failed { why: format!("the engine answered {}", answer.status) },
        },
    }
}

async fn clear_index(member: &Member) -> Flush {
    let request = Request::post(paths::CACHE, &ClearCache::default());
    match ask(member, Role::Agent, &request).await {
        Err(fault) => Flush::Failed { why: fault.what },
        Ok(answer) => match serde_json::from_str::<Cleared>(&answer.body) {
            Ok(cleared) if answer.status == 200 => Flush::Done { blocks: Some(cleared.blocks) },
            _ => Flush::Failed { why: format!("the agent answered {}", answer.status) },
        },
    }
}

/// The last lines of a service on each node, and with `follow` what comes after, until the receiver is dropped: (node, line).
/// Second: the nodes whose logs cannot be had.
pub async fn logs(
    members: &[Member],
    role: Role,
    lines: u32,
    follow: bool,
) -> (mpsc::Receiver<(String, String)>, Vec<RemoteError>) {
    let (sender, receiver) = mpsc::channel(256);
    let mut failed = Vec::new();
    let opened = members
        .iter()
        .map(|member| async move { (member.spec.name.clone(), member.remote.logs(role.unit(), lines, follow).await) });
    let opened: Vec<_> = stream::iter(opened).buffered(PARALLEL).collect().await;
    for (name, log) in opened {
        match log {
            Err(error) => failed.push(error),
            Ok(mut log) => {
                let sender = sender.clone();
                tokio::spawn(async move {
                    while let Some(line) = log.recv().await {
                        if sender.send((name.clone(), line)).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    }
    (receiver, failed)
}

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

/// Everything that is wrong with the nodes, each with a way out. Changes nothing.
pub async fn doctor(members: &[Member], desired: &Desired) -> Vec<Finding> {
    let seen = status(members).await;
    let mut findings = Vec::new();
    for ((node, facts), member) in seen.into_iter().zip(members) {
        let found = match facts {
            Err(error) => vec![(error.message, error.hint.unwrap_or_else(|| "see that the machine runs".to_owned()))],
            Ok(facts) => diagnose(desired, &member.spec, &facts),
        };
        findings.extend(found.into_iter().map(|(what, hint)| Finding { node: node.clone(), what, hint }));
    }
    findings
}

fn diagnose(desired: &Desired, node: &NodeSpec, facts: &Facts) -> Vec<(String, String)> {
    let mut found: Vec<_> = refusals(desired, node, facts).into_iter().map(|it| (it.what, it.hint)).collect();
    for role in Role::ALL {
        found.extend(ailing(role, node, facts));
    }
    let steps = setup(desired, node, facts).steps.len();
    if found.is_empty() && steps > 0 {
        let what = format!("it is not what gorgo.toml and this gorgo would make of it: {steps} steps to go");
        found.push((what, "`gorgo cluster setup --dry-run` lists them, without `--dry-run` it takes them".to_owned()));
    }
    found
}

/// A service that is there and does not do its work.
fn ailing(role: Role, node: &NodeSpec, facts: &Facts) -> Option<(String, String)> {
    let state = facts.service(role);
    let logs = format!("`gorgo cluster logs {} --service {role}` may tell why", node.name);
    if !state.installed {
        return None;
    }
    if !state.running {
        return Some((format!("{} does not run (restarted {} times)", role.unit(), state.restarts), logs));
    }
    let trouble = match (role, facts.status(role)) {
        (Role::Engine, _) if facts.engine_serves() => return None,
        (Role::Engine, _) => facts.answers.get(&role).map_or_else(
            || "does not answer".to_owned(),
            |answer| format!("answers {} without a completion", answer.status),
        ),
        (_, None) => "does not answer on its admin port".to_owned(),
        (_, Some(status)) => serves(&status).err()?,
    };
    Some((format!("{} runs, but: {trouble}", role.unit()), logs))
}

#[cfg(test)]
mod tests;
