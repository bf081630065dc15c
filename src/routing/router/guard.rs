//! The straggler guard: a request that is late beyond its strategy's patience is called back and sent elsewhere, if its engine has
//! certainly not begun it, as far as this router knows its cache and its order: then nothing is computed twice on its account.
//!
//! What an engine has begun it does not say. It is certain that it has not where the engine serves in the order of arrival (the default
//! of SGLang and of vLLM) and what came before and has shown nothing is more than it can have got through until the call reaches it: the
//! step under way, one further step, and what is done while news and call are under way, even if it were [`SPEED_MARGIN`] times as
//! fast as was ever learned. Of one prompt nearly all may be done, for long ones are computed piece by piece; so the longest does not count:
//!
//! ```text
//! Σ uncached tokens before it, less the most of one  >  2 · tokens of a step + SPEED_MARGIN · (2 · rtt + LATE_MS) / (least ms per token ever learned)
//! ```
//!
//! and its gauges do not contradict. In every other case it waits, and is looked at again. Peers are never called back from: what they have in
//! front of it nobody knows here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::placement::Known;
use super::{Attempt, Effect, Router};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::{Decision, Verdict};
use crate::routing::fleet::{Replica, ReplicaKind};
use crate::routing::ledger::Pending;
use crate::routing::peer::Speed;
use crate::routing::policy::ramp_ms;

/// Until a request that could not be called back is looked at again, ms.
const AGAIN_MS: f64 = 1_000.0;

/// Another replica has to promise the first token within this share of the time already lost: a call costs a prefill's place in line.
const WORTH: f64 = 0.7;

/// Prompt tokens in one step, where the engine does not tell: the largest that SGLang (`max_prefill_tokens`) and vLLM
/// (`max_num_batched_tokens` on the largest GPUs) take by default.
const STEP_TOKENS: f64 = 16_384.0;

/// How much later than a round trip of the usual length anything may come over a line, ms. (A packet that is lost takes 200 ms longer: that the call
/// itself is lost, just when a late engine goes on, is left to chance.)
const LATE_MS: f64 = 50.0;

/// Faster than this times the best that was learned no engine is.
const SPEED_MARGIN: f64 = 2.0;

/// When which request is to be looked at, and how fast replicas can be.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    looks: BTreeSet<(Time, RequestId)>,
    /// Least time per token that was ever learned of a replica, ms: one that is slow may be as fast again at any moment.
    fastest: BTreeMap<ReplicaId, f64>,
}

impl Watched {
    /// The next look, if there is one.
    pub(super) fn next(&self) -> Option<Time> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// An attempt has shown its first token, or is over: it has left the line of its replica.
    pub(super) fn left(&mut self, request: RequestId, attempt: &Attempt) {
        if let Some(at) = attempt.look_at {
            self.looks.remove(&(at, request));
        }
    }

    /// A replica is gone.
    pub(super) fn forget_replica(&mut self, replica: ReplicaId) {
        self.fastest.remove(&replica);
    }

    /// This was learned of a replica by now.
    pub(super) fn learned(&mut self, replica: ReplicaId, speed: Option<Speed>) {
        if let Some(Speed { ms_per_token, .. }) = speed {
            let fastest = self.fastest.entry(replica).or_insert(ms_per_token);
            *fastest = fastest.min(ms_per_token);
        }
    }

    fn look(&mut self, at: Time, request: RequestId, attempt: &mut Attempt) {
        attempt.look_at = Some(at);
        self.looks.insert((at, request));
    }

    fn due(&mut self, now: Time) -> Option<RequestId> {
        self.next().filter(|at| *at <= now)?;
        self.looks.pop_first().map(|(_, request)| request)
    }
}

impl Router {
    /// An attempt begins: when is it late? One that shows no first token never is.
    pub(super) fn watch(&mut self, request: RequestId) {
        let Some(attempt) = self.attempts.get_mut(&request) else { return };
        let engine = self.fleet.get(attempt.replica).is_some_and(|replica| replica.spec.kind == ReplicaKind::Engine);
        let Some(predicted) = attempt.ttft_ms.filter(|_| engine && !attempt.ticket.features.unstreamed) else { return };
        let Some(patience_ms) = self.strategy.policy.patience_ms(predicted) else { return };
        let at = attempt.dispatched.plus_ms(patience_ms);
        self.watched.look(at, request, attempt);
    }

    /// Whom to call back now: first who came first, for who is called back stands before nobody any more.
    pub(super) fn stragglers(&mut self, now: Time) -> Vec<Effect> {
        let mut due: Vec<(Time, RequestId)> = Vec::new();
        while let Some(request) = self.watched.due(now) {
            if let Some(attempt) = self.attempts.get_mut(&request) {
                attempt.look_at = None;
                due.push((attempt.dispatched, request));
            }
        }
        due.sort_unstable();
        let effects: Vec<Effect> = due.iter().filter_map(|(_, request)| self.straggler(now, *request)).collect();
        // Also those that are called back: who has got a byte meanwhile stays.
        for (_, request) in due {
            let guarded = self.is_guarded(request);
            if let Some(attempt) = self.attempts.get_mut(&request).filter(|_| guarded) {
                self.watched.look(now.plus_ms(AGAIN_MS), request, attempt);
            }
        }
        effects
    }

    fn straggler(&mut self, now: Time, request: RequestId) -> Option<Effect> {
        let late = self.is_guarded(request)
            && self.has_certainly_not_begun(now, request)
            && self.is_better_elsewhere(now, request);
        let attempt = self.attempts.get_mut(&request).filter(|_| late)?;
        attempt.called = true;
        Some(Effect::Recall(request))
    }

