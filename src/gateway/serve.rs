//! The data listener: accepts, limits, and leads each request to what answers it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Caller};
use super::agent::Agent;
use super::brain::Brain;
use super::budget::Budget;
use super::connection::{InFlight, Judgement, Pulse, Watched};
use super::forward::{forward, id_header};
use super::headers;
use super::models;
use super::mutual::Keeper;
use super::origin::Origin;
use super::peers::Speech;
use super::reject::Rejection;
use super::relay::{Content, Outbound};
use super::settings::{Limits, PeerSettings};
use super::trace::Tracer;
use crate::inference::prompt::Dialect;
use crate::model::geo::Atlas;
use crate::model::{RequestId, Time};
use crate::routing::residency::Classes;
use crate::wire::paths::{PEER, PEER_STREAM};
use crate::wire::peer::MEDIA_TYPE;

/// HTTP/2 streams of one connection at once; more wait at the client. Each may bring a body of the largest size.
const MAX_STREAMS: u32 = 256;
/// Pause after an accept that failed, e.g. for want of file descriptors: trying again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
pub(super) struct Shared {
    /// Router and clock.
    pub(super) brain: Arc<Brain>,
    /// Who may send requests, and where theirs may go.
    pub(super) access: Access,
    /// Where regions and clients are.
    pub(super) places: Arc<Atlas>,
    /// TLS towards clients; `None` = plain HTTP.
    pub(super) tls: Option<TlsAcceptor>,
    /// Who this is among its peers; `None` in a central proxy.
    pub(super) agent: Option<Agent>,
    /// How peers are told.
    pub(super) peers: PeerSettings,
    /// Certificates for the links to others; `None` = addresses have to do.
    pub(super) keeper: Option<Arc<Keeper>>,
    /// Limits of the data path.
    pub(super) limits: Limits,
    /// See `GatewayConfig::inject_usage`.
    pub(super) inject_usage: bool,
    /// New requests are refused.
    pub(super) draining: AtomicBool,
    /// Somebody asked for the end of the process.
    pub(super) stop_asked: CancellationToken,
    /// Client connections at once; all of them are back once every connection has ended and the listener is gone.
    pub(super) room: Arc<Semaphore>,
    /// The same for peers on their own port, and as many: however many clients come, peers get in.
    pub(super) peer_room: Arc<Semaphore>,
    /// Connections take no further requests: the listener is gone.
    pub(super) stopping: CancellationToken,
    /// Bodies that are being read or waiting to be answered.
    pub(super) bodies: Arc<Budget>,
    /// Everything ends now.
    pub(super) stopped: CancellationToken,
    /// Spans of requests, while they are wanted.
    pub(super) tracer: Arc<Tracer>,
}

/// Accepts until `stopping`. Each connection is one task; at the limit new ones wait in the kernel's backlog.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let next = async {
            let permit = shared.room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = shared.stopping.cancelled() => return,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, client))) => {
                let own = stream.local_addr().ok().map(|own| own.ip());
                let origin = Origin::client(client.ip(), own);
                tokio::spawn(serve_client(stream, origin, shared.clone(), permit));
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => return,
        }
    }
}

/// A connection to the port for requests.
async fn serve_client(stream: TcpStream, origin: Origin, shared: Arc<Shared>, permit: OwnedSemaphorePermit) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left before it was served");
        return;
    }
    let client = origin.address();
    let Some(acceptor) = shared.tls.clone() else { return serve(stream, origin, shared, permit).await };
    let handshake = tokio::select! {
        handshake = timeout(shared.limits.header_timeout, acceptor.accept(stream)) => handshake,
        () = shared.stopping.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve(stream, origin, shared, permit).await,
        Ok(Err(error)) => tracing::debug!(%client, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%client, "a TLS handshake took too long"),
    }
}

