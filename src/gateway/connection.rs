//! One client connection: its limits in time, judged by a slow tick of its own instead of timers per request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::clock::Clock;
use super::settings::Limits;
use crate::model::Time;

/// What is known of a connection's life, written by its stream and its requests, read by its judge. Times are microseconds; 0 = no.
#[derive(Debug)]
pub(super) struct Pulse {
    clock: Clock,
    in_flight: AtomicU32,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    stuck_since: AtomicU64,
    multiplexed: AtomicBool,
    /// Something came.
    heard: AtomicBool,
    close: Notify,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing.
    Keep,
    /// It was idle for too long: close it in peace.
    Idle,
    /// Its client is too slow with a request head, or takes nothing of an answer: cut it.
    Stuck,
}

impl Pulse {
    /// A connection that has just been accepted.
    #[must_use]
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        let now = clock.now().micros().max(1);
        Arc::new(Self {
            clock,
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(0),
            stuck_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            close: Notify::new(),
        })
    }

    /// A request head is complete. The guard lives until its answer has been taken or dropped.
    #[must_use]
    pub(super) fn begin(self: &Arc<Self>, multiplexed: bool) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        self.multiplexed.store(multiplexed, Relaxed);
        InFlight { pulse: self.clone() }
    }

    /// No further request is taken once the present answer is out.
    pub(super) fn close_after_response(&self) {
        // With HTTP/2 other streams share the connection, and the error event has told this one.
        if !self.multiplexed.load(Relaxed) {
            self.close.notify_one();
        }
    }

    /// Returns when the connection shall close after its answer.
    pub(super) async fn closing(&self) {
        self.close.notified().await;
    }

    /// What the limits say now.
    #[must_use]
    pub(super) fn judge(&self, now: Time, limits: &Limits) -> Judgement {
        let over = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Relaxed);
            since != 0 && u128::from(now.micros().saturating_sub(since)) > limit.as_micros()
        };
        if over(&self.stuck_since, limits.write_timeout) {
            return Judgement::Stuck;
        }
        if self.in_flight.load(Relaxed) > 0 {
            return Judgement::Keep;
        }
        if over(&self.head_since, limits.header_timeout) && !self.multiplexed.load(Relaxed) {
            return Judgement::Stuck;
        }
        if over(&self.idle_since, limits.keep_alive) { Judgement::Idle } else { Judgement::Keep }
    }

    /// Does its client take nothing more at the moment?
    #[must_use]
    pub(super) fn is_blocked(&self) -> bool {
        self.stuck_since.load(Relaxed) != 0
    }

    fn now(&self) -> u64 {
        self.clock.now().micros().max(1)
    }

    fn read_some(&self, bytes: &[u8]) {
        // A client of HTTP/2 says so at once and may send its first request much later: its connection is idle until then.
        if !self.heard.swap(true, Relaxed) && bytes.starts_with(b"PRI ") {
            self.multiplexed.store(true, Relaxed);
        }
        if self.in_flight.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    fn write_blocked(&self, blocked: bool) {
        let since = self.stuck_since.load(Relaxed);
        match (blocked, since) {
            (true, 0) => self.stuck_since.store(self.now(), Relaxed),
            (false, 1..) => self.stuck_since.store(0, Relaxed),
            _ => {}
        }
    }
}

/// A request on a connection.
#[derive(Debug)]
pub(super) struct InFlight {
    pulse: Arc<Pulse>,
}

impl InFlight {
    /// The connection that it is on.
    #[must_use]
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.pulse.idle_since.store(self.pulse.now(), Relaxed);
        self.pulse.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A client's stream, plain or decrypted, that keeps its [`Pulse`] up to date.
pub(super) struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
}

impl<S> Watched<S> {
    /// Watches a stream.
    #[must_use]
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }

    fn wrote<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.pulse.write_blocked(result.is_pending());
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pulse.read_some(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes bytes into buffers of its own: that they stay there shows only here.
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Judgement, Pulse};
    use crate::gateway::clock::Clock;
    use crate::gateway::settings::Limits;
    use crate::model::Time;

    fn after(pulse: &Pulse, ms: f64, limits: &Limits) -> Judgement {
        pulse.judge(Time::from_micros(pulse.now()).plus_ms(ms), limits)
    }

    #[test]
    fn each_limit_has_its_own_clock() {
        let limits = Limits {
            keep_alive: Duration::from_secs(100),
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(50),
            ..Limits::default()
        };
        let pulse = Pulse::new(Clock::start());
        assert_eq!(after(&pulse, 99_000.0, &limits), Judgement::Keep);
        assert_eq!(after(&pulse, 101_000.0, &limits), Judgement::Idle);

        pulse.read_some(b"POST / HT");
        assert_eq!(after(&pulse, 9_000.0, &limits), Judgement::Keep);
        assert_eq!(after(&pulse, 11_000.0, &limits), Judgement::Stuck, "a slow head");

        let request = pulse.begin(false);
        pulse.read_some(b"{}");
        assert_eq!(after(&pulse, 1e9, &limits), Judgement::Keep, "the engine has limits of its own");
        pulse.write_blocked(true);
        assert!(pulse.is_blocked());
        assert_eq!(after(&pulse, 51_000.0, &limits), Judgement::Stuck, "a client that takes nothing");
        pulse.write_blocked(false);
        assert!(!pulse.is_blocked());
        drop(request);
        assert_eq!(after(&pulse, 11_000.0, &limits), Judgement::Keep);
        assert_eq!(after(&pulse, 101_000.0, &limits), Judgement::Idle);

        let ahead = Pulse::new(Clock::start());
        ahead.read_some(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        ahead.read_some(b"settings");
        assert_eq!(after(&ahead, 11_000.0, &limits), Judgement::Keep, "HTTP/2 may connect ahead of its first request");
        assert_eq!(after(&ahead, 101_000.0, &limits), Judgement::Idle);
    }
}
