//! One request: read it, decide, send it, and hand its answer on; elsewhere if a replica fails before the first byte.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::access::{self, Access, Caller};
use super::agent::Agent;
use super::brain::{Step, Ticket};
use super::budget::Share;
use super::collect::{Bounds, CollectError, collect};
use super::connection::Pulse;
use super::explain::decision_header;
use super::extract::{BadHeader, Extracted, extract};
use super::headers;
use super::inject::ask_for_usage;
use super::location;
use super::observe::Observer;
use super::pool::{Outgoing, Reply};
use super::reject::Rejection;
use super::relay::{Content, Manner, Relay};
use super::replica::Replica;
use super::serve::Shared;
use super::settings::Limits;
use super::trace::Context;
use crate::inference::prompt::Dialect;
use crate::model::{RequestId, Time};
use crate::routing::residency::Classes;
use crate::routing::{Decision, Features, Refusal, ReplicaKind};

/// When to come back after a refusal for want of memory, ms: bodies are held about as long as prefills take.
const NO_ROOM_RETRY_MS: f64 = 1_000.0;

/// A client's request while it is being served.
struct Job<'a> {
    shared: &'a Arc<Shared>,
    id: RequestId,
    /// The request at the first router of its way.
    trace: RequestId,
    dialect: Dialect,
    pulse: &'a Arc<Pulse>,
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
    explain: bool,
    caller: Caller<'a>,
    /// All of the request's residency classes.
    classes: Classes,
    /// Its class of service.
    class: Option<Arc<str>>,
    /// A peer sent it.
    forwarded: bool,
    /// Usage was asked for in the client's place.
    injected: bool,
}

/// Serves one request of a dialect that was taken in at `started`.
///
/// # Errors
/// What is refused, or failed before an engine's answer could be handed on.
pub(super) async fn forward(
    shared: &Arc<Shared>,
    id: RequestId,
    dialect: Dialect,
    request: Request<Incoming>,
    (caller, started): (&Caller<'_>, Time),
    pulse: &Arc<Pulse>,
) -> Result<Response<Content>, Rejection> {
    let (parts, incoming) = request.into_parts();
    let mut recording = shared.tracer.begin(id, started);
    // Given back when an answer has begun: no attempt can follow then.
    let mut share = shared.bodies.share();
    let waits = parts.headers.contains_key(EXPECT);
    let body = whole(incoming, waits, &shared.limits, &mut share).await?;
    if let Some(recording) = &mut recording {
        recording.collected(shared.brain.clock().now(), body.len());
    }
    let Extracted { mut features, stream, include_usage } =
        extract(dialect, &parts.headers, &body).map_err(bad_header)?;
    describe(shared, &parts.headers, caller, &mut features)?;
    shared.access.enlist(&mut features, caller)?;
    let classes = shared.access.classify(id, &mut features, caller)?;
    let forwarded = features.forwarded;
    let context = parts.headers.get(&headers::TRACE).filter(|_| forwarded).and_then(Context::parse);
    if let Some(recording) = &mut recording {
        recording.extracted(shared.brain.clock().now(), &features, context);
    }
    let explain = parts.headers.get(&headers::EXPLAIN).is_some_and(|value| value.as_bytes() == b"1");
    let (body, injected) = asking(shared.inject_usage && stream && !include_usage, dialect, body);
    let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
    let job = Job {
        shared,
        id,
        trace: context.map_or(id, |context| context.trace),
        dialect,
        pulse,
        method,
        uri,
        headers,
        body,
        explain,
        caller: caller.clone(),
        classes,
        class: features.class.clone(),
        forwarded,
        injected,
    };
    let ticket = shared.brain.arrive(id, Arc::new(features), started, recording);
    Ok(job.run(ticket).await)
}

/// Adds what the connection tells of a request: whether a peer has sent it on, which one, and where its client is.
fn describe(
    shared: &Shared,
    headers: &HeaderMap,
    caller: &Caller<'_>,
    features: &mut Features,
) -> Result<(), Rejection> {
    features.forwarded = shared.forwarded(headers, caller.origin);
    let client = (caller.key.as_ref().map(|key| &*key.name), caller.origin.address());
    features.place =
        location::of(&shared.places, headers, (!features.forwarded).then_some(client)).map_err(bad_header)?;
    features.origin =
        shared.speaker(headers, caller.origin).filter(|_| features.forwarded).map(|peer| peer.name.clone());
    Ok(())
}

/// The refusal of a header of ours that means nothing.
fn bad_header(bad: BadHeader) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, "bad_header", bad.to_string())
}

