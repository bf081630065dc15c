//! How engines are watched: round trips, readiness, gauges and lists of models, each at its own pace. Of peers only the round trip ([`peer`]): the rest
//! they tell themselves ([`super::peers`]).
//!
//! Round trips are timed on a connection of their own that carries nothing else and stays warm, at a path that costs the engine
//! nothing. The same tick asks for readiness. Where an engine's liveness check is slow it runs beside, at the pace that the engine
//! can bear, and only its failure counts.

mod limits;
mod peer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::brain::Brain;
use super::forward::read_whole;
use super::models;
use super::peers::Ear;
use super::pool::{Outgoing, Pool, PoolSettings};
use super::replica::Replica;
use super::settings::{PeerSettings, ProbeSettings};
use crate::inference::engine::{EMULATOR, Engine, SGLANG, VLLM};
use crate::routing::{Gauges, Health, ReplicaKind};

/// The first probes come faster, so that a router is ready soon after its start.
const FIRST_PROBES: u32 = 5;
const FIRST_EVERY: Duration = Duration::from_millis(200);
/// Longest answer of an engine that is read: metrics pages have some 100 KB.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Where an agent tells the models of its engine.
const MODELS: &str = "/v1/models";
/// Pause between two looks at a pool that should be warm.
const REFILL_EVERY: Duration = Duration::from_millis(1000);

/// Starts all probes of a replica; they end with it.
///
/// Agents listen to what their peers tell. A central router asks them instead, for their models as well: agents that told each other what
/// they were told would never forget a model.
pub(super) fn watch(runtime: &Handle, brain: Arc<Brain>, replica: Arc<Replica>, watching: &Watching) {
    let ear = watching.name.clone().map(|name| Ear::new(name, watching.peers.clone()));
    let (settings, alive, back) = (watching.probe.clone(), AtomicBool::new(true), Notify::new());
    let watcher = Arc::new(Watcher { brain, replica, settings, alive, back });
    let gone = watcher.replica.gone.clone();
    runtime.spawn(async move {
        let peer = watcher.replica.config.kind == ReplicaKind::Peer;
        let engine = async {
            if peer {
                match &ear {
                    Some(ear) => tokio::join!(watcher.peer(Some(ear)), watcher.listen(ear)),
                    None => tokio::join!(watcher.peer(None), watcher.models(MODELS)),
                };
                return;
            }
            let engine = watcher.engine().await;
            tokio::join!(
                watcher.liveness(engine),
                watcher.round_trips(engine),
                watcher.gauges(engine),
                watcher.limits(engine),
                watcher.models(engine.models)
            );
        };
        tokio::select! {
            () = gone.cancelled() => {}
            () = engine => {}
            () = watcher.keep_warm() => {}
        }
    });
}

/// How replicas are watched, and by whom.
#[derive(Clone, Debug)]
pub(super) struct Watching {
    /// Engines, and round trips.
    pub(super) probe: ProbeSettings,
    /// Peers.
    pub(super) peers: PeerSettings,
    /// The name of this agent, if it is one.
    pub(super) name: Option<HeaderValue>,
}

/// Watches one replica.
pub(super) struct Watcher {
    pub(super) brain: Arc<Brain>,
    pub(super) replica: Arc<Replica>,
    settings: ProbeSettings,
    /// What the slow liveness check said last.
    alive: AtomicBool,
    /// Tells when its checks succeed again.
    back: Notify,
}

