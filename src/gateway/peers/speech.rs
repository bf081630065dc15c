//! What a peer that asked gets to read, without an end: a body that is made as the connection takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::telling::Telling;
use crate::gateway::agent::Agent;
use crate::gateway::connection::Pulse;
use crate::gateway::replica::Replica;
use crate::gateway::serve::Shared;
use crate::routing::BLOCK_BYTES;
use crate::routing::index::SAMPLE_EVERY;
use crate::wire::peer::{Hello, VERSION};

/// A stream to one peer.
pub(in crate::gateway) struct Speech {
    shared: Arc<Shared>,
    listener: Arc<Replica>,
    pulse: Arc<Pulse>,
    telling: Telling,
    /// Until the next frame.
    pause: Pin<Box<Sleep>>,
    /// The listener has asked anew, or is no peer any more.
    superseded: Pin<Box<WaitForCancellationFutureOwned>>,
    /// This agent takes its leave.
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Speech {
    /// A stream to `listener`, on the connection of this pulse. Ends with `told`, the listener's own token.
    #[must_use]
    pub(in crate::gateway) fn new(
        shared: Arc<Shared>,
        listener: Arc<Replica>,
        told: CancellationToken,
        pulse: Arc<Pulse>,
    ) -> Self {
        let teller = shared.brain.lock().router.teller(&listener.config.region);
        let leaving = Box::pin(shared.stopping.clone().cancelled_owned());
        Self {
            shared,
            listener,
            pulse,
            telling: Telling::new(teller),
            pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
            superseded: Box::pin(told.cancelled_owned()),
            leaving,
            over: false,
        }
    }

    /// The next frames. `None` ends the stream.
    pub(in crate::gateway) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.over || self.superseded.as_mut().poll(cx).is_ready() {
                self.over = true;
                return Poll::Ready(None);
            }
            let last = self.leaving.as_mut().poll(cx).is_ready();
            if !last {
                ready!(self.pause.as_mut().poll(cx));
            }
            self.wait();
            // What the connection does not take now would be old when it does.
            if self.pulse.is_blocked() && !last {
                continue;
            }
            self.over = last;
            let bytes = self.frames(last);
            self.listener.metrics.told(bytes.len());
            return Poll::Ready(Some(bytes));
        }
    }

    fn wait(&mut self) {
        // From now on and not from when it was due: a body that was not polled for a while must not catch up.
        #[expect(clippy::disallowed_methods, reason = "a timer of the runtime is set on the runtime's clock")]
        let next = Instant::now() + self.shared.peers.every;
        self.pause.as_mut().reset(next);
    }

    /// What is to be said now, and perhaps never again.
    fn frames(&mut self, last: bool) -> Bytes {
        let Some(agent) = &self.shared.agent else { return Bytes::new() };
        let draining = last || self.shared.draining.load(Ordering::Relaxed);
        let news = {
            let state = self.shared.brain.lock();
            let now = self.shared.brain.clock().now();
            self.telling.news(now, &state.router, &self.listener.name, draining)
        };
        Bytes::from(self.telling.frames(news, || hello(agent, self.shared.peers.every)))
    }
}

fn hello(agent: &Agent, every: Duration) -> Hello {
    Hello {
        version: VERSION,
        oldest: VERSION,
        name: agent.config().name.clone(),
        region: agent.config().region.clone(),
        epoch: agent.epoch(),
        every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
        block_bytes: BLOCK_BYTES as u64,
        sample_every: SAMPLE_EVERY as u64,
    }
}