/// A body within the limits; `waits`: the client sends it when told to.
async fn whole(body: Incoming, waits: bool, limits: &Limits, share: &mut Share) -> Result<Bytes, Rejection> {
    let (bytes, pause, total) = (limits.max_body_bytes, limits.body_timeout, limits.body_total_timeout);
    let collected = collect(body, &Bounds { bytes, pause, total, waits }, share).await;
    collected.map_err(|error| collect_rejection(&error, limits.max_body_bytes))
}

/// The body, asking for usage where that is wanted and can be; true if it does so now.
fn asking(wanted: bool, dialect: Dialect, body: Bytes) -> (Bytes, bool) {
    match if wanted && openai(dialect) { ask_for_usage(&body) } else { None } {
        Some(asking) => (asking, true),
        None => (body, false),
    }
}

fn openai(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Chat | Dialect::Completions)
}

/// The refusal for a body that is not there.
fn collect_rejection(error: &CollectError, limit: usize) -> Rejection {
    match error {
        CollectError::TooLarge => {
            let message = format!("the body is larger than {limit} bytes");
            Rejection { close: true, ..Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message) }
        }
        CollectError::TimedOut => {
            let message = "the body stopped coming, or came too slowly";
            Rejection { close: true, ..Rejection::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message) }
        }
        CollectError::NoRoom => {
            let message = "the router holds as many request bodies as it may; try again later";
            let rejection = Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "bodies_full", message);
            Rejection { close: true, retry_after_ms: Some(NO_ROOM_RETRY_MS), ..rejection }
        }
        CollectError::Client(error) => {
            let message = format!("the body cannot be read: {error}");
            Rejection { close: true, ..Rejection::new(StatusCode::BAD_REQUEST, "bad_body", message) }
        }
    }
}

/// Why an attempt gave nothing to hand on.
enum Failure {
    /// It is worth a try elsewhere.
    Elsewhere(Reason),
    /// The router wanted it back, and nothing had come.
    Recalled,
    /// Silence for as long as allowed. The engine may be working on it, so it is not given to another.
    Silent,
}

/// Why it is worth a try elsewhere.
enum Reason {
    /// No connection, or it broke.
    NoAnswer(String),
    /// 502, 503 or 504; from a peer 429, too.
    Status(Box<Response<Reply>>),
    /// 421 from a peer: it may not serve the request where it stands.
    Misdirected,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(text) => f.write_str(text),
            Self::Status(response) => write!(f, "status {}", response.status().as_u16()),
            Self::Misdirected => f.write_str("the peer says that the request may not be served at its place"),
        }
    }
}

