//! A running gateway: started, looked at, drained, stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::admin::{self, Admin, Token};
use super::agent::Agent;
use super::audit::Audit;
use super::brain::{Brain, BrainSettings};
use super::budget::Budget;
use super::clock::Clock;
use super::fleet::Fleet;
use super::keys::Keys;
use super::metrics::Metrics;
use super::mutual::Keeper;
use super::mutual::accept::{Door, keep_fresh};
use super::probe::Watching;
use super::serve::{Shared, accept};
use super::settings::{GatewayConfig, Limits, MutualConfig};
use super::tls;
use super::tuning::keep_log;
use super::window::median;
use crate::model::Part;
use crate::routing::policy::on_agent;
use crate::routing::prediction::{Sample, Samples};
use crate::routing::{Health, Router, Settings};
use crate::wire::RequestCounts;

/// Pause between two looks for a healthy replica.
const LOOK: Duration = Duration::from_millis(10);

/// The central proxy, or an agent.
pub struct Gateway;

impl Gateway {
    /// Starts a gateway inside the present Tokio runtime: it listens when this returns.
    ///
    /// # Errors
    /// An unknown strategy or parameter, a bad replica, or an address that cannot be had.
    pub async fn start(config: GatewayConfig) -> anyhow::Result<GatewayHandle> {
        // On the heap: what starts several keeps the state of this in each of its own.
        Box::pin(Self::begin(config)).await
    }

    async fn begin(config: GatewayConfig) -> anyhow::Result<GatewayHandle> {
        let clock = Clock::start();
        let router = router(config.routing.clone(), config.agent.is_some())?;
        let settings = BrainSettings {
            decisions_kept: config.decisions_kept,
            max_concurrent: config.routing.max_concurrent,
            slo: config.routing.slo.clone(),
        };
        let metrics = Arc::new(Metrics::new());
        let brain = Brain::new(router, clock, settings, metrics.clone());
        let stopped = CancellationToken::new();
        // What fails from here on ends the tasks that were begun.
        let guard = stopped.clone().drop_guard();
        let Opened { access, token, tls, admin: admin_listener, data, keeper, peers } =
            Opened::open(&config, &metrics, &stopped).await?;
        let (listen, admin_address) = (address(&data, "data")?, address(&admin_listener, "admin")?);
        let peer_listen = peers.as_ref().map(|listener| address(listener, "peer")).transpose()?;
        let shared = Arc::new(shared(&config, brain.clone(), access, tls, keeper.clone(), stopped));
        let name = shared.agent.as_ref().map(|agent| agent.name().clone());
        let watching = Watching { probe: config.probe, peers: config.peers, name };
        let fleet = Arc::new(Fleet::new(brain, config.pool, watching, keeper.clone()));
        for replica in config.replicas {
            fleet.add(replica)?;
        }
        tokio::spawn(keep_time(shared.clone()));
        tokio::spawn(keep_log(shared.clone()));
        tokio::spawn(accept(data, shared.clone()));
        if let (Some(keeper), Some(mutual)) = (keeper, &config.mutual) {
            welcome(&shared, keeper, peers, mutual);
        }
        let admin_tls = shared.tls.clone().filter(|_| !config.admin.ip().is_loopback());
        let admin_url = url(admin_tls.is_some(), admin_address);
        let admin = Admin { shared: shared.clone(), fleet: fleet.clone(), listen, token, tls: admin_tls };
        tokio::spawn(admin::run(admin_listener, Arc::new(admin)));
        tracing::info!(%listen, admin = %admin_address, "listening");
        guard.disarm();
        Ok(GatewayHandle { shared, fleet, listen, peer_listen, admin: admin_address, admin_url })
    }
}

/// Files and listeners: all that can be missing or taken, had before anything is begun.
struct Opened {
    access: Access,
    token: Option<Arc<Token>>,
    tls: Option<TlsAcceptor>,
    admin: TcpListener,
    data: TcpListener,
    keeper: Option<Arc<Keeper>>,
    peers: Option<TcpListener>,
}

impl Opened {
    async fn open(config: &GatewayConfig, metrics: &Metrics, stopped: &CancellationToken) -> anyhow::Result<Self> {
        let access = access(config, metrics, stopped)?;
        let token = config.admin_token.as_deref().map(|path| Token::open(path, stopped.clone())).transpose()?;
        let tls = config.tls.as_ref().map(|files| tls::acceptor(files, stopped.clone())).transpose()?;
        let admin = admin::bind(config.admin, config.admin_token.is_some()).await?;
        let data = bind(config.listen).await?;
        let (keeper, peers) = links(config).await?;
        Ok(Self { access, token, tls, admin, data, keeper, peers })
    }
}

