//! What `/metrics` shows of the gateway: families with their help, and handles to them that cost no lookup per request.
//!
//! Base units, prefix `gorgo_`. Figures that are read rather than counted (health, round trip, index) are set by the admin API
//! when it is asked.

mod foreseen;

use foreseen::Foreseen;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use crate::routing::ReplicaKind;
use crate::routing::tune::{Progress, What};
use crate::wire::OutcomeKind;

/// A gauge of any number.
pub(super) type Figure = Gauge<f64, AtomicU64>;

/// Seconds, from a cached local prefill to a long queue.
const TTFT_BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0];
/// Seconds, from an embedding to a long generation.
const DURATION_BUCKETS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
/// Seconds of one routing decision.
const DECISION_BUCKETS: [f64; 9] = [5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2];

/// Which replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReplicaLabels {
    /// Its name.
    pub(super) replica: String,
    /// Its region.
    pub(super) region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaOutcome {
    replica: String,
    region: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassResult {
    class: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ParameterLabel {
    parameter: &'static str,
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms = Family<ReplicaLabels, Histogram, Buckets>;
type Counters = Family<ReplicaLabels, Counter>;
type Figures = Family<ReplicaLabels, Figure>;

/// All families of one gateway.
pub(super) struct Metrics {
    registry: Registry,
    requests: [Counter; 4],
    refused: Family<Code, Counter>,
    slo: Family<ClassResult, Counter>,
    links: Links,
    duration: Histogram,
    /// Time of one routing decision; waiting for the lock is not in it.
    pub(super) decision: Histogram,
    /// Attempts repeated elsewhere.
    pub(super) retries: Counter,
    /// Audit lines that could not be written.
    pub(super) audit_dropped: Counter,
    /// Client connections now.
    pub(super) connections: Gauge,
    /// Requests in the router's queue.
    pub(super) queue: Gauge,
    /// 1 while draining.
    pub(super) draining: Gauge,
    /// What the tuner does.
    pub(super) tuning: Tuning,
    per_replica: PerReplica,
}

/// What concerns the tuner; candidates and values are shown once there are any.
#[derive(Clone, Default)]
pub(super) struct Tuning {
    candidates: Family<Outcome, Counter>,
    active: Gauge,
    step: Figure,
    values: Family<ParameterLabel, Figure>,
}

/// What concerns certificates.
#[derive(Clone, Default)]
struct Links {
    refused: Family<CauseLabel, Counter>,
    renewals: Family<Outcome, Counter>,
    expiry: Gauge,
}

#[derive(Clone, Default)]
struct PerReplica {
    dispatched: Counters,
    ended: Family<ReplicaOutcome, Counter>,
    recalled: Counters,
    in_flight: Family<ReplicaLabels, Gauge>,
    ttft: Option<Histograms>,
    prompt_tokens: Counters,
    cached_tokens: Counters,
    foreseen_cached_tokens: Counters,
    foreseen: foreseen::Families,
    completion_tokens: Counters,
    healthy: Family<ReplicaLabels, Gauge>,
    health_changes: Counters,
    rtt: Figures,
    running: Figures,
    waiting: Figures,
    kv_usage: Figures,
    max_running: Figures,
    index_blocks: Family<ReplicaLabels, Gauge>,
    index_bytes: Family<ReplicaLabels, Gauge>,
    idle_connections: Family<ReplicaLabels, Gauge>,
    peer_received: Counters,
    peer_sent: Counters,
    peer_connects: Counters,
    peer_malformed: Counters,
    peer_age: Figures,
    peer_blocks: Family<ReplicaLabels, Gauge>,
}

/// The handles of one peer.
struct PeerMetrics {
    received: Counter,
    sent: Counter,
    connects: Counter,
    malformed: Counter,
    age: Figure,
    blocks: Gauge,
}

/// The handles of one replica.
pub(super) struct ReplicaMetrics {
    families: PerReplica,
    labels: ReplicaLabels,
    /// Attempts begun.
    pub(super) dispatched: Counter,
    /// Answered in full.
    pub(super) ok: Counter,
    /// Failed before or after the first byte.
    pub(super) failed: Counter,
    /// Left by their clients.
    pub(super) cancelled: Counter,
    /// Called back before the engine had begun them.
    pub(super) recalled: Counter,
    /// Unfinished attempts.
    pub(super) in_flight: Gauge,
    /// Taken in → first token, s.
    pub(super) ttft: Histogram,
    /// Prompt tokens as the engine counted.
    pub(super) prompt_tokens: Counter,
    /// Of these cached.
    pub(super) cached_tokens: Counter,
    /// Prompt tokens believed cached when they were sent.
    pub(super) foreseen_cached_tokens: Counter,
    /// How good predictions were.
    pub(super) foreseen: Foreseen,
    /// Tokens generated.
    pub(super) completion_tokens: Counter,
    /// 1 while in rotation.
    pub(super) healthy: Gauge,
    /// Times that it left rotation or came back.
    pub(super) health_changes: Counter,
    /// Smoothed round trip, s.
    pub(super) rtt: Figure,
    /// Requests in the engine's batch.
    pub(super) running: Figure,
    /// Requests waiting in the engine.
    pub(super) waiting: Figure,
    /// Share of its KV cache in use.
    pub(super) kv_usage: Figure,
    /// Most requests in its batch.
    pub(super) max_running: Figure,
    /// Blocks in the router's index.
    pub(super) index_blocks: Gauge,
    /// Memory of the router's index.
    pub(super) index_bytes: Gauge,
    /// Connections kept warm.
    pub(super) idle_connections: Gauge,
    /// If it is a peer.
    peer: Option<PeerMetrics>,
}

const OUTCOMES: [(OutcomeKind, &str); 4] = [
    (OutcomeKind::Ok, "ok"),
    (OutcomeKind::Failed, "failed"),
    (OutcomeKind::Refused, "refused"),
    (OutcomeKind::Cancelled, "cancelled"),
];

impl Metrics {
    /// Fresh families, registered.
    #[must_use]
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("gorgo");
        let r = &mut registry;
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        r.register("build", "The version of gorgo that runs", Info::new(version));
        let requests = Family::<Outcome, Counter>::default();
        r.register("requests", "Requests by how they ended; an engine's 4xx is ok, its 5xx failed", requests.clone());
        let refused = Family::<Code, Counter>::default();
        r.register("refusals", "Refusals and failures of the router's own by their stable code", refused.clone());
        let slo = Family::<ClassResult, Counter>::default();
        let help =
            "Requests with objectives by class and result: good, late (answered, but not within them), refused, failed";
        r.register("slo_requests", help, slo.clone());
        let duration = Histogram::new(DURATION_BUCKETS);
        r.register("request_duration_seconds", "Taken in to last byte, seconds", duration.clone());
        let decision = Histogram::new(DECISION_BUCKETS);
        r.register("decision_duration_seconds", "One routing decision, extraction apart, seconds", decision.clone());
        let (retries, connections, queue, draining) =
            (Counter::default(), Gauge::default(), Gauge::default(), Gauge::default());
        r.register("retries", "Attempts repeated at another replica", retries.clone());
        let audit_dropped = Counter::default();
        r.register("audit_dropped", "Lines that the audit log could not take", audit_dropped.clone());
        r.register("client_connections", "Client connections now", connections.clone());
        r.register("queue_requests", "Requests held in the router's queue now", queue.clone());
        r.register("draining", "1 while the router refuses new requests", draining.clone());
        let links = Links::register(r);
        let tuning = Tuning::register(r);
        let per_replica = PerReplica::register(r);
        let requests = OUTCOMES.map(|(_, outcome)| requests.get_or_create(&Outcome { outcome }).clone());
        Self {
            registry,
            requests,
            refused,
            slo,
            links,
            duration,
            decision,
            retries,
            audit_dropped,
            connections,
            queue,
            draining,
            tuning,
            per_replica,
        }
    }

    /// A request ended after this many seconds.
    pub(super) fn ended(&self, kind: OutcomeKind, seconds: f64) {
        if let Some(counter) = OUTCOMES.iter().position(|(outcome, _)| *outcome == kind).map(|i| &self.requests[i]) {
            counter.inc();
        }
        self.duration.observe(seconds);
    }

    /// An error object of ours was given out.
    pub(super) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&Code { code }).inc();
    }

    /// A request that had objectives ended so.
    pub(super) fn judged(&self, class: &str, result: &'static str) {
        self.slo.get_or_create(&ClassResult { class: class.to_owned(), result }).inc();
    }

    /// A connection to the port for peers was refused.
    pub(super) fn peer_refused(&self, cause: &'static str) {
        self.links.refused.get_or_create(&CauseLabel { cause }).inc();
    }

    /// A new certificate was found, and is used (`ok`) or not (`refused`).
    pub(super) fn certificate_renewed(&self, outcome: &'static str) {
        self.links.renewals.get_or_create(&Outcome { outcome }).inc();
    }

    /// When the certificate in use expires, s since 1970.
    pub(super) fn certificate_expires(&self, at: u64) {
        self.links.expiry.set(i64::try_from(at).unwrap_or(i64::MAX));
    }

    /// The handles for a replica.
    #[must_use]
    pub(super) fn replica(&self, name: &str, region: &str, kind: ReplicaKind) -> ReplicaMetrics {
        self.per_replica.handles(ReplicaLabels { replica: name.to_owned(), region: region.to_owned() }, kind)
    }

    /// The page.
    #[must_use]
    pub(super) fn page(&self) -> String {
        let mut page = String::new();
        encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Tuning {
    fn register(r: &mut Registry) -> Self {
        let tuning = Self::default();
        let candidates = "Weights that the tuner tried, by how they ended; reverted = accepted and taken back";
        r.register("tune_candidates", candidates, tuning.candidates.clone());
        r.register("tune_active", "1 while the tuner compares weights on live requests", tuning.active.clone());
        r.register("tune_step", "Step size of the tuner, natural logarithm", tuning.step.clone());
        r.register("tune_value", "Weight in force that the tuner may move", tuning.values.clone());
        tuning
    }

    /// The tuner did something.
    pub(super) fn noted(&self, what: What) {
        if matches!(what, What::Accepted | What::Rejected | What::RolledBack | What::Reverted) {
            self.candidates.get_or_create(&Outcome { outcome: what.as_str() }).inc();
        }
    }

    /// Brings the figures that are read up to date.
    pub(super) fn show(&self, progress: &Progress) {
        self.active.set(i64::from(progress.rival.is_some()));
        self.step.set(progress.sigma);
        for (parameter, value) in &progress.incumbent {
            self.values.get_or_create(&ParameterLabel { parameter }).set(*value);
        }
    }
}

impl Links {
    fn register(r: &mut Registry) -> Self {
        let links = Self::default();
        r.register("peer_refusals", "Connections refused on the port for peers, by cause", links.refused.clone());
        r.register("certificate_renewals", "Looks at a new certificate by how they ended", links.renewals.clone());
        r.register("certificate_expiry_timestamp_seconds", "End of the certificate, 0 = none", links.expiry.clone());
        links
    }
}

impl PerReplica {
    fn register(r: &mut Registry) -> Self {
        let ttft = Histograms::new_with_constructor(Buckets(&TTFT_BUCKETS));
        let f = Self { ttft: Some(ttft.clone()), foreseen: foreseen::Families::register(r), ..Self::default() };
        r.register("replica_dispatched", "Attempts begun at the replica", f.dispatched.clone());
        r.register("replica_attempts", "Attempts at the replica by how they ended", f.ended.clone());
        let recalled = "Attempts called back from the replica, late and not begun";
        r.register("replica_recalled", recalled, f.recalled.clone());
        r.register("replica_in_flight", "Unfinished attempts at the replica", f.in_flight.clone());
        r.register("ttft_seconds", "Taken in to first token of a stream, seconds", ttft);
        r.register("prompt_tokens", "Prompt tokens as the engine counted them", f.prompt_tokens.clone());
        r.register("cached_tokens", "Prompt tokens that the engine found in its cache", f.cached_tokens.clone());
        let believed = "Prompt tokens believed cached when they were sent, of replies with usage";
        r.register("foreseen_cached_tokens", believed, f.foreseen_cached_tokens.clone());
        r.register("completion_tokens", "Tokens generated, as the engine counted them", f.completion_tokens.clone());
        r.register("replica_healthy", "1 while the replica is in rotation", f.healthy.clone());
        let changes = "Times that the replica left rotation or came back";
        r.register("replica_health_changes", changes, f.health_changes.clone());
        r.register("replica_rtt_seconds", "Smoothed network round trip, seconds", f.rtt.clone());
        r.register("replica_engine_running", "Requests in the engine's batch, as it says", f.running.clone());
        r.register("replica_engine_waiting", "Requests waiting in the engine, as it says", f.waiting.clone());
        r.register("replica_kv_usage_ratio", "Share of the KV cache in use, as the engine says", f.kv_usage.clone());
        let most = "Most requests in the engine's batch, as it says";
        r.register("replica_engine_max_running", most, f.max_running.clone());
        r.register("index_blocks", "Blocks in the router's prefix index", f.index_blocks.clone());
        r.register("index_bytes", "Memory of the router's prefix index, bytes", f.index_bytes.clone());
        r.register("replica_idle_connections", "Connections kept warm", f.idle_connections.clone());
        r.register("peer_received_bytes", "Bytes of a peer's stream of its state", f.peer_received.clone());
        r.register("peer_sent_bytes", "Bytes of our stream to a peer", f.peer_sent.clone());
        r.register("peer_connects", "Streams that a peer has begun, the first one included", f.peer_connects.clone());
        r.register("peer_malformed", "Streams given up because they made no sense", f.peer_malformed.clone());
        r.register("peer_state_age_seconds", "Age of what a peer told last, seconds", f.peer_age.clone());
        r.register("peer_digest_blocks", "Blocks that a peer says its engine holds", f.peer_blocks.clone());
        f
    }

    fn peer(&self, labels: &ReplicaLabels) -> PeerMetrics {
        PeerMetrics {
            received: self.peer_received.get_or_create(labels).clone(),
            sent: self.peer_sent.get_or_create(labels).clone(),
            connects: self.peer_connects.get_or_create(labels).clone(),
            malformed: self.peer_malformed.get_or_create(labels).clone(),
            age: self.peer_age.get_or_create(labels).clone(),
            blocks: self.peer_blocks.get_or_create(labels).clone(),
        }
    }

    fn handles(&self, labels: ReplicaLabels, kind: ReplicaKind) -> ReplicaMetrics {
        let ended = |outcome| {
            let ReplicaLabels { replica, region } = labels.clone();
            self.ended.get_or_create(&ReplicaOutcome { replica, region, outcome }).clone()
        };
        let ttft = self.ttft.as_ref().expect("registered with its buckets");
        ReplicaMetrics {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            ok: ended("ok"),
            failed: ended("failed"),
            cancelled: ended("cancelled"),
            recalled: self.recalled.get_or_create(&labels).clone(),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            ttft: ttft.get_or_create(&labels).clone(),
            prompt_tokens: self.prompt_tokens.get_or_create(&labels).clone(),
            cached_tokens: self.cached_tokens.get_or_create(&labels).clone(),
            foreseen_cached_tokens: self.foreseen_cached_tokens.get_or_create(&labels).clone(),
            foreseen: self.foreseen.handles(&labels),
            completion_tokens: self.completion_tokens.get_or_create(&labels).clone(),
            healthy: self.healthy.get_or_create(&labels).clone(),
            health_changes: self.health_changes.get_or_create(&labels).clone(),
            rtt: self.rtt.get_or_create(&labels).clone(),
            running: self.running.get_or_create(&labels).clone(),
            waiting: self.waiting.get_or_create(&labels).clone(),
            kv_usage: self.kv_usage.get_or_create(&labels).clone(),
            max_running: self.max_running.get_or_create(&labels).clone(),
            index_blocks: self.index_blocks.get_or_create(&labels).clone(),
            index_bytes: self.index_bytes.get_or_create(&labels).clone(),
            idle_connections: self.idle_connections.get_or_create(&labels).clone(),
            peer: (kind == ReplicaKind::Peer).then(|| self.peer(&labels)),
            families: self.clone(),
            labels,
        }
    }
}

/// What is counted of peers only.
impl ReplicaMetrics {
    /// Bytes came from the peer.
    pub(super) fn heard(&self, bytes: usize) {
        if let Some(peer) = &self.peer {
            peer.received.inc_by(bytes as u64);
        }
    }

    /// Bytes go to the peer.
    pub(super) fn told(&self, bytes: usize) {
        if let Some(peer) = &self.peer {
            peer.sent.inc_by(bytes as u64);
        }
    }

    /// The peer has begun a stream.
    pub(super) fn connected(&self) {
        if let Some(peer) = &self.peer {
            peer.connects.inc();
        }
    }

    /// The peer's stream made no sense.
    pub(super) fn misunderstood(&self) {
        if let Some(peer) = &self.peer {
            peer.malformed.inc();
        }
    }

    /// Age of its state, s, and blocks that it holds.
    pub(super) fn known(&self, age_s: Option<f64>, blocks: usize) {
        if let Some(peer) = &self.peer {
            peer.age.set(age_s.unwrap_or(f64::NAN));
            peer.blocks.set(blocks as i64);
        }
    }
}

impl ReplicaMetrics {
    /// Takes what is a state, not a count, off the page: the replica is gone.
    pub(super) fn retire(&self) {
        let (families, labels) = (&self.families, &self.labels);
        families.foreseen.retire(labels);
        for gauges in [
            &families.in_flight,
            &families.healthy,
            &families.index_blocks,
            &families.index_bytes,
            &families.idle_connections,
            &families.peer_blocks,
        ] {
            gauges.remove(labels);
        }
        let engine = [&families.running, &families.waiting, &families.kv_usage, &families.max_running];
        for figures in engine.into_iter().chain([&families.rtt, &families.peer_age]) {
            figures.remove(labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::routing::ReplicaKind;
    use crate::wire::OutcomeKind;

    #[test]
    fn counts_come_with_labels_and_states_go_with_their_replica() {
        let metrics = Metrics::new();
        let east = metrics.replica("east", "us-east-1", ReplicaKind::Engine);
        let west = metrics.replica("west", "us-west-2", ReplicaKind::Peer);
        east.heard(5);
        west.heard(7);
        west.told(8);
        west.connected();
        west.misunderstood();
        west.known(Some(0.25), 12);
        east.healthy.set(1);
        east.dispatched.inc();
        metrics.ended(OutcomeKind::Ok, 0.2);
        metrics.refused("unknown_path");
        metrics.judged("batch", "refused");
        let page = metrics.page();
        for line in [
            "gorgo_requests_total{outcome=\"ok\"} 1",
            "gorgo_refusals_total{code=\"unknown_path\"} 1",
            "gorgo_slo_requests_total{class=\"batch\",result=\"refused\"} 1",
            "gorgo_replica_healthy{replica=\"east\",region=\"us-east-1\"} 1",
            "gorgo_replica_dispatched_total{replica=\"east\",region=\"us-east-1\"} 1",
            "gorgo_peer_received_bytes_total{replica=\"west\",region=\"us-west-2\"} 7",
            "gorgo_peer_sent_bytes_total{replica=\"west\",region=\"us-west-2\"} 8",
            "gorgo_peer_connects_total{replica=\"west\",region=\"us-west-2\"} 1",
            "gorgo_peer_malformed_total{replica=\"west\",region=\"us-west-2\"} 1",
            "gorgo_peer_state_age_seconds{replica=\"west\",region=\"us-west-2\"} 0.25",
            "gorgo_peer_digest_blocks{replica=\"west\",region=\"us-west-2\"} 12",
            "# EOF",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
        assert!(!page.contains("gorgo_peer_received_bytes_total{replica=\"east\""), "an engine tells nothing");
        east.retire();
        west.retire();
        let page = metrics.page();
        assert!(!page.contains("gorgo_replica_healthy{") && !page.contains("gorgo_peer_state_age_seconds{"));
        assert!(page.contains("gorgo_replica_dispatched_total{"), "counters never go back");
    }
}
