//! One call to the API after another: paced, authorised, bounded, repeated where that is safe, judged by `error.code`.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;
use super::fault::{self, Refusal};
use super::limiter::{Limiter, Pace, Turn};
use super::retry::{self, Effect, Outcome, RetryPolicy, Verdict};
use super::wire::Data;
use crate::cloud::{CloudError, CloudErrorKind};
use crate::model::Secret;

/// Our own name: the service's edge refuses the default of some HTTP libraries (seen with urllib).
const USER_AGENT: &str = concat!("gorgo/", env!("CARGO_PKG_VERSION"));
/// More than any answer: the list of all instances of a large account has some hundred kilobytes.
const LONGEST_ANSWER_BYTES: usize = 16 << 20;

/// Everything that a client needs to know.
#[derive(Clone, Debug)]
pub struct LambdaSettings {
    /// Where the API is.
    pub endpoint: Endpoint,
    /// The account's key.
    pub key: Secret,
    /// Folder for the file that paces calls across processes (`GORGO_STATE_DIR`).
    pub state_dir: PathBuf,
    /// The pace.
    pub pace: Pace,
    /// Bounds of repetition.
    pub retry: RetryPolicy,
    /// Longest wait for a connection.
    pub connect_limit: Duration,
    /// Longest wait for a whole answer.
    pub answer_limit: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl LambdaSettings {
    /// Settings with the usual bounds. An answer may take two minutes, as in dstack: giving up on a launch too early leaves its outcome unknown.
    #[must_use]
    pub fn new(endpoint: Endpoint, key: Secret, state_dir: PathBuf, seed: u64) -> Self {
        Self {
            endpoint,
            key,
            state_dir,
            pace: Pace::default(),
            retry: RetryPolicy::default(),
            connect_limit: Duration::from_secs(10),
            answer_limit: Duration::from_secs(120),
            seed,
        }
    }

    /// One file per account: limits are the account's. Eight hex digits of a hash tell accounts apart and say nothing about the key.
    fn pace_file(&self) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.endpoint.to_string());
        hash.update([0]);
        hash.update(self.key.reveal());
        let mut name = "pace-".to_owned();
        for byte in hash.finalize().iter().take(4) {
            let _ = write!(name, "{byte:02x}");
        }
        self.state_dir.join("lambda").join(name + ".json")
    }
}

/// A call before it is made.
pub(super) struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    effect: Effect,
    turn: Turn,
}

impl Call {
    /// A reading call.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A deleting call; doing it twice is doing it once.
    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// A call with a body.
    pub(super) fn send(method: Method, path: impl Into<String>, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("the wire types have string keys and no failing serialiser");
        Self { body: Some(body), ..Self::new(method, path) }
    }

    /// It must not be made twice.
    pub(super) fn once(self) -> Self {
        Self { effect: Effect::Once, ..self }
    }

    /// It is a launch: never made twice, and paced as such.
    pub(super) fn launch(self) -> Self {
        Self { turn: Turn::Launch, ..self.once() }
    }

    /// With query parameters.
    pub(super) fn with_query(self, query: Vec<(String, String)>) -> Self {
        Self { query, ..self }
    }

    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None, effect: Effect::Repeatable, turn: Turn::Call }
    }

    /// For messages; without the query, which can hold page tokens.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// A whole answer.
struct Answer {
    status: u16,
    content_type: Option<String>,
    location: Option<String>,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// Why there is none.
struct Broken {
    sent: bool,
    why: String,
}

/// The HTTP side of a provider.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    key: Secret,
    limiter: Limiter,
    retry: RetryPolicy,
    jitter: Mutex<ChaCha8Rng>,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// No certificates to check the service with, or a key that no header can hold.
    pub(super) fn new(settings: LambdaSettings) -> Result<Self, CloudError> {
        let http = http(&settings)?;
        Ok(Self {
            http,
            limiter: Limiter::new(settings.pace_file(), settings.pace),
            endpoint: settings.endpoint,
            key: settings.key,
            retry: settings.retry,
            jitter: Mutex::new(ChaCha8Rng::seed_from_u64(settings.seed)),
        })
    }

