//! The one owner of the router: a lock around it, the clock beside it, and the requests that wait for it.
//!
//! Nothing here awaits, and the lock is never held over an await: extraction and hashing are done before, sending after. Every
//! request holds a [`Ticket`], whose drop tells the router that its client went away, so that no path can forget it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::clock::{Clock, wall_micros};
use super::journal::{Ended, Journal};
use super::metrics::Metrics;
use super::replica::Replica;
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::{Decision, Effect, Features, Outcome, Refusal, Router, Usage, Verdict};
use crate::wire::{OutcomeKind, RequestCounts};

/// Router, clock and everything that must change together with them.
pub(super) struct Brain {
    state: Mutex<State>,
    clock: Clock,
    next_request: AtomicU64,
    metrics: Arc<Metrics>,
}

/// What a brain is told at its start, the router's own settings apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct BrainSettings {
    /// Most requests whose decisions are kept.
    pub(super) decisions_kept: usize,
    /// As the router was told.
    pub(super) max_concurrent: Option<u32>,
}

/// What the lock protects.
pub(super) struct State {
    /// The routing engine.
    pub(super) router: Router,
    /// The replicas by the router's ids; in its order.
    pub(super) replicas: BTreeMap<ReplicaId, Arc<Replica>>,
    /// What was decided and how it ended.
    pub(super) journal: Journal,
    /// Requests since the start.
    pub(super) counts: RequestCounts,
    /// Limit of running requests per replica as set by people; `None` = the strategy's own rule.
    pub(super) max_concurrent: Option<u32>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Step>>,
}

/// Where a request goes next.
#[derive(Clone)]
pub(super) enum Step {
    /// To this replica.
    Go(Arc<Decision>, Arc<Replica>),
    /// Nowhere.
    Refused(Arc<Decision>, Refusal, Option<f64>),
}

impl Brain {
    /// A brain around a router.
    #[must_use]
    pub(super) fn new(router: Router, clock: Clock, settings: BrainSettings, metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State {
            router,
            replicas: BTreeMap::new(),
            journal: Journal::new(settings.decisions_kept),
            counts: RequestCounts::default(),
            max_concurrent: settings.max_concurrent,
            waiting: BTreeMap::new(),
        };
        // Ids differ between starts and grow within one: 51 bits of microseconds leave room for 4096 requests per microsecond.
        let next_request = AtomicU64::new(wall_micros() << 12);
        Arc::new(Self { state: Mutex::new(state), clock, next_request, metrics })
    }

    /// The clock that all times given to the router come from.
    #[must_use]
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// The metrics beside it.
    #[must_use]
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A new identity.
    #[must_use]
    pub(super) fn request_id(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// The state, for as long as the guard lives. A panic of another holder leaves it usable: every event is applied as a whole
    /// or not at all as far as the gateway is concerned.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one event on the router and delivers what it sets free.
    pub(super) fn event<T>(&self, event: impl FnOnce(&mut State, Time) -> (T, Vec<Effect>)) -> T {
        let mut state = self.lock();
        let now = self.clock.now();
        let (answer, effects) = event(&mut state, now);
        state.deliver(now, effects);
        answer
    }

    /// When the queue has to be looked at again, if it has to.
    #[must_use]
    pub(super) fn deadline(&self) -> Option<Time> {
        self.lock().router.deadline()
    }

    /// How long a request in the queue sleeps before it looks at the ages itself. The floor keeps a late release from spinning.
    fn pause(&self) -> Duration {
        match self.deadline() {
            Some(at) => self.clock.until(at).max(Duration::from_millis(1)),
            None => Duration::from_secs(1),
        }
    }

    /// Looks at the ages in the queue.
    pub(super) fn tick(&self) {
        self.event(|state, now| ((), state.router.tick(now)));
    }

    /// Counts a request that was refused before the router saw it.
    pub(super) fn refused_early(&self) {
        let mut state = self.lock();
        state.counts.total += 1;
        state.counts.refused += 1;
    }

    /// A request arrives; where it goes is asked with [`Ticket::next`].
    pub(super) fn arrive(self: &Arc<Self>, request: RequestId, features: Arc<Features>, started: Time) -> Ticket {
        let model = features.model.clone();
        let mut state = self.lock();
        let now = self.clock.now();
        state.counts.total += 1;
        state.counts.in_flight += 1;
        let decision = state.router.arrive(now, request, features);
        self.metrics.decision.observe(self.clock.now().since_ms(now) / 1000.0);
        state.journal.open(request, model, decision.clone());
        let stage = state.stage(&decision);
        drop(state);
        Ticket { brain: self.clone(), request, started, stage, replica: None, ended: Ended::default() }
    }
}

impl State {
    /// What a decision means here; `None` = wait.
    fn step(&self, decision: &Arc<Decision>) -> Option<Step> {
        match decision.verdict {
            Verdict::Dispatch(id) => Some(match self.replicas.get(&id) {
                Some(replica) => Step::Go(decision.clone(), replica.clone()),
                None => {
                    tracing::error!(replica = id.0, "the router chose a replica that the gateway does not have");
                    Step::Refused(decision.clone(), Refusal::NoReplica, None)
                }
            }),
            Verdict::Hold => None,
            Verdict::Reject { reason, retry_after_ms } => Some(Step::Refused(decision.clone(), reason, retry_after_ms)),
        }
    }

