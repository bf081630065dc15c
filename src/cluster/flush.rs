//! Empties the caches of engines and the routers' picture of them, and tells per node what became of it.

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;

use super::http::Request;
use super::layout::Role;
use super::operations::{LOOKED_AT, Member, ask};
use crate::inference::engine::Flushed;
use crate::remote::ServiceAction;
use crate::wire::{ClearCache, Cleared, paths};

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
    /// That of a central router, if one stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Flush>,
}

impl NodeFlush {
    /// All are empty.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let mut all = [&self.engine, &self.agent].into_iter().chain(&self.proxy);
        all.all(|flush| matches!(flush, Flush::Done { .. }))
    }
}

/// Empties the caches of all engines and then the indexes of all routers: the other way round, a router would learn of what is about to go.
pub async fn flush_cache(members: &[Member]) -> Vec<NodeFlush> {
    let engines = members.iter().map(flush_engine);
    let engines: Vec<Flush> = stream::iter(engines).buffered(LOOKED_AT).collect().await;
    let routers = members.iter().map(clear_routers);
    let routers: Vec<(Flush, Option<Flush>)> = stream::iter(routers).buffered(LOOKED_AT).collect().await;
    let named = members.iter().zip(engines).zip(routers);
    let node = |member: &Member| member.spec.name.clone();
    named.map(|((member, engine), (agent, proxy))| NodeFlush { node: node(member), engine, agent, proxy }).collect()
}

async fn clear_routers(member: &Member) -> (Flush, Option<Flush>) {
    let agent = clear_index(member, Role::Agent).await;
    let proxy = match member.remote.service(Role::Proxy.unit(), &ServiceAction::Status).await {
        Ok(state) if state.installed => Some(clear_index(member, Role::Proxy).await),
        // Whether there is one is not known of a node that cannot be asked; its agent says so.
        Ok(_) | Err(_) => None,
    };
    (agent, proxy)
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

async fn clear_index(member: &Member, role: Role) -> Flush {
    let request = Request::post(paths::CACHE, &ClearCache::default());
    match ask(member, role, &request).await {
        Err(fault) => Flush::Failed { why: fault.what },
        Ok(answer) => match serde_json::from_str::<Cleared>(&answer.body) {
            Ok(cleared) if answer.status == 200 => Flush::Done { blocks: Some(cleared.blocks) },
            _ => Flush::Failed { why: format!("the {role} answered {}", answer.status) },
        },
    }
}

#[cfg(test)]
mod tests;
