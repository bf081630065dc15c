//! The body that a client reads: an engine's answer, passed on as it comes, observed on the way.
//!
//! No task and no channel of its own: the client's connection polls it, it polls the engine's. So a client that does not read stops
//! the reading from the engine, and a client that goes away drops it, which closes the engine's connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::brain::Ticket;
use super::clock::Clock;
use super::connection::{InFlight, Pulse};
use super::inject::Strip;
use super::observe::Observer;
use super::peers::Speech;
use super::pool::Reply;
use crate::model::Time;
use crate::wire::ErrorBody;

/// What the gateway answers with, and the request that ends with it.
pub(super) struct Outbound {
    content: Content,
    _in_flight: InFlight,
}

/// What a client gets to read.
pub(super) enum Content {
    /// Bytes of our own.
    Whole(Option<Bytes>),
    /// An engine's answer.
    Relayed(Box<Relay>),
    /// What a peer is told, without an end.
    Told(Box<Speech>),
}

impl Outbound {
    /// The body of an answer.
    #[must_use]
    pub(super) fn new(content: Content, in_flight: InFlight) -> Self {
        Self { content, _in_flight: in_flight }
    }
}

/// An answer that cannot be completed: the connection ends without the end of the body.
#[derive(Debug, thiserror::Error)]
#[error("the replica's answer broke off: {0}")]
pub(super) struct BrokenOff(String);

/// An engine's answer on its way to a client.
pub(super) struct Relay {
    /// Dropped as soon as it has broken: its connection is of no use.
    reply: Option<Reply>,
    /// Gone once the request has ended.
    ticket: Option<Ticket>,
    observer: Observer,
    strip: Option<Strip>,
    silence: Silence,
    pause: Duration,
    /// An error event may be appended: a stream of events without a stated length or encoding.
    appendable: bool,
    /// The engine marks the end by closing: only `[DONE]` tells the end of a stream from a break.
    unframed: bool,
    stage: Stage,
    pulse: Arc<Pulse>,
}

enum Stage {
    Flowing,
    /// What has been handed out shall leave before the connection is cut.
    Cutting(String),
    Over,
}

/// How an answer has to be treated.
pub(super) struct Manner {
    /// What to look for.
    pub(super) observer: Observer,
    /// Take the extra usage event out.
    pub(super) strip: bool,
    /// See [`Relay`].
    pub(super) appendable: bool,
    /// See [`Relay`].
    pub(super) unframed: bool,
    /// Longest silence of the engine before its first token.
    pub(super) silence: Duration,
    /// Longest silence between two pieces after it, if that is shorter.
    pub(super) pause: Duration,
}

impl Relay {
    /// Passes `reply` on for `ticket`.
    #[must_use]
    pub(super) fn new(reply: Reply, ticket: Option<Ticket>, manner: Manner, clock: Clock, pulse: Arc<Pulse>) -> Self {
        Self {
            reply: Some(reply),
            ticket,
            observer: manner.observer,
            strip: manner.strip.then(Strip::default),
            silence: Silence::new(manner.silence, clock),
            pause: manner.pause,
            appendable: manner.appendable,
            unframed: manner.unframed,
            stage: Stage::Flowing,
            pulse,
        }
    }

