//! What `GET` shows: documents made from one look at the router under one lock; what has to be sorted or rendered is after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::Admin;
use crate::gateway::explain::{explanation, summary};
use crate::gateway::replica::{Replica, UsageSums, WINDOW};
use crate::gateway::tuning;
use crate::gateway::window::percentiles;
use crate::model::{ReplicaId, RequestId};
use crate::routing::index::{CacheStats, IndexStats};
use crate::routing::policy::{Parameter, strategies};
use crate::routing::prediction::{Accuracy, Samples};
use crate::routing::tune::Tuner;
use crate::routing::{BLOCK_BYTES, Health, ReplicaKind, ReplicaSnapshot, Router, Snapshot};
use crate::wire::{self, RequestCounts};

/// What Prometheus wants to hear; the page is in the OpenMetrics form.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The router at one moment.
struct Look {
    snapshot: Snapshot,
    replicas: Vec<Arc<Replica>>,
    counts: RequestCounts,
    max_concurrent: Option<u32>,
    index: IndexStats,
}

impl Admin {
    fn look(&self) -> Look {
        self.look_further(|_| ()).0
    }

    /// The same with something more of the same moment.
    fn look_further<T>(&self, more: impl FnOnce(&Router) -> T) -> (Look, T) {
        let state = self.shared.brain.lock();
        let now = self.shared.brain.clock().now();
        let look = Look {
            snapshot: state.router.snapshot(now),
            replicas: state.replicas.values().cloned().collect(),
            counts: state.counts,
            max_concurrent: state.max_concurrent,
            index: state.router.index_stats(),
        };
        (look, more(&state.router))
    }

