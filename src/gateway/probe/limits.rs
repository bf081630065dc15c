//! What an engine says of its own settings: asked once when it is found, and again when it comes back after failing.
//!
//! A restart so short that no check fails in between goes unnoticed here; the router learns of the empty cache from its replies.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::sleep;

use super::{Pool, Problem, Watcher, get, guarded};
use crate::inference::engine::{Engine, Told};
use crate::routing::EngineLimits;

impl Watcher {
    /// Asks until the replica is gone.
    pub(super) async fn limits(&self, engine: &'static Engine) {
        let pool = self.own_pool();
        loop {
            match ask(&pool, engine, self).await {
                Ok(told) => {
                    self.learn_limits(told);
                    self.back.notified().await;
                }
                Err(_) => sleep(self.settings.rtt_every).await,
            }
        }
    }

    fn learn_limits(&self, told: Told) {
        let Told { max_running, kv_tokens, batch_tokens, in_order } = told;
        let limits = EngineLimits { max_running, kv_tokens, batch_tokens, in_order };
        let id = self.replica.id;
        tracing::info!(replica = %self.replica.name, ?max_running, ?kv_tokens, ?batch_tokens, ?in_order, "engine settings");
        self.brain.event(|state, now| ((), state.router.limits(now, id, limits)));
    }
}

/// The settings; nothing of them where it has no such page or does not let us in. An error is worth another try.
async fn ask(pool: &Arc<Pool>, engine: &'static Engine, watcher: &Watcher) -> Result<Told, Problem> {
    for path in engine.settings {
        let (status, body): (StatusCode, Bytes) = get(pool, path, watcher.settings.timeout).await?;
        match status {
            StatusCode::NOT_FOUND => {}
            status if status.is_success() => return Ok(engine.parse_settings(&body)),
            status if guarded(status) => break,
            status => return Err(Problem::new(format_args!("`{path}` answers {}", status.as_u16()))),
        }
    }
    Ok(Told::default())
}
