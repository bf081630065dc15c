//! Spans of requests, while somebody has asked for them: what is written down of each, and how much of it is kept.
//!
//! Off, a request costs one relaxed load of a flag. On, its stamps are collected in its own [`Recording`], become one line of JSON when it
//! has ended, outside of every lock of the data path, and the line goes into a [`Ring`] of so many bytes.

mod clocks;
mod context;
mod recording;
mod ring;
mod sample;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub(super) use self::clocks::PeerClocks;
pub(super) use self::context::Context;
pub(super) use self::recording::Recording;
use self::ring::Ring;
pub(super) use self::sample::sample;
use super::clock::Clock;
use super::reject::Rejection;
use crate::model::{RequestId, Time};
use crate::wire::OutcomeKind;
use crate::wire::span::{Line, RequestSpan};

/// Bytes of lines kept where nobody says otherwise: some 10,000 requests with three candidates each.
pub(super) const DEFAULT_BYTES: u64 = 16 << 20;
/// Least and most that may be asked for. The most still fits through `gorgo cluster stop-trace`, which takes 64 MiB of a command's
/// output from a node.
const BYTES: std::ops::RangeInclusive<u64> = 4096..=48 << 20;

/// What collects spans.
#[derive(Default)]
pub(super) struct Tracer {
    on: AtomicBool,
    state: Mutex<State>,
}

/// What the lock protects; it is held for a few instructions at a time.
#[derive(Default)]
struct State {
    /// The run that goes on, or the last one.
    run: Option<Run>,
    runs: u64,
}

struct Run {
    number: u64,
    started: Time,
    stopped: Option<Time>,
    ring: Ring,
    /// Requests that are being recorded.
    open: u64,
    /// Ends what samples the counters.
    over: CancellationToken,
}

/// A run that is over, for its dump.
pub(super) struct Stopped {
    pub(super) started: Time,
    pub(super) stopped: Time,
    pub(super) buffer_bytes: u64,
    pub(super) dropped: u64,
    pub(super) unfinished: u64,
    pub(super) lines: u64,
    /// Each ends with a line feed.
    pub(super) text: Vec<u8>,
}

/// Why tracing was not started or stopped.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    /// It runs since then.
    Runs(Time),
    /// It never ran.
    NeverRan,
    /// So many bytes are not to be had.
    Bytes,
}

impl Tracer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record a request, if that is wanted now.
    pub(super) fn begin(self: &Arc<Self>, request: RequestId, received: Time) -> Option<Box<Recording>> {
        // Most requests end here. A flag that is seen late costs a span at the edge of a run, nothing else.
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.lock();
        let run = state.run.as_mut().filter(|run| run.stopped.is_none())?;
        run.open += 1;
        Some(Box::new(Recording::new(self.clone(), run.number, request, received)))
    }

    /// Writes down a request that was refused before the router saw it.
    pub(super) fn refused(self: &Arc<Self>, request: RequestId, received: Time, clock: Clock, rejection: &Rejection) {
        if let Some(recording) = self.begin(request, received) {
            recording.refused(clock.now(), rejection);
        }
    }

    /// Starts a run; what the last one kept is gone. The token ends with it.
    pub(super) fn start(&self, now: Time, bytes: u64) -> Result<CancellationToken, Refused> {
        if !BYTES.contains(&bytes) {
            return Err(Refused::Bytes);
        }
        let mut state = self.lock();
        if let Some(Run { stopped: None, started, .. }) = &state.run {
            return Err(Refused::Runs(*started));
        }
        let over = CancellationToken::new();
        state.runs += 1;
        let number = state.runs;
        let ring = Ring::new(usize::try_from(bytes).unwrap_or(usize::MAX));
        state.run = Some(Run { number, started: now, stopped: None, ring, open: 0, over: over.clone() });
        self.on.store(true, Ordering::Relaxed);
        Ok(over)
    }

    /// Ends the run, if it goes on, and tells what was kept. What is kept stays until the next start, so that an answer that got lost can
    /// be asked for again.
    pub(super) fn stop(&self, now: Time) -> Result<Stopped, Refused> {
        let mut state = self.lock();
        let run = state.run.as_mut().ok_or(Refused::NeverRan)?;
        self.on.store(false, Ordering::Relaxed);
        run.over.cancel();
        let stopped = *run.stopped.get_or_insert(now);
        let (ring, started, unfinished) = (run.ring.clone(), run.started, run.open);
        drop(state);
        Ok(Stopped {
            started,
            stopped,
            buffer_bytes: ring.capacity() as u64,
            dropped: ring.dropped(),
            unfinished,
            lines: ring.len() as u64,
            text: ring.text(),
        })
    }

    /// Keeps a line of the run of this number, while it goes on.
    fn keep(&self, number: u64, line: &Line) {
        let json = serde_json::to_string(line).expect("names and finite numbers");
        let mut state = self.lock();
        if let Some(run) = state.run.as_mut().filter(|run| run.number == number && run.stopped.is_none()) {
            run.ring.push(json.into());
        }
    }

    /// A request of the run of this number has ended; `None` = it was given up on the way.
    fn ended(&self, number: u64, span: Option<RequestSpan>) {
        if let Some(span) = span {
            self.keep(number, &Line::Request(Box::new(span)));
        }
        let mut state = self.lock();
        if let Some(run) = state.run.as_mut().filter(|run| run.number == number && run.stopped.is_none()) {
            run.open -= 1;
        }
    }

    /// The number of the run that goes on.
    fn number(&self) -> Option<u64> {
        self.lock().run.as_ref().filter(|run| run.stopped.is_none()).map(|run| run.number)
    }
}

/// The way in which a refusal of ours ends a request.
fn kind(status: u16) -> OutcomeKind {
    if status == 502 || status == 504 { OutcomeKind::Failed } else { OutcomeKind::Refused }
}

#[cfg(test)]
mod tests;
