//! What the driver and a request's connection share: how far the request has come.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc::UnboundedSender;

use super::driver::Command;
use crate::model::Time;

/// How a prompt's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All tokens are there.
    Complete,
    /// It can never run: it needs more KV than the engine has.
    TooLarge,
    /// Somebody asked `/abort_request` for it.
    Aborted,
    /// The engine stopped.
    Gone,
}

/// How far one prompt has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// The engine has it.
    pub(super) accepted: bool,
    /// Tokens generated.
    pub(super) tokens: u32,
    /// When the first one was due.
    pub(super) first_at: Option<Time>,
    /// Prompt tokens found in the cache; known with the first token.
    pub(super) cached_tokens: u32,
    /// Whether and how it ended.
    pub(super) ending: Option<Ending>,
}

/// Progress of a request's prompts. Holds counts instead of text: a client that does not read costs no memory.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Vec<Progress>,
    reader: Option<Waker>,
}

impl Board {
    /// A board for `prompts` prompts that have not begun.
    pub(super) fn new(prompts: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { progress: vec![Progress::default(); prompts], reader: None }) })
    }

    /// Shows the progress of one prompt and wakes whoever reads.
    pub(super) fn publish(&self, index: usize, progress: Progress) {
        let mut state = self.lock();
        state.progress[index] = progress;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Reads all progress into `into` and asks to be woken when there is more.
    fn read(&self, context: &Context<'_>, into: &mut Vec<Progress>) {
        let mut state = self.lock();
        into.clone_from(&state.progress);
        match &mut state.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's claim on its prompts in the engine: dropped before their end, it aborts them.
#[derive(Debug)]
pub(super) struct Ticket {
    board: Arc<Board>,
    ids: Range<u64>,
    commands: UnboundedSender<Command>,
    progress: Vec<Progress>,
}

impl Ticket {
    /// A claim on the jobs `ids`, whose progress `board` shows.
    pub(super) fn new(board: Arc<Board>, ids: Range<u64>, commands: UnboundedSender<Command>) -> Self {
        Self { board, ids, commands, progress: Vec::new() }
    }

    /// How far the prompts have come by now. The task of `context` is woken when that changes.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> &[Progress] {
        self.board.read(context, &mut self.progress);
        &self.progress
    }

    /// Waits until all prompts fulfil a condition.
    pub(super) async fn wait(&mut self, all: impl Fn(&Progress) -> bool) -> &[Progress] {
        poll_fn(|context| if self.poll(context).iter().all(&all) { Poll::Ready(()) } else { Poll::Pending }).await;
        &self.progress
    }

    /// Whether all prompts had ended when [`Self::poll`] looked last.
    pub(super) fn ended(&self) -> bool {
        !self.progress.is_empty() && self.progress.iter().all(|progress| progress.ending.is_some())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended() {
            // If the driver is gone, so are the jobs.
            let _ = self.commands.send(Command::Abort { ids: self.ids.clone() });
        }
    }
}
