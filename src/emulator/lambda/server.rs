//! HTTP around the account: requests in, answers out, connections dropped where a fault says so.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::world::{Answer, Ask, Content, Delivery, World};
use crate::emulator::clock::Clock;
use crate::model::Time;

/// Pause after a failed accept (out of file descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Largest request body: a cloud-init text of 1 MB, every character escaped.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Shows the machines without the API; not a path of the service.
const OVERVIEW: &str = "/emulator/machines";
const HTML: &str = "<html><head><title>Sorry</title></head><body><h1>Something went wrong</h1></body></html>";

/// Everything that connections share.
pub(super) struct Face {
    pub(super) world: Mutex<World>,
    pub(super) clock: Clock,
    pub(super) speed: f64,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("speed", &self.speed).finish_non_exhaustive()
    }
}

/// Closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a fault dropped the connection")]
struct Dropped;

impl Face {
    pub(super) fn machines(&self) -> Value {
        let now = self.now();
        self.world.lock().unwrap_or_else(PoisonError::into_inner).overview(now)
    }

    fn now(&self) -> Time {
        Time::from_ms(self.clock.now().ms() * self.speed)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
        if request.method() == Method::GET && request.uri().path() == OVERVIEW {
            return Ok(json(StatusCode::OK, &self.machines()));
        }
        let Some(ask) = read(request).await else {
            let mut too_large = Response::new(Full::default());
            *too_large.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(too_large);
        };
        let now = self.now();
        let answer = self.world.lock().unwrap_or_else(PoisonError::into_inner).answer(now, &ask);
        match answer.delivery {
            Delivery::Whole | Delivery::Half => Ok(response(&answer)),
            Delivery::Dropped => Err(Dropped),
            Delivery::Stalled => pending().await,
        }
    }
}

/// Serves until its task is dropped.
pub(super) async fn serve(listener: TcpListener, face: Arc<Face>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&face)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn converse(stream: TcpStream, face: Arc<Face>) {
    let service = service_fn(|request| {
        let face = Arc::clone(&face);
        async move { face.answer(request).await }
    });
    // Errors are our own drops or the client's going away: nobody is left to be told.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// `None` = more than anybody needs to send.
async fn read(request: Request<Incoming>) -> Option<Ask> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.ok()?.to_bytes().to_vec();
    let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Some(Ask {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: query(head.uri.query().unwrap_or_default()),
        authorization,
        body,
    })
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

/// Undoes the percent-encoding of a form; what is not well-formed stays as it is.
fn plain(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let (form, mut text) = match &answer.content {
        Content::Json(value) => ("application/json", value.to_string()),
        Content::Html => ("text/html", HTML.to_owned()),
        Content::Text(text) => ("text/plain", (*text).to_owned()),
    };
    if answer.delivery == Delivery::Half {
        // JSON written here is ASCII but for what clients sent, so a cut inside a character is put off to its end.
        let middle = (text.len() / 2..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(middle);
    }
    let mut response = Response::builder().status(answer.status).header(CONTENT_TYPE, form);
    if let Some(seconds) = answer.retry_after_s {
        response = response.header(RETRY_AFTER, seconds);
    }
    if let Some(allow) = answer.allow {
        response = response.header(ALLOW, allow);
    }
    response.body(Full::from(text)).expect("statuses and headers are constants and numbers")
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    response.body(Full::from(value.to_string())).expect("a constant header")
}

#[cfg(test)]
mod tests {
    use super::{plain, query};

    #[test]
    fn queries_are_read_as_browsers_write_them() {
        assert_eq!(plain("2025-09-01T10%3A30%3A45+x%zz%C3%BC%4"), "2025-09-01T10:30:45 x%zzü%4");
        let found = query("start=a%26b&&page_token");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("page_token".into(), String::new()), ("start".into(), "a&b".into())]
        );
    }
}
