//! What is done to a cluster besides setting it up: look at all nodes at once, wait for machines, ask services, read logs.
//!
//! Each works on the nodes it is given, tells per node how it went, and never takes "somewhere else it worked" for an answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::{Fault, PARALLEL};
use super::desired::NodeSpec;
use super::facts::{Answer, Facts};
use super::http::{self, Request};
use super::layout::Role;
use super::observe::observe;
use super::plan::Plan;
use super::script;
use crate::remote::{Remote, RemoteError, RemoteErrorKind};

/// Nodes that are looked at at the same time: looking is one round trip, so more than are worked on.
pub const LOOKED_AT: usize = 32;
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
    let looks = members.iter().enumerate().map(|(at, member)| async move {
        (at, member.spec.name.clone(), observe(&member.spec, member.remote.as_ref()).await)
    });
    // In order of coming: one that does not answer keeps nobody from being looked at.
    let mut seen: Vec<_> = stream::iter(looks).buffer_unordered(LOOKED_AT).collect().await;
    seen.sort_by_key(|(at, ..)| *at);
    seen.into_iter().map(|(_, name, facts)| (name, facts)).collect()
}

/// Looks at all nodes and makes their plans with `plan`, e.g. `setup`.
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

#[cfg(test)]
mod tests;
