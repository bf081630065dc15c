//! The admin API: how a running router is looked at and changed. `GET` never changes anything.
//!
//! On a listener of its own: who can use it can reroute everything. So it listens on loopback, or asks for a token ([`mod@guard`]).

mod changes;
mod guard;
mod listener;
mod trace;
mod views;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_rustls::TlsAcceptor;

pub(super) use self::guard::Token;
use self::guard::guard;
pub(super) use self::listener::{bind, run};
use super::access::Caller;
use super::fleet::Fleet;
use super::origin::Origin;
use super::reject::Rejection;
use super::serve::Shared;
use crate::model::RequestId;
use crate::routing::residency::Classes;
use crate::wire::paths;
use crate::wire::span::StopTrace;

/// Decisions listed when the query names no number.
const DECISIONS_LISTED: usize = 50;

/// What the admin API looks at and changes.
pub(super) struct Admin {
    /// The data path.
    pub(super) shared: Arc<Shared>,
    /// Its replicas.
    pub(super) fleet: Arc<Fleet>,
    /// Address of the data listener.
    pub(super) listen: std::net::SocketAddr,
    /// What is asked for; `None` = nothing, on loopback only.
    pub(super) token: Option<Arc<Token>>,
    /// TLS, where the listener can be reached from outside.
    pub(super) tls: Option<TlsAcceptor>,
}

type Answer = Result<Response<Bytes>, Rejection>;

impl Admin {
    /// Lets a request in, or not; to be asked before its body is read.
    fn admit(&self, head: &http::request::Parts, origin: &Origin) -> Result<(), Rejection> {
        guard(&head.headers, head.uri.path(), self.token.as_deref()).inspect_err(|rejection| {
            let caller = Caller { origin, key: None };
            self.shared.access.audit_refusal(None, rejection, (&caller, &Classes::default()));
        })
    }

    /// Answers one request that was let in.
    fn answer(&self, method: &Method, uri: &http::Uri, body: &Bytes) -> Response<Bytes> {
        let answer = match *method {
            Method::GET | Method::HEAD => self.get(uri),
            Method::POST => self.post(uri.path(), body),
            _ => Err(Rejection::method("GET, HEAD, POST")),
        };
        answer.unwrap_or_else(|rejection| rejection.response())
    }

    fn get(&self, uri: &http::Uri) -> Answer {
        match uri.path() {
            paths::STATUS => document(&self.status()),
            paths::REPLICAS => document(&self.replicas()),
            paths::POLICY => document(&self.policy()),
            paths::TUNE => document(&self.tune()),
            paths::CACHE => document(&self.cache()),
            paths::LATENCY => document(&self.latency()),
            paths::DECISIONS => document(&self.decisions(limit(uri.query())?)),
            paths::DRAIN => document(&self.drain_state()),
            paths::METRICS => Ok(self.metrics()),
            paths::HEALTHZ => Ok(text("ok\n")),
            paths::READYZ => self.ready(),
            paths::TRACE_START | paths::TRACE_STOP => Err(Rejection::method("POST")),
            path => self.decision(path),
        }
    }

    fn post(&self, path: &str, body: &Bytes) -> Answer {
        match path {
            paths::REPLICAS => document(&self.change_replicas(read(body)?)?),
            paths::POLICY => document(&self.set_policy(read(body)?)?),
            paths::TUNE => document(&self.set_tune(read(body)?)?),
            paths::CACHE => document(&self.clear_cache(&read(body)?)?),
            paths::DRAIN => document(&self.set_drain(read(body)?)?),
            paths::TRACE_START => document(&self.start_trace(read_or_default(body)?)?),
            paths::TRACE_STOP => {
                let StopTrace {} = read_or_default(body)?;
                self.stop_trace()
            }
            paths::STATUS | paths::LATENCY | paths::DECISIONS | paths::METRICS | paths::HEALTHZ | paths::READYZ => {
                Err(Rejection::method("GET, HEAD"))
            }
            path => Err(Rejection::unknown_path(path)),
        }
    }

    fn decision(&self, path: &str) -> Answer {
        let id = path.strip_prefix(paths::DECISIONS).and_then(|rest| rest.strip_prefix('/'));
        let id = id.ok_or_else(|| Rejection::unknown_path(path))?;
        let unknown = || {
            let message =
                format!("no decision of request `{id}` is kept; it was never made here, or has left the ring");
            Rejection::new(StatusCode::NOT_FOUND, "unknown_request", message)
        };
        let request: RequestId = id.parse().map_err(|_| unknown())?;
        document(&self.explain(request).ok_or_else(unknown)?)
    }

    fn ready(&self) -> Answer {
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err(Rejection::draining());
        }
        let serving = self.shared.brain.lock().router.can_serve();
        serving.map_err(|reason| Rejection::refused(reason, None))?;
        Ok(text("ready\n"))
    }
}

fn limit(query: Option<&str>) -> Result<usize, Rejection> {
    let mut limit = DECISIONS_LISTED;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let number = pair.strip_prefix("limit=").and_then(|number| number.parse().ok());
        limit = number.ok_or_else(|| bad_request(format!("query `{pair}`: wanted `limit=N`")))?;
    }
    Ok(limit)
}

/// Reads the body of a change. Unknown fields are errors: a typo must not look like success.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Rejection> {
    serde_json::from_slice(body).map_err(|error| bad_request(format!("the body is not what this path takes: {error}")))
}

/// The same where a change has nothing that must be said.
fn read_or_default<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Rejection> {
    if body.is_empty() { Ok(T::default()) } else { read(body) }
}

fn bad_request(message: String) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

fn document(document: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(document);
    let json = json.map_err(|error| {
        Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("failed to write the document: {error}"))
    })?;
    let mut response = Response::new(Bytes::from(json));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn text(text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::limit;

    #[test]
    fn the_query_knows_limit_only() {
        assert_eq!(limit(None), Ok(50));
        assert_eq!(limit(Some("limit=7")), Ok(7));
        assert!(limit(Some("limit=x")).is_err() && limit(Some("n=7")).is_err());
    }
}
