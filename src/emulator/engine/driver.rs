//! The task that owns the engine: takes requests in, sleeps until the engine's next event, tells connections of their tokens.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::ticket::{Board, Ending, Progress};
use crate::emulator::clock::Clock;
use crate::model::Time;
use crate::sim::engine::{Engine, EngineEvent, EngineGauges, EngineSpec, Job};

/// Decode steps between two refreshes of the metrics (`--decode-log-interval`, docs/models.md 3).
const STEPS_PER_REFRESH: u32 = 40;

/// What connections ask of the driver.
#[derive(Debug)]
pub(super) enum Command {
    /// Run a prompt that arrived at `at`; its progress is shown at `index` of the board.
    Submit { at: Time, job: Job, rid: Option<Arc<str>>, board: Arc<Board>, index: usize },
    /// The client of these jobs went away. Jobs that have ended are passed over.
    Abort { ids: Range<u64> },
    /// End the jobs of this request id, or all.
    AbortNamed { rid: Option<String> },
    /// Empty the prefix cache; the answer tells whether it was done.
    Flush { done: oneshot::Sender<bool> },
    /// Tell the load.
    Look { answer: oneshot::Sender<Load> },
}

/// The engine's load as the pages show it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Now: `/v1/loads`.
    pub(super) fresh: EngineGauges,
    /// At the last refresh, as old as SGLang's gauges are: `/metrics`.
    pub(super) shown: EngineGauges,
}

/// Counts that anybody may read.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Prompts accepted.
    pub(super) requests: AtomicU64,
    /// Prompts ended early on request or because the client went away.
    pub(super) aborted: AtomicU64,
}

/// Where the driver is reached.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Commands, carried out in order.
    pub(super) commands: UnboundedSender<Command>,
    /// Its counts.
    pub(super) counters: Arc<Counters>,
}

/// The owner of the engine.
pub(super) struct Driver {
    engine: Engine,
    clock: Clock,
    commands: UnboundedReceiver<Command>,
    counters: Arc<Counters>,
    jobs: BTreeMap<u64, Running>,
    /// Jobs whose progress has changed since it was last published.
    touched: Vec<u64>,
    /// Kept for its memory.
    events: Vec<EngineEvent>,
    shown: EngineGauges,
    /// Time at work when last looked at, ms.
    busy_ms: f64,
    steps_since_refresh: u32,
}

struct Running {
    board: Arc<Board>,
    index: usize,
    rid: Option<Arc<str>>,
    progress: Progress,
    touched: bool,
}

impl Driver {
    /// A driver of a new engine, and the line to it.
    pub(super) fn new(spec: EngineSpec, clock: Clock) -> (Self, Line) {
        let (sender, commands) = unbounded_channel();
        let counters = Arc::<Counters>::default();
        let line = Line { commands: sender, counters: Arc::clone(&counters) };
        let driver = Self {
            engine: Engine::new(spec),
            clock,
            commands,
            counters,
            jobs: BTreeMap::new(),
            touched: Vec::new(),
            events: Vec::new(),
            shown: EngineGauges::default(),
            busy_ms: 0.0,
            steps_since_refresh: 0,
        };
        (driver, line)
    }

    /// Runs until every sender of commands is gone.
    pub(super) async fn run(mut self) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            let due = self.engine.next_event();
            if let Some(due) = due {
                sleep.as_mut().reset(self.clock.instant(due));
            }
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = &mut sleep, if due.is_some() => {}
            }
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
            self.advance();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { at, job, rid, board, index } => {
                self.counters.requests.fetch_add(1, Ordering::Relaxed);
                let progress = Progress { accepted: true, ..Progress::default() };
                self.jobs.insert(job.id, Running { board, index, rid, progress, touched: true });
                self.touched.push(job.id);
                // At the time of its arrival, however late this task is: the model's times do not suffer from ours.
                self.engine.submit(at, job);
            }
            Command::Abort { ids } => {
                for id in ids {
                    self.abort(id);
                }
            }
            Command::AbortNamed { rid } => {
                let named = |running: &Running| rid.is_none() || running.rid.as_deref() == rid.as_deref();
                let ids: Vec<u64> = self.jobs.iter().filter(|(_, running)| named(running)).map(|(id, _)| *id).collect();
                for id in ids {
                    self.abort(id);
                }
            }
            Command::Flush { done } => {
                self.advance();
                let flushed = self.engine.flush();
                self.refresh();
                let _ = done.send(flushed);
            }
            Command::Look { answer } => {
                self.advance();
                let _ = answer.send(Load { fresh: self.engine.gauges(), shown: self.shown });
            }
        }
    }

    fn abort(&mut self, id: u64) {
        self.engine.abort(self.clock.now(), id);
        if let Some(mut running) = self.jobs.remove(&id) {
            self.counters.aborted.fetch_add(1, Ordering::Relaxed);
            running.progress.ending = Some(Ending::Aborted);
            running.board.publish(running.index, running.progress);
        }
    }

    /// Runs the engine up to now and publishes what came of it: once per job, however many of its tokens were due.
    fn advance(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.engine.advance(self.clock.now(), &mut events);
        for event in &events {
            self.note(event);
        }
        self.watch(&events);
        events.clear();
        self.events = events;
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let Some(running) = self.jobs.get_mut(&id) else { continue };
            running.touched = false;
            running.board.publish(running.index, running.progress);
            if running.progress.ending.is_some() {
                self.jobs.remove(&id);
            }
        }
        self.touched = touched;
    }

    fn note(&mut self, event: &EngineEvent) {
        let Some(running) = self.jobs.get_mut(&event.id()) else { return };
        let progress = &mut running.progress;
        match *event {
            EngineEvent::FirstToken { at, cached_tokens, .. } => {
                progress.tokens += 1;
                progress.first_at = Some(at);
                progress.cached_tokens = cached_tokens;
            }
            EngineEvent::Token { .. } => progress.tokens += 1,
            EngineEvent::Done { .. } => progress.ending = Some(Ending::Complete),
            EngineEvent::TooLarge { .. } => progress.ending = Some(Ending::TooLarge),
        }
        if !std::mem::replace(&mut running.touched, true) {
            self.touched.push(event.id());
        }
    }

    /// Refreshes the shown gauges when SGLang does: with a prefill batch, every 40th decode step, and when idle.
    fn watch(&mut self, events: &[EngineEvent]) {
        let mut last_step = None;
        for event in events.iter().filter(|event| matches!(event, EngineEvent::Token { .. })) {
            if last_step.replace(event.at()) != Some(event.at()) {
                self.steps_since_refresh += 1;
            }
        }
        let gauges = self.engine.gauges();
        // A step that ended without a token was a piece of a prompt.
        let worked = gauges.busy_ms > std::mem::replace(&mut self.busy_ms, gauges.busy_ms);
        let first = events.iter().any(|event| matches!(event, EngineEvent::FirstToken { .. }));
        let prefilled = first || worked && events.is_empty();
        let admitted = gauges.running > self.shown.running;
        let idle = gauges.running == 0 && gauges.waiting == 0;
        if prefilled || admitted || idle || self.steps_since_refresh >= STEPS_PER_REFRESH {
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        self.shown = self.engine.gauges();
        self.steps_since_refresh = 0;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for running in self.jobs.values_mut() {
            running.progress.ending = Some(Ending::Gone);
            running.board.publish(running.index, running.progress);
        }
    }
}
