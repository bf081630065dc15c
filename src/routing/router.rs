//! The router: one owner of the fleet view, the prefix index, the queue and the strategy.
//!
//! Every event is a method with its time; what has to be done comes back. Events of unknown requests or replicas, and repeated ones, are
//! ignored. The index learns a prompt at dispatch, so that a burst of equal prompts stays together. It keeps a prompt whose attempt
//! failed: nobody can tell whether the engine got it before the connection broke, and a wrong belief costs one prefill, after which it
//! is right.

mod admit;
mod guard;
mod learning;
mod peers;
mod placement;
pub mod sharing;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod tuning;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decision::{Decision, Refusal};
use super::estimate::{DecayedRate, Ewma};
use super::features::Features;
use super::filter::{GATE_GAUGE_AGE_MS, Gate, KV_USAGE_LIMIT};
use super::fleet::{EngineLimits, Fleet, Gauges, ReplicaSpec};
use super::health::Health;
use super::index::PrefixIndex;
use super::ledger::Ledger;
use super::policy::{Entry, Event, Observation, Parameters, Policy, find};
use super::queue::Queue;
use super::settings::{Settings, SettingsError};
use super::share::{Flow, Shares};
use super::ticket::{Attempt, Ticket};
use super::tokens::TokenRatios;
use super::tune::{End, Tuner};
use crate::model::{ReplicaId, RequestId, Time};
use guard::Watched;

/// Who decides on requests that nothing is known of.
const OPAQUE_STRATEGY: &str = "least-load";

/// Weight of the newest finished request in the expected output length: a memory of about fifty requests, so that one long answer does not
/// move it and a change of traffic does within a minute.
const OUTPUT_WEIGHT: f64 = 0.02;

/// Past the moment at which gauges are still just fresh, ms: ticks are in whole microseconds.
const STALE_MARGIN_MS: f64 = 0.001;

/// Memory of the rate at which the queue empties, ms.
const RELEASE_RATE_TAU_MS: f64 = 10_000.0;

/// Usage as the engine reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Prompt length, tokens.
    pub prompt_tokens: Option<u32>,
    /// Of these found in the engine's cache.
    pub cached_tokens: Option<u32>,
    /// Output length, tokens.
    pub completion_tokens: Option<u32>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The whole answer was delivered.
    Done(Usage),
    /// The client went away; the upstream request was cancelled.
    Cancelled,
    /// It failed after the first byte: never repeated.
    Broken,
}

/// What the router wants done after an event, besides the answer to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A held request may go (verdict `Dispatch`) or is refused (verdict `Reject`).
    Released(Arc<Decision>),
    /// This request, at a replica without a first token, is late, and its engine has certainly not begun it: if nothing of an answer has come,
    /// end the attempt and say so with [`Router::recalled`]. Who cannot lets it go on; it is asked for again.
    Recall(RequestId),
}

/// The strategy in force.
struct Strategy {
    entry: &'static Entry,
    parameters: Parameters,
    policy: Box<dyn Policy>,
}

impl Strategy {
    fn new(name: &str, parameters: &[(String, f64)], seed: u64) -> Result<Self, SettingsError> {
        let entry = find(name)?;
        let parameters = Parameters::resolve(entry.name, entry.parameters, parameters)?;
        let policy = (entry.build)(&parameters, seed);
        Ok(Self { entry, parameters, policy })
    }
}

/// The routing engine of one router.
pub struct Router {
    settings: Settings,
    strategy: Strategy,
    /// The same rule with other weights, while the tuner compares them.
    rival: Option<Strategy>,
    tuner: Option<Box<Tuner>>,
    /// For requests that nothing is known of (`Features::opaque`).
    opaque: Strategy,
    fleet: Fleet,
    ledger: Ledger,
    index: PrefixIndex,
    ratios: TokenRatios,
    queue: Queue,
    shares: Shares,
    /// Every request that is at a replica, and no other.
    attempts: BTreeMap<RequestId, Attempt>,
    output_tokens: Ewma,
    releases: DecayedRate,
    /// When what waits is to be looked at again at the latest, by the strategy's word.
    look_again: Option<Time>,
    watched: Watched,
    turns: u64,
    /// Peers are told what the own engines hold.
    publishes: bool,
}

