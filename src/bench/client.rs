//! One request over HTTP, timed as its user would feel it.
//!
//! The clock of TTFT and E2E starts right before the request is handed to a connection. Connections are kept warm by the pool;
//! when none is idle a new one is dialled inside the measured time, as it would be for a user.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;

use super::body::{BodyFormat, body};
use crate::gateway::clock::Clock;
use crate::gateway::endpoint::Endpoint;
use crate::gateway::pool::{Outgoing, Pool, PoolError, PoolSettings, Reply};
use crate::inference::Dialect;
use crate::inference::sse::Watch;
use crate::model::geo::Coordinates;
use crate::model::{Secret, Time};
use crate::report::{Outcome, Sample};
use crate::workload::Step;

/// Longest a session's next request may reuse a connection: above the keep-alive of common servers the pool would often find it
/// closed; our own gateway keeps connections for longer.
const IDLE: Duration = Duration::from_secs(4);

/// Longest wait for the body of an error: it only explains.
const ERROR_BODY_TIME: Duration = Duration::from_secs(2);
/// Most of such a body that is read; error objects are far shorter.
const MAX_ERROR_BODY: usize = 16 << 10;

/// What to load and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Base URL, e.g. `http://127.0.0.1:8000`.
    pub url: String,
    /// Bearer token, if the target wants one.
    pub key: Option<Secret>,
    /// Longest silence: until the answer begins, and between two pieces of it.
    pub timeout: Duration,
    /// Send `ignore_eos`, see [`body`].
    pub ignore_eos: bool,
    /// Connections to keep warm ahead of need.
    pub warm: usize,
}

/// Sends requests to one target.
pub struct Client {
    pool: Arc<Pool>,
    target: Uri,
    headers: HeaderMap,
    format: BodyFormat,
    timeout: Duration,
    ignore_eos: bool,
    strategy: OnceLock<Arc<str>>,
}

/// Why no client could be made for a target.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// The URL.
    #[error("`--target`: {0}")]
    Url(#[from] crate::gateway::endpoint::BadEndpoint),
    /// URL and path together.
    #[error("`--target`: {0}")]
    Path(#[from] http::Error),
    /// TLS could not be set up.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The key cannot stand in a header.
    #[error("the API key holds characters that a header cannot carry")]
    Key,
}

impl Client {
    /// A client for `target` with bodies of `format`.
    ///
    /// # Errors
    /// A URL that is no base URL, or a key that is no header value.
    pub fn new(target: &Target, format: BodyFormat, clock: Clock) -> Result<Self, BadTarget> {
        let endpoint = Endpoint::from_str(&target.url)?;
        let path = PathAndQuery::from_static(format.dialect.path());
        let mut headers = HeaderMap::new();
        headers.insert(HOST, endpoint.authority().clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("gorgo-bench/", env!("CARGO_PKG_VERSION"))));
        if let Some(key) = &target.key {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.reveal())).map_err(|_| BadTarget::Key)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let uri = endpoint.target(&path)?;
        let settings = PoolSettings { min_idle: target.warm, idle_limit: IDLE, ..PoolSettings::default() };
        let pool = Pool::new(endpoint, settings, clock)?;
        let strategy = OnceLock::new();
        Ok(Self {
            pool,
            target: uri,
            headers,
            format,
            timeout: target.timeout,
            ignore_eos: target.ignore_eos,
            strategy,
        })
    }

    /// The same for clients that stand there and say so, as whoever knows their addresses would for them.
    #[must_use]
    pub fn located(mut self, place: Coordinates) -> Self {
        // Digits, points and a comma always make a value.
        if let Ok(place) = HeaderValue::from_str(&place.to_string()) {
            self.headers.insert("x-gorgo-client-location", place);
        }
        self
    }

    /// Dials the connections that are kept warm, so that the first requests do not pay for them.
    ///
    /// # Errors
    /// If the target does not accept connections.
    pub async fn warm(&self) -> Result<(), PoolError> {
        self.pool.refill().await
    }

    /// Everything about a request that can be made ahead of its time.
    ///
    /// # Errors
    /// See [`body`].
    pub fn prepare(&self, session: &str, step: &Step) -> Result<Prepared, serde_json::Error> {
        let mut headers = self.headers.clone();
        // Session ids of plans are visible ASCII; a foreign one that is not goes without a header.
        if let Ok(session) = HeaderValue::from_str(session) {
            headers.insert("x-session-affinity", session);
        }
        let body = body(&self.format, step, self.ignore_eos)?;
        Ok(Prepared(Outgoing { method: Method::POST, target: self.target.clone(), headers, body }))
    }

    /// Sends a prepared request now and follows its stream; what is seen goes into `sample` at once, so that a caller who gives
    /// up (drops this future) keeps what was measured. `clock` counts from the start of the run.
    pub async fn send(&self, prepared: &Prepared, clock: Clock, sample: &mut Sample) {
        sample.sent = clock.now();
        let mut stage = Stage { sample, clock, watch: Watch::new(self.format.dialect) };
        let outcome = match tokio::time::timeout(self.timeout, self.pool.send(&prepared.0)).await {
            Err(_) => failed("timeout"),
            Ok(Err(PoolError::Connect { .. })) => failed("connect"),
            Ok(Err(_)) => failed("reset"),
            Ok(Ok(response)) => {
                if let Some(name) = text(response.headers(), "x-gorgo-strategy") {
                    self.strategy.get_or_init(|| name);
                }
                stage.follow(response, self.timeout).await
            }
        };
        stage.sample.end = clock.now();
        stage.sample.outcome = outcome;
    }

    /// The strategy that answered, if the target is a gorgo router.
    #[must_use]
    pub fn strategy(&self) -> Option<&Arc<str>> {
        self.strategy.get()
    }
}