impl Watcher {
    /// The engine as configured, or as it turns out to be. Health is reported meanwhile, so that a dead one is known as dead.
    async fn engine(&self) -> &'static Engine {
        if let Some(engine) = self.replica.config.engine {
            return engine;
        }
        let pool = self.own_pool();
        loop {
            match detect(&pool, &self.replica, self.settings.timeout).await {
                Ok(engine) => {
                    tracing::info!(replica = %self.replica.name, %engine, "engine recognised");
                    self.replica.figures().engine = Some(engine);
                    return engine;
                }
                Err(problem) => self.health(Err(problem)),
            }
            sleep(self.settings.rtt_every).await;
        }
    }

    /// One connection beside the replica's own pool.
    pub(super) fn own_pool(&self) -> Arc<Pool> {
        let settings = PoolSettings { min_idle: 0, max_idle: 1, ..self.replica.pool.settings().clone() };
        self.replica.pool.sibling(settings)
    }

    async fn round_trips(&self, engine: &'static Engine) {
        let pool = self.own_pool();
        let clock = self.brain.clock();
        let mut ready = engine.ready.iter();
        let mut ready_path = ready.next().copied();
        let mut warm = false;
        for probe in 0_u32.. {
            let started = clock.now();
            let mut result = get(&pool, engine.probe, self.settings.timeout).await;
            if result.is_ok() && warm {
                let rtt_ms = clock.now().since_ms(started);
                self.measured(rtt_ms);
            }
            // The first answer on a connection paid for connecting, too.
            warm = result.is_ok();
            if let (Ok(_), Some(path)) = (&result, ready_path)
                && path != engine.probe
            {
                result = get(&pool, path, self.settings.timeout).await;
            }
            match (&result, ready_path) {
                (Ok((StatusCode::NOT_FOUND, _)), Some(_)) => {
                    // An older release: the next path, or an answer at all, has to do.
                    ready_path = ready.next().copied();
                    self.health(Ok(()));
                }
                (Ok((status, _)), Some(path)) if !status.is_success() && !guarded(*status) => {
                    self.health(Err(Problem::new(format_args!("`{path}` answers {}", status.as_u16()))));
                }
                (Ok(_), _) => self.health(Ok(())),
                (Err(problem), _) => self.health(Err(problem.clone())),
            }
            let pause =
                if probe < FIRST_PROBES { FIRST_EVERY.min(self.settings.rtt_every) } else { self.settings.rtt_every };
            sleep(pause).await;
        }
    }

    /// The engine's own liveness check, where it is another path than readiness.
    async fn liveness(&self, engine: &'static Engine) {
        if engine.ready.contains(&engine.health.path) {
            return std::future::pending().await;
        }
        let pool = self.own_pool();
        let limit = Duration::from_secs(u64::from(engine.health.timeout_s));
        loop {
            sleep(Duration::from_secs(u64::from(engine.health.interval_s))).await;
            let result = get(&pool, engine.health.path, limit).await;
            // Who does not know the path, or does not let us in, does not tell anything about its health.
            let dead = match &result {
                Ok((status, _)) => status.is_server_error(),
                Err(_) => true,
            };
            self.alive.store(!dead, Ordering::Relaxed);
        }
    }

    async fn gauges(&self, engine: &'static Engine) {
        let pool = self.own_pool();
        loop {
            if let Ok((StatusCode::OK, page)) = get(&pool, engine.metrics, self.settings.timeout).await {
                let told = engine.parse_gauges(&String::from_utf8_lossy(&page));
                let gauges = Gauges {
                    running: told.running,
                    waiting: told.waiting,
                    kv_usage: told.kv_usage,
                    used_tokens: told.used_tokens,
                    kv_tokens: told.kv_tokens,
                };
                if gauges != Gauges::default() {
                    let id = self.replica.id;
                    self.brain.event(|state, now| ((), state.router.gauges(now, id, gauges)));
                }
            }
            sleep(self.settings.gauges_every).await;
        }
    }

    async fn models(&self, path: &'static str) {
        let pool = self.own_pool();
        loop {
            let answer = get(&pool, path, self.settings.timeout).await;
            let told = match &answer {
                Ok((StatusCode::OK, body)) => models::entries(body),
                _ => None,
            };
            let pause = if told.is_some() { self.settings.models_every } else { self.settings.rtt_every };
            if let Some(entries) = told {
                self.replica.figures().models = entries.into();
            }
            sleep(pause).await;
        }
    }

    /// Opens connections ahead of need and gives up those that the engine is about to close.
    async fn keep_warm(&self) {
        loop {
            if let Err(error) = self.replica.pool.refill().await {
                tracing::debug!(replica = %self.replica.name, %error, "no warm connections");
            }
            sleep(REFILL_EVERY).await;
        }
    }

    fn measured(&self, rtt_ms: f64) {
        let id = self.replica.id;
        self.brain.event(|state, now| {
            state.router.rtt(now, id, rtt_ms);
            ((), Vec::new())
        });
    }

    /// Takes one health result, with the reason if it is bad.
    ///
    /// One that was taken out because it says nothing is lost, and with it what waits there without a byte; unless nobody else could serve
    /// that: then it may as well go on waiting. Later results look again.
    pub(super) fn health(&self, result: Result<(), Problem>) {
        let result = match result {
            Ok(()) if !self.alive.load(Ordering::Relaxed) => Err(Problem::new("its liveness check fails")),
            result => result,
        };
        let (id, ok) = (self.replica.id, result.is_ok());
        let silent = result.as_ref().is_err_and(|problem| problem.silent);
        if ok {
            self.replica.hearing.found();
        }
        let lost = self.brain.event(|state, now| {
            let effects = state.router.health(now, id, ok);
            let out = state.router.replicas().any(|known| known.id == id && known.health() == Health::Unhealthy);
            (silent && out && state.router.can_serve().is_ok(), effects)
        });
        if lost {
            self.replica.hearing.lost();
        }
        let engine = self.replica.config.kind == ReplicaKind::Engine;
        if engine && result.as_ref().is_err_and(|problem| problem.process_gone) {
            self.brain.process_gone(id);
        }
        self.note(result.err().map(|problem| problem.text));
    }

    /// Keeps why it is unwell, for people; the log gets what is new.
    pub(super) fn note(&self, problem: Option<String>) {
        let before = std::mem::replace(&mut self.replica.figures().health_problem, problem.clone());
        match (before, problem) {
            (None, Some(problem)) => tracing::warn!(replica = %self.replica.name, problem, "a health check failed"),
            (Some(_), None) => {
                tracing::info!(replica = %self.replica.name, "health checks succeed again");
                self.back.notify_one();
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// Why a probe got no answer.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    text: String,
    /// Nobody listens there.
    process_gone: bool,
    /// Nothing at all came back.
    silent: bool,
}

impl Problem {
    /// For this reason.
    pub(super) fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), process_gone: false, silent: false }
    }
}