/// Serves a connection to its end. The permit is its place among all connections.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: Origin,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
) {
    let connections = shared.brain.metrics().connections.clone();
    connections.inc();
    let pulse = Pulse::new(shared.brain.clock());
    let io = TokioIo::new(Watched::new(stream, pulse.clone()));
    let service = {
        let (shared, pulse, origin) = (shared.clone(), pulse.clone(), Arc::new(origin));
        service_fn(move |request: Request<Incoming>| {
            let in_flight = pulse.begin(request.version() == http::Version::HTTP_2);
            let (shared, origin) = (shared.clone(), origin.clone());
            async move { Ok::<_, Infallible>(answer(&shared, request, &origin, in_flight).await) }
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(MAX_STREAMS);
    let mut connection = pin!(builder.serve_connection(io, service));
    let tick = tick(&shared.limits);
    // The set polls what is in it only when that was woken: otherwise every chunk would pass four locks shared by all connections.
    let mut signals = FuturesUnordered::new();
    signals.push(signal(shared.clone(), pulse.clone(), tick, false));
    let mut leaving = false;
    loop {
        let signal = tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client connection ended early");
                }
                break;
            }
            Some(signal) = signals.next() => signal,
        };
        match signal {
            Signal::Cut => break,
            Signal::Leave => connection.as_mut().graceful_shutdown(),
            Signal::Tick => match pulse.judge(shared.brain.clock().now(), &shared.limits) {
                Judgement::Keep => {}
                Judgement::Idle => connection.as_mut().graceful_shutdown(),
                Judgement::Stuck => break,
            },
        }
        leaving |= signal == Signal::Leave;
        signals.push(self::signal(shared.clone(), pulse.clone(), tick, leaving));
    }
    connections.dec();
}

/// What a connection is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// End now.
    Cut,
    /// Finish the answers that are on their way, take no further request.
    Leave,
    /// Time to be judged.
    Tick,
}

/// The next signal. One that is leaving already need not be told again.
async fn signal(shared: Arc<Shared>, pulse: Arc<Pulse>, tick: Duration, leaving: bool) -> Signal {
    tokio::select! {
        biased;
        () = shared.stopped.cancelled() => Signal::Cut,
        () = shared.stopping.cancelled(), if !leaving => Signal::Leave,
        () = pulse.closing(), if !leaving => Signal::Leave,
        () = tokio::time::sleep(tick) => Signal::Tick,
    }
}

/// How often a connection is judged: often enough that a limit is overrun by a quarter at most.
fn tick(limits: &Limits) -> Duration {
    let shortest = limits.header_timeout.min(limits.keep_alive).min(limits.write_timeout);
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(10))
}

/// One request, from its head to the head of its answer.
async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    origin: &Origin,
    in_flight: InFlight,
) -> Response<Outbound> {
    let id = shared.brain.request_id();
    let started = shared.brain.clock().now();
    let result = match route(shared, &request, origin, in_flight.pulse()) {
        Err(rejection) => Err(rejection),
        Ok(Route::Own(response)) => Ok(response.map(|bytes| Content::Whole(Some(bytes)))),
        Ok(Route::Tell(speech)) => Ok(stream(speech)),
        Ok(Route::Forward(dialect, caller)) => {
            forward(shared, id, dialect, request, (&caller, started), in_flight.pulse()).await
        }
    };
    let response = result.unwrap_or_else(|rejection| refuse(shared, id, (origin, started), &rejection));
    response.map(|content| Outbound::new(content, in_flight))
}

fn refuse(
    shared: &Shared,
    id: RequestId,
    (origin, started): (&Origin, Time),
    rejection: &Rejection,
) -> Response<Content> {
    tracing::debug!(request = %id, code = rejection.code, "refused");
    shared.access.audit_refusal(Some(id), rejection, (&Caller { origin, key: None }, &Classes::default()));
    shared.brain.refused_early(started);
    shared.tracer.refused(id, started, shared.brain.clock(), rejection);
    shared.brain.metrics().refused(rejection.code);
    let mut response = rejection.response();
    response.headers_mut().insert(headers::REQUEST_ID, id_header(id));
    response.map(|bytes| Content::Whole(Some(bytes)))
}

