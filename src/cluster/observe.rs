//! Looks at a node: one script and the state of its services, all at once, so that it costs about one round trip.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::{join, join_all};

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
    let states = join_all(Role::ALL.map(|role| remote.service(role.unit(), &ServiceAction::Status)));
    let (described, states) = join(describe(node, remote), states).await;
    let mut facts = described?;
    facts.supervised = true;
    for (role, state) in Role::ALL.into_iter().zip(states) {
        match state {
            Ok(state) if state == ServiceState::default() => {}
            Ok(state) => _ = facts.services.insert(role, state),
            Err(error) if error.kind == RemoteErrorKind::Unsuitable => facts.supervised = false,
            Err(error) => return Err(error),
        }
    }
    Ok(facts)
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