/// Where a listener listens, the port being known now.
fn address(listener: &TcpListener, of: &str) -> anyhow::Result<SocketAddr> {
    listener.local_addr().with_context(|| format!("failed to read the address of the {of} listener"))
}

/// What all connections have in common.
fn shared(
    config: &GatewayConfig,
    brain: Arc<Brain>,
    access: Access,
    tls: Option<TlsAcceptor>,
    keeper: Option<Arc<Keeper>>,
    stopped: CancellationToken,
) -> Shared {
    Shared {
        brain,
        access,
        places: config.routing.places.clone(),
        tls,
        agent: config.agent.clone().map(Agent::new),
        peers: config.peers.clone(),
        keeper,
        limits: config.limits.clone(),
        inject_usage: config.inject_usage,
        draining: AtomicBool::new(false),
        room: Arc::new(Semaphore::new(everybody(&config.limits) as usize)),
        peer_room: Arc::new(Semaphore::new(everybody(&config.limits) as usize)),
        stop_asked: CancellationToken::new(),
        bodies: Budget::new(config.limits.max_bodies_bytes),
        stopping: CancellationToken::new(),
        stopped,
        tracer: Arc::default(),
    }
}

/// Lets the brain's own events happen for as long as the gateway is there.
async fn keep_time(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.brain.keep_time() => {}
        () = shared.stopped.cancelled() => {}
    }
}

/// Who may send, and where to; an agent stands where it says, a proxy where it was told.
fn access(config: &GatewayConfig, metrics: &Metrics, stopped: &CancellationToken) -> anyhow::Result<Access> {
    let keys = config.api_keys.as_deref().map(|path| Keys::open(path, stopped.clone())).transpose()?;
    let audit = Audit::open(&config.audit, metrics.audit_dropped.clone())?;
    let region = config.agent.as_ref().map(|agent| agent.region.clone()).or_else(|| config.region.clone());
    let (residency, slo) = (config.routing.residency.clone(), config.routing.slo.clone());
    Ok(Access { keys, residency, slo, region, audit })
}

/// The router of a proxy or an agent, which tells its peers what its engine holds.
fn router(mut settings: Settings, is_agent: bool) -> anyhow::Result<Router> {
    if !is_agent {
        return Ok(Router::new(settings)?);
    }
    settings.strategy = on_agent(&settings.strategy).to_owned();
    let mut router = Router::new(settings)?;
    router.publish();
    Ok(router)
}

/// The certificate and the listener for peers, as far as they are configured.
async fn links(config: &GatewayConfig) -> anyhow::Result<(Option<Arc<Keeper>>, Option<TcpListener>)> {
    let Some(mutual) = &config.mutual else { return Ok((None, None)) };
    let keeper = Keeper::open(&mutual.identity)?;
    let identity = keeper.identity();
    let wanted = match &config.agent {
        Some(agent) => format!("gorgo://{}/{}/{}", identity.cluster(), Part::Agent.name(), agent.name),
        None => format!("gorgo://{}/{}/{}", identity.cluster(), Part::Proxy.name(), identity.node()),
    };
    ensure!(
        identity.to_string() == wanted,
        "{} is the certificate of {identity}, and this is {wanted}; wanted the file that `gorgo cluster setup` made for it",
        mutual.identity.display()
    );
    let listener = match mutual.listen {
        None => None,
        Some(address) => {
            let failed = || {
                format!(
                    "failed to listen on {address} for peers; if the port is in use, choose another with `--peer-listen`"
                )
            };
            Some(TcpListener::bind(address).await.with_context(failed)?)
        }
    };
    Ok((Some(Arc::new(keeper)), listener))
}

/// Lets peers in, and looks after the certificate.
fn welcome(shared: &Arc<Shared>, keeper: Arc<Keeper>, listener: Option<TcpListener>, mutual: &MutualConfig) {
    tokio::spawn(keep_fresh(shared.clone(), keeper.clone(), mutual.look_every));
    let Some(listener) = listener else { return };
    let door = Door::new(shared.clone(), keeper);
    tokio::spawn(door.clone().tell());
    tokio::spawn(door.accept(listener));
}

