//! What `POST` does. Each change is complete when its answer goes out, and its answer is the document after it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use http::StatusCode;

use super::{Admin, bad_request};
use crate::gateway::reject::Rejection;
use crate::gateway::settings::ReplicaConfig;
use crate::gateway::tuning;
use crate::inference::engine::Engine;
use crate::model::{Secret, Time};
use crate::routing::admission::{predicting, predicts};
use crate::routing::policy::{find, on_agent};
use crate::routing::tune::{Command, TuneError};
use crate::routing::{Limits, Rates, ReplicaKind, Router};
use crate::wire::{
    AGENT, AddReplica, ClearCache, Cleared, Drain, Policy, ReplicaChange, Replicas, SetDrain, SetPolicy, SetTune,
    StartTuner, Tune, TunerAction,
};

impl Admin {
    pub(super) fn change_replicas(&self, change: ReplicaChange) -> Result<Replicas, Rejection> {
        match change {
            ReplicaChange::Add(replica) => {
                let mut config = config(replica)?;
                self.same_kind(&config)?;
                config.api_key = self.key_of(&config.name, &config.url);
                self.fleet.add(config).map_err(|error| bad_request(format!("{error:#}")))?;
            }
            ReplicaChange::Remove { name } => self.known(&name, self.fleet.remove(&name))?,
            ReplicaChange::Drain { name, draining } => self.known(&name, self.fleet.drain(&name, draining))?,
        }
        Ok(self.replicas())
    }

    /// The key that the engine of this name and URL wants; keys never travel over this API.
    fn key_of(&self, name: &str, url: &str) -> Option<Secret> {
        let state = self.shared.brain.lock();
        let known = state.replicas.values().find(|known| &*known.name == name && known.config.url == url)?;
        known.config.api_key.clone()
    }

    /// An error for the peers of an agent, which are told at its start, and for what would turn an engine into an agent or back.
    fn same_kind(&self, config: &ReplicaConfig) -> Result<(), Rejection> {
        let name = &config.name;
        let state = self.shared.brain.lock();
        let known = state.replicas.values().find(|replica| *replica.name == **name).map(|replica| replica.config.kind);
        let peer = [known, Some(config.kind)].contains(&Some(ReplicaKind::Peer));
        if peer && self.shared.agent.is_some() {
            return Err(bad_request(format!(
                "`{name}` is a peer of this agent; peers are named with `--peer` at its start"
            )));
        }
        if known.is_some_and(|known| known != config.kind) {
            return Err(bad_request(format!("`{name}` is known as another kind of replica; remove it first")));
        }
        Ok(())
    }

    /// An error that lists the known names, if this one is not among them.
    fn known(&self, name: &str, found: bool) -> Result<(), Rejection> {
        if found {
            return Ok(());
        }
        let state = self.shared.brain.lock();
        let names: Vec<&str> = state.replicas.values().map(|replica| &*replica.name).collect();
        let message = format!("no replica `{name}`; known replicas: {}", names.join(", "));
        Err(Rejection::new(StatusCode::NOT_FOUND, "unknown_replica", message))
    }

    pub(super) fn set_policy(&self, change: SetPolicy) -> Result<Policy, Rejection> {
        let parameters: Vec<(String, f64)> = change.parameters.into_iter().collect();
        self.set_strategy(&change.strategy, &parameters)?;
        Ok(self.policy())
    }

    pub(super) fn set_tune(&self, change: SetTune) -> Result<Tune, Rejection> {
        if let Some(action) = change.tuner {
            if !change.parameters.is_empty() || change.max_concurrent.is_some() {
                return Err(bad_request("`tuner` stands alone in a change".to_owned()));
            }
            self.command_tuner(action)?;
            return Ok(self.tune());
        }
        // One event: what two people change at the same time adds up, and a change that is refused changes nothing.
        let set = self.shared.brain.event(|state, now| {
            let mut effects = Vec::new();
            if !change.parameters.is_empty() {
                let strategy = state.router.strategy();
                let mut merged: BTreeMap<String, f64> =
                    strategy.parameters.iter().map(|(parameter, value)| (parameter.key.to_owned(), *value)).collect();
                merged.extend(change.parameters);
                let merged: Vec<(String, f64)> = merged.into_iter().collect();
                match state.router.set_strategy(now, strategy.name, &merged) {
                    Ok(released) => effects = released,
                    Err(error) => return (Err(error), effects),
                }
            }
            if let Some(limit) = change.max_concurrent {
                state.max_concurrent = (limit > 0).then_some(limit);
                effects.extend(state.router.set_max_concurrent(now, state.max_concurrent));
            }
            (Ok(()), effects)
        });
        set.map_err(|error| bad_request(error.to_string()))?;
        let tune = self.tune();
        tracing::info!(?tune, "tuned");
        Ok(tune)
    }