/// Configuration, at the start and at run time.
impl Router {
    /// A router without replicas. Errors name the unknown strategy or parameter and list the known ones, or the value out of range.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let strategy = Strategy::new(&settings.strategy, &settings.parameters, settings.seed)?;
        Ok(Self {
            opaque: Strategy::new(OPAQUE_STRATEGY, &[], settings.seed)?,
            settings,
            strategy,
            rival: None,
            tuner: None,
            fleet: Fleet::default(),
            ledger: Ledger::default(),
            index: PrefixIndex::new(),
            ratios: TokenRatios::default(),
            queue: Queue::default(),
            shares: Shares::default(),
            attempts: BTreeMap::new(),
            output_tokens: Ewma::new(OUTPUT_WEIGHT),
            releases: DecayedRate::new(RELEASE_RATE_TAU_MS),
            look_again: None,
            watched: Watched::default(),
            turns: 0,
            publishes: false,
        })
    }

    /// Changes the strategy, or its parameters (those not given go back to their defaults). What is in flight or held stays; on an error
    /// everything stays as it was. A tuner ends.
    pub fn set_strategy(
        &mut self,
        now: Time,
        strategy: &str,
        parameters: &[(String, f64)],
    ) -> Result<Vec<Effect>, SettingsError> {
        self.strategy = Strategy::new(strategy, parameters, self.settings.seed)?;
        self.settings.strategy = strategy.to_owned();
        self.settings.parameters = parameters.to_vec();
        self.forget_rival(now);
        self.queue.unrank();
        Ok(self.release(now))
    }

    /// Changes the limit of requests in flight per replica; 0 counts as 1, `None` goes back to the strategy's own rule.
    pub fn set_max_concurrent(&mut self, now: Time, limit: Option<u32>) -> Vec<Effect> {
        self.settings.max_concurrent = limit.map(|limit| limit.max(1));
        self.release(now)
    }

    /// Adds a replica or, where the name is known, changes its configuration.
    pub fn add_replica(&mut self, now: Time, spec: ReplicaSpec) -> (ReplicaId, Vec<Effect>) {
        let place = self.settings.places.region(&spec.region);
        let id = self.fleet.upsert(spec);
        if let Some(replica) = self.fleet.get_mut(id) {
            replica.place = place;
        }
        self.size_index(id);
        self.publish_replica(id);
        (id, self.release(now))
    }

    /// Forgets a replica. Its requests in flight end with whatever the gateway reports for them.
    pub fn remove_replica(&mut self, now: Time, replica: ReplicaId) -> Vec<Effect> {
        self.observe(now, replica, Event::Removed);
        if !self.fleet.remove(replica) {
            return Vec::new();
        }
        self.ledger.forget_replica(replica);
        self.watched.forget_replica(replica);
        self.index.remove(replica);
        self.release(now)
    }

    /// Takes a replica out of rotation, or back in. Its requests in flight go on.
    pub fn set_draining(&mut self, now: Time, replica: ReplicaId, draining: bool) -> Vec<Effect> {
        let Some(known) = self.fleet.get_mut(replica) else { return Vec::new() };
        known.draining = draining;
        self.release(now)
    }

    /// Empties the prefix index of one replica, or of all.
    pub fn clear_cache(&mut self, replica: Option<ReplicaId>) {
        match replica {
            Some(replica) => self.index.forget(replica),
            None => self.index.clear(),
        }
    }
}

/// The life of a request.
impl Router {
    /// A request arrives; the answer is final unless it is `Hold`.
    ///
    /// Ids are the caller's and unique; if one is still known here, that earlier request is taken for cancelled.
    pub fn arrive(&mut self, now: Time, request: RequestId, features: Arc<Features>) -> Arc<Decision> {
        self.drop_request(now, request);
        self.tuner_arrives(now, request, &features);
        let known = features.class.as_ref().filter(|class| self.settings.slo.classes.contains_key(&***class));
        let flow = self.shares.flow(features.tenant.as_ref(), known);
        if self.queue.flows().all(|waiting| waiting != flow) {
            self.shares.lift(flow, self.queue.flows());
        }
        let ticket = Ticket { features, flow, turn: self.turns, attempt: 1, tried: Vec::new(), held_ms: 0.0 };
        self.turns += 1;
        if self.is_preceded(&ticket) { self.queue_up(now, request, ticket) } else { self.place(now, request, ticket) }
    }

    /// Response headers (2xx) came back: also a success for the replica's health.
    pub fn headers(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        self.ledger.headers(request);
        self.credit(now, request)
    }

