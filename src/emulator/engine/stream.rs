//! The body of a streamed reply: turns tokens that are due into events, all of them in one write.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};

use super::reply::{Choice, DONE, Envelope, Totals};
use super::ticket::{Ending, Progress, Ticket};
use crate::emulator::clock::Clock;
use crate::emulator::lateness::Lateness;
use crate::inference::Dialect;
use crate::model::Time;

/// Room for a token's event or two.
const USUAL_WRITE_BYTES: usize = 512;

/// The engine stopped in the middle of a stream: the connection is cut, nothing pretends to be its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the emulated engine stopped")]
pub(super) struct EngineStopped;

impl From<Infallible> for EngineStopped {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A stream of events. Dropped before its end, it aborts its prompts.
#[derive(Debug)]
pub(super) struct TokenStream {
    pub(super) ticket: Ticket,
    pub(super) envelope: Envelope,
    pub(super) writers: Writers,
    pub(super) dialect: Dialect,
    pub(super) include_usage: bool,
    pub(super) clock: Clock,
    pub(super) lateness: Arc<Lateness>,
    pub(super) finished: bool,
}

/// The choices of a stream and how much of each is written.
#[derive(Debug)]
pub(super) struct Writers {
    choices: Vec<Choice>,
    written: Vec<Written>,
}

#[derive(Clone, Debug, Default)]
struct Written {
    tokens: u32,
    ended: bool,
    /// All text so far, for `/generate` only.
    text: String,
}

impl Writers {
    /// Nothing is written yet.
    pub(super) fn new(choices: Vec<Choice>) -> Self {
        let written = vec![Written::default(); choices.len()];
        Self { choices, written }
    }

    /// Writes what `progress` has more than was written. Returns the first tokens among it, as the times they were due.
    fn catch_up(
        &mut self,
        out: &mut BytesMut,
        envelope: &Envelope,
        dialect: Dialect,
        progress: &[Progress],
    ) -> Vec<Time> {
        let mut first = Vec::new();
        for (index, progress) in progress.iter().enumerate() {
            let (choice, written) = (&mut self.choices[index], &mut self.written[index]);
            let ends = progress.ending.is_some() && !written.ended;
            if written.tokens == 0 && progress.tokens > 0 {
                first.extend(progress.first_at);
            }
            let news = written.tokens < progress.tokens || ends;
            while written.tokens < progress.tokens {
                let text = choice.output.next_token();
                match dialect {
                    Dialect::Generate => written.text.extend(text.map(char::from)),
                    _ => envelope.token(out, index, written.tokens == 0, &text),
                }
                written.tokens += 1;
            }
            written.ended |= ends;
            match (dialect, progress.ending) {
                (Dialect::Generate, _) if news => envelope.generated(out, index, choice, &written.text, progress),
                (Dialect::Generate, _) => {}
                (_, Some(ending)) if ends => envelope.finish(out, index, choice, ending),
                _ => {}
            }
        }
        first
    }
}

impl Body for TokenStream {
    type Data = Bytes;
    type Error = EngineStopped;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if this.finished {
            return Poll::Ready(None);
        }
        let progress = this.ticket.poll(context);
        if progress.iter().any(|progress| progress.ending == Some(Ending::Gone)) {
            this.finished = true;
            return Poll::Ready(Some(Err(EngineStopped)));
        }
        let mut out = BytesMut::with_capacity(USUAL_WRITE_BYTES);
        for due in this.writers.catch_up(&mut out, &this.envelope, this.dialect, progress) {
            this.lateness.record(due, this.clock.now());
        }
        if this.writers.written.iter().all(|written| written.ended) {
            if this.include_usage && this.dialect != Dialect::Generate {
                this.envelope.usage(&mut out, Totals::of(&this.writers.choices, progress));
            }
            out.put_slice(DONE);
            this.finished = true;
        }
        if out.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(out.freeze())))) }
    }

    fn is_end_stream(&self) -> bool {
        self.finished
    }
}
