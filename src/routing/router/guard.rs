//! The straggler guard: a request that is late beyond its strategy's patience is called back and sent elsewhere, if its engine has
//! certainly not begun it. Never is anything computed twice on its account.
//!
//! What an engine has begun it does not say. It is certain that it has not where the engine serves in the order of arrival (the default
//! of SGLang and of vLLM) and what comes before is more than it can have got through until the call reaches it, even if it were
//! [`SPEED_MARGIN`] times as fast as was learned: the rest of the step under way, one further step, and what is done while news and
//! call are under way.
//!
//! ```text
//! Σ uncached tokens of the waiting before it  >  tokens of a step + SPEED_MARGIN · (2 · rtt + LATE_MS) / (learned ms per token)
//! ```
//!
//! Who waits says the engine: of its requests those that came last, as many as its gauges count. A page of gauges counts if it was made
//! since the request came, and if nobody has left the line since; with an older one, or without any where something decodes, all that
//! has shown nothing may be in the step under way, and two steps have to be full. In every other case it waits, and is looked at again.
//! Peers are never called back from: what they have in front of it nobody knows here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::placement::Known;
use super::{Attempt, Effect, Router};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::{Decision, Verdict};
use crate::routing::fleet::{Replica, ReplicaKind};
use crate::routing::ledger::Pending;
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

/// Faster than this times what was learned no engine is.
const SPEED_MARGIN: f64 = 2.0;

/// When which request is to be looked at, and when a replica's line moved last.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    looks: BTreeSet<(Time, RequestId)>,
    moved: BTreeMap<ReplicaId, Time>,
}

impl Watched {
    /// The next look, if there is one.
    pub(super) fn next(&self) -> Option<Time> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// An attempt has shown its first token, or is over: it has left the line of its replica.
    pub(super) fn left(&mut self, now: Time, request: RequestId, attempt: &Attempt) {
        self.moved.insert(attempt.replica, now);
        if let Some(at) = attempt.look_at {
            self.looks.remove(&(at, request));
        }
    }

    /// A replica is gone.
    pub(super) fn forget_replica(&mut self, replica: ReplicaId) {
        self.moved.remove(&replica);
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

/// What an engine's gauges say of those before a request.
#[derive(Clone, Copy, Debug)]
enum Word {
    /// Nobody of them waits; or nothing speaks for it.
    Against,
    /// What they say is too old to tell who, but contradicts nothing.
    Old,
    /// So many wait.
    Waiting(usize),
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
        let mut decision = self.place(now, request, ticket.clone());
        if matches!(decision.verdict, Verdict::Reject { .. }) {
            ticket.tried.pop();
            decision = self.place(now, request, ticket);
        }
        (decision, self.release(now))
    }

    fn has_certainly_not_begun(&self, now: Time, request: RequestId) -> bool {
        let Some(attempt) = self.attempts.get(&request) else { return false };
        let Some(replica) = self.fleet.get(attempt.replica) else { return false };
        let Some(speed) = self.strategy.policy.speed(replica.id).filter(|speed| speed.ms_per_token > 0.0) else {
            return false;
        };
        let load = self.ledger.load(replica.id);
        let Some((turn, own)) = load.pending.iter().find(|(_, pending)| pending.request == request) else {
            return false;
        };
        let rtt_ms = self.rtt_ms(replica);
        let tokens = |other: &Pending| match self.comes_before(other, own, rtt_ms) {
            true => f64::from(other.uncached_tokens),
            false => 0.0,
        };
        let before: Vec<f64> = load.pending.range(..turn).map(|(_, other)| tokens(other)).collect();
        let behind = load.pending.range(turn + 1..).map(|(_, other)| other.arrival);
        let (steps, waiting) = match self.word(now, replica, own.arrival, behind) {
            Word::Against => return false,
            Word::Old => (2.0, before.len()),
            Word::Waiting(waiting) => (1.0, waiting),
        };
        let ahead: f64 = before.iter().rev().take(waiting).sum();
        let step = replica.told.batch_tokens.map_or(STEP_TOKENS, f64::from);
        let meanwhile = SPEED_MARGIN * (2.0 * rtt_ms + LATE_MS) / speed.ms_per_token;
        replica.told.in_order != Some(false) && ahead > steps * step + meanwhile
    }

    /// What the engine's gauges say of the line before a request that came at `arrival`.
    fn word(&self, now: Time, replica: &Replica, arrival: Time, behind: impl Iterator<Item = Time>) -> Word {
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
        let Some((at, waiting, _)) = told else {
            return if load.decoding > 0 { Word::Old } else { Word::Against };
        };
        let behind = behind.filter(|arrival| *arrival <= at).count();
        let before = waiting - behind as f64 - 1.0;
        let moved = self.watched.moved.get(&replica.id).is_some_and(|moved| at < moved.plus_ms(rtt_ms + LATE_MS));
        match before >= 1.0 {
            true if moved => Word::Old,
            true => Word::Waiting(before as usize),
            false => Word::Against,
        }
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
