//! Where a request goes: decide, then do; and what becomes of the requests in the queue.

use std::sync::Arc;

use super::peers::Others;
use super::tuning::Decider;
use super::{Attempt, Effect, Router, Ticket, Usage};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::{Candidate, Decision, Excluded, Refusal, Verdict};
use crate::routing::features::Features;
use crate::routing::filter::Filters;
use crate::routing::fleet::{Fleet, Replica, ReplicaKind};
use crate::routing::index::{Audience, PrefixIndex};
use crate::routing::ledger::{Demand, Ledger};
use crate::routing::policy::{Choice, Event, Query, Sent, View};
use crate::routing::queue::Entry;
use crate::routing::score::{Ranking, cached_tokens, rank};
use crate::routing::tune::End;

/// Output length expected before any request finished, tokens: the order of a chat answer. The first finished request replaces it.
const EXPECTED_OUTPUT_TOKENS: f64 = 200.0;

/// Shortest time after which a refused client is told to come back, ms.
const RETRY_AFTER_MIN_MS: f64 = 1_000.0;

/// Most requests at the head of the queue that a rule decides anew on per event: it looks prompts up, and the queue may be long.
const RECONSIDERED: usize = 48;

/// Shortest time between two looks at the queue for no other reason than that time passes, ms: a late replica puts its room off as fast.
pub(super) const SHORTEST_LOOK_MS: f64 = 10.0;

impl Router {
    /// Decides on a request and does what was decided: sends it on its way, holds it or forgets it.
    pub(super) fn place(&mut self, now: Time, request: RequestId, ticket: Ticket) -> Arc<Decision> {
        let (mut decision, matched) = self.decide(now, request, &ticket);
        self.admit(&ticket, &mut decision);
        if decision.verdict == Verdict::Hold && self.queue.len() >= self.settings.queue_limit {
            decision.verdict = self.reject(now, Refusal::QueueFull);
        }
        match decision.verdict {
            Verdict::Dispatch(_) => self.dispatch(now, ticket, &decision, matched),
            Verdict::Hold => self.hold(now, ticket, &decision),
            Verdict::Reject { .. } => self.tuner_ends(now, request, End::Failed, Usage::default()),
        }
        Arc::new(decision)
    }

    /// Releases what may leave the queue, in its order: the overdue as refused, then those for whom a replica has room.
    pub(super) fn release(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = self.expire(now);
        if self.strategy.policy.reconsiders() {
            effects.extend(self.reconsider(now));
            return effects;
        }
        self.look_again = None;
        let mut blocked: Vec<Ticket> = Vec::new();
        let mut walk = self.queue.walk(&self.shares);
        while let Some(held) = walk.next(&self.queue) {
            if blocked.iter().any(|other| other.same_filters(&held.ticket)) {
                continue;
            }
            if self.saturated(now) {
                break;
            }
            let request = held.request;
            let ticket = held.ticket.clone();
            if self.stays(now, &ticket) {
                blocked.push(ticket);
                continue;
            }
            if self.stays_late(now, request, &ticket) {
                continue;
            }
            effects.extend(self.release_one(now, request));
        }
        effects
    }

    /// The same for a rule that decides anew on what waits: the prompt matters then, so nobody stands for others.
    fn reconsider(&mut self, now: Time) -> Vec<Effect> {
        self.look_again = None;
        let mut blocked: Vec<Ticket> = Vec::new();
        let first = self.queue.first(RECONSIDERED, &self.shares);
        let mut effects = self.look_at(now, &first, &mut blocked);
        // Whoever waits for other replicas than those that have no room may go although many stand before it.
        if !blocked.is_empty() && first.len() == RECONSIDERED {
            let others = self
                .queue
                .behind(RECONSIDERED, &self.shares, |ticket| !blocked.iter().any(|other| other.same_filters(ticket)));
            effects.extend(self.look_at(now, &others, &mut blocked));
        }
        effects
    }

    /// Decides anew on these. Where there is room for nobody, who may be served by the same replicas is passed over: `blocked`.
    fn look_at(&mut self, now: Time, waiting: &[RequestId], blocked: &mut Vec<Ticket>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for request in waiting.iter().copied() {
            let Some(ticket) = self.queue.ticket(now, request) else { continue };
            if blocked.iter().any(|other| other.same_filters(&ticket)) {
                continue;
            }
            let mut decision = self.decide(now, request, &ticket).0;
            self.admit(&ticket, &mut decision);
            let waits = match decision.verdict {
                Verdict::Hold => true,
                // A moment without a healthy replica is no reason to refuse what is already waiting.
                Verdict::Reject { reason, .. } => reason == Refusal::NoneHealthy,
                Verdict::Dispatch(_) => false,
            };
            if !waits {
                effects.extend(self.release_one(now, request));
                self.look_soon_after(now, decision.verdict);
            } else if self.note_wait(now, &ticket, &decision) {
                blocked.push(ticket);
            }
        }
        effects
    }