/// An engine behind an API key answers 401 or 403 to us: it lives.
fn guarded(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// What kind of engine listens there. One that shows no sign of its kind is treated like SGLang: every path of it may be absent.
async fn detect(pool: &Arc<Pool>, replica: &Replica, limit: Duration) -> Result<&'static Engine, Problem> {
    let (status, body) = get(pool, VLLM.probe, limit).await?;
    if status.is_success() && body.trim_ascii_start().starts_with(b"{") {
        return Ok(&VLLM);
    }
    for path in SGLANG.settings {
        let (status, body) = get(pool, path, limit).await?;
        if status.is_success() {
            let emulated = memchr::memmem::find(&body, b"emulat").is_some();
            return Ok(if emulated { &EMULATOR } else { &SGLANG });
        }
    }
    tracing::warn!(replica = %replica.name, "cannot tell the kind of engine; taking it for SGLang, set `engine` to be sure");
    Ok(&SGLANG)
}

/// One small `GET`.
async fn get(pool: &Arc<Pool>, path: &'static str, limit: Duration) -> Result<(StatusCode, Bytes), Problem> {
    let path = http::uri::PathAndQuery::from_static(path);
    let target = pool.endpoint().target(&path).map_err(Problem::new)?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, pool.endpoint().authority().clone());
    if let Some(key) = &pool.settings().authorization {
        headers.insert(AUTHORIZATION, key.clone());
    }
    let outgoing = Outgoing { method: Method::GET, target, headers, body: Bytes::new() };
    let exchange = async {
        let response = pool.send(&outgoing).await.map_err(|error| Problem {
            process_gone: error.is_refusal(),
            silent: error.is_silence(),
            text: error.to_string(),
        })?;
        let (parts, reply) = response.into_parts();
        let body = read_whole(reply, MAX_ANSWER_BYTES).await.map_err(Problem::new)?;
        Ok((parts.status, body))
    };
    match timeout(limit, exchange).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("`{path}` gave no answer within {} s", limit.as_secs_f64());
            Err(Problem { text, process_gone: false, silent: true })
        }
    }
}
