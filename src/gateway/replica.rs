//! One engine or peer as the gateway sees it: its connections, its figures, its labels.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::hearing::Hearing;
use super::journal::Ended;
use super::metrics::ReplicaMetrics;
use super::origin::Origin;
use super::pool::Pool;
use super::settings::ReplicaConfig;
use super::trace::PeerClocks;
use super::window::Window;
use crate::inference::engine::Engine;
use crate::model::ReplicaId;
use crate::routing::prediction;
use crate::wire::{OutcomeKind, ReplicaRequests};

/// Requests per replica that figures about latency look back on: as many as the router's figures about its predictions.
pub(super) const WINDOW: usize = prediction::WINDOW;

/// An engine behind this gateway, or another agent.
pub(super) struct Replica {
    /// The router's number for it.
    pub(super) id: ReplicaId,
    /// Its name.
    pub(super) name: Arc<str>,
    /// As configured.
    pub(super) config: ReplicaConfig,
    /// Value of `x-gorgo-replica`.
    pub(super) name_header: HeaderValue,
    /// Value of `x-gorgo-region`.
    pub(super) region_header: HeaderValue,
    /// Its connections.
    pub(super) pool: Arc<Pool>,
    /// Its metrics, looked up once.
    pub(super) metrics: ReplicaMetrics,
    /// Ends its probes.
    pub(super) gone: CancellationToken,
    /// Whether it can be heard.
    pub(super) hearing: Hearing,
    figures: Mutex<Figures>,
}

/// What was observed of a replica.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// Attempts by how they ended.
    pub(super) requests: ReplicaRequests,
    /// TTFT of the last streams, ms.
    pub(super) ttft_ms: Window<f64>,
    /// Requests whose reply told its usage, and the sums over them.
    pub(super) usage: UsageSums,
    /// The same of the last of them, one by one.
    pub(super) last_usage: Window<UsageSums>,
    /// How a peer's clock stands to ours.
    pub(super) clocks: PeerClocks,
    /// Where a peer's connections come from.
    pub(super) addresses: Vec<IpAddr>,
    /// Ends what we tell it, if it is a peer that listens.
    pub(super) speech: CancellationToken,
    /// What the engine turned out to be.
    pub(super) engine: Option<&'static Engine>,
    /// Why the last health check failed, if it did.
    pub(super) health_problem: Option<String>,
    /// The `data` of its `/v1/models`, entry by entry.
    pub(super) models: Arc<[Box<serde_json::value::RawValue>]>,
}

/// Sums over the replies that told their usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UsageSums {
    /// Such replies.
    pub(super) requests: u64,
    /// Prompt tokens.
    pub(super) prompt_tokens: u64,
    /// Of these cached, as the engine says.
    pub(super) cached_tokens: u64,
    /// Of these believed cached when the request was sent.
    pub(super) foreseen_cached_tokens: u64,
}

impl UsageSums {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.foreseen_cached_tokens += other.foreseen_cached_tokens;
    }

    /// Over several replies.
    pub(super) fn over<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut sums = Self::default();
        all.for_each(|one| sums.add(*one));
        sums
    }
}

impl Replica {
    /// A replica that nothing has been observed of.
    #[must_use]
    pub(super) fn new(id: ReplicaId, config: ReplicaConfig, pool: Arc<Pool>, metrics: ReplicaMetrics) -> Arc<Self> {
        let figures = Figures {
            requests: ReplicaRequests::default(),
            ttft_ms: Window::new(WINDOW),
            usage: UsageSums::default(),
            last_usage: Window::new(WINDOW),
            clocks: PeerClocks::default(),
            addresses: pool
                .endpoint()
                .host()
                .parse()
                .map(|address: IpAddr| address.to_canonical())
                .into_iter()
                .collect(),
            speech: CancellationToken::new(),
            engine: config.engine,
            health_problem: None,
            models: Arc::default(),
        };
        Arc::new(Self {
            id,
            name: config.name.as_str().into(),
            name_header: label(&config.name),
            region_header: label(config.region.as_str()),
            config,
            pool,
            metrics,
            gone: CancellationToken::new(),
            hearing: Hearing::default(),
            figures: Mutex::new(figures),
        })
    }

    /// What was observed, for as long as the guard lives.
    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes this connection from one of its addresses?
    pub(super) fn has(&self, origin: &Origin) -> bool {
        self.figures().addresses.contains(&origin.address())
    }

    /// An attempt begins.
    pub(super) fn dispatched(&self) {
        self.figures().requests.dispatched += 1;
        self.metrics.dispatched.inc();
        self.metrics.in_flight.inc();
    }

    /// An attempt failed before its first byte.
    pub(super) fn attempt_failed(&self) {
        self.figures().requests.failed += 1;
        self.metrics.failed.inc();
        self.metrics.in_flight.dec();
    }

    /// An attempt was called back before the engine had begun it.
    pub(super) fn recalled(&self) {
        self.figures().requests.recalled += 1;
        self.metrics.recalled.inc();
        self.metrics.in_flight.dec();
    }

    /// An attempt that had begun to answer, or was left by its client, ended. `foreseen_cached_tokens`: believed when it was sent.
    pub(super) fn ended(&self, kind: OutcomeKind, ended: &Ended, foreseen_cached_tokens: u32) {
        self.metrics.in_flight.dec();
        let mut figures = self.figures();
        match kind {
            OutcomeKind::Ok => figures.requests.ok += 1,
            OutcomeKind::Failed | OutcomeKind::Refused => figures.requests.failed += 1,
            OutcomeKind::Cancelled => figures.requests.cancelled += 1,
        }
        if let Some(ttft_ms) = ended.ttft_ms {
            figures.ttft_ms.push(ttft_ms);
        }
        if let Some(prompt_tokens) = ended.usage.prompt_tokens {
            let cached_tokens = ended.usage.cached_tokens.unwrap_or(0);
            let told = UsageSums {
                requests: 1,
                prompt_tokens: u64::from(prompt_tokens),
                cached_tokens: u64::from(cached_tokens),
                foreseen_cached_tokens: u64::from(foreseen_cached_tokens.min(prompt_tokens)),
            };
            figures.usage.add(told);
            // Without a count of cached tokens there is nothing to compare.
            if ended.usage.cached_tokens.is_some() {
                figures.last_usage.push(told);
            }
            self.metrics.foreseen_cached_tokens.inc_by(told.foreseen_cached_tokens);
            self.metrics.completion_tokens.inc_by(u64::from(ended.usage.completion_tokens.unwrap_or(0)));
            self.metrics.prompt_tokens.inc_by(u64::from(prompt_tokens));
            self.metrics.cached_tokens.inc_by(u64::from(cached_tokens));
        }
        drop(figures);
        match kind {
            OutcomeKind::Ok => self.metrics.ok.inc(),
            OutcomeKind::Failed | OutcomeKind::Refused => self.metrics.failed.inc(),
            OutcomeKind::Cancelled => self.metrics.cancelled.inc(),
        };
    }
}

/// A name as header value; what a header cannot carry becomes `?`.
pub(super) fn label(name: &str) -> HeaderValue {
    let printable: String = name.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    HeaderValue::from_str(&printable).unwrap_or(HeaderValue::from_static("?"))
}
