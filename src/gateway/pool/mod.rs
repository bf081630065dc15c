//! Connections to one engine, kept warm so that a request costs one round trip.
//!
//! Engines (uvicorn) close a connection after 5 s without a request, so idle ones are given up before that and replaced ahead of
//! need. A connection that turns out to be stale is replaced without anybody noticing.

mod link;
mod reply;
mod transport;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::link::Link;
pub use self::reply::Reply;
use self::transport::{Security, Transport, platform_tls};
use super::clock::Clock;
use super::endpoint::Endpoint;
use super::mutual::PeerConnector;
use crate::model::Time;

/// An idle connection that breaks within this time of being used was closed before, ms; for links whose round trip is shorter.
const STALE_LEAST_MS: f64 = 50.0;
/// Or within so many times the time that it took to connect, which is a round trip at least: its reset takes one to come back.
const STALE_ROUND_TRIPS: f64 = 2.0;

/// How a pool keeps its connections.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Connections opened ahead of need.
    pub min_idle: usize,
    /// Most connections kept after use.
    pub max_idle: usize,
    /// Longest time without a request before a connection is given up; below the 5 s after which uvicorn closes it.
    pub idle_limit: Duration,
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// TLS settings for `https`; `None` = what the operating system trusts.
    pub tls: Option<Arc<ClientConfig>>,
    /// Value of `authorization` in every request; to be marked as sensitive, so that it is never shown.
    pub authorization: Option<HeaderValue>,
    /// Whom to expect behind `mtls`.
    pub mutual: Option<PeerConnector>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            min_idle: 4,
            max_idle: 512,
            idle_limit: Duration::from_millis(4000),
            connect_timeout: Duration::from_secs(5),
            tls: None,
            authorization: None,
            mutual: None,
        }
    }
}

/// Why no answer came. All of these happened before a byte of an answer.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No connection.
    #[error("failed to connect to {endpoint}: {source}")]
    Connect {
        /// Whom to.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came back was not HTTP.
    #[error("connection to {endpoint} broke before an answer: {source}")]
    Broken {
        /// Whom to.
        endpoint: String,
        /// Why.
        source: hyper::Error,
    },
    /// TLS could not be set up at all.
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An agent's certificate cannot be judged by a process that has none.
    #[error("`mtls://` needs a certificate of the cluster")]
    NoIdentity,
}

impl PoolError {
    /// Nobody listens there: whatever process did is gone, and its memory with it.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Nothing came back at all: the machine is gone, or the way to it.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
        matches!(self, Self::Connect { source, .. } if matches!(source.kind(), HostUnreachable | NetworkUnreachable | TimedOut))
    }
}

/// One request, in a form that can be sent again.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its method.
    pub method: Method,
    /// Origin-form target.
    pub target: Uri,
    /// Its headers, `host` included; the length is added from the body.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Outgoing {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

struct Parked {
    link: Box<Link>,
    since: Time,
}

/// The connections to one engine.
pub struct Pool {
    endpoint: Endpoint,
    settings: PoolSettings,
    clock: Clock,
    security: Security,
    /// Oldest first; the warmest is taken.
    idle: Mutex<Vec<Parked>>,
    refilling: AtomicBool,
    closed: AtomicBool,
}