    pub(super) fn status(&self) -> wire::Status {
        let Look { snapshot, counts, max_concurrent, .. } = self.look();
        let with = |health| snapshot.replicas.iter().filter(|replica| replica.health == health).count() as u32;
        wire::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.shared.brain.clock().now().ms() / 1000.0,
            listen: self.listen.to_string(),
            strategy: snapshot.strategy.name.to_owned(),
            max_concurrent,
            draining: self.shared.draining.load(Ordering::Relaxed),
            replicas: wire::ReplicaCounts {
                total: snapshot.replicas.len() as u32,
                healthy: with(Health::Healthy),
                unhealthy: with(Health::Unhealthy),
                unknown: with(Health::Unknown),
                draining: snapshot.replicas.iter().filter(|replica| replica.draining).count() as u32,
            },
            queue: wire::QueueStatus {
                waiting: snapshot.queue.len as u64,
                limit: snapshot.queue.limit as u64,
                timeout_ms: snapshot.queue.timeout_ms,
                oldest_ms: snapshot.queue.oldest_ms,
            },
            requests: counts,
        }
    }

    pub(super) fn replicas(&self) -> wire::Replicas {
        let Look { snapshot, replicas, .. } = self.look();
        let view = |of: &ReplicaSnapshot| Some(replica_view(of, find(&replicas, of.id)?));
        wire::Replicas { replicas: snapshot.replicas.iter().filter_map(view).collect() }
    }

    pub(super) fn policy(&self) -> wire::Policy {
        let Look { snapshot, .. } = self.look();
        let known = strategies()
            .iter()
            .map(|entry| wire::StrategyInfo { name: entry.name.to_owned(), summary: entry.help.to_owned() });
        wire::Policy {
            strategy: snapshot.strategy.name.to_owned(),
            parameters: parameters(&snapshot),
            known: known.collect(),
        }
    }

    pub(super) fn tune(&self) -> wire::Tune {
        let now = self.shared.brain.clock().now();
        let (look, tuner) = self.look_further(|router| router.tuner().map(|it| tuning::tuner(it, now)));
        let Look { snapshot, max_concurrent, .. } = look;
        let strategy = snapshot.strategy.name.to_owned();
        wire::Tune { strategy, parameters: parameters(&snapshot), max_concurrent, tuner }
    }

    pub(super) fn cache(&self) -> wire::Cache {
        let (Look { index, replicas, .. }, depths) = self.look_further(Router::index_depths);
        let view = |((id, stats), (_, depth)): (&(ReplicaId, CacheStats), &(ReplicaId, usize))| {
            let replica = find(&replicas, *id)?;
            let usage = replica.figures().usage;
            Some(wire::CacheReplica {
                name: replica.name.to_string(),
                blocks: stats.blocks as u64,
                capacity_blocks: stats.capacity as u64,
                nodes: stats.nodes as u64,
                depth: *depth as u64,
                bytes: stats.bytes as u64,
                requests_with_usage: usage.requests,
                prompt_tokens: usage.prompt_tokens,
                cached_tokens: usage.cached_tokens,
                predicted_cached_tokens: usage.foreseen_cached_tokens,
            })
        };
        let both = index.replicas.iter().zip(&depths);
        wire::Cache { block_bytes: BLOCK_BYTES as u64, replicas: both.filter_map(view).collect() }
    }

    pub(super) fn latency(&self) -> wire::Latency {
        let (Look { snapshot, replicas, .. }, predictions) =
            self.look_further(|router| router.replicas().map(|replica| replica.ttft_ms.clone()).collect::<Vec<_>>());
        let view = |(of, samples): (&ReplicaSnapshot, &Samples)| {
            let replica = find(&replicas, of.id)?;
            let figures = replica.figures();
            Some(wire::LatencyReplica {
                name: of.name().to_owned(),
                region: of.region().clone(),
                rtt: rtt(of),
                ttft_ms: percentiles(figures.ttft_ms.iter().copied()),
                prediction: samples.accuracy().map(prediction),
                hit_ratio: hit_ratio(UsageSums::over(figures.last_usage.iter())),
            })
        };
        let both = snapshot.replicas.iter().zip(&predictions);
        wire::Latency { window: WINDOW as u32, replicas: both.filter_map(view).collect() }
    }

    pub(super) fn decisions(&self, limit: usize) -> wire::Decisions {
        let state = self.shared.brain.lock();
        let now = self.shared.brain.clock().now();
        let newest = state.journal.newest().take(limit);
        wire::Decisions {
            capacity: u32::try_from(state.journal.capacity()).unwrap_or(u32::MAX),
            decisions: newest.filter_map(|(request, entry)| summary(request, entry, now)).collect(),
        }
    }

    pub(super) fn explain(&self, request: RequestId) -> Option<wire::Explanation> {
        let state = self.shared.brain.lock();
        let now = self.shared.brain.clock().now();
        state.journal.get(request).map(|entry| explanation(request, entry, now))
    }

    pub(super) fn drain_state(&self) -> wire::Drain {
        wire::Drain {
            draining: self.shared.draining.load(Ordering::Relaxed),
            stopping: self.shared.stop_asked.is_cancelled(),
            in_flight: self.shared.brain.lock().counts.in_flight,
        }
    }

    /// The page, with the figures that are read rather than counted brought up to date.
    pub(super) fn metrics(&self) -> Response<Bytes> {
        let (look, (predictions, tuning)) = self.look_further(|router| {
            let predictions: Vec<_> = router.replicas().map(|replica| replica.ttft_ms.clone()).collect();
            (predictions, router.tuner().map(Tuner::progress))
        });
        let Look { snapshot, replicas, index, .. } = look;
        let metrics = self.shared.brain.metrics();
        if let Some(progress) = tuning {
            metrics.tuning.show(&progress);
        }
        metrics.queue.set(snapshot.queue.len as i64);
        for (of, samples) in snapshot.replicas.iter().zip(&predictions) {
            let Some(replica) = find(&replicas, of.id) else { continue };
            let shown = &replica.metrics;
            let last = UsageSums::over(replica.figures().last_usage.iter());
            shown.foreseen.show(samples.accuracy(), hit_ratio(last));
            shown.healthy.set(i64::from(of.health == Health::Healthy));
            let told = shown.health_changes.get();
            shown.health_changes.inc_by(u64::from(of.health_changes).saturating_sub(told));
            shown.rtt.set(of.rtt_ms.unwrap_or(f64::NAN) / 1000.0);
            let gauges = of.gauges.unwrap_or_default();
            shown.running.set(gauges.running.unwrap_or(f64::NAN));
            shown.waiting.set(gauges.waiting.unwrap_or(f64::NAN));
            shown.kv_usage.set(gauges.kv_usage.unwrap_or(f64::NAN));
            shown.max_running.set(of.told.max_running.map_or(f64::NAN, f64::from));
            shown.idle_connections.set(replica.pool.idle() as i64);
            if let Some(peer) = of.peer {
                shown.known(peer.age_ms.map(|age_ms| age_ms / 1000.0), peer.digest_blocks);
            }
        }
        for (id, stats) in &index.replicas {
            if let Some(replica) = find(&replicas, *id) {
                let of = snapshot.replicas.iter().find(|of| of.id == *id);
                let digest_bytes = of.and_then(|of| of.peer).map_or(0, |peer| peer.digest_bytes);
                replica.metrics.index_blocks.set(stats.blocks as i64);
                replica.metrics.index_bytes.set((stats.bytes + digest_bytes) as i64);
            }
        }
        let mut response = Response::new(Bytes::from(metrics.page()));
        response.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
        response
    }
}

