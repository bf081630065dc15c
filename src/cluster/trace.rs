//! Starts and ends traces at the routers of all nodes, and collects what they kept.
//!
//! Each router is asked by itself; the moments of asking and of the answer are kept, since they bound how its clock stands to ours.

use futures_util::StreamExt as _;
use futures_util::stream;

use super::http::Request;
use super::layout::Role;
use super::operations::{LOOKED_AT, Member, ask};
use super::script;
use crate::remote::ServiceAction;
use crate::wire::span::{Dump, StartTrace, StopTrace, TraceStarted, Trip};
use crate::wire::{ErrorBody, paths};

/// What one router answered.
#[derive(Debug)]
pub struct Answered<T> {
    /// Its node.
    pub node: String,
    /// Agent or proxy.
    pub role: Role,
    /// The answer, or why there is none.
    pub result: Result<T, String>,
}

impl<T> Answered<T> {
    /// The router's name: of an agent its node's.
    #[must_use]
    pub fn name(&self) -> String {
        match self.role {
            Role::Agent => self.node.clone(),
            role => format!("{role} on {}", self.node),
        }
    }
}

/// What one router kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Collected {
    /// Its spans.
    pub dump: Dump,
    /// When it was asked for them.
    pub trip: Trip,
}

/// Starts a trace at every router. `say` hears of each node.
pub async fn start(
    members: &[Member],
    change: StartTrace,
    say: &(dyn Fn(&str, &str) + Sync),
) -> Vec<Answered<TraceStarted>> {
    let request = Request::post(paths::TRACE_START, &change);
    let request = &request;
    each(members, "starting", say, |member, role| async move {
        let body = answer(member, role, request).await?;
        serde_json::from_str(&body).map_err(|error| format!("its answer cannot be read: {error}"))
    })
    .await
}

/// Ends the traces and collects them. `now_us` is the clock of this process, µs.
pub async fn stop(
    members: &[Member],
    now_us: &(dyn Fn() -> u64 + Sync),
    say: &(dyn Fn(&str, &str) + Sync),
) -> Vec<Answered<Collected>> {
    let request = Request::post(paths::TRACE_STOP, &StopTrace {});
    let request = &request;
    each(members, "collecting", say, |member, role| async move {
        // Opening the connection is not part of the round trip.
        member.remote.run(&script::nothing(false)).await.map_err(|error| error.message)?;
        let asked_us = now_us();
        let body = answer(member, role, request).await?;
        let trip = Trip { asked_us, answered_us: now_us() };
        let mut dump = Dump::parse(&body).map_err(|error| error.to_string())?;
        if role != Role::Agent {
            dump.node.node = format!("{role} on {}", member.spec.name);
        }
        Ok(Collected { dump, trip })
    })
    .await
}

/// Asks every router of every node, nodes at once and in their order.
async fn each<'a, T, F>(
    members: &'a [Member],
    what: &str,
    say: &(dyn Fn(&str, &str) + Sync),
    ask: impl Fn(&'a Member, Role) -> F,
) -> Vec<Answered<T>>
where
    F: Future<Output = Result<T, String>>,
{
    let ask = &ask;
    let nodes = members.iter().map(|member| async move {
        let name = &member.spec.name;
        say(name, what);
        let mut answers = Vec::new();
        for role in routers(member).await {
            let result = ask(member, role).await;
            say(name, &result.as_ref().map_or_else(|why| format!("{role}: {why}"), |_| format!("{role}: done")));
            answers.push(Answered { node: name.clone(), role, result });
        }
        answers
    });
    let nodes: Vec<Vec<Answered<T>>> = stream::iter(nodes).buffered(LOOKED_AT).collect().await;
    nodes.into_iter().flatten().collect()
}

/// The agent, and a central router if one stands there.
async fn routers(member: &Member) -> Vec<Role> {
    match member.remote.service(Role::Proxy.unit(), &ServiceAction::Status).await {
        Ok(state) if state.installed => vec![Role::Agent, Role::Proxy],
        // Whether there is one is not known of a node that cannot be asked; its agent says so.
        Ok(_) | Err(_) => vec![Role::Agent],
    }
}

/// The body of a good answer.
async fn answer(member: &Member, role: Role, request: &Request) -> Result<String, String> {
    let answer = ask(member, role, request).await.map_err(|fault| fault.what)?;
    match answer.status {
        200 => Ok(answer.body),
        404 => Err("it knows no traces: `gorgo cluster upload` brings this version".to_owned()),
        status => Err(serde_json::from_str::<ErrorBody>(&answer.body)
            .map_or_else(|_| format!("it answered {status}"), |body| body.error.message)),
    }
}

#[cfg(test)]
mod tests;
