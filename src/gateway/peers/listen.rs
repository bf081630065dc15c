//! Listening to one peer: asks for its stream, again and again when it ends, and takes in what comes.
//!
//! How a peer is follows from its stream alone: each state is a health check, each attempt that fails is a failed one, and a stream that falls
//! silent is one that was waited for long enough. An older agent without streams is watched by [`super::super::probe`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::convert;
use crate::gateway::clock::wall_micros;
use crate::gateway::headers::PEER;
use crate::gateway::pool::{Outgoing, Pool, Reply};
use crate::gateway::probe::{Problem, Watcher};
use crate::gateway::relay::chain;
use crate::gateway::settings::PeerSettings;
use crate::model::Time;
use crate::routing::BLOCK_BYTES;
use crate::routing::index::SAMPLE_EVERY;
use crate::wire::paths::PEER_STREAM;
use crate::wire::peer::{Figures, Frame, FrameDecoder, Hello, Malformed, State, VERSION};

/// What a watcher of a peer knows of its stream.
pub(in crate::gateway) struct Ear {
    /// Our name, by which the peer knows whom it talks to.
    name: HeaderValue,
    settings: PeerSettings,
    /// It answered that it has no streams: it is an older agent, or we are none of its peers.
    refused: AtomicBool,
}

/// Why a stream is not, or no longer, there.
#[derive(Debug, thiserror::Error)]
enum Deaf {
    #[error("`{PEER_STREAM}` answers {0}")]
    Status(u16),
    #[error("{0}")]
    NoAnswer(String),
    #[error("it has said nothing for {0} s")]
    Silent(f64),
    #[error("its stream broke: {0}")]
    Broken(String),
    #[error("its stream ended")]
    Ended,
    #[error("its stream makes no sense: {0}")]
    Malformed(#[from] Malformed),
    #[error("its stream does not begin as it should")]
    NoHello,
    #[error("it speaks version {0} of the stream, {VERSION} is understood here")]
    Version(u32),
}

impl Ear {
    /// The ear of the agent of this name.
    #[must_use]
    pub(in crate::gateway) fn new(name: HeaderValue, settings: PeerSettings) -> Self {
        Self { name, settings, refused: AtomicBool::new(false) }
    }

    /// Does the peer have no stream for us?
    pub(in crate::gateway) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// One stream, as far as it has come.
#[derive(Default)]
struct Session {
    decoder: FrameDecoder,
    hello: Option<Hello>,
    figures: Figures,
}

impl Session {
    /// Does the sender count blocks as we do?
    fn digests_count(&self) -> bool {
        let ours = (BLOCK_BYTES as u64, SAMPLE_EVERY as u64);
        self.hello.as_ref().is_some_and(|hello| (hello.block_bytes, hello.sample_every) == ours)
    }
}

impl Watcher {
    /// Listens until the replica is gone.
    pub(in crate::gateway) async fn listen(&self, ear: &Ear) {
        let pool = self.own_pool();
        let seed = wall_micros() ^ u64::from(self.replica.id.0);
        let mut backoff = Backoff::new(ear.settings.retry_first, ear.settings.retry_most, seed);
        loop {
            let (began, mut heard) = (self.brain.clock().now(), false);
            let deaf = self.stream(&pool, ear, &mut heard).await.unwrap_or_else(|deaf| deaf);
            ear.refused.store(matches!(deaf, Deaf::Status(404)), Ordering::Relaxed);
            self.deaf(&deaf);
            // A stream that breaks at once, again and again, is no success.
            let lasted = self.brain.clock().now().since_ms(began) >= ear.settings.retry_most.as_secs_f64() * 1000.0;
            sleep(backoff.pause(heard && lasted)).await;
        }
    }

    /// Takes note of the end of a stream, or of an attempt.
    fn deaf(&self, deaf: &Deaf) {
        let metrics = &self.replica.metrics;
        match deaf {
            // Told by the document, which an older agent has.
            Deaf::Status(404) => self.replica.hearing.found(),
            Deaf::Silent(_) => {
                let id = self.replica.id;
                self.brain.event(|state, now| ((), state.router.unreachable(now, id)));
                self.replica.hearing.lost();
                self.note(Some(deaf.to_string()));
            }
            Deaf::Malformed(_) | Deaf::NoHello | Deaf::Version(_) => {
                metrics.misunderstood();
                self.health(Err(Problem::new(deaf)));
            }
            Deaf::Status(_) | Deaf::NoAnswer(_) | Deaf::Broken(_) | Deaf::Ended => {
                self.health(Err(Problem::new(deaf)));
            }
        }
    }