    /// Starts the tuner or tells it what to do. What it notes of that is in the audit log when the answer goes out.
    fn command_tuner(&self, action: TunerAction) -> Result<(), Rejection> {
        // What one that has ended noted must not be lost with it.
        self.shared.tell_tuning();
        let command = match action {
            TunerAction::Start(start) => return self.start_tuner(start),
            TunerAction::Freeze => Command::Freeze,
            TunerAction::Resume => Command::Resume,
            TunerAction::Rollback => Command::Rollback,
            TunerAction::Stop => Command::Stop,
        };
        self.tune_event(|router, now| router.command_tuner(now, command))
    }

    fn start_tuner(&self, start: StartTuner) -> Result<(), Rejection> {
        let settings = tuning::settings(start).map_err(bad_request)?;
        self.tune_event(|router, now| router.start_tuning(now, settings))
    }

    fn tune_event(&self, event: impl FnOnce(&mut Router, Time) -> Result<(), TuneError>) -> Result<(), Rejection> {
        let done = self.shared.brain.event(|state, now| (event(&mut state.router, now), state.router.tick(now)));
        self.shared.tell_tuning();
        done.map_err(|error| match error {
            TuneError::Runs | TuneError::NeverRan | TuneError::Over { .. } => {
                Rejection::new(StatusCode::CONFLICT, "tuner", error.to_string())
            }
            _ => bad_request(error.to_string()),
        })
    }

    fn set_strategy(&self, strategy: &str, parameters: &[(String, f64)]) -> Result<(), Rejection> {
        let strategy = if self.shared.agent.is_some() { on_agent(strategy) } else { strategy };
        if self.shared.brain.slo().has_limits() && find(strategy).is_ok_and(|entry| !predicts(entry)) {
            let known = predicting().collect::<Vec<_>>().join(", ");
            let text = format!("strategy `{strategy}` predicts no times, and [slo] has limits; those that do: {known}");
            return Err(bad_request(text));
        }
        let set = self.shared.brain.event(|state, now| match state.router.set_strategy(now, strategy, parameters) {
            Ok(effects) => (Ok(()), effects),
            Err(error) => (Err(error), Vec::new()),
        });
        set.map_err(|error| bad_request(error.to_string()))?;
        tracing::info!(strategy, ?parameters, "strategy set");
        Ok(())
    }

    pub(super) fn clear_cache(&self, change: &ClearCache) -> Result<Cleared, Rejection> {
        let replicas: Vec<_> = self.shared.brain.lock().replicas.values().cloned().collect();
        let chosen: Vec<_> = replicas
            .iter()
            .filter(|replica| change.replica.as_deref().is_none_or(|name| name == &*replica.name))
            .collect();
        if let Some(name) = &change.replica {
            self.known(name, !chosen.is_empty())?;
        }
        let mut state = self.shared.brain.lock();
        let stats = state.router.index_stats();
        let ids: Vec<_> = chosen.iter().map(|replica| replica.id).collect();
        let blocks =
            stats.replicas.iter().filter(|(id, _)| ids.contains(id)).map(|(_, stats)| stats.blocks as u64).sum();
        for id in ids {
            state.router.clear_cache(Some(id));
        }
        Ok(Cleared { replicas: chosen.iter().map(|replica| replica.name.to_string()).collect(), blocks })
    }

    pub(super) fn set_drain(&self, change: SetDrain) -> Result<Drain, Rejection> {
        if change.stop && !change.draining {
            return Err(bad_request("`stop` goes together with `draining` only".to_owned()));
        }
        if !change.draining && self.shared.stop_asked.is_cancelled() {
            return Err(Rejection::new(
                StatusCode::CONFLICT,
                "stopping",
                "the router is stopping; that cannot be taken back",
            ));
        }
        self.shared.draining.store(change.draining, Ordering::Relaxed);
        self.shared.brain.metrics().draining.set(i64::from(change.draining));
        if change.stop {
            self.shared.stop_asked.cancel();
        }
        tracing::info!(draining = change.draining, stop = change.stop, "draining set");
        Ok(self.drain_state())
    }
}

fn config(replica: AddReplica) -> Result<ReplicaConfig, Rejection> {
    let agent = replica.engine.as_deref() == Some(AGENT);
    let engine = replica.engine.as_deref().filter(|_| !agent).map(Engine::by_name).transpose();
    Ok(ReplicaConfig {
        name: replica.name,
        url: replica.url,
        region: replica.region,
        kind: if agent { ReplicaKind::Peer } else { ReplicaKind::Engine },
        engine: engine.map_err(|error| bad_request(error.to_string()))?,
        models: replica.models,
        limits: Limits { kv_tokens: replica.limits.kv_tokens },
        rates: Rates {
            prefill_ms_per_token: replica.rates.prefill_ms_per_token,
            queue_ms_per_token: replica.rates.queue_ms_per_token,
        },
        api_key: None,
    })
}