    /// Puts a request in the queue.
    pub(super) fn hold(&mut self, now: Time, ticket: Ticket, decision: &Decision) {
        let request = decision.request;
        let (bill, prospect) = (self.bill(&ticket, decision), self.prospect(now, &ticket, decision));
        let entry = Entry { request, ticket: ticket.clone(), prompt_tokens: decision.prompt_tokens, bill, prospect };
        self.queue.push(now, entry);
        self.note_wait(now, &ticket, decision);
    }

    /// Notes of a request that waits how much work it means and when there may be room for it. True if there is room for nobody.
    fn note_wait(&mut self, now: Time, ticket: &Ticket, decision: &Decision) -> bool {
        let prospect = self.prospect(now, ticket, decision);
        self.queue.expect(decision.request, prospect);
        let policy = &self.strategy.policy;
        if policy.shortest_first() {
            let uncached = decision.candidates.iter().map(|candidate| candidate.uncached_tokens).min();
            self.queue.rank(decision.request, uncached.unwrap_or(decision.prompt_tokens));
        }
        if prospect.late && self.queue.is_awaited_beside(decision.request, ticket) {
            // It is not the time that it waits for: the sum of what it has waited and what is predicted never falls by time alone.
            return false;
        }
        let best = decision.candidates.iter().min_by(|a, b| a.score.total_cmp(&b.score));
        let Some(room_in_ms) = best.and_then(|best| policy.room_in_ms(best)) else { return false };
        let full = decision.candidates.iter().all(|candidate| policy.room_in_ms(candidate).is_some_and(|ms| ms > 0.0));
        self.look_again_at(now.plus_ms(room_in_ms.max(SHORTEST_LOOK_MS)));
        full
    }

    /// Is no replica's gate open? Then nobody in the queue can go, and it need not be walked.
    fn saturated(&self, now: Time) -> bool {
        let filters = self.filters(now);
        !self.fleet.is_empty() && self.fleet.iter().all(|replica| filters.gate_closed(replica))
    }

    /// Has a held request to wait on? For capacity, or for a replica to come back: a moment without a healthy one is no reason to refuse
    /// what is already waiting.
    fn stays(&self, now: Time, ticket: &Ticket) -> bool {
        let filters = self.filters(now);
        let verdicts = filters.apply(&ticket.features, &ticket.tried);
        let eligible = verdicts.contains(&None);
        let waits = verdicts.contains(&Some(Excluded::Capacity));
        !eligible && (waits || filters.refusal(&ticket.features, &verdicts) == Refusal::NoneHealthy)
    }

    fn release_one(&mut self, now: Time, request: RequestId) -> Option<Effect> {
        let ticket = self.queue.remove(now, request)?;
        self.releases.add(now);
        Some(Effect::Released(self.place(now, request, ticket)))
    }