impl Pool {
    /// An empty pool; [`Pool::refill`] opens the first connections.
    ///
    /// # Errors
    /// If the URL is `https` and TLS cannot be set up.
    pub fn new(endpoint: Endpoint, settings: PoolSettings, clock: Clock) -> Result<Arc<Self>, PoolError> {
        let security = match (endpoint.mutual(), endpoint.tls()) {
            (true, _) => Security::Mutual(settings.mutual.clone().ok_or(PoolError::NoIdentity)?),
            (false, true) => {
                let config = settings.tls.clone().map_or_else(platform_tls, Ok)?;
                Security::Tls(TlsConnector::from(config))
            }
            (false, false) => Security::Plain,
        };
        let (idle, refilling, closed) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Self { endpoint, settings, clock, security, idle, refilling, closed }))
    }

    /// A pool of the same engine that shares no connection with this one.
    #[must_use]
    pub fn sibling(&self, settings: PoolSettings) -> Arc<Self> {
        let (endpoint, clock, security) = (self.endpoint.clone(), self.clock, self.security.clone());
        let (idle, refilling, closed) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { endpoint, settings, clock, security, idle, refilling, closed })
    }

    /// How it keeps its connections.
    #[must_use]
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Idle connections now.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.lock().len()
    }

    /// Sends a request and waits for the head of the answer; the body drives the connection and gives it back.
    ///
    /// An idle connection that the engine had closed meanwhile is replaced once by a fresh one: if the request was never written, or the
    /// connection broke about as soon as the answer of a closed one can be back. What breaks later may have been worked on, and whether
    /// it is worth another prefill is not for a pool to say.
    ///
    /// # Errors
    /// See [`PoolError`]; nothing of an answer has come then.
    pub async fn send(self: &Arc<Self>, outgoing: &Outgoing) -> Result<Response<Reply>, PoolError> {
        if let Some(link) = self.take() {
            let limit_ms = STALE_LEAST_MS.max(STALE_ROUND_TRIPS * link.dialed_ms);
            let started = self.clock.now();
            match self.exchange(link, outgoing).await {
                Err(PoolError::Broken { source, .. })
                    if source.is_canceled() || self.clock.now().since_ms(started) <= limit_ms =>
                {
                    tracing::debug!(endpoint = %self.endpoint, %source, "stale connection replaced");
                }
                result => return result,
            }
        }
        let link = self.dial().await?;
        self.exchange(link, outgoing).await
    }

    async fn exchange(
        self: &Arc<Self>,
        mut link: Box<Link>,
        outgoing: &Outgoing,
    ) -> Result<Response<Reply>, PoolError> {
        let response = link
            .exchange(outgoing.request())
            .await
            .map_err(|source| PoolError::Broken { endpoint: self.endpoint.to_string(), source })?;
        let (parts, incoming) = response.into_parts();
        Ok(Response::from_parts(parts, Reply::new(incoming, link, self.clone())))
    }

    /// The warmest connection that is still open, if any.
    fn take(self: &Arc<Self>) -> Option<Box<Link>> {
        let oldest = self.oldest_allowed();
        loop {
            let (parked, left) = {
                let mut idle = self.lock();
                let parked = idle.pop();
                (parked, idle.len())
            };
            if left < self.settings.min_idle {
                self.refill_soon();
            }
            let mut parked = parked?;
            if parked.since >= oldest && parked.link.usable() {
                return Some(parked.link);
            }
        }
    }

    /// Takes a connection back after an answer.
    fn park(&self, mut link: Box<Link>) {
        if self.closed.load(Ordering::Relaxed) || !link.usable() {
            return;
        }
        let parked = Parked { link, since: self.clock.now() };
        let mut idle = self.lock();
        if idle.len() < self.settings.max_idle {
            idle.push(parked);
        }
    }

    async fn dial(&self) -> Result<Box<Link>, PoolError> {
        let started = self.clock.now();
        let failed = |source| PoolError::Connect { endpoint: self.endpoint.to_string(), source };
        let connecting = Transport::connect(&self.endpoint, &self.security);
        let stream = timeout(self.settings.connect_timeout, connecting)
            .await
            .map_err(|_| {
                let text = format!("no connection within {} ms", self.settings.connect_timeout.as_millis());
                failed(io::Error::new(io::ErrorKind::TimedOut, text))
            })?
            .map_err(failed)?;
        let link = Link::open(stream, self.clock.now().since_ms(started)).await;
        link.map_err(|source| PoolError::Broken { endpoint: self.endpoint.to_string(), source })
    }

    /// Gives up what has been idle for too long and opens connections up to the minimum.
    ///
    /// # Errors
    /// If a connection cannot be opened.
    pub async fn refill(&self) -> Result<(), PoolError> {
        let oldest = self.oldest_allowed();
        let expired: Vec<Parked> = self.lock().extract_if(.., |parked| parked.since < oldest).collect();
        drop(expired);
        while self.idle() < self.settings.min_idle && !self.closed.load(Ordering::Relaxed) {
            let link = self.dial().await?;
            let parked = Parked { link, since: self.clock.now() };
            // At the cold end: a connection that has carried a request has a grown congestion window.
            self.lock().insert(0, parked);
        }
        Ok(())
    }

    fn refill_soon(self: &Arc<Self>) {
        if self.settings.min_idle == 0 || self.refilling.swap(true, Ordering::Relaxed) {
            return;
        }
        let pool = self.clone();
        tokio::spawn(async move {
            if let Err(error) = pool.refill().await {
                tracing::debug!(%error, "no warm connections");
            }
            pool.refilling.store(false, Ordering::Relaxed);
        });
    }

    /// Closes what is idle and keeps nothing from now on; requests in flight end as they would.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let idle = std::mem::take(&mut *self.lock());
        drop(idle);
    }

    fn oldest_allowed(&self) -> Time {
        let limit = u64::try_from(self.settings.idle_limit.as_micros()).unwrap_or(u64::MAX);
        Time::from_micros(self.clock.now().micros().saturating_sub(limit))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Parked>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