    /// One stream from its request to its end. `heard` is set once it has told a state.
    async fn stream(&self, pool: &std::sync::Arc<Pool>, ear: &Ear, heard: &mut bool) -> Result<Deaf, Deaf> {
        let silence = ear.settings.silence;
        let mut reply = ask(pool, ear, silence).await?.into_body();
        self.replica.metrics.connected();
        let mut session = Session::default();
        let mut last = self.brain.clock().now();
        loop {
            // Frames count, not bytes: a peer that drips must not pass for one that talks.
            let left = self.brain.clock().until(last.plus_ms(silence.as_secs_f64() * 1000.0));
            let piece = timeout(left, reply.frame()).await.map_err(|_| Deaf::Silent(silence.as_secs_f64()))?;
            let Some(piece) = piece else { return Ok(Deaf::Ended) };
            let piece = piece.map_err(|error| Deaf::Broken(chain(&error)))?;
            let Ok(bytes) = piece.into_data() else { continue };
            if self.take(&mut session, &bytes)? {
                last = self.brain.clock().now();
                *heard = true;
            }
        }
    }

    /// Takes in what came. True if a state was among it.
    fn take(&self, session: &mut Session, bytes: &Bytes) -> Result<bool, Deaf> {
        self.replica.metrics.heard(bytes.len());
        session.decoder.push(bytes);
        let mut state = false;
        while let Some(frame) = session.decoder.frame()? {
            match (frame, &session.hello) {
                (Frame::Hello(hello), None) => {
                    self.greeted(&hello)?;
                    session.hello = Some(hello);
                }
                (Frame::Hello(_), Some(_)) | (_, None) => return Err(Deaf::NoHello),
                (Frame::State(told), Some(_)) => {
                    self.told(session, &told);
                    state = true;
                }
                (Frame::Digest(digest), Some(_)) => {
                    if session.digests_count() {
                        let part = convert::digest_part(digest);
                        self.brain.lock().router.learn_digest(self.replica.id, &part);
                    }
                }
            }
        }
        Ok(state)
    }

    fn greeted(&self, hello: &Hello) -> Result<(), Deaf> {
        if hello.oldest > VERSION {
            return Err(Deaf::Version(hello.oldest));
        }
        if hello.name != *self.replica.name {
            tracing::warn!(peer = %self.replica.name, itself = hello.name, "a peer has another name for itself");
        }
        self.brain.lock().router.greet(self.replica.id, hello.epoch);
        Ok(())
    }

    fn told(&self, session: &mut Session, told: &State) {
        session.figures.apply(&told.changes);
        let report = convert::report(&session.figures);
        let (id, sent) = (self.replica.id, Time::from_micros(told.sent_us));
        self.brain.event(|state, now| ((), state.router.hear(now, id, sent, report)));
        self.replica.hearing.found();
        let serving = report.serving || report.draining;
        self.health(if serving { Ok(()) } else { Err(Problem::new("its engine is not in rotation")) });
    }
}

/// Asks for a stream.
async fn ask(pool: &std::sync::Arc<Pool>, ear: &Ear, limit: Duration) -> Result<Response<Reply>, Deaf> {
    let target = pool.endpoint().target(&PathAndQuery::from_static(PEER_STREAM));
    let target = target.map_err(|error| Deaf::NoAnswer(error.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, pool.endpoint().authority().clone());
    headers.insert(PEER, ear.name.clone());
    let outgoing = Outgoing { method: Method::GET, target, headers, body: Bytes::new() };
    let answer = timeout(limit, pool.send(&outgoing)).await.map_err(|_| Deaf::Silent(limit.as_secs_f64()))?;
    let response = answer.map_err(|error| Deaf::NoAnswer(error.to_string()))?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(Deaf::Status(status.as_u16())),
    }
}