    fn flow(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            let Some(reply) = &mut self.reply else { return Poll::Ready(None) };
            match Pin::new(reply).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let data = self.pass(data);
                        if !data.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(None) => return self.end(cx),
                Poll::Ready(Some(Err(error))) => {
                    // The library's words may hold addresses: they are for the log.
                    tracing::warn!(request = ?self.ticket.as_ref().map(Ticket::request), error = chain(&error), "reading failed");
                    return self.break_off(cx, "its connection broke".to_owned());
                }
                Poll::Pending => {
                    if ready!(self.silence.poll(cx)) {
                        let text = format!("it was silent for {} s", self.silence.limit.as_secs_f64());
                        return self.break_off(cx, text);
                    }
                }
            }
        }
    }

    /// Observes data and takes out what is not the client's.
    fn pass(&mut self, data: Bytes) -> Bytes {
        self.silence.heard();
        let first_token = self.observer.take(&data);
        // What is not a stream comes when it is complete.
        if first_token || !matches!(self.observer, Observer::Events(_)) {
            self.silence.tighten(self.pause);
        }
        if let Some(ticket) = self.ticket.as_mut().filter(|_| first_token) {
            ticket.first_token();
        }
        let ended = self.reply.as_ref().is_some_and(Body::is_end_stream);
        let mut data = match &mut self.strip {
            Some(strip) => strip.feed(data),
            None => data,
        };
        if ended && !self.cut_short() {
            if let Some(strip) = &mut self.strip {
                data = join(data, strip.finish());
            }
            self.complete();
        }
        data
    }

    /// The engine's body ended by itself.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.cut_short() {
            return self.break_off(cx, "it closed the connection inside a stream".to_owned());
        }
        let rest = self.strip.as_mut().map(Strip::finish).unwrap_or_default();
        self.complete();
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    /// The end of the body is not the end of the stream.
    fn cut_short(&self) -> bool {
        self.unframed && matches!(&self.observer, Observer::Events(events) if !events.complete())
    }

    fn complete(&mut self) {
        self.stage = Stage::Over;
        self.reply = None;
        if let Some(ticket) = self.ticket.take() {
            match &self.observer {
                Observer::Events(events) if events.error() => ticket.broken(),
                observer => ticket.done(observer.usage()),
            }
        }
    }

    /// The answer cannot be completed; the client must not take what it has for the whole.
    fn break_off(&mut self, cx: &mut Context<'_>, reason: String) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.reply = None;
        tracing::warn!(request = ?self.ticket.as_ref().map(Ticket::request), reason, "an answer broke off");
        if let Some(ticket) = self.ticket.take() {
            ticket.broken();
        }
        match &self.observer {
            Observer::Events(events) if self.appendable => {
                self.stage = Stage::Over;
                self.pulse.close_after_response();
                Poll::Ready(Some(Ok(Frame::data(error_event(events.between(), &reason)))))
            }
            _ => {
                self.stage = Stage::Cutting(reason);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// The event that tells a client of a broken stream. No `[DONE]` follows it.
fn error_event(between: bool, reason: &str) -> Bytes {
    let message = format!("the replica failed after the stream had begun: {reason}");
    let error = ErrorBody::new("server_error", "replica_failed", message);
    let json = serde_json::to_string(&error).expect("an error object is plain strings");
    // A half event is ended first, so that this one stands alone.
    let before = if between { "" } else { "\n\n" };
    Bytes::from(format!("{before}data: {json}\n\n"))
}

fn join(a: Bytes, b: Bytes) -> Bytes {
    if b.is_empty() {
        return a;
    }
    let mut both = BytesMut::with_capacity(a.len() + b.len());
    both.extend_from_slice(&a);
    both.extend_from_slice(&b);
    both.freeze()
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let relay = match &mut self.get_mut().content {
            Content::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Relayed(relay) => relay,
            Content::Told(speech) => return speech.poll(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        };
        match &mut relay.stage {
            Stage::Flowing => relay.flow(cx),
            Stage::Cutting(reason) => {
                let reason = std::mem::take(reason);
                relay.stage = Stage::Over;
                Poll::Ready(Some(Err(BrokenOff(reason))))
            }
            Stage::Over => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Relayed(relay) => matches!(relay.stage, Stage::Over),
            Content::Told(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Told(_) => SizeHint::default(),
            Content::Relayed(relay) if relay.appendable || relay.strip.is_some() => SizeHint::default(),
            Content::Relayed(relay) => relay.reply.as_ref().map(Body::size_hint).unwrap_or_default(),
        }
    }
}

/// A limit on the silence of an engine, or of the way to it. The timer is set only when nothing is there, and then runs once per limit,
/// not per chunk.
struct Silence {
    limit: Duration,
    clock: Clock,
    heard: Time,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    fn new(limit: Duration, clock: Clock) -> Self {
        Self { limit, clock, heard: clock.now(), timer: None }
    }

    fn heard(&mut self) {
        self.heard = self.clock.now();
    }

    /// Waits no longer than this from now on.
    fn tighten(&mut self, limit: Duration) {
        if limit < self.limit {
            (self.limit, self.timer) = (limit, None);
        }
    }

    /// Ready with true when the limit has passed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let left = self.clock.until(self.heard.plus_ms(self.limit.as_secs_f64() * 1000.0));
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            ready!(timer.as_mut().poll(cx));
            if left.is_zero() {
                return Poll::Ready(true);
            }
            *timer = Box::pin(tokio::time::sleep(left));
        }
    }
}