    /// First body byte with content came back.
    pub fn first_token(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        let Some(attempt) = self.attempts.get_mut(&request) else { return Vec::new() };
        let (at, dispatched, predicted) = (attempt.replica, attempt.dispatched, attempt.ttft_ms);
        self.watched.left(request, attempt);
        attempt.look_at = None;
        if !self.ledger.first_token(request) {
            return self.credit(now, request);
        }
        if let Some(predicted) = predicted
            && let Some(replica) = self.fleet.get_mut(at)
        {
            replica.ttft_ms.push(predicted, now.since_ms(dispatched));
        }
        self.tuner_first_token(now, request);
        self.observe(now, at, Event::FirstToken { request });
        self.watched.learned(at, self.strategy.policy.speed(at));
        let mut effects = self.credit(now, request);
        if self.strategy.policy.reconsiders() {
            effects.extend(self.release(now));
        }
        effects
    }

    /// The attempt ended, with usage if the reply carried it. A request that is still held is withdrawn.
    pub fn finish(&mut self, now: Time, request: RequestId, outcome: Outcome) -> Vec<Effect> {
        let Some(attempt) = self.attempts.remove(&request) else { return self.withdraw(now, request) };
        self.ledger.release(request);
        self.watched.left(request, &attempt);
        let (event, end, usage) = match outcome {
            Outcome::Done(usage) => {
                self.complete(now, &attempt, usage);
                (Event::Finished { request, usage }, End::Done, usage)
            }
            Outcome::Cancelled => {
                // Who leaves an answer halfway has had the most of it, as far as anybody knows.
                if attempt.answered {
                    self.settle(&attempt, Usage::default());
                }
                (Event::Left { request }, End::Left, Usage::default())
            }
            Outcome::Broken => {
                self.blame(attempt.replica);
                (Event::Lost { request }, End::Failed, Usage::default())
            }
        };
        self.observe(now, attempt.replica, event);
        self.tuner_ends(now, request, end, usage);
        self.watched.learned(attempt.replica, self.strategy.policy.speed(attempt.replica));
        self.release(now)
    }

    /// The attempt failed before its first byte: where next? Any verdict may come: `Dispatch` to another replica, `Hold`, or a
    /// `Reject` (mostly `AllTried`, also after the last of [`Settings::max_attempts`]) that ends it.
    ///
    /// Counts as one failure for the replica's health. A request that is not at a replica is refused.
    pub fn failed(&mut self, now: Time, request: RequestId) -> (Arc<Decision>, Vec<Effect>) {
        self.elsewhere(now, request, true)
    }

    /// The same where a peer says that the request must not be served at its place: it is as healthy as before.
    pub fn declined(&mut self, now: Time, request: RequestId) -> (Arc<Decision>, Vec<Effect>) {
        self.elsewhere(now, request, false)
    }

    fn elsewhere(&mut self, now: Time, request: RequestId, blame: bool) -> (Arc<Decision>, Vec<Effect>) {
        let Some(attempt) = self.attempts.remove(&request) else {
            let (features, flow) = (Arc::default(), Flow::default());
            let nothing = Ticket { features, flow, turn: 0, attempt: 0, tried: Vec::new(), held_ms: 0.0 };
            return (Arc::new(self.refuse(now, request, &nothing, Refusal::AllTried)), Vec::new());
        };
        self.ledger.release(request);
        self.watched.left(request, &attempt);
        self.shares.take_back(attempt.bill);
        if blame {
            self.blame(attempt.replica);
        }
        let event = if blame { Event::Lost { request } } else { Event::Left { request } };
        self.observe(now, attempt.replica, event);
        let mut ticket = attempt.ticket;
        ticket.tried.push(attempt.replica);
        if ticket.attempt >= self.settings.max_attempts {
            self.tuner_ends(now, request, End::Failed, Usage::default());
            return (Arc::new(self.refuse(now, request, &ticket, Refusal::AllTried)), self.release(now));
        }
        ticket.attempt += 1;
        let decision = self.place(now, request, ticket);
        (decision, self.release(now))
    }

    /// A held request's client went away. One that was released in the meantime counts as cancelled.
    pub fn withdraw(&mut self, now: Time, request: RequestId) -> Vec<Effect> {
        if self.drop_request(now, request) { self.release(now) } else { Vec::new() }
    }

    /// Forgets a request, wherever it is. False if it was unknown.
    fn drop_request(&mut self, now: Time, request: RequestId) -> bool {
        self.tuner_ends(now, request, End::Left, Usage::default());
        self.take_from_replica(now, request) || self.queue.remove(now, request).is_some()
    }