impl Job<'_> {
    /// The attempts. Each replica is tried once, as the router says.
    async fn run(self, mut ticket: Ticket) -> Response<Content> {
        let mut failure = None;
        loop {
            let (decision, replica) = match ticket.next().await {
                Step::Go(decision, replica) => (decision, replica),
                Step::Refused(decision, reason, retry_after) => {
                    return self.refuse(ticket, &decision, reason, retry_after, failure);
                }
            };
            self.shared.access.audit_forward(self.id, &replica, decision.attempt, (&self.caller, &self.classes));
            match self.answer(&mut ticket, &replica).await {
                Ok(response) => return self.relay(response, Some(ticket), &decision, &replica),
                Err(Failure::Recalled) => {
                    tracing::warn!(request = %self.id, replica = %replica.name, "called back: late, and not begun by its engine");
                    ticket.recalled();
                }
                Err(Failure::Silent) => return self.give_up(ticket, &decision, &replica),
                Err(Failure::Elsewhere(reason)) => {
                    tracing::warn!(request = %self.id, replica = %replica.name, %reason, "attempt failed");
                    if let Reason::Status(response) = &reason {
                        ticket.answered(response.status().as_u16(), id_there(response, &replica));
                    }
                    ticket.tried_in_vain(&reason);
                    if declines(&reason, &replica) {
                        ticket.declined();
                    } else {
                        ticket.failed();
                    }
                    failure = Some((reason, decision, replica));
                }
            }
        }
    }

    /// An answer of which a piece is there. Engines send its head before they begin to compute: as long as nothing follows it nothing is
    /// handed on, and another replica can still give the whole.
    async fn answer(&self, ticket: &mut Ticket, replica: &Replica) -> Result<Response<Reply>, Failure> {
        self.unless_silent(replica, self.begin(ticket, replica)).await?
    }

    /// The same without a limit.
    async fn begin(&self, ticket: &mut Ticket, replica: &Replica) -> Result<Response<Reply>, Failure> {
        let mut response = self.attempt(replica).await?;
        let status = response.status();
        ticket.answered(status.as_u16(), id_there(&response, replica));
        ticket.headers(status.as_u16());
        if status.is_success() {
            let begun = response.body_mut().begun().await;
            begun.map_err(|error| no_answer(&format_args!("its answer broke off before its first byte: {error}")))?;
        }
        Ok(response)
    }

    /// What comes of waiting for a replica, within the time limit, as long as it can be heard and until the router wants the request
    /// back. What has come is never given up for that.
    async fn unless_silent<T>(&self, replica: &Replica, waiting: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            came = timeout(self.shared.limits.upstream_timeout, waiting) => came.map_err(|_| Failure::Silent),
            // Its line is dead, and with it whatever it may be working on: nobody could bring the answer.
            () = replica.hearing.until_lost() => Err(no_answer(&"it has fallen silent")),
            () = self.shared.brain.until_recalled(self.id) => Err(Failure::Recalled),
        }
    }

    /// Sends the request to one replica and waits for the head of its answer.
    async fn attempt(&self, replica: &Replica) -> Result<Response<Reply>, Failure> {
        let endpoint = replica.pool.endpoint();
        let path = self.uri.path_and_query().cloned().unwrap_or(http::uri::PathAndQuery::from_static("/"));
        let target = endpoint.target(&path).map_err(|error| no_answer(&error))?;
        let peer = replica.config.kind == ReplicaKind::Peer;
        let mut headers = self.headers_for(replica, peer)?;
        if peer {
            headers.insert(headers::TRACE, Context { trace: self.trace, parent: self.id }.header());
        }
        let outgoing = Outgoing { method: self.method.clone(), target, headers, body: self.body.clone() };
        let response = replica.pool.send(&outgoing).await.map_err(|error| {
            // A peer is asked for what it holds itself; its engine lives on without its agent.
            if error.is_refusal() && !peer {
                self.shared.brain.process_gone(replica.id);
            }
            no_answer(&error)
        })?;
        match response.status() {
            // A peer has waited for its engine for as long as it may; the engine may be working on it still.
            StatusCode::GATEWAY_TIMEOUT if peer => Ok(response),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Err(Failure::Elsewhere(Reason::Status(Box::new(response))))
            }
            // A peer whose queue is full has done nothing yet.
            StatusCode::TOO_MANY_REQUESTS if peer => Err(Failure::Elsewhere(Reason::Status(Box::new(response)))),
            StatusCode::MISDIRECTED_REQUEST if peer => Err(Failure::Elsewhere(Reason::Misdirected)),
            _ => Ok(response),
        }
    }

    /// The client's fields as this replica is to see them: an engine never sees the client's key, a peer asks for it itself.
    fn headers_for(&self, replica: &Replica, peer: bool) -> Result<HeaderMap, Failure> {
        let mut headers = self.headers.clone();
        let authority = replica.pool.endpoint().authority();
        let classes = (!self.classes.is_empty()).then(|| HeaderValue::from_str(&self.classes.to_string()));
        let classes = classes.transpose().map_err(|error| no_answer(&error))?;
        if peer {
            let via = self.shared.agent.as_ref().map_or(&headers::VIA_PROXY, Agent::via);
            let name = self.shared.agent.as_ref().map(Agent::name);
            let class = self.class.as_deref().map(HeaderValue::from_str).transpose();
            let class = class.map_err(|error| no_answer(&error))?;
            headers::for_peer(&mut headers, authority, &headers::Sender { via, name, classes, class });
        } else {
            self.shared.access.strip_key(&mut headers);
            headers::for_engine(&mut headers, authority, classes);
        }
        if let Some(key) = &replica.pool.settings().authorization {
            headers.remove(access::API_KEY);
            headers.insert(AUTHORIZATION, key.clone());
        }
        Ok(headers)
    }

    /// Hands an engine's answer on.
    fn relay(
        &self,
        response: Response<Reply>,
        ticket: Option<Ticket>,
        decision: &Decision,
        replica: &Replica,
    ) -> Response<Content> {
        let (mut parts, reply) = response.into_parts();
        let manner = self.manner(parts.status, &parts.headers);
        headers::for_client(&mut parts.headers);
        if manner.strip {
            parts.headers.remove(CONTENT_LENGTH);
        }
        parts.version = http::Version::default();
        self.label(&mut parts.headers, decision);
        name(&mut parts.headers, replica);
        let relay = Relay::new(reply, ticket, manner, self.shared.brain.clock(), self.pulse.clone());
        Response::from_parts(parts, Content::Relayed(Box::new(relay)))
    }

    fn manner(&self, status: StatusCode, headers: &HeaderMap) -> Manner {
        let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
        let observer =
            if plain && status.is_success() { Observer::new(self.dialect, content_type) } else { Observer::Nothing };
        let events = matches!(observer, Observer::Events(_));
        let has_length = headers.contains_key(CONTENT_LENGTH);
        Manner {
            strip: events && self.injected,
            appendable: events && !has_length,
            unframed: events && !has_length && !headers.contains_key(TRANSFER_ENCODING),
            observer,
            silence: self.shared.limits.upstream_timeout,
            pause: self.shared.limits.stream_timeout,
        }
    }

    /// The router says no. What an engine said last goes to the client as it came: it knows best.
    fn refuse(
        &self,
        ticket: Ticket,
        decision: &Decision,
        reason: Refusal,
        retry_after_ms: Option<f64>,
        failure: Option<(Reason, Arc<Decision>, Arc<Replica>)>,
    ) -> Response<Content> {
        // Nobody is left but those that may not serve it. A full queue stays one: its client may come back.
        let misdirected = matches!(failure, Some((Reason::Misdirected, ..))) && reason == Refusal::AllTried;
        let reason = if misdirected { Refusal::Residency } else { reason };
        let mut rejection =
            Access::refusal(self.forwarded, reason, retry_after_ms).with_figures(decision.deadline.as_ref());
        let replica = match failure {
            Some((Reason::Status(response), sent, replica)) => {
                ticket.failed_everywhere(response.status().as_u16());
                return self.relay(*response, None, &sent, &replica);
            }
            // What exactly broke, and at which address, is for the log: clients get neither.
            Some((Reason::NoAnswer(_), _, replica)) => {
                rejection.message = format!("{}; the last one was `{}`", rejection.message, replica.name).into();
                Some(replica)
            }
            Some((Reason::Misdirected, ..)) | None => None,
        };
        ticket.refused(rejection.status.as_u16(), reason);
        self.reject(&rejection, decision, replica.as_deref())
    }

    /// The replica has been silent for too long.
    fn give_up(&self, mut ticket: Ticket, decision: &Decision, replica: &Replica) -> Response<Content> {
        let seconds = self.shared.limits.upstream_timeout.as_secs_f64();
        let message = format!("replica `{}` gave no answer within {seconds} s", replica.name);
        tracing::warn!(request = %self.id, replica = %replica.name, "no answer within {seconds} s");
        let rejection = Rejection::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message);
        ticket.tried_in_vain(&format_args!("no answer within {seconds} s"));
        ticket.gave_up(rejection.status.as_u16());
        self.reject(&rejection, decision, Some(replica))
    }

    /// An answer of ours; it names the replica that it is about, if it is about one.
    fn reject(&self, rejection: &Rejection, decision: &Decision, replica: Option<&Replica>) -> Response<Content> {
        let mut response = rejection.response();
        self.shared.brain.metrics().refused(rejection.code);
        self.shared.access.audit_refusal(Some(self.id), rejection, (&self.caller, &self.classes));
        self.label(response.headers_mut(), decision);
        if let Some(replica) = replica {
            name(response.headers_mut(), replica);
        }
        response.map(|bytes| Content::Whole(Some(bytes)))
    }

    /// Our own fields, on every answer.
    fn label(&self, headers: &mut HeaderMap, decision: &Decision) {
        headers.insert(headers::REQUEST_ID, id_header(self.id));
        headers.insert(headers::STRATEGY, HeaderValue::from_static(decision.strategy));
        if self.explain {
            headers.insert(headers::DECISION, decision_header(decision));
        }
    }
}

