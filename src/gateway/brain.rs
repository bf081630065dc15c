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
use super::goodput;
use super::journal::{Ended, Journal};
use super::metrics::Metrics;
use super::recalls::Recalls;
use super::replica::Replica;
use super::trace::Recording;
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::{Decision, Effect, Features, Outcome, Refusal, Router, Slo, Usage, Verdict};
use crate::wire::{OutcomeKind, RequestCounts};

/// Bounds of the pause between two looks at the queue: a deadline can come nearer meanwhile, and one that has passed must not spin.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Router, clock and everything that must change together with them.
pub(super) struct Brain {
    state: Mutex<State>,
    clock: Clock,
    next_request: AtomicU64,
    metrics: Arc<Metrics>,
    recalls: Arc<Recalls>,
    slo: Slo,
}

/// What a brain is told at its start, the router's own settings apart.
#[derive(Clone, Debug)]
pub(super) struct BrainSettings {
    /// Most requests whose decisions are kept.
    pub(super) decisions_kept: usize,
    /// As the router was told.
    pub(super) max_concurrent: Option<u32>,
    /// As the router was told.
    pub(super) slo: Slo,
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
    /// Number of the tuner's last entry that was told.
    pub(super) tuning_told: u64,
    waiting: BTreeMap<RequestId, oneshot::Sender<Step>>,
    recalls: Arc<Recalls>,
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
        let recalls = Arc::<Recalls>::default();
        let state = State {
            router,
            replicas: BTreeMap::new(),
            journal: Journal::new(settings.decisions_kept),
            counts: RequestCounts::default(),
            max_concurrent: settings.max_concurrent,
            tuning_told: 0,
            waiting: BTreeMap::new(),
            recalls: recalls.clone(),
        };
        // Ids differ between starts and grow within one: 51 bits of microseconds leave room for 4096 requests per microsecond.
        let next_request = AtomicU64::new(wall_micros() << 12);
        Arc::new(Self { state: Mutex::new(state), clock, next_request, metrics, recalls, slo: settings.slo })
    }

    /// What is promised to requests.
    pub(super) fn slo(&self) -> &Slo {
        &self.slo
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

    /// Returns once the router wants a request back from where it was sent.
    pub(super) async fn until_recalled(&self, request: RequestId) {
        self.recalls.until_wanted(request).await;
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

    /// Looks at the ages in the queue when the router wants it, for as long as it is polled. One task for all held requests: they
    /// themselves wait for nothing but their answer.
    pub(super) async fn keep_time(&self) {
        loop {
            let deadline = self.lock().router.deadline();
            let pause = deadline.map_or(LONGEST_PAUSE, |at| self.clock.until(at).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
            tokio::time::sleep(pause).await;
            if deadline.is_some_and(|at| self.clock.now() >= at) {
                self.event(|state, now| ((), state.router.tick(now)));
            }
        }
    }

    /// Counts a request that was taken in at `started` and refused before the router saw it.
    pub(super) fn refused_early(&self, started: Time) {
        let mut state = self.lock();
        state.counts.total += 1;
        let now = self.clock.now();
        self.count(&mut state.counts, OutcomeKind::Refused, now.since_ms(started));
    }

    /// Counts the end of a request, for the admin API and for the metrics alike.
    fn count(&self, counts: &mut RequestCounts, kind: OutcomeKind, e2e_ms: f64) {
        let counter = match kind {
            OutcomeKind::Ok => &mut counts.ok,
            OutcomeKind::Failed => &mut counts.failed,
            OutcomeKind::Refused => &mut counts.refused,
            OutcomeKind::Cancelled => &mut counts.cancelled,
        };
        *counter += 1;
        self.metrics.ended(kind, e2e_ms / 1000.0);
    }

    /// Nobody listens at a replica's address any more: what its engine had cached is gone. (A connection that times out tells nothing:
    /// behind a cut line the cache is as it was.)
    pub(super) fn process_gone(&self, replica: ReplicaId) {
        self.lock().router.clear_cache(Some(replica));
    }

    /// A request arrives; where it goes is asked with [`Ticket::next`].
    pub(super) fn arrive(
        self: &Arc<Self>,
        request: RequestId,
        features: Arc<Features>,
        started: Time,
        mut recording: Option<Box<Recording>>,
    ) -> Ticket {
        let mut state = self.lock();
        let now = self.clock.now();
        state.counts.total += 1;
        state.counts.in_flight += 1;
        let decision = state.router.arrive(now, request, Arc::clone(&features));
        let made = self.clock.now();
        self.metrics.decision.observe(made.since_ms(now) / 1000.0);
        state.journal.open(request, &features, decision.clone());
        let stage = state.stage(&decision);
        if decision.verdict == Verdict::Hold && state.router.deadline().is_some_and(|at| at <= now) {
            // It is there for its turn, not for want of room: the next look need not wait for the clock.
            let effects = state.router.tick(now);
            state.deliver(now, effects);
        }
        drop(state);
        if let Some(recording) = &mut recording {
            recording.decided(now, made, &decision);
        }
        let class = features.class.clone();
        let judged = !features.forwarded;
        Ticket {
            brain: self.clone(),
            request,
            class,
            judged,
            started,
            stage,
            sent: None,
            ended: Ended::default(),
            recording,
        }
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
        while let Some(effect) = effects.pop_front() {
            let decision = match effect {
                Effect::Released(decision) => decision,
                Effect::Recall(request) => {
                    self.recalls.want(request);
                    continue;
                }
            };
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
    /// Its class of service.
    class: Option<Arc<str>>,
    /// It counts for objectives here: a peer's request counts there.
    judged: bool,
    started: Time,
    stage: Stage,
    /// Where it went last, and the decision that sent it there: kept here because the journal is bounded.
    sent: Option<(Arc<Decision>, Arc<Replica>)>,
    ended: Ended,
    /// What is written down of it, if that is wanted.
    recording: Option<Box<Recording>>,
}

impl Ticket {
    /// The request's identity.
    #[must_use]
    pub(super) fn request(&self) -> RequestId {
        self.request
    }

    /// Where it goes now; waits while the router holds it.
    pub(super) async fn next(&mut self) -> Step {
        if let Stage::Waiting(answer) = &mut self.stage {
            let step = answer.await.expect("the sender stays in `waiting` until it has sent");
            self.stage = Stage::Decided(step);
        }
        let Stage::Decided(step) = &self.stage else { unreachable!("asked once per decision") };
        let step = step.clone();
        match &step {
            Step::Go(decision, replica) => {
                replica.dispatched();
                if let Some(recording) = &mut self.recording {
                    recording.sent(self.brain.clock.now(), decision, replica);
                }
                self.sent = Some((decision.clone(), replica.clone()));
                self.stage = Stage::Sent;
            }
            Step::Refused(decision, ..) => {
                if let Some(recording) = &mut self.recording {
                    recording.decided(decision.at, decision.at, decision);
                }
                self.stage = Stage::Refused;
            }
        }
        step
    }

    /// The head of an answer came, good or bad; a peer's has its own name for the request.
    pub(super) fn answered(&mut self, status: u16, there: Option<RequestId>) {
        if let Some(recording) = &mut self.recording {
            recording.headers(self.brain.clock.now(), status, there);
        }
        if let Some(there) = there {
            self.brain.lock().journal.named(self.request, there);
        }
    }

    /// Why the attempt is to no avail; [`Ticket::failed`] or [`Ticket::gave_up`] follows.
    pub(super) fn tried_in_vain(&mut self, reason: &dyn std::fmt::Display) {
        let reason = reason.to_string();
        let now = self.brain.clock.now();
        if let Some(recording) = &mut self.recording {
            recording.failed(now, reason.clone());
        }
        self.brain.lock().journal.failed(self.request, now, reason);
    }

    /// The router wanted it back, nothing of an answer had come, and the attempt was ended; [`Ticket::next`] tells where it goes instead.
    pub(super) fn recalled(&mut self) {
        let now = self.brain.clock.now();
        let reason = "late, and not begun by its engine";
        if let Some(recording) = &mut self.recording {
            recording.failed(now, format!("recalled: {reason}"));
        }
        self.brain.lock().journal.recalled(self.request, now, reason.to_owned());
        if let Some((_, replica)) = self.sent.take() {
            replica.recalled();
        }
        self.elsewhere(Router::recalled);
    }

    /// The attempt failed before its first byte; [`Ticket::next`] tells where it goes instead.
    pub(super) fn failed(&mut self) {
        self.elsewhere(Router::failed);
    }

    /// The same where a peer may not serve the request at its place, and is none the worse for it.
    pub(super) fn declined(&mut self) {
        self.elsewhere(Router::declined);
    }

    fn elsewhere(&mut self, event: impl FnOnce(&mut Router, Time, RequestId) -> (Arc<Decision>, Vec<Effect>)) {
        let request = self.request;
        // Of a head that nobody has got.
        self.ended.status = None;
        if let Some((_, replica)) = self.sent.take() {
            replica.attempt_failed();
        }
        let mut state = self.brain.lock();
        state.recalls.forget(request);
        let now = self.brain.clock.now();
        let (decision, effects) = event(&mut state.router, now, request);
        let made = self.recording.as_ref().map(|_| self.brain.clock.now());
        state.journal.decided(request, decision.clone());
        if !matches!(decision.verdict, Verdict::Reject { .. }) {
            state.counts.retried += 1;
            self.brain.metrics.retries.inc();
        }
        self.stage = state.stage(&decision);
        state.deliver(now, effects);
        drop(state);
        if let (Some(recording), Some(made)) = (&mut self.recording, made) {
            recording.decided(now, made, &decision);
        }
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
        self.ended.dispatch_ttft_ms = self.sent.as_ref().map(|(decision, _)| now.since_ms(decision.at));
        if let Some(recording) = &mut self.recording {
            recording.first_token(now);
        }
        if let Some((_, replica)) = &self.sent {
            replica.metrics.ttft.observe(ttft_ms / 1000.0);
        }
    }

    /// Answered in full. An engine's own error (5xx) is a failed request; what it refuses (4xx) is the client's doing, and answered.
    pub(super) fn done(mut self, usage: Usage) {
        self.ended.usage = usage;
        let answered = self.ended.status.is_none_or(|status| (200..300).contains(&status));
        let kind =
            if self.ended.status.is_some_and(|status| status >= 500) { OutcomeKind::Failed } else { OutcomeKind::Ok };
        // What an engine refuses it has not computed: nothing may be learned from it, neither cache nor rates.
        let outcome = if answered { Outcome::Done(usage) } else { Outcome::Cancelled };
        self.end(kind, Some(outcome));
    }

    /// Broke after its first byte.
    pub(super) fn broken(mut self) {
        self.end(OutcomeKind::Failed, Some(Outcome::Broken));
    }

    /// No answer came in time; the client gets this status from us.
    pub(super) fn gave_up(mut self, status: u16) {
        self.ended.status = Some(status);
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
        state.recalls.forget(self.request);
        let now = self.brain.clock.now();
        let effects = state.let_go(now, self.request, stage, outcome);
        state.counts.in_flight -= 1;
        self.ended.e2e_ms = now.since_ms(self.started);
        self.brain.count(&mut state.counts, kind, self.ended.e2e_ms);
        let result = goodput::result(&self.brain.slo, self.class.as_ref(), kind, &self.ended);
        if let Some(result) = result.filter(|_| self.judged) {
            self.brain.metrics.judged(self.class.as_deref().unwrap_or(goodput::NO_CLASS), result);
        }
        let replica = self.sent.as_ref().map(|(_, replica)| replica);
        state.journal.close(self.request, kind, replica.map(|replica| replica.name.clone()), &self.ended);
        state.deliver(now, effects);
        drop(state);
        tracing::debug!(
            request = %self.request,
            outcome = ?kind,
            replica = replica.map(|replica| &*replica.name),
            status = self.ended.status,
            ttft_ms = self.ended.ttft_ms,
            e2e_ms = self.ended.e2e_ms,
            "ended"
        );
        if let Some(recording) = self.recording.take() {
            recording.finish(now, kind, &self.ended);
        }
        if let Some((decision, replica)) = &self.sent {
            replica.ended(kind, &self.ended, decision.chosen().map_or(0, |chosen| chosen.cached_tokens));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(OutcomeKind::Cancelled, None);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::{Brain, BrainSettings, Step, Ticket};
    use crate::gateway::clock::Clock;
    use crate::gateway::metrics::Metrics;
    use crate::gateway::pool::{Pool, PoolSettings};
    use crate::gateway::replica::Replica;
    use crate::gateway::settings::ReplicaConfig;
    use crate::routing::{Features, Limits, Rates, ReplicaSpec, Router, Settings, Slo, Usage};

    fn brain(replicas: usize) -> Arc<Brain> {
        let settings =
            Settings { strategy: "random".into(), max_concurrent: Some(2), queue_limit: 4, ..Settings::default() };
        let router = Router::new(settings).unwrap();
        let kept = BrainSettings { decisions_kept: 8, max_concurrent: Some(2), slo: Slo::default() };
        let brain = Brain::new(router, Clock::start(), kept, Arc::new(Metrics::new()));
        for i in 0..replicas {
            let config = ReplicaConfig::new(&format!("r{i}"), "http://127.0.0.1:1", "here");
            let pool = Pool::new(config.url.parse().unwrap(), PoolSettings::default(), brain.clock()).unwrap();
            let metrics = brain.metrics().replica(&config.name, "here", config.kind);
            let spec = ReplicaSpec {
                name: config.name.as_str().into(),
                region: config.region.clone(),
                kind: config.kind,
                models: Vec::new(),
                limits: Limits::default(),
                rates: Rates::default(),
            };
            brain.event(|state, now| {
                let (id, _) = state.router.add_replica(now, spec);
                state.replicas.insert(id, Replica::new(id, config, pool, metrics));
                ((), state.router.health(now, id, true))
            });
        }
        brain
    }

    /// One look at where a request goes; `None` = it still waits.
    fn look(ticket: &mut Ticket) -> Option<Step> {
        match pin!(ticket.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(step) => Some(step),
            Poll::Pending => None,
        }
    }

    /// A request as its task would hold it: not looked at yet or waiting, or at a replica.
    enum Held {
        Undecided(Ticket),
        Sent(Ticket),
    }

    #[test]
    fn whatever_happens_every_request_leaves_the_books() {
        let mut seen = [0; 4];
        for seed in 0..40 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let brain = brain(3);
            let mut held: Vec<Held> = Vec::new();
            for _ in 0..300 {
                if held.is_empty() || random.random_range(0..3) == 0 {
                    let ticket =
                        brain.arrive(brain.request_id(), Arc::new(Features::default()), brain.clock().now(), None);
                    held.push(Held::Undecided(ticket));
                    continue;
                }
                let chosen = held.swap_remove(random.random_range(0..held.len()));
                match (chosen, random.random_range(0..4)) {
                    // The client leaves: before it was looked at, in the queue, or at a replica.
                    (_, 0) => {}
                    (Held::Undecided(mut ticket), _) => match look(&mut ticket) {
                        None => held.push(Held::Undecided(ticket)),
                        Some(Step::Go(..)) => held.push(Held::Sent(ticket)),
                        Some(Step::Refused(_, reason, _)) => ticket.refused(503, reason),
                    },
                    (Held::Sent(mut ticket), 1) => {
                        ticket.failed();
                        // Failures in a row would take all replicas out and end the game.
                        let ids: Vec<_> = brain.lock().replicas.keys().copied().collect();
                        brain.event(|state, now| {
                            let effects = ids.iter().flat_map(|id| state.router.health(now, *id, true)).collect();
                            ((), effects)
                        });
                        held.push(Held::Undecided(ticket));
                    }
                    (Held::Sent(ticket), 2) => ticket.broken(),
                    (Held::Sent(mut ticket), _) => {
                        ticket.headers(200);
                        ticket.first_token();
                        ticket.done(Usage::default());
                    }
                }
                let state = brain.lock();
                let counts = state.counts;
                let ended = counts.ok + counts.failed + counts.refused + counts.cancelled;
                assert_eq!(counts.total, counts.in_flight + ended, "seed {seed}");
                assert_eq!(counts.in_flight, held.len() as u64, "seed {seed}");
                assert!(state.router.in_flight() + state.router.queue_len() <= held.len(), "seed {seed}");
                assert_eq!(state.waiting.len(), state.router.queue_len(), "seed {seed}");
            }
            drop(held);
            let state = brain.lock();
            assert_eq!(
                (state.router.in_flight(), state.router.queue_len(), state.waiting.len()),
                (0, 0, 0),
                "seed {seed}"
            );
            assert_eq!(state.counts.in_flight, 0);
            for (sum, count) in seen.iter_mut().zip([
                state.counts.ok,
                state.counts.failed,
                state.counts.refused,
                state.counts.cancelled,
            ]) {
                *sum += count;
            }
        }
        assert!(seen.iter().all(|count| *count > 100), "every ending is met often: {seen:?}");
    }
}