/// A request ready to be sent.
pub struct Prepared(Outgoing);

fn failed(kind: &str) -> Outcome {
    Outcome::Failed(kind.into())
}

/// One answer while it comes in.
struct Stage<'a> {
    sample: &'a mut Sample,
    clock: Clock,
    watch: Watch,
}

impl Stage<'_> {
    async fn follow(&mut self, response: Response<Reply>, silence: Duration) -> Outcome {
        let (parts, mut reply) = response.into_parts();
        self.sample.replica = text(&parts.headers, "x-gorgo-replica");
        self.sample.region = text(&parts.headers, "x-gorgo-region");
        if parts.status != StatusCode::OK {
            return not_ok(parts.status, &mut reply).await;
        }
        loop {
            match tokio::time::timeout(silence, reply.frame()).await {
                Err(_) => return failed("timeout"),
                Ok(Some(Ok(frame))) => self.take(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(_))) => return failed("broken stream"),
                Ok(None) => return self.finish(),
            }
        }
    }

    fn take(&mut self, chunk: Bytes) {
        let before = self.sample.first.map_or(0, |_| self.sample.gaps_ms.len() as u64 + 1);
        let seen = self.watch.feed(&chunk);
        self.count(seen.token_events.saturating_sub(before));
    }

    /// `new` events with content came in now. Those that came together have no gap between them.
    fn count(&mut self, new: u64) {
        if new == 0 {
            return;
        }
        let now = self.clock.now();
        let mut rest = new;
        match self.sample.last {
            Some(last) => self.sample.gaps_ms.push(now.since_ms(last) as f32),
            None => self.sample.first = Some(now),
        }
        self.sample.last = Some(now);
        rest -= 1;
        self.sample.gaps_ms.extend((0..rest).map(|_| 0.0));
    }

    fn finish(&mut self) -> Outcome {
        let before = self.sample.first.map_or(0, |_| self.sample.gaps_ms.len() as u64 + 1);
        let seen = self.watch.finish();
        self.count(seen.token_events.saturating_sub(before));
        self.sample.output_tokens = u32::try_from(seen.token_events).unwrap_or(u32::MAX);
        if let Some(usage) = seen.usage {
            self.sample.prompt_tokens = usage.prompt_tokens.unwrap_or(self.sample.prompt_tokens);
            self.sample.output_tokens = usage.completion_tokens.unwrap_or(self.sample.output_tokens);
            self.sample.cached_tokens = usage.cached_tokens;
        }
        match (seen.error, seen.done, self.sample.first) {
            (true, _, _) => failed("error event"),
            (false, false, _) => failed("cut stream"),
            (false, true, None) => failed("no output"),
            (false, true, Some(_)) => Outcome::Ok,
        }
    }
}