    /// Its attempt is over, without an answer and nobody's fault. False if there was none.
    fn take_from_replica(&mut self, now: Time, request: RequestId) -> bool {
        let Some(attempt) = self.attempts.remove(&request) else { return false };
        self.ledger.release(request);
        self.watched.left(request, &attempt);
        self.observe(now, attempt.replica, Event::Left { request });
        true
    }
}

/// What is measured from outside, and time.
impl Router {
    /// A probe measured a round trip, ms. Nonsense is ignored.
    pub fn rtt(&mut self, now: Time, replica: ReplicaId, rtt_ms: f64) {
        if let Some(known) = self.fleet.get_mut(replica) {
            known.observe_rtt(now, rtt_ms);
        }
    }

    /// Engine gauges were read.
    pub fn gauges(&mut self, now: Time, replica: ReplicaId, gauges: Gauges) -> Vec<Effect> {
        let Some(known) = self.fleet.get_mut(replica) else { return Vec::new() };
        known.observe_gauges(now, gauges);
        self.size_index(replica);
        self.release(now)
    }

    /// An engine told its settings: at its start, or when it was found again.
    pub fn limits(&mut self, now: Time, replica: ReplicaId, told: EngineLimits) -> Vec<Effect> {
        let Some(known) = self.fleet.get_mut(replica) else { return Vec::new() };
        known.observe_limits(told);
        self.size_index(replica);
        self.release(now)
    }

    /// A health check succeeded or failed. Requests count by themselves: [`Self::headers`], [`Self::failed`], [`Outcome::Broken`].
    pub fn health(&mut self, now: Time, replica: ReplicaId, ok: bool) -> Vec<Effect> {
        let changed = self.observe_health(replica, ok);
        if changed { self.release(now) } else { Vec::new() }
    }

    /// When [`Self::tick`] has to be called at the latest, if ever: the oldest held request reaches its age limit or one the limit of its
    /// class, a gate that KV use keeps closed opens because its gauges are too old, the strategy expects room for what it holds, or a
    /// request is late.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        [self.queue_deadline(), self.watched.next()].into_iter().flatten().min()
    }

    fn queue_deadline(&self) -> Option<Time> {
        let overdue = self.queue.oldest()?.plus_ms(self.settings.queue_timeout_ms);
        let opens = self.gate().and_then(|gate| self.first_stale_gate(gate));
        let times = [opens, self.look_again, self.queue.first_give_up()];
        Some(times.into_iter().flatten().fold(overdue, Time::min))
    }

    /// When the first gate that is closed by KV use opens for want of fresh gauges.
    fn first_stale_gate(&self, gate: Gate) -> Option<Time> {
        let gauges = self.fleet.iter().filter_map(|replica| replica.gauges);
        let closed = gauges.filter(|(_, gauges)| gate.kv_full(Some(*gauges)));
        closed.map(|(read, _)| read.plus_ms(GATE_GAUGE_AGE_MS + STALE_MARGIN_MS)).min()
    }

    /// Time has passed: refuses what was held too long, releases what may go, and calls back who is late.
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = self.release(now);
        effects.extend(self.stragglers(now));
        effects
    }

    /// Why a request that came now would find nobody who is known to serve, for `/health`. A replica that was never checked may be tried
    /// by a request that is here already, but nobody should be sent here on its account.
    pub fn can_serve(&self) -> Result<(), Refusal> {
        if self.fleet.is_empty() {
            return Err(Refusal::NoReplica);
        }
        let serving = self.fleet.iter().any(|replica| !replica.is_draining() && replica.health() == Health::Healthy);
        if serving { Ok(()) } else { Err(Refusal::NoneHealthy) }
    }

    /// Tells the strategy, and the one on trial.
    fn observe(&mut self, now: Time, replica: ReplicaId, event: Event<'_>) {
        if let Some(replica) = self.fleet.get(replica) {
            for strategy in std::iter::once(&mut self.strategy).chain(&mut self.rival) {
                strategy.policy.observe(now, &Observation { replica, event });
            }
        }
    }

    /// The gate in force: `max_concurrent` if set, else the strategy's own, if it has one.
    fn gate(&self) -> Option<Gate> {
        let limit = self.settings.max_concurrent.map(|max_running| Gate { max_running, max_kv_usage: KV_USAGE_LIMIT });
        limit.or_else(|| self.strategy.policy.gate())
    }
}
