//! The endpoints: from a request's bytes to the engine and back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use xxhash_rust::xxh3::xxh3_64;

use super::driver::{Command, Line, Load};
use super::reply::{Choice, Envelope};
use super::server::Phase;
use super::stream::{TokenStream, Writers};
use super::ticket::{Board, Ending, Progress, Ticket};
use super::tokens::{Output, Prompt};
use super::{EngineCounts, EngineOptions, pages};
use crate::emulator::clock::{Clock, unix_seconds};
use crate::emulator::lateness::Lateness;
use crate::inference::prompt::{Dialect, Parsed, parse};
use crate::sim::engine::Job;

/// Largest request body, bytes. A prompt that fills the KV of the largest preset has 5 MB.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Largest body of the requests that carry no prompt, bytes.
const MAX_CONTROL_BYTES: usize = 1 << 16;

/// Bodies of answers.
pub(super) type Answer = Response<Either<Full<Bytes>, TokenStream>>;

/// Everything that connections need.
pub(super) struct Face {
    pub(super) options: EngineOptions,
    pub(super) lateness: Arc<Lateness>,
    clock: Clock,
    line: Line,
    phases: watch::Receiver<Phase>,
    /// Number of the next prompt.
    next: AtomicU64,
    model_seed: u64,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A request that is refused.
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl Face {
    /// A face over the driver at `line`.
    pub(super) fn new(options: EngineOptions, clock: Clock, line: Line, phases: watch::Receiver<Phase>) -> Self {
        let model_seed = xxh3_64(options.model.as_bytes());
        let lateness = Arc::default();
        Self { options, lateness, clock, line, phases, next: AtomicU64::new(0), model_seed }
    }

    /// Counts so far.
    pub(super) fn counts(&self) -> EngineCounts {
        let counters = &self.line.counters;
        EngineCounts {
            requests: counters.requests.load(Ordering::Relaxed),
            aborted: counters.aborted.load(Ordering::Relaxed),
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
        let answer = self.route(request).await;
        Ok(answer.unwrap_or_else(|refusal| {
            let error = json!({"error": {"message": refusal.message, "type": "invalid_request_error", "param": null,
                "code": refusal.status.as_u16()}});
            with_json(refusal.status, &error)
        }))
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        if let Some(dialect) = Dialect::of_path(&path) {
            return match *request.method() {
                Method::POST => self.infer(dialect, request).await,
                _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{path}` takes POST"))),
            };
        }
        let options = &self.options;
        let get = request.method() == Method::GET;
        match path.as_str() {
            "/health" | "/health_generate" | "/ready" | "/ping" if get => Ok(self.health()),
            "/v1/models" if get => Ok(with_json(StatusCode::OK, &pages::models(options))),
            "/model_info" | "/get_model_info" if get => Ok(with_json(StatusCode::OK, &pages::model_info(options))),
            "/server_info" | "/get_server_info" if get => {
                Ok(with_json(StatusCode::OK, &pages::server_info(options, &self.load().await?)))
            }
            "/v1/loads" if get => Ok(with_json(StatusCode::OK, &pages::loads(options, &self.load().await?))),
            "/metrics" if get => {
                let page = pages::metrics(options, &self.load().await?, self.counts());
                Ok(with_text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page))
            }
            "/emulator/timing" if get => {
                Ok(with_json(StatusCode::OK, &pages::timing(self.lateness.summary(), self.counts())))
            }
            "/flush_cache" if get || request.method() == Method::POST => self.flush().await,
            "/abort_request" if request.method() == Method::POST => self.abort(request).await,
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("no such endpoint: {} {path}", request.method()))),
        }
    }

    fn health(&self) -> Answer {
        let serving = *self.phases.borrow() == Phase::Serving;
        let status = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        with_text(status, "text/plain", String::new())
    }

    async fn load(&self) -> Result<Load, Refusal> {
        let (answer, load) = oneshot::channel();
        self.send(Command::Look { answer })?;
        load.await.map_err(|_| stopped())
    }

    async fn flush(&self) -> Result<Answer, Refusal> {
        let (done, flushed) = oneshot::channel();
        self.send(Command::Flush { done })?;
        Ok(match flushed.await.map_err(|_| stopped())? {
            true => with_text(StatusCode::OK, "text/plain", "cache flushed\n".to_owned()),
            false => with_text(
                StatusCode::BAD_REQUEST,
                "text/plain",
                "cache not flushed: requests are running or waiting\n".to_owned(),
            ),
        })
    }

    async fn abort(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let body = read_body(request, MAX_CONTROL_BYTES).await?;
        let wanted: Value = serde_json::from_slice(&body)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}")))?;
        match (wanted["abort_all"].as_bool(), wanted["rid"].as_str()) {
            (Some(true), _) => self.send(Command::AbortNamed { rid: None })?,
            (_, Some(rid)) => self.send(Command::AbortNamed { rid: Some(rid.to_owned()) })?,
            _ => return Err(Refusal::new(StatusCode::BAD_REQUEST, "wanted `rid` or `abort_all`")),
        }
        Ok(with_text(StatusCode::OK, "text/plain", String::new()))
    }

    async fn infer(&self, dialect: Dialect, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let body = read_body(request, MAX_BODY_BYTES).await?;
        let parsed = parse(dialect, &body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        if parsed.max_tokens == Some(0) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the output limit is 0: wanted at least 1"));
        }
        let prompts = self.prompts(dialect, &parsed);
        if prompts.is_empty() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body has no prompt"));
        }
        let choices: Vec<Choice> = prompts.iter().map(|prompt| self.choice(dialect, &parsed, prompt)).collect();
        let number = self.next.fetch_add(prompts.len() as u64, Ordering::Relaxed);
        let mut ticket = self.submit(number, &prompts, &choices, parsed.rid.as_deref())?;
        let accepted = ticket.wait(|progress| progress.accepted || progress.ending.is_some()).await;
        self.check_size(&choices, accepted)?;
        let model = parsed.model.as_deref().unwrap_or(&self.options.model);
        let envelope = Envelope::new(dialect, number, model, unix_seconds());
        if parsed.stream && dialect != Dialect::Embeddings {
            return Ok(self.stream(ticket, envelope, choices, dialect, parsed.include_usage));
        }
        self.whole(ticket, &envelope, choices, dialect).await
    }

    /// One prompt of a chat; outside of chat each piece is a prompt of its own.
    fn prompts(&self, dialect: Dialect, parsed: &Parsed<'_>) -> Vec<Prompt> {
        let cut =
            |pieces: &mut dyn Iterator<Item = &[u8]>| Prompt::of(pieces, self.options.spec.block, self.model_seed);
        match dialect {
            Dialect::Chat if parsed.pieces.is_empty() => Vec::new(),
            Dialect::Chat => vec![cut(&mut parsed.canonical())],
            _ => parsed.canonical().map(|piece| cut(&mut std::iter::once(piece))).collect(),
        }
    }

    fn choice(&self, dialect: Dialect, parsed: &Parsed<'_>, prompt: &Prompt) -> Choice {
        let output = match dialect {
            Dialect::Embeddings => Output::to(prompt, Some(1), true, self.options.seed),
            _ => Output::to(prompt, parsed.max_tokens, parsed.ignore_eos, self.options.seed),
        };
        Choice::new(prompt, output)
    }

    fn submit(&self, first: u64, prompts: &[Prompt], choices: &[Choice], rid: Option<&str>) -> Result<Ticket, Refusal> {
        let at = self.clock.now();
        let board = Board::new(prompts.len());
        let rid: Option<Arc<str>> = rid.map(Arc::from);
        let ids = first..first + prompts.len() as u64;
        let ticket = Ticket::new(Arc::clone(&board), ids.clone(), self.line.commands.clone());
        for (index, ((id, prompt), choice)) in ids.zip(prompts).zip(choices).enumerate() {
            let job = Job {
                id,
                blocks: Arc::clone(&prompt.blocks),
                prompt_tokens: prompt.tokens,
                output_tokens: choice.output.tokens,
            };
            self.send(Command::Submit { at, job, rid: rid.clone(), board: Arc::clone(&board), index })?;
        }
        Ok(ticket)
    }

    fn check_size(&self, choices: &[Choice], progress: &[Progress]) -> Result<(), Refusal> {
        let Some((choice, _)) =
            choices.iter().zip(progress).find(|(_, progress)| progress.ending == Some(Ending::TooLarge))
        else {
            return Ok(());
        };
        let (prompt, output) = (choice.prompt_tokens, choice.output.tokens);
        let room = self.options.spec.kv_tokens;
        Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("the prompt has {prompt} tokens and the output up to {output}: the engine has room for {room}"),
        ))
    }

    fn stream(
        &self,
        ticket: Ticket,
        envelope: Envelope,
        choices: Vec<Choice>,
        dialect: Dialect,
        include_usage: bool,
    ) -> Answer {
        let stream = TokenStream {
            ticket,
            envelope,
            writers: Writers::new(choices),
            dialect,
            include_usage,
            clock: self.clock,
            lateness: Arc::clone(&self.lateness),
            finished: false,
        };
        let mut response = Response::new(Either::Right(stream));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    async fn whole(
        &self,
        mut ticket: Ticket,
        envelope: &Envelope,
        mut choices: Vec<Choice>,
        dialect: Dialect,
    ) -> Result<Answer, Refusal> {
        let progress = ticket.wait(|progress| progress.ending.is_some()).await;
        if progress.iter().any(|progress| progress.ending == Some(Ending::Gone)) {
            return Err(stopped());
        }
        let reply = if dialect == Dialect::Embeddings {
            envelope.embeddings(&mut choices, progress)
        } else {
            let texts: Vec<String> =
                choices.iter_mut().zip(progress).map(|(choice, progress)| text(choice, progress.tokens)).collect();
            envelope.whole(&choices, progress, &texts)
        };
        Ok(with_json(StatusCode::OK, &reply))
    }

    fn send(&self, command: Command) -> Result<(), Refusal> {
        self.line.commands.send(command).map_err(|_| stopped())
    }
}

fn text(choice: &mut Choice, tokens: u32) -> String {
    (0..tokens).flat_map(|_| choice.output.next_token()).map(char::from).collect()
}

fn stopped() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the emulated engine is stopping")
}

async fn read_body(request: Request<Incoming>, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes")))
        }
        Err(error) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("cannot read the body: {error}"))),
    }
}

fn with_json(status: StatusCode, body: &Value) -> Answer {
    with_text(status, "application/json", body.to_string())
}

fn with_text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(Either::Left(Full::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
