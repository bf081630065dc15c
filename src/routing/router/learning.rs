//! What a router learns from how its requests went.

use super::{Attempt, Effect, Router, Usage};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::features::{BLOCK_BYTES, Features};
use crate::routing::index::{Correction, capacity_blocks};
use crate::routing::policy::Event;

/// KV capacities beyond this are not believed, tokens: the index must stay bounded whatever an engine's metrics say.
const KV_TOKENS_MAX: f64 = 1e8;

impl Router {
    /// The replica answered: counts once per attempt as a success for its health.
    pub(super) fn credit(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        let Some(attempt) = self.attempts.get_mut(&request) else { return Vec::new() };
        if std::mem::replace(&mut attempt.answered, true) {
            return Vec::new();
        }
        let replica = attempt.replica;
        let changed = self.observe_health(replica, true);
        if changed { self.release(now) } else { Vec::new() }
    }

    /// An attempt failed by the replica's fault.
    pub(super) fn blame(&mut self, replica: ReplicaId) {
        self.observe_health(replica, false);
    }

    /// True if the replica's health changed.
    pub(super) fn observe_health(&mut self, replica: ReplicaId, ok: bool) -> bool {
        let thresholds = self.settings.health;
        self.fleet.get_mut(replica).is_some_and(|known| known.observe_health(ok, thresholds))
    }

    /// An attempt was answered in full.
    pub(super) fn complete(&mut self, now: Time, attempt: &Attempt, usage: Usage) {
        if !attempt.answered {
            self.observe_health(attempt.replica, true);
        }
        self.learn(now, attempt, usage);
        self.settle(attempt, usage);
    }

    /// Learns from the usage of a finished request.
    fn learn(&mut self, now: Time, attempt: &Attempt, usage: Usage) {
        let features = &attempt.ticket.features;
        if let Some(tokens) = usage.prompt_tokens {
            self.ratios.learn(&features.model, features.prompt_bytes, tokens);
        }
        if let Some(tokens) = usage.completion_tokens {
            self.output_tokens.update(now, f64::from(tokens));
        }
        if let Some(cached) = usage.cached_tokens {
            self.learn_cached(now, attempt, cached, usage.prompt_tokens.unwrap_or(attempt.prompt_tokens));
        }
    }

    /// Compares what the index believed with the engine's own count. More cached than there was prompt is nonsense and ignored.
    ///
    /// Equal prompts that are sent together all come back uncached, though the index foresaw the second one's hit: that says nothing
    /// about what the cache can hold, so it does not correct the index (it would shrink it, or take the engine for restarted).
    fn learn_cached(&mut self, now: Time, attempt: &Attempt, cached: u32, prompt_tokens: u32) {
        if cached > prompt_tokens {
            return;
        }
        if attempt.unproven {
            return;
        }
        let features = &attempt.ticket.features;
        let predicted = blocks(features, attempt.cached_tokens, attempt.prompt_tokens);
        let actual = blocks(features, cached, prompt_tokens);
        if self.index.correct(attempt.replica, predicted, actual) == Some(Correction::Restarted) {
            self.observe(now, attempt.replica, Event::Emptied);
        }
    }

    /// Gives the index the replica's KV capacity in blocks, as far as it is known by now. Bytes per token are those of the model of its
    /// list that most was learned of; a replica without a list may serve anything, so for it that is the model of most requests.
    pub(super) fn size_index(&mut self, replica: ReplicaId) {
        let Some(known) = self.fleet.get(replica) else { return };
        let models = &known.spec.models;
        let model = self.ratios.best_known(models).cloned().unwrap_or_else(|| models.first().cloned());
        let tokens_per_block = BLOCK_BYTES as f64 / self.ratios.bytes_per_token(&model);
        let kv_tokens = known.kv_tokens().map(|tokens| tokens.min(KV_TOKENS_MAX) as u64);
        self.index.add(replica, capacity_blocks(kv_tokens, tokens_per_block));
    }
}

/// Tokens of a prompt as blocks of it.
fn blocks(features: &Features, tokens: u32, prompt_tokens: u32) -> f64 {
    let share = f64::from(tokens) / f64::from(prompt_tokens.max(1));
    share * features.prompt_bytes as f64 / BLOCK_BYTES as f64
}