    /// A decision as the stage of its request; one that waits is put where [`State::deliver`] finds it.
    fn stage(&mut self, decision: &Arc<Decision>) -> Stage {
        match self.step(decision) {
            Some(step) => Stage::Decided(step),
            None => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.insert(decision.request, sender);
                Stage::Waiting(receiver)
            }
        }
    }

    /// Takes a request out of the router, whatever stage it is in.
    fn let_go(&mut self, now: Time, request: RequestId, stage: Stage, outcome: Option<Outcome>) -> Vec<Effect> {
        let step = match stage {
            Stage::Waiting(mut answer) => {
                if self.waiting.remove(&request).is_some() {
                    return self.router.withdraw(now, request);
                }
                // The answer came, and nobody has read it.
                answer.try_recv().ok()
            }
            Stage::Decided(step) => Some(step),
            Stage::Sent => return self.router.finish(now, request, outcome.unwrap_or(Outcome::Cancelled)),
            Stage::Refused | Stage::Over => None,
        };
        match step {
            Some(Step::Go(..)) => self.router.finish(now, request, Outcome::Cancelled),
            Some(Step::Refused(..)) | None => Vec::new(),
        }
    }

    fn deliver(&mut self, now: Time, effects: Vec<Effect>) {
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(Effect::Released(decision)) = effects.pop_front() {
            let request = decision.request;
            self.journal.decided(request, decision.clone());
            let Some(step) = self.step(&decision) else { continue };
            let sent = self.waiting.remove(&request).is_some_and(|waiting| waiting.send(step).is_ok());
            if !sent && matches!(decision.verdict, Verdict::Dispatch(_)) {
                // Nobody is there to send it: the replica must not be left with a request that never comes.
                effects.extend(self.router.finish(now, request, Outcome::Cancelled));
            }
        }
    }
}

enum Stage {
    /// In the router's queue; the answer comes here.
    Waiting(oneshot::Receiver<Step>),
    /// Decided; the request has not taken note.
    Decided(Step),
    /// At a replica, as far as the router knows.
    Sent,
    /// The router said no; only the end has to be noted.
    Refused,
    /// Ended for the router and in the journal.
    Over,
}

/// A request in the router's books, from its arrival to its end.
pub(super) struct Ticket {
    brain: Arc<Brain>,
    request: RequestId,
    started: Time,
    stage: Stage,
    replica: Option<Arc<Replica>>,
    ended: Ended,
}

impl Ticket {
    /// The request's identity.
    #[must_use]
    pub(super) fn request(&self) -> RequestId {
        self.request
    }