    /// Makes the call, again where that is safe, and reads the `data` of its answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CloudError> {
        self.call_until(call, &CancellationToken::new()).await
    }

    /// The same, until `stop`: it is heeded where nothing is under way that may have an effect, which is before each attempt.
    pub(super) async fn call_until<T: DeserializeOwned>(
        &self,
        call: &Call,
        stop: &CancellationToken,
    ) -> Result<T, CloudError> {
        let mut attempt = 0;
        loop {
            stop.run_until_cancelled(self.limiter.turn(call.turn))
                .await
                .unwrap_or_else(|| Err(fault::stopped(&call.name())))?;
            let result = self.exchange(call).await;
            let (outcome, read) = match &result {
                Ok(answer) => read::<T>(answer),
                Err(broken) => (if broken.sent { Outcome::Lost } else { Outcome::NotSent }, Err(broken.why.clone())),
            };
            let why = match read {
                Ok(data) => return Ok(data),
                Err(why) => why,
            };
            match retry::judge(call.effect, outcome, attempt, &self.retry, self.draw()) {
                Verdict::Repeat(pause) => {
                    tracing::debug!(call = call.name(), attempt, ?pause, why, "calling Lambda again");
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    attempt += 1;
                }
                Verdict::Unknown => return Err(fault::unknown_outcome(&call.name(), &why)),
                Verdict::Refused | Verdict::Accept => return Err(self.failed(call, result, &why, attempt + 1)),
            }
        }
    }

    /// One attempt.
    async fn exchange(&self, call: &Call) -> Result<Answer, Broken> {
        let mut request = self.http.request(call.method.clone(), self.url(call)).bearer_auth(self.key.reveal());
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let mut response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_ANSWER_BYTES {
                return Err(Broken {
                    sent: true,
                    why: format!("the answer has more than {} MiB", LONGEST_ANSWER_BYTES >> 20),
                });
            }
        }
        let retry_after = text(&headers, &RETRY_AFTER).and_then(|header| retry::retry_after(&header, wall_s()));
        let content_type = text(&headers, &CONTENT_TYPE);
        Ok(Answer { status, content_type, location: text(&headers, &LOCATION), retry_after, body })
    }

    fn url(&self, call: &Call) -> reqwest::Url {
        let mut url = self.endpoint.url(&call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        url
    }

    /// The error after the last attempt, when nothing has happened.
    fn failed(&self, call: &Call, result: Result<Answer, Broken>, why: &str, attempts: u32) -> CloudError {
        let name = call.name();
        let mut error = match result {
            Ok(answer) if (200..300).contains(&answer.status) => fault::no_answer(&name, why),
            Ok(answer) => {
                let refusal = Refusal {
                    status: answer.status,
                    content_type: answer.content_type.as_deref(),
                    location: answer.location.as_deref(),
                    body: &answer.body,
                };
                let mut error = fault::refused(&name, &refusal, &self.key);
                if let Some(asked) = answer.retry_after {
                    error.hint = Some(format!("the service asks to wait {} s before the next call", asked.as_secs()));
                }
                error
            }
            Err(_) => fault::no_answer(&name, why),
        };
        if attempts > 1 {
            let _ = write!(error.message, ", {attempts} attempts");
        }
        error
    }

    fn draw(&self) -> f64 {
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// What an answer amounts to, and its content or why there is none.
fn read<T: DeserializeOwned>(answer: &Answer) -> (Outcome, Result<T, String>) {
    let upstream = fault::parse(&answer.body).is_some_and(|error| fault::is_upstream(&error.code));
    let outcome = Outcome::Answered { status: answer.status, upstream, retry_after: answer.retry_after };
    if !(200..300).contains(&answer.status) {
        return (outcome, Err(format!("status {}", answer.status)));
    }
    match serde_json::from_slice::<Data<T>>(&answer.body) {
        Ok(envelope) => (outcome, Ok(envelope.data)),
        // A success that cannot be read tells as little as an answer that never came.
        Err(error) => (Outcome::Lost, Err(fault::unreadable(&error))),
    }
}

fn http(settings: &LambdaSettings) -> Result<reqwest::Client, CloudError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(settings.connect_limit)
        .timeout(settings.answer_limit)
        // The key would travel along.
        .redirect(redirect::Policy::none())
        // At one call per second a kept connection saves little, and one that the service closes just then loses a launch's answer.
        .pool_max_idle_per_host(0)
        .default_headers(HeaderMap::from_iter([(
            reqwest::header::ACCEPT,
            HeaderValue::from_static("application/json"),
        )]));
    if settings.endpoint.is_loopback() {
        builder = builder.no_proxy();
    }
    builder = if settings.endpoint.is_https() {
        builder.https_only(true)
    } else {
        // Nothing is encrypted on the way to this machine itself, so no store of certificates is needed either.
        builder.tls_certs_only([])
    };
    builder.build().map_err(|error| no_client(&error))
}

fn no_client(error: &reqwest::Error) -> CloudError {
    let causes = causes(error);
    let missing = causes.contains("CA certificates") || causes.contains("certificate");
    let (message, hint) = if missing {
        let message = format!("this machine has no CA certificates to check Lambda's identity with ({causes})");
        (message, "install the package `ca-certificates`, or point `SSL_CERT_FILE` to a bundle of them")
    } else {
        (
            format!("cannot make an HTTPS client: {causes}"),
            "this is a fault of the installation; `gorgo version` helps to report it",
        )
    };
    CloudError { kind: CloudErrorKind::Invalid, code: None, message, hint: Some(hint.to_owned()) }
}

fn broken(error: reqwest::Error) -> Broken {
    let sent = !error.is_connect() && !error.is_builder();
    // The address can hold page tokens.
    let error = error.without_url();
    let why = match (error.is_timeout(), sent) {
        (true, true) => "it did not answer in time".to_owned(),
        (true, false) => "it could not be reached in time".to_owned(),
        (false, true) => format!("the connection broke ({})", causes(&error)),
        (false, false) => format!("it could not be reached ({})", causes(&error)),
    };
    Broken { sent, why }
}

/// The innermost causes on one line; the outer ones only say that something went wrong.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        texts.push(inner.to_string());
        cause = inner.source();
    }
    texts.dedup();
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[expect(clippy::disallowed_methods, reason = "the edge: a `Retry-After` date is compared with the wall clock")]
fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, LambdaSettings, Secret};

    fn settings(url: &str, key: &str) -> LambdaSettings {
        LambdaSettings::new(Endpoint::parse(url).unwrap(), Secret::new(key.into()), "/state".into(), 1)
    }

    #[test]
    fn accounts_have_pace_files_of_their_own_that_do_not_tell_the_key() {
        let one = settings("https://cloud.lambda.ai", "sekrit").pace_file();
        assert_eq!(one, settings("https://cloud.lambda.ai/", "sekrit").pace_file());
        assert_ne!(one, settings("https://cloud.lambda.ai", "other").pace_file());
        assert_ne!(one, settings("http://127.0.0.1:1", "sekrit").pace_file());
        let text = one.to_str().unwrap();
        assert!(
            text.starts_with("/state/lambda/pace-") && text.ends_with(".json") && !text.contains("sekrit"),
            "{text}"
        );
    }

    #[test]
    fn settings_do_not_print_the_key() {
        assert!(!format!("{:?}", settings("https://cloud.lambda.ai", "sekrit")).contains("sekrit"));
    }
}