/// Did it say no in good health? A peer that is full, drains or may not serve the request does; its stream tells how it is.
fn declines(reason: &Reason, replica: &Replica) -> bool {
    const NOT_NOW: [StatusCode; 2] = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    match reason {
        Reason::Misdirected => true,
        Reason::Status(response) => replica.config.kind == ReplicaKind::Peer && NOT_NOW.contains(&response.status()),
        Reason::NoAnswer(_) => false,
    }
}

/// Says which replica an answer is from, or about.
fn name(headers: &mut HeaderMap, replica: &Replica) {
    headers.insert(headers::REPLICA, replica.name_header.clone());
    headers.insert(headers::REGION, replica.region_header.clone());
}

/// A peer's own name for the request, under which it can be asked for its decision.
fn id_there(response: &Response<Reply>, replica: &Replica) -> Option<RequestId> {
    let id = response.headers().get(&headers::REQUEST_ID).filter(|_| replica.config.kind == ReplicaKind::Peer)?;
    id.to_str().ok()?.parse().ok()
}

fn no_answer(error: &dyn fmt::Display) -> Failure {
    Failure::Elsewhere(Reason::NoAnswer(error.to_string()))
}

/// The identity as header value.
#[must_use]
pub(super) fn id_header(id: RequestId) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).expect("hexadecimal digits")
}

/// Reads a small answer whole; used for probes and lists, not for the data path.
///
/// # Errors
/// If the answer breaks off or is longer than `limit` bytes.
pub(super) async fn read_whole(reply: Reply, limit: usize) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Ok(http_body_util::Limited::new(reply, limit).collect().await?.to_bytes())
}
