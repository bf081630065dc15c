//! Looks at a node: one script and the state of its services, all at once, so that it costs about one round trip.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::{try_join, try_join_all};

use super::desired::NodeSpec;
use super::facts::{Asked, Facts, parse};
use super::layout::Role;
use super::script;
use crate::remote::{Output, Remote, RemoteError, RemoteErrorKind, ServiceAction, ServiceState};

/// Everything that a plan is made from. Changes nothing on the node.
///
/// # Errors
/// The node cannot be reached, or its answers cannot be read. What is missing on it is no error but a fact.
pub async fn observe(node: &NodeSpec, remote: &dyn Remote) -> Result<Facts, RemoteError> {
    let states = try_join_all(Role::ALL.map(|role| state(role, remote)));
    // The first error ends it: each question to a node that cannot be reached would wait for a connection of its own.
    let (mut facts, states) = try_join(describe(node, remote), states).await?;
    facts.supervised = states.iter().all(Option::is_some);
    for (role, state) in Role::ALL.into_iter().zip(states) {
        facts.services.extend(state.filter(|state| *state != ServiceState::default()).map(|state| (role, state)));
    }
    Ok(facts)
}

/// How a service is; `None` = nobody supervises services there.
async fn state(role: Role, remote: &dyn Remote) -> Result<Option<ServiceState>, RemoteError> {
    match remote.service(role.unit(), &ServiceAction::Status).await {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind == RemoteErrorKind::Unsuitable => Ok(None),
        Err(error) => Err(error),
    }
}

/// The script as root; where that needs a password, without, which sees all but what is root's.
async fn describe(node: &NodeSpec, remote: &dyn Remote) -> Result<Facts, RemoteError> {
    let from_ms = now_ms();
    match remote.run(&script::observe(node, true)).await {
        Ok(output) => read(node, &output, from_ms, true),
        Err(error) if error.kind == RemoteErrorKind::Sudo => {
            let from_ms = now_ms();
            let output = remote.run(&script::observe(node, false)).await?;
            read(node, &output, from_ms, false)
        }
        Err(error) => Err(error),
    }
}

fn read(node: &NodeSpec, output: &Output, from_ms: i64, sudo: bool) -> Result<Facts, RemoteError> {
    let asked = Asked { from_ms, to_ms: now_ms() };
    let mut facts = parse(&String::from_utf8_lossy(&output.stdout), asked).map_err(|what| {
        let said = output.complaint();
        let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
        RemoteError::failed(&node.name, format_args!("{what}{said}"))
            .with_hint("the node needs bash and GNU coreutils, and a login shell that prints nothing of its own")
    })?;
    facts.sudo = sudo;
    Ok(facts)
}

#[expect(clippy::disallowed_methods, reason = "an edge: two clocks are compared")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