fn find(replicas: &[Arc<Replica>], id: ReplicaId) -> Option<&Arc<Replica>> {
    replicas.iter().find(|replica| replica.id == id)
}

fn parameters(snapshot: &Snapshot) -> Vec<wire::Parameter> {
    let view = |(parameter, value): &(Parameter, f64)| wire::Parameter {
        key: parameter.key.to_owned(),
        value: *value,
        default: parameter.default,
        min: parameter.min,
        max: parameter.max.is_finite().then_some(parameter.max),
        help: parameter.help.to_owned(),
    };
    snapshot.strategy.parameters.iter().map(view).collect()
}

fn replica_view(of: &ReplicaSnapshot, replica: &Replica) -> wire::Replica {
    let figures = replica.figures();
    wire::Replica {
        id: of.id,
        name: of.name().to_owned(),
        url: replica.pool.endpoint().to_string(),
        region: of.region().clone(),
        engine: match (replica.config.kind, figures.engine) {
            (ReplicaKind::Peer, _) => wire::AGENT,
            (ReplicaKind::Engine, Some(engine)) => engine.name,
            (ReplicaKind::Engine, None) => "unknown",
        }
        .to_owned(),
        models: replica.config.models.clone(),
        health: match of.health {
            Health::Unknown => wire::Health::Unknown,
            Health::Healthy => wire::Health::Healthy,
            Health::Unhealthy => wire::Health::Unhealthy,
        },
        health_reason: figures.health_problem.clone(),
        draining: of.draining,
        rtt: rtt(of),
        gauges: of.gauges.map(|gauges| wire::Gauges {
            running: gauges.running,
            waiting: gauges.waiting,
            kv_usage: gauges.kv_usage,
            used_tokens: gauges.used_tokens,
            kv_tokens: gauges.kv_tokens,
            age_ms: of.gauges_age_ms.unwrap_or_default(),
        }),
        ledger: wire::Ledger {
            prefilling: of.pending as u32,
            uncached_tokens: of.pending_uncached_tokens,
            decoding: of.decoding,
            queued_tokens: of.queued_prompt_tokens,
        },
        limits: wire::Limits { kv_tokens: of.spec.limits.kv_tokens },
        rates: wire::Rates {
            prefill_ms_per_token: of.spec.rates.prefill_ms_per_token,
            queue_ms_per_token: of.spec.rates.queue_ms_per_token,
        },
        requests: figures.requests,
    }
}

fn rtt(of: &ReplicaSnapshot) -> Option<wire::Rtt> {
    Some(wire::Rtt { ms: of.rtt_ms?, last_ms: of.rtt_last_ms?, age_ms: of.rtt_age_ms.unwrap_or_default() })
}

/// `None` without a prompt token.
fn hit_ratio(of: UsageSums) -> Option<wire::HitRatio> {
    let share = |tokens: u64| tokens as f64 / of.prompt_tokens as f64;
    (of.prompt_tokens > 0).then(|| wire::HitRatio {
        count: of.requests,
        predicted: share(of.foreseen_cached_tokens),
        actual: share(of.cached_tokens),
    })
}

fn prediction(of: Accuracy) -> wire::Prediction {
    wire::Prediction {
        count: of.count as u64,
        predicted_p50_ms: of.predicted_median,
        actual_p50_ms: of.actual_median,
        error_p50_ms: of.error_median,
        error_p50_ratio: of.relative_error_median,
        bias_p50_ratio: of.relative_bias_median,
        bias_ms: of.bias,
    }
}