    /// Where it goes now; waits while the router holds it.
    pub(super) async fn next(&mut self) -> Step {
        let step = loop {
            let pause = self.brain.pause();
            match &mut self.stage {
                Stage::Waiting(answer) => tokio::select! {
                    answer = answer => {
                        let step = answer.expect("the sender stays in `waiting` until it has sent");
                        self.stage = Stage::Decided(step);
                    }
                    () = tokio::time::sleep(pause) => self.brain.tick(),
                },
                Stage::Decided(step) => break step.clone(),
                Stage::Sent | Stage::Refused | Stage::Over => unreachable!("asked once per decision"),
            }
        };
        match &step {
            Step::Go(_, replica) => {
                replica.dispatched();
                self.replica = Some(replica.clone());
                self.stage = Stage::Sent;
            }
            Step::Refused(..) => self.stage = Stage::Refused,
        }
        step
    }

    /// The attempt failed before its first byte; [`Ticket::next`] tells where it goes instead.
    pub(super) fn failed(&mut self) {
        let request = self.request;
        if let Some(replica) = self.replica.take() {
            replica.attempt_failed();
        }
        let mut state = self.brain.lock();
        let now = self.brain.clock.now();
        let (decision, effects) = state.router.failed(now, request);
        state.journal.decided(request, decision.clone());
        if !matches!(decision.verdict, Verdict::Reject { .. }) {
            state.counts.retried += 1;
        }
        self.stage = state.stage(&decision);
        state.deliver(now, effects);
    }

    /// The head of an answer came.
    pub(super) fn headers(&mut self, status: u16) {
        self.ended.status = Some(status);
        if (200..300).contains(&status) {
            let request = self.request;
            self.brain.event(|state, now| ((), state.router.headers(now, request)));
        }
    }

    /// The first token came.
    pub(super) fn first_token(&mut self) {
        let (request, started) = (self.request, self.started);
        let now = self.brain.event(|state, now| (now, state.router.first_token(now, request)));
        let ttft_ms = now.since_ms(started);
        self.ended.ttft_ms = Some(ttft_ms);
        if let Some(replica) = &self.replica {
            replica.metrics.ttft.observe(ttft_ms / 1000.0);
        }
    }

    /// Answered in full.
    pub(super) fn done(mut self, usage: Usage) {
        self.ended.usage = usage;
        let answered = self.ended.status.is_none_or(|status| (200..300).contains(&status));
        // What an engine refuses it has not computed: nothing may be learned from it, neither cache nor rates.
        let outcome = if answered { Outcome::Done(usage) } else { Outcome::Cancelled };
        self.end(OutcomeKind::Ok, Some(outcome));
    }

    /// Broke after its first byte.
    pub(super) fn broken(mut self) {
        self.end(OutcomeKind::Failed, Some(Outcome::Broken));
    }

    /// The last failed answer is handed to the client as it came.
    pub(super) fn failed_everywhere(mut self, status: u16) {
        self.ended.status = Some(status);
        self.end(OutcomeKind::Failed, None);
    }

    /// Refused, with this status.
    pub(super) fn refused(mut self, status: u16, reason: Refusal) {
        self.ended.status = Some(status);
        let kind = if reason == Refusal::AllTried { OutcomeKind::Failed } else { OutcomeKind::Refused };
        self.end(kind, None);
    }

    fn end(&mut self, kind: OutcomeKind, outcome: Option<Outcome>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if matches!(stage, Stage::Over) {
            return;
        }
        let mut state = self.brain.lock();
        let now = self.brain.clock.now();
        let effects = state.let_go(now, self.request, stage, outcome);
        state.counts.in_flight -= 1;
        let counter = match kind {
            OutcomeKind::Ok => &mut state.counts.ok,
            OutcomeKind::Failed => &mut state.counts.failed,
            OutcomeKind::Refused => &mut state.counts.refused,
            OutcomeKind::Cancelled => &mut state.counts.cancelled,
        };
        *counter += 1;
        self.ended.e2e_ms = now.since_ms(self.started);
        let foreseen = state.journal.close(self.request, kind, self.replica.as_deref(), &self.ended);
        state.deliver(now, effects);
        drop(state);
        if let Some(replica) = &self.replica {
            replica.ended(kind, &self.ended, foreseen);
        }
        self.brain.metrics.ended(kind, self.ended.e2e_ms / 1000.0);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(OutcomeKind::Cancelled, None);
    }
}