    /// The strategy may have been changed since it was sent.
    fn is_guarded(&self, request: RequestId) -> bool {
        let predicted = self.attempts.get(&request).and_then(|attempt| attempt.ttft_ms);
        predicted.is_some_and(|ms| self.strategy.policy.patience_ms(ms).is_some())
    }

    /// The attempt was called back ([`Effect::Recall`]): where next? Its replica is as healthy as before, and takes the request again if
    /// by now nobody else would. A request that is not at a replica is refused, as by [`Self::failed`].
    pub fn recalled(&mut self, now: Time, request: RequestId) -> (Arc<Decision>, Vec<Effect>) {
        let late = self.attempts.get(&request).map(|attempt| (attempt.ticket.clone(), attempt.replica, attempt.bill));
        let Some((mut ticket, late, bill)) = late else { return self.failed(now, request) };
        self.take_from_replica(now, request);
        self.shares.take_back(bill);
        ticket.attempt += 1;
        ticket.tried.push(late);
        if !matches!(self.decide(now, request, &ticket).0.verdict, Verdict::Dispatch(_)) {
            ticket.tried.pop();
        }
        (self.place(now, request, ticket), self.release(now))
    }

    fn has_certainly_not_begun(&self, now: Time, request: RequestId) -> bool {
        let Some(attempt) = self.attempts.get(&request) else { return false };
        let Some(replica) = self.fleet.get(attempt.replica) else { return false };
        let Some(fastest) = self.watched.fastest.get(&replica.id).filter(|ms| **ms > 0.0) else { return false };
        let load = self.ledger.load(replica.id);
        let Some((turn, own)) = load.pending.iter().find(|(_, pending)| pending.request == request) else {
            return false;
        };
        let rtt_ms = self.rtt_ms(replica);
        let tokens = |other: &Pending| match self.comes_before(other, own, rtt_ms) {
            true => f64::from(other.uncached_tokens),
            false => 0.0,
        };
        let behind = load.pending.range(turn + 1..).map(|(_, other)| other.arrival);
        if !self.engine_agrees(now, replica, own.arrival, behind) {
            return false;
        }
        let before: Vec<f64> = load.pending.range(..turn).map(|(_, other)| tokens(other)).collect();
        let ahead = before.iter().sum::<f64>() - before.iter().copied().fold(0.0, f64::max);
        let step = replica.told.batch_tokens.map_or(STEP_TOKENS, f64::from);
        let meanwhile = SPEED_MARGIN * (2.0 * rtt_ms + LATE_MS) / fastest;
        replica.told.in_order != Some(false) && ahead > 2.0 * step + meanwhile
    }

    /// Do the engine's gauges, read since a request came at `arrival`, show somebody waiting before it? Without them, or where they are older than what is
    /// there, does anything decode?
    fn engine_agrees(&self, now: Time, replica: &Replica, arrival: Time, behind: impl Iterator<Item = Time>) -> bool {
        let rtt_ms = self.rtt_ms(replica);
        let since = arrival.plus_ms(rtt_ms + LATE_MS);
        let read = replica.gauges.filter(|(at, _)| *at >= since && *at <= now);
        let load = self.ledger.load(replica.id);
        let there =
            |at: Time| load.pending.values().filter(|other| other.arrival.plus_ms(rtt_ms + LATE_MS) <= at).count();
        let told = read.and_then(|(at, gauges)| Some((at, gauges.waiting?, gauges.running)));
        // Engines that are busy may show old figures: such that not all of ours are in them.
        let told =
            told.filter(|(at, waiting, running)| running.is_none_or(|running| running + waiting >= there(*at) as f64));
        let Some((at, waiting, _)) = told else { return load.decoding > 0 };
        let behind = behind.filter(|arrival| *arrival <= at).count();
        waiting >= behind as f64 + 2.0
    }

    /// Was the other at the engine before this one, with all of its prompt, and is to stay there? And will its first token be seen?
    fn comes_before(&self, other: &Pending, own: &Pending, rtt_ms: f64) -> bool {
        let Some(attempt) = self.attempts.get(&other.request) else { return false };
        let features = &attempt.ticket.features;
        let there = other.arrival.plus_ms(ramp_ms(features.prompt_bytes, rtt_ms) + rtt_ms / 2.0 + LATE_MS);
        !attempt.called && !features.unstreamed && there <= own.arrival
    }

    /// Would a replica that may have it, and that its strategy would give it to at once, show its first token soon enough, even with
    /// nothing of it cached?
    fn is_better_elsewhere(&mut self, now: Time, request: RequestId) -> bool {
        let Some(attempt) = self.attempts.get(&request) else { return false };
        if attempt.ticket.attempt >= self.settings.max_attempts {
            return false;
        }
        let mut ticket = attempt.ticket.clone();
        ticket.tried.push(attempt.replica);
        let lost_ms = now.since_ms(attempt.dispatched);
        let Verdict::Dispatch(target) = self.decide(now, request, &ticket).0.verdict else { return false };
        let verdicts: Vec<_> = self.filters(now).apply(&ticket.features, &ticket.tried);
        let known = Known { fleet: &self.fleet, ledger: &self.ledger, index: &self.index, now };
        let views = known.views(&ticket.features, self.prompt_tokens(&ticket), &verdicts);
        let query = self.query(now, request, &ticket);
        let view = views.iter().map(|(view, _)| view).find(|view| view.replica.id == target);
        let promised = view.and_then(|view| self.strategy.policy.cold_ttft_ms(&query, view));
        promised.is_some_and(|ms| ms < WORTH * lost_ms)
    }

    fn rtt_ms(&self, replica: &Replica) -> f64 {
        replica.rtt.value().unwrap_or_else(|| self.fleet.assumed_rtt_ms())
    }
}