enum Route<'a> {
    Forward(Dialect, Caller<'a>),
    Own(Response<Bytes>),
    Tell(Box<Speech>),
}

fn stream(speech: Box<Speech>) -> Response<Content> {
    let mut response = Response::new(Content::Told(speech));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// Who answers a request.
fn route<'a>(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    origin: &'a Origin,
    pulse: &Arc<Pulse>,
) -> Result<Route<'a>, Rejection> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let size = target + headers::size(request.headers());
    if size > shared.limits.max_header_bytes {
        let limit = shared.limits.max_header_bytes;
        let message = format!("the request head has {size} bytes, {limit} are allowed");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Rejection { close: true, ..Rejection::new(status, "headers_too_large", message) });
    }
    if origin.identity().is_some() && !shared.is_ours(origin) {
        let message = "this node is no peer any more";
        return Err(Rejection { close: true, ..Rejection::new(StatusCode::FORBIDDEN, "unknown_peer", message) });
    }
    let path = request.uri().path();
    if let Some(dialect) = Dialect::of_path(path) {
        if request.method() != Method::POST {
            return Err(Rejection::method("POST"));
        }
        if shared.draining.load(Ordering::Relaxed) {
            return Err(Rejection::draining());
        }
        return Ok(Route::Forward(dialect, shared.access.admit(request.headers(), origin)?));
    }
    if path == PEER || path == PEER_STREAM {
        return to_peer(shared, request, origin, pulse);
    }
    let known = path == "/health" || path == "/v1/models" || path.starts_with("/v1/models/");
    if !known {
        return Err(Rejection::unknown_path(path));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Rejection::method("GET, HEAD"));
    }
    let models = path.strip_prefix("/v1/models");
    if models.is_some() {
        shared.access.admit(request.headers(), origin)?;
    }
    match models {
        None => health(shared),
        Some("") => Ok(json(models::list(&merged_models(shared)))),
        Some(id) => model(shared, id.trim_start_matches('/')),
    }
    .map(Route::Own)
}

/// What only peers get to know. Nobody else learns that there is something.
fn to_peer(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    origin: &Origin,
    pulse: &Arc<Pulse>,
) -> Result<Route<'static>, Rejection> {
    let path = request.uri().path();
    let state = shared.peer_state(origin).ok_or_else(|| Rejection::unknown_path(path))?;
    if request.method() != Method::GET {
        return Err(Rejection::method("GET"));
    }
    if path == PEER_STREAM {
        let speech = shared.speech(request.headers(), origin, pulse);
        return speech.map(|speech| Route::Tell(Box::new(speech))).ok_or_else(|| Rejection::unknown_path(path));
    }
    let state = serde_json::to_vec(&state).expect("names and finite numbers");
    Ok(Route::Own(json(Bytes::from(state))))
}

fn merged_models(shared: &Shared) -> Vec<(String, Box<serde_json::value::RawValue>)> {
    let replicas: Vec<_> = shared.brain.lock().replicas.values().cloned().collect();
    models::merged(replicas.iter().map(AsRef::as_ref))
}

fn model(shared: &Shared, id: &str) -> Result<Response<Bytes>, Rejection> {
    let models = merged_models(shared);
    let found = models.iter().find(|(known, _)| known == id);
    let entry = found.ok_or_else(|| Rejection::refused(crate::routing::Refusal::UnknownModel, None))?;
    Ok(json(Bytes::copy_from_slice(entry.1.get().as_bytes())))
}

/// 2xx when at least one replica can serve.
fn health(shared: &Shared) -> Result<Response<Bytes>, Rejection> {
    if shared.draining.load(Ordering::Relaxed) {
        return Err(Rejection::draining());
    }
    let serving = shared.brain.lock().router.can_serve();
    serving.map_err(|reason| Rejection::refused(reason, None))?;
    Ok(json(Bytes::from_static(br#"{"status":"ok"}"#)))
}

fn json(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