    /// Requests that time alone makes too late, whatever anybody waits for.
    fn expire(&mut self, now: Time) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(request) = self.queue.overdue(now, self.settings.queue_timeout_ms) {
            let Some(ticket) = self.queue.remove(now, request) else { break };
            self.tuner_ends(now, request, End::Failed, Usage::default());
            effects.push(Effect::Released(Arc::new(self.refuse(now, request, &ticket, Refusal::QueueTimeout))));
        }
        while let Some(request) = self.queue.given_up(now) {
            let Some(ticket) = self.queue.remove(now, request) else { break };
            self.tuner_ends(now, request, End::Failed, Usage::default());
            effects.push(Effect::Released(Arc::new(self.refuse_late(now, request, &ticket))));
        }
        effects
    }

    pub(super) fn filters(&self, now: Time) -> Filters<'_> {
        Filters {
            fleet: &self.fleet,
            ledger: &self.ledger,
            residency: &self.settings.residency,
            gate: self.gate().filter(|_| !self.strategy.policy.keeps_local()),
            now,
        }
    }

    /// A refusal for a reason of the router's own, with the replicas as they stand.
    pub(super) fn refuse(&self, now: Time, request: RequestId, ticket: &Ticket, reason: Refusal) -> Decision {
        let verdicts = self.filters(now).apply(&ticket.features, &ticket.tried);
        let verdict = self.reject(now, reason);
        self.decision(now, request, ticket, verdict, Vec::new(), excluded(&self.fleet, &verdicts))
    }

    /// Filters, scores and chooses. Changes nothing but the strategy's own memory. Beside the decision: how many leading blocks of the
    /// prompt the chosen replica is believed to hold.
    pub(super) fn decide(&mut self, now: Time, request: RequestId, ticket: &Ticket) -> (Decision, usize) {
        let features = &*ticket.features;
        let filters = self.filters(now);
        let verdicts = filters.apply(features, &ticket.tried);
        let nobody = verdicts.iter().all(Option::is_some);
        let refusal = nobody.then(|| filters.refusal(features, &verdicts));
        let prompt_tokens = self.prompt_tokens(ticket);
        let known = Known { fleet: &self.fleet, ledger: &self.ledger, index: &self.index, now };
        let (views, matches): (Vec<View<'_>>, Vec<usize>) =
            known.views(features, prompt_tokens, &verdicts).into_iter().unzip();
        let query = self.query(now, request, ticket);
        let strategy = match (self.decider(request, features), &mut self.rival) {
            (Decider::Opaque, _) => &mut self.opaque,
            (Decider::Rival, Some(rival)) => rival,
            (Decider::Rival, None) | (Decider::Incumbent, _) => &mut self.strategy,
        };
        let Ranking { candidates, positions, choice } = rank(&mut *strategy.policy, &query, &views);
        let pruned = views.len() - candidates.len();
        let verdict = match choice {
            Some(Choice::Best(chosen) | Choice::Local(chosen)) => Verdict::Dispatch(candidates[chosen].replica),
            Some(Choice::Hold) => Verdict::Hold,
            None if verdicts.contains(&Some(Excluded::Capacity)) => Verdict::Hold,
            None => self.reject(now, refusal.unwrap_or(Refusal::NoneHealthy)),
        };
        let kept_local = matches!(choice, Some(Choice::Local(_)));
        let matched = match choice {
            Some(Choice::Best(chosen) | Choice::Local(chosen)) => matches[positions[chosen]],
            Some(Choice::Hold) | None => 0,
        };
        let decision = self.decision(now, request, ticket, verdict, candidates, excluded(&self.fleet, &verdicts));
        (Decision { kept_local, pruned, ..decision }, matched)
    }

    /// What a strategy is asked about.
    pub(super) fn query<'a>(&self, now: Time, request: RequestId, ticket: &'a Ticket) -> Query<'a> {
        Query {
            features: &ticket.features,
            prompt_tokens: self.prompt_tokens(ticket),
            attempt: ticket.attempt,
            now,
            queued_tokens: self.queue.prompt_tokens_beside(request),
            queued_requests: self.queue.len_beside(request),
            max_concurrent: self.settings.max_concurrent,
            central: self.fleet.iter().all(|replica| replica.spec.kind == ReplicaKind::Engine),
        }
    }

    fn decision(
        &self,
        at: Time,
        request: RequestId,
        ticket: &Ticket,
        verdict: Verdict,
        candidates: Vec<Candidate>,
        excluded: Vec<(ReplicaId, Arc<str>, Excluded)>,
    ) -> Decision {
        let strategy = self.strategy_of(self.decider(request, &ticket.features));
        Decision {
            request,
            at,
            strategy: strategy.entry.name,
            attempt: ticket.attempt,
            unit: strategy.entry.unit,
            prompt_tokens: self.prompt_tokens(ticket),
            held_ms: ticket.held_ms,
            verdict,
            kept_local: false,
            weights: self.weights(strategy),
            pruned: 0,
            deadline: None,
            candidates,
            excluded,
        }
    }

    /// Exact where known, else estimated from the bytes.
    pub(super) fn prompt_tokens(&self, ticket: &Ticket) -> u32 {
        let features = &ticket.features;
        features.prompt_tokens.unwrap_or_else(|| self.ratios.tokens(&features.model, features.prompt_bytes))
    }

    /// A full queue names when its last place may be free: its length at the rate at which it has been emptying.
    pub(super) fn reject(&self, now: Time, reason: Refusal) -> Verdict {
        let waits = matches!(reason, Refusal::QueueFull | Refusal::QueueTimeout);
        let rate = self.releases.per_ms(now);
        let drained_ms = (waits && rate > 0.0).then(|| self.queue.len() as f64 / rate);
        Verdict::Reject { reason, retry_after_ms: drained_ms.map(|ms| self.retry_after_ms(ms)) }
    }

    /// Neither at once nor later than the queue's own limit.
    pub(super) fn retry_after_ms(&self, ms: f64) -> f64 {
        ms.clamp(RETRY_AFTER_MIN_MS, self.settings.queue_timeout_ms.max(RETRY_AFTER_MIN_MS))
    }

    /// Books a request on the replica that was chosen for it, which is believed to hold its first `matched` blocks.
    fn dispatch(&mut self, now: Time, ticket: Ticket, decision: &Decision, matched: usize) {
        let Some(chosen) = decision.chosen() else { return };
        let features = Arc::clone(&ticket.features);
        let rtt_ms = self.fleet.get(chosen.replica).and_then(|replica| replica.rtt.value());
        let rtt_ms = rtt_ms.unwrap_or_else(|| self.fleet.assumed_rtt_ms());
        let demand = Demand {
            prompt_tokens: decision.prompt_tokens,
            uncached_tokens: chosen.uncached_tokens,
            output_tokens: self.expected_output(&features),
        };
        let bill = self.bill(&ticket, decision);
        self.shares.charge(bill);
        // What a peer said of its cache proves nothing about what this router knew of it, either.
        let unproven = self.index.matched(chosen.replica, &features.blocks) < matched
            || self.rests_on_pending(chosen.replica, &features.blocks[..matched]);
        self.tuner_dispatched(now, decision.request, chosen.replica, chosen.uncached_tokens);
        self.ledger.dispatch(decision.request, chosen.replica, demand, now.plus_ms(rtt_ms / 2.0));
        // What the engine's memory cannot hold it will refuse: to learn it would only push out what is cached there.
        let room = self.fleet.get(chosen.replica).and_then(Replica::kv_tokens);
        if room.is_none_or(|room| f64::from(decision.prompt_tokens) <= room) {
            let residency = &self.settings.residency;
            let audience = Audience::of_request(residency, &residency.classes_of(&features));
            self.index.insert_for(chosen.replica, &features.blocks, audience);
        }
        let ttft_ms = decision.predicted_ttft_ms();
        let attempt = Attempt {
            ticket,
            replica: chosen.replica,
            dispatched: now,
            prompt_tokens: decision.prompt_tokens,
            cached_tokens: chosen.cached_tokens,
            ttft_ms,
            unproven,
            bill,
            answered: false,
            look_at: None,
            called: false,
        };
        self.attempts.insert(decision.request, attempt);
        let sent = Sent {
            request: decision.request,
            features: &features,
            prompt_tokens: decision.prompt_tokens,
            cached_tokens: chosen.cached_tokens,
            rtt_ms,
            ttft_ms,
        };
        self.observe(now, chosen.replica, Event::Dispatched(sent));
        self.watch(decision.request);
    }

    /// Output length to be reckoned with, tokens.
    pub(super) fn expected_output(&self, features: &Features) -> u32 {
        let expected = self.output_tokens.value().unwrap_or(EXPECTED_OUTPUT_TOKENS) as u32;
        features.max_tokens.map_or(expected, |limit| limit.min(expected))
    }

    /// Does this prefix, which the index believes cached at `replica`, belong to a request that waits for its first token there?
    /// Block hashes are chained, so the last one stands for the whole prefix.
    fn rests_on_pending(&self, replica: ReplicaId, prefix: &[u64]) -> bool {
        let Some((last, before)) = prefix.split_last() else { return false };
        let mut pending = self.ledger.load(replica).pending.values();
        pending.any(|pending| {
            let attempt = self.attempts.get(&pending.request);
            attempt.is_some_and(|attempt| attempt.ticket.features.blocks.get(before.len()) == Some(last))
        })
    }
}

