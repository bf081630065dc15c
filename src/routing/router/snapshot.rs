//! What the admin API may see of a router, at one moment.

use std::sync::Arc;

use super::Router;
use crate::model::{Region, ReplicaId, Time};
use crate::routing::decision::Unit;
use crate::routing::fleet::{EngineLimits, Gauges, Replica, ReplicaKind, ReplicaSpec};
use crate::routing::health::Health;
use crate::routing::index::IndexStats;
use crate::routing::peer::Totals;
use crate::routing::policy::Parameter;

/// Everything, in a fixed order.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The strategy in force.
    pub strategy: StrategySnapshot,
    /// Replicas in the order of their registration.
    pub replicas: Vec<ReplicaSnapshot>,
    /// Most requests in flight per replica, where that is set; `None` = the strategy's own rule.
    pub max_concurrent: Option<u32>,
    /// The router's queue.
    pub queue: QueueSnapshot,
    /// Bytes per token learned per model.
    pub bytes_per_token: Vec<BytesPerToken>,
}

/// The strategy in force.
#[derive(Clone, Debug)]
pub struct StrategySnapshot {
    /// Its name.
    pub name: &'static str,
    /// Its rule in a line.
    pub help: &'static str,
    /// Unit of its scores.
    pub unit: Unit,
    /// Its parameters with the values in force.
    pub parameters: Vec<(Parameter, f64)>,
    /// Requests in flight per replica at which the gate closes, if there is a gate: `max_concurrent` or the strategy's own.
    pub max_running: Option<u32>,
}

/// The router's queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueSnapshot {
    /// Requests in it.
    pub len: usize,
    /// Most requests in it.
    pub limit: usize,
    /// How long the oldest has waited, ms.
    pub oldest_ms: Option<f64>,
    /// Longest wait, ms.
    pub timeout_ms: f64,
}

/// A learned ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct BytesPerToken {
    /// The model; `None` = requests that name none.
    pub model: Option<Arc<str>>,
    /// Bytes of canonical prompt per token.
    pub ratio: f64,
    /// Replies it was learned from.
    pub samples: u32,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct ReplicaSnapshot {
    /// Identity in this router.
    pub id: ReplicaId,
    /// Configuration.
    pub spec: ReplicaSpec,
    /// Health.
    pub health: Health,
    /// How often that has changed since it was first known.
    pub health_changes: u32,
    /// Taken out by an operator.
    pub draining: bool,
    /// Round trip estimate, ms.
    pub rtt_ms: Option<f64>,
    /// Its newest sample, ms.
    pub rtt_last_ms: Option<f64>,
    /// Age of its newest sample, ms.
    pub rtt_age_ms: Option<f64>,
    /// Gauges as last read.
    pub gauges: Option<Gauges>,
    /// What its engine said of its settings.
    pub told: EngineLimits,
    /// Age of the gauges, ms.
    pub gauges_age_ms: Option<f64>,
    /// Requests of this router there, not finished.
    pub in_flight: usize,
    /// Of these without a first token.
    pub pending: usize,
    /// Of these past it.
    pub decoding: u32,
    /// Prompt tokens of all in flight.
    pub queued_prompt_tokens: u64,
    /// Uncached tokens of those without a first token, as predicted.
    pub pending_uncached_tokens: u64,
    /// Prompt and expected output tokens of all in flight.
    pub held_tokens: u64,
    /// What it tells of itself, if it is a peer.
    pub peer: Option<PeerSnapshot>,
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerSnapshot {
    /// Age of its last report, ms; `None` = it never told anything.
    pub age_ms: Option<f64>,
    /// What others have in flight there, estimated; `None` = unknown.
    pub others: Option<Totals>,
    /// Blocks that it says its engine holds.
    pub digest_blocks: usize,
    /// Memory of them here, bytes.
    pub digest_bytes: usize,
}

impl ReplicaSnapshot {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Where it stands.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.spec.region
    }
}

impl Router {
    /// The state at `now`. The index is left out: ask for it with [`Self::index_stats`].
    #[must_use]
    pub fn snapshot(&self, now: Time) -> Snapshot {
        Snapshot {
            strategy: self.strategy(),
            replicas: self.fleet.iter().map(|replica| self.replica_snapshot(now, replica)).collect(),
            max_concurrent: self.settings.max_concurrent,
            queue: self.queue_snapshot(now),
            bytes_per_token: self
                .ratios
                .iter()
                .map(|(model, ratio, samples)| BytesPerToken { model: model.cloned(), ratio, samples })
                .collect(),
        }
    }

    /// State of the prefix index, per replica and in total.
    #[must_use]
    pub fn index_stats(&self) -> IndexStats {
        self.index.stats()
    }

    /// Longest prompt that each replica is believed to hold, blocks. Walks every node of the index.
    #[must_use]
    pub fn index_depths(&self) -> Vec<(ReplicaId, usize)> {
        self.index.depths()
    }

    /// Requests held in the router's queue.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Requests at replicas.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ledger.in_flight()
    }

    /// The replicas with what is observed of them, in the order of their registration.
    pub fn replicas(&self) -> std::slice::Iter<'_, Replica> {
        self.fleet.iter()
    }

    /// A replica by its name.
    #[must_use]
    pub fn replica_named(&self, name: &str) -> Option<&Replica> {
        self.fleet.iter().find(|replica| *replica.spec.name == *name)
    }

    /// The strategy in force.
    #[must_use]
    pub fn strategy(&self) -> StrategySnapshot {
        let entry = self.strategy.entry;
        StrategySnapshot {
            name: entry.name,
            help: entry.help,
            unit: entry.unit,
            parameters: self.strategy.parameters.iter().copied().collect(),
            max_running: self.gate().map(|gate| gate.max_running),
        }
    }

    fn queue_snapshot(&self, now: Time) -> QueueSnapshot {
        QueueSnapshot {
            len: self.queue.len(),
            limit: self.settings.queue_limit,
            oldest_ms: self.queue.oldest().map(|since| now.since_ms(since).max(0.0)),
            timeout_ms: self.settings.queue_timeout_ms,
        }
    }

    fn replica_snapshot(&self, now: Time, replica: &Replica) -> ReplicaSnapshot {
        let load = self.ledger.load(replica.id);
        ReplicaSnapshot {
            id: replica.id,
            spec: replica.spec.clone(),
            health: replica.health(),
            health_changes: replica.health_changes(),
            draining: replica.draining,
            rtt_ms: replica.rtt.value(),
            rtt_last_ms: replica.rtt.last(),
            rtt_age_ms: replica.rtt.age_ms(now),
            gauges: replica.gauges.map(|(_, gauges)| gauges),
            told: replica.told,
            gauges_age_ms: replica.gauges.map(|(read, _)| now.since_ms(read).max(0.0)),
            in_flight: load.in_flight(),
            pending: load.pending.len(),
            decoding: load.decoding,
            queued_prompt_tokens: load.prompt_tokens,
            pending_uncached_tokens: load.uncached_tokens,
            held_tokens: load.held_tokens,
            peer: (replica.spec.kind == ReplicaKind::Peer).then(|| PeerSnapshot {
                age_ms: replica.peer.age_ms(now),
                others: replica.peer.others(now),
                digest_blocks: replica.peer.digest.blocks(),
                digest_bytes: replica.peer.digest.bytes(),
            }),
        }
    }
}