/// Connections at once, as the semaphores count them.
fn everybody(limits: &Limits) -> u32 {
    u32::try_from(limits.max_connections).unwrap_or(u32::MAX)
}

fn url(tls: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}

/// Binds the data listener; the error says what to try.
async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("failed to listen on {address} for requests; if the port is in use, choose another with `--listen`")
    })
}

/// A running gateway. Dropping it stops it at once.
pub struct GatewayHandle {
    shared: Arc<Shared>,
    fleet: Arc<Fleet>,
    listen: SocketAddr,
    peer_listen: Option<SocketAddr>,
    admin: SocketAddr,
    admin_url: String,
}

impl GatewayHandle {
    /// Address of the admin API.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Base URL of the admin API.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Returns when somebody has asked over the admin API that the process end; [`GatewayHandle::drain`] is to follow.
    pub async fn stop_asked(&self) {
        self.shared.stop_asked.cancelled().await;
    }

    /// Address that takes requests.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Address that peers come to with their certificates, if there is one.
    #[must_use]
    pub fn peer_listen(&self) -> Option<SocketAddr> {
        self.peer_listen
    }

    /// Base URL that takes requests.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.shared.tls.is_some(), self.listen)
    }

    /// Its replicas.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Requests since the start.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        self.shared.brain.lock().counts
    }

    /// Requests sent to each replica, by name, in order of registration.
    #[must_use]
    pub fn dispatched(&self) -> Vec<(String, u64)> {
        let replicas: Vec<_> = self.shared.brain.lock().replicas.values().cloned().collect();
        replicas.iter().map(|replica| (replica.name.to_string(), replica.figures().requests.dispatched)).collect()
    }

    /// Median of |predicted − actual| time from dispatch to first token over the last streams of all replicas, ms; `None` where the
    /// strategy predicts no time.
    #[must_use]
    pub fn prediction_error_ms(&self) -> Option<f64> {
        self.prediction_error(Sample::error)
    }

    /// The same relative to the actual time.
    #[must_use]
    pub fn prediction_error_ratio(&self) -> Option<f64> {
        self.prediction_error(|sample| sample.relative().abs())
    }

    fn prediction_error(&self, figure: fn(Sample) -> f64) -> Option<f64> {
        let samples: Vec<_> =
            self.shared.brain.lock().router.replicas().map(|replica| replica.ttft_ms.clone()).collect();
        median(samples.iter().flat_map(Samples::iter).map(figure))
    }

    /// Replicas in rotation.
    #[must_use]
    pub fn healthy(&self) -> usize {
        let state = self.shared.brain.lock();
        state.router.replicas().filter(|replica| replica.health() == Health::Healthy).count()
    }

    /// Returns once some replica is in rotation.
    ///
    /// # Errors
    /// If none can after `limit`.
    pub async fn ready(&self, limit: Duration) -> anyhow::Result<()> {
        let healthy = async {
            while self.healthy() == 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, healthy)
            .await
            .with_context(|| format!("no replica is healthy after {} s", limit.as_secs_f64()))
    }

    /// Takes no new requests, finishes those that came, and stops. True if all of them finished within the limit.
    ///
    /// What is waited for is the end of every client connection: the router's count of requests in flight knows neither a body that is
    /// still coming nor an answer whose tail its client has yet to read. Idle connections end at once.
    pub async fn drain(&self) -> bool {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.brain.metrics().draining.set(1);
        self.shared.stopping.cancel();
        let all = tokio::time::timeout(self.shared.limits.drain_timeout, self.disconnected()).await.is_ok();
        self.stop();
        all
    }

    /// Returns once the listeners and all connections of clients and peers are gone.
    async fn disconnected(&self) {
        let all = everybody(&self.shared.limits);
        for room in [&self.shared.room, &self.shared.peer_room] {
            // It is never closed; what is taken is given back at once, when nobody wants it any more.
            let _ = room.acquire_many(all).await;
        }
    }

    /// Ends everything now; requests in flight are cut.
    pub fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.stopped.cancel();
        let replicas: Vec<_> = self.shared.brain.lock().replicas.values().cloned().collect();
        for replica in replicas {
            replica.gone.cancel();
            replica.pool.close();
        }
        self.shared.tell_tuning();
        self.shared.access.audit.flush();
    }
}

impl Drop for GatewayHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
