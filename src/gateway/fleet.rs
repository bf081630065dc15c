//! Replicas come and go: the router's books, the connections and the probes change together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use http::HeaderValue;
use tokio::runtime::Handle;

use super::brain::Brain;
use super::endpoint::Endpoint;
use super::mutual::{Keeper, PeerConnector};
use super::pool::{Pool, PoolSettings};
use super::probe::{self, Watching};
use super::replica::Replica;
use super::settings::ReplicaConfig;
use crate::model::ReplicaId;
use crate::routing::{ReplicaKind, ReplicaSpec};

/// Longest time without a request before a connection to an agent is given up: half of what agents wait by default.
const PEER_IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Adds and removes replicas of one gateway.
pub struct Fleet {
    brain: Arc<Brain>,
    pool: PoolSettings,
    watching: Watching,
    keeper: Option<Arc<Keeper>>,
}

impl Fleet {
    /// A fleet for a brain.
    #[must_use]
    pub(super) fn new(brain: Arc<Brain>, pool: PoolSettings, watching: Watching, keeper: Option<Arc<Keeper>>) -> Self {
        Self { brain, pool, watching, keeper }
    }

    /// Adds a replica, or changes the one of that name: requests in flight stay on the old connections, new ones take the new.
    ///
    /// Another URL is another engine, which knows nothing of what was learned of the old one: it comes as a new replica of that name.
    /// With the same URL only limits, rates and models change, and round trips, health and the prefix index stay.
    ///
    /// # Errors
    /// If the name is empty or the URL is not one. Nothing has changed then.
    ///
    /// # Panics
    /// Outside of a Tokio runtime: the probes are tasks.
    pub fn add(&self, config: ReplicaConfig) -> anyhow::Result<ReplicaId> {
        ensure!(!config.name.trim().is_empty(), "a replica needs a name");
        ensure!(!config.region.as_str().trim().is_empty(), "replica `{}` needs a region", config.name);
        let named = || format!("replica `{}`", config.name);
        let endpoint = config.url.parse().with_context(named)?;
        let pool = self.settings(&config, &endpoint).with_context(named)?;
        let pool = PoolSettings { authorization: authorization(&config)?, ..pool };
        let pool = Pool::new(endpoint, pool, self.brain.clock()).with_context(named)?;
        let metrics = self.brain.metrics().replica(&config.name, config.region.as_str(), config.kind);
        let spec = spec(&config);
        let (replica, before) = self.brain.event(|state, now| {
            let known = state.replicas.values().find(|known| *known.name == *config.name).cloned();
            let replaced = known.filter(|known| known.pool.endpoint().to_string() != pool.endpoint().to_string());
            let mut effects = Vec::new();
            if let Some(old) = &replaced {
                state.replicas.remove(&old.id);
                effects = state.router.remove_replica(now, old.id);
            }
            let (id, added) = state.router.add_replica(now, spec);
            effects.extend(added);
            let replica = Replica::new(id, config, pool, metrics);
            let before = state.replicas.insert(id, replica.clone()).or(replaced);
            ((replica, before), effects)
        });
        if let Some(before) = before {
            retire(&before, before.config.region != replica.config.region);
        }
        tracing::info!(replica = %replica.name, url = %replica.pool.endpoint(), "replica added");
        probe::watch(&Handle::current(), self.brain.clone(), replica.clone(), &self.watching);
        Ok(replica.id)
    }

    /// How connections to a replica are kept. Those to an agent by its certificate last longer: agents do not close what is idle for some
    /// seconds, as engines do, and a handshake costs both sides a millisecond of computing.
    fn settings(&self, config: &ReplicaConfig, endpoint: &Endpoint) -> anyhow::Result<PoolSettings> {
        if !endpoint.mutual() {
            ensure!(
                config.kind == ReplicaKind::Engine || self.keeper.is_none(),
                "{endpoint} has no certificate of the cluster; wanted `mtls://`, as this process has one"
            );
            return Ok(self.pool.clone());
        }
        ensure!(
            config.kind == ReplicaKind::Peer,
            "{endpoint} is the port of an agent for its peers; say `engine=agent`, so that it is treated as one"
        );
        let keeper = self.keeper.clone();
        let keeper = keeper.context("`mtls://` needs a certificate of the cluster; start with `--identity FILE`")?;
        let mutual = Some(PeerConnector::new(keeper, &config.name)?);
        Ok(PoolSettings { mutual, idle_limit: self.pool.idle_limit.max(PEER_IDLE_LIMIT), ..self.pool.clone() })
    }

    /// Forgets a replica. What it is answering ends in peace. False if there is none of that name.
    pub fn remove(&self, name: &str) -> bool {
        let gone = self.brain.event(|state, now| {
            let id = state.replicas.values().find(|replica| *replica.name == *name).map(|replica| replica.id);
            let Some(id) = id else { return (None, Vec::new()) };
            let gone = state.replicas.remove(&id);
            (gone, state.router.remove_replica(now, id))
        });
        let Some(gone) = gone else { return false };
        retire(&gone, true);
        tracing::info!(replica = name, "replica removed");
        true
    }

    /// Takes a replica out of rotation or back in. False if there is none of that name.
    pub fn drain(&self, name: &str, draining: bool) -> bool {
        self.brain.event(|state, now| {
            let id = state.replicas.values().find(|replica| *replica.name == *name).map(|replica| replica.id);
            match id {
                Some(id) => (true, state.router.set_draining(now, id, draining)),
                None => (false, Vec::new()),
            }
        })
    }
}

/// Ends the probes and the idle connections; requests in flight hold what they need.
fn retire(replica: &Replica, off_the_page: bool) {
    replica.gone.cancel();
    replica.pool.close();
    if off_the_page {
        replica.metrics.retire();
    }
}

/// What the engine's own key looks like in a request; it is marked as a secret, so that nothing prints it.
fn authorization(config: &ReplicaConfig) -> anyhow::Result<Option<HeaderValue>> {
    let Some(key) = &config.api_key else { return Ok(None) };
    let value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()));
    // The error would show the text.
    let mut value = value
        .map_err(|_| anyhow!("the API key of replica `{}` has characters that no header can carry", config.name))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn spec(config: &ReplicaConfig) -> ReplicaSpec {
    ReplicaSpec {
        name: config.name.as_str().into(),
        region: config.region.clone(),
        kind: config.kind,
        models: config.models.iter().map(|model| model.as_str().into()).collect(),
        limits: config.limits,
        rates: config.rates,
    }
}