/// What a decision goes by.
pub(super) struct Known<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) ledger: &'a Ledger,
    pub(super) index: &'a PrefixIndex,
    pub(super) now: Time,
}

impl<'a> Known<'a> {
    /// The replicas without an objection, in fleet order, each with the leading blocks of the prompt that it is believed to hold: as far as
    /// this router knows, or as a peer says itself.
    pub(super) fn views(
        &self,
        features: &Features,
        prompt_tokens: u32,
        verdicts: &[Option<Excluded>],
    ) -> Vec<(View<'a>, usize)> {
        let assumed_rtt_ms = self.fleet.assumed_rtt_ms();
        let others = Others::new(self.fleet, self.ledger, self.now);
        let view = |replica: &'a Replica| {
            let own = self.index.matched(replica.id, &features.blocks);
            let matched = own.max(replica.peer.digest.matched(&features.blocks));
            let cached_tokens = cached_tokens(features, prompt_tokens, matched);
            let view = View {
                replica,
                load: self.ledger.load(replica.id),
                others: others.at(replica),
                rtt_ms: replica.rtt.value().unwrap_or(assumed_rtt_ms),
                cached_tokens,
                uncached_tokens: prompt_tokens - cached_tokens,
            };
            (view, matched)
        };
        let eligible = self.fleet.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none());
        eligible.map(|(replica, _)| view(replica)).collect()
    }
}

/// Who was left out, with names, in fleet order.
fn excluded(fleet: &Fleet, verdicts: &[Option<Excluded>]) -> Vec<(ReplicaId, Arc<str>, Excluded)> {
    let named = |(replica, verdict): (&Replica, &Option<Excluded>)| {
        verdict.map(|reason| (replica.id, Arc::clone(&replica.spec.name), reason))
    };
    fleet.iter().zip(verdicts).filter_map(named).collect()
}