/// What an answer with another status than 200 says: the status, and the error's code where the body has one.
async fn not_ok(status: StatusCode, reply: &mut Reply) -> Outcome {
    let body = tokio::time::timeout(ERROR_BODY_TIME, error_body(reply)).await.unwrap_or_default();
    let kind: Arc<str> = match error_code(&body) {
        Some(code) => format!("{} {code}", status.as_u16()).into(),
        None => format!("status {}", status.as_u16()).into(),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::Refused(kind),
        _ => Outcome::Failed(kind),
    }
}

/// The body as far as it comes, at most [`MAX_ERROR_BODY`] bytes.
async fn error_body(reply: &mut Reply) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(Ok(frame)) = reply.frame().await {
        body.extend_from_slice(&frame.into_data().unwrap_or_default());
        if body.len() > MAX_ERROR_BODY {
            break;
        }
    }
    body
}

/// `error.code`, else `error.type` of an OpenAI-style error object; only short words, since they become keys of a report.
fn error_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: ErrorObject,
    }
    #[derive(serde::Deserialize)]
    struct ErrorObject {
        #[serde(default)]
        code: serde_json::Value,
        #[serde(default, rename = "type")]
        kind: serde_json::Value,
    }
    let error = serde_json::from_slice::<Answer>(body).ok()?.error;
    let word = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        (1..=40).contains(&text.len()) && text.chars().all(plain)
    };
    [error.code, error.kind].iter().filter_map(|value| value.as_str()).find(|text| word(text)).map(str::to_owned)
}

fn text(headers: &HeaderMap, name: &str) -> Option<Arc<str>> {
    headers.get(name)?.to_str().ok().map(Into::into)
}

/// The first model that the target lists at `GET /v1/models`.
///
/// # Errors
/// If it cannot be reached, answers with another status than 200 or lists none.
pub async fn first_model(target: &Target, clock: Clock) -> anyhow::Result<String> {
    #[derive(serde::Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        id: String,
    }
    let format = BodyFormat { dialect: Dialect::Chat, model: String::new(), block_size: 1, seed: 0 };
    let client = Client::new(&Target { warm: 0, ..target.clone() }, format, clock)?;
    let path = client.pool.endpoint().target(&PathAndQuery::from_static("/v1/models"))?;
    let outgoing = Outgoing { method: Method::GET, target: path, headers: client.headers.clone(), body: Bytes::new() };
    let response = tokio::time::timeout(target.timeout, client.pool.send(&outgoing)).await??;
    let status = response.status();
    let body = tokio::time::timeout(target.timeout, response.into_body().collect()).await??.to_bytes();
    anyhow::ensure!(status == StatusCode::OK, "`GET /v1/models` answered {status}; name the model with `--model`");
    let models: Models = serde_json::from_slice(&body).context("`GET /v1/models` did not answer a list of models")?;
    let first = models.data.into_iter().next();
    Ok(first.context("`GET /v1/models` lists no model; name one with `--model`")?.id)
}

/// A sample for a request that is wanted at `intended`.
#[must_use]
pub fn wanted(measured: bool, intended: Time, step: &Step) -> Sample {
    Sample::new(measured, intended, intended, step.input_tokens)
}

#[cfg(test)]
mod tests {
    use super::error_code;

    #[test]
    fn an_error_object_tells_its_code_and_nothing_long_becomes_a_key() {
        let cases = [
            (r#"{"error":{"message":"m","type":"server_error","code":"none_healthy"}}"#, Some("none_healthy")),
            (r#"{"error":{"message":"m","type":"invalid_request_error","code":null}}"#, Some("invalid_request_error")),
            (r#"{"error":{"code":400,"type":"BadRequestError"}}"#, Some("BadRequestError")),
            (r#"{"error":{"code":"no such model: llama"}}"#, None),
            (r#"{"error":"flat"}"#, None),
            ("<html>bad gateway</html>", None),
            ("", None),
        ];
        for (body, code) in cases {
            assert_eq!(error_code(body.as_bytes()).as_deref(), code, "{body}");
        }
    }
}
