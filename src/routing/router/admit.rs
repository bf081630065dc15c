//! What a request can still expect of its limit, whose turn it is, and what is charged for it: [`crate::routing::admission`] and
//! [`crate::routing::share`] in the router's hands.

use std::sync::Arc;

use super::placement::SHORTEST_LOOK_MS;
use super::{Attempt, Router, Ticket, Usage};
use crate::model::{RequestId, Time};
use crate::routing::admission::{Deadline, Late, PATIENCE_WITH_CACHED};
use crate::routing::decision::{Decision, Refusal, Verdict};
use crate::routing::queue::Prospect;
use crate::routing::share::{Bill, Shares};
use crate::routing::tune::End;

impl Router {
    /// Holds a decision against the limit of the request's class: who would be late is refused, or waits for those who need not be.
    pub(super) fn admit(&self, ticket: &Ticket, decision: &mut Decision) {
        // Who was sent once has paid for it by waiting: to be refused for that would be the worst of all.
        if ticket.attempt > 1 || matches!(decision.verdict, Verdict::Reject { .. }) {
            return;
        }
        let foresees = self.strategy.policy.foresees();
        let Some(deadline) = self.settings.slo.judge(&ticket.features, decision, foresees) else { return };
        if deadline.is_late() {
            match self.settings.slo.class_of(&ticket.features).late {
                Late::Refuse => decision.verdict = self.reject_late(&deadline),
                Late::Defer if self.queue.is_awaited_beside(decision.request, ticket) => {
                    decision.verdict = Verdict::Hold;
                }
                Late::Defer => {}
            }
            decision.kept_local &= matches!(decision.verdict, Verdict::Dispatch(_));
        }
        decision.deadline = Some(deadline);
    }

    /// The refusal of a request that has waited for as long as its limit is.
    pub(super) fn refuse_late(&self, now: Time, request: RequestId, ticket: &Ticket) -> Decision {
        let mut decision = self.refuse(now, request, ticket, Refusal::Deadline);
        decision.deadline = self.settings.slo.judge(&ticket.features, &decision, false);
        if let Some(deadline) = &mut decision.deadline {
            // Without a candidate the longer limit is taken; who is given up before that had the shorter one.
            if deadline.late_by_ms() < 0.0 {
                deadline.limit_ms /= PATIENCE_WITH_CACHED;
            }
            decision.verdict = self.reject_late(deadline);
        }
        decision
    }

    /// A client is told to come back when the same request would just make it, if nobody else came.
    fn reject_late(&self, deadline: &Deadline) -> Verdict {
        let retry_after_ms = Some(self.retry_after_ms(deadline.late_by_ms()));
        Verdict::Reject { reason: Refusal::Deadline, retry_after_ms }
    }

    /// What is to be expected of a request that stays.
    pub(super) fn prospect(&self, now: Time, ticket: &Ticket, decision: &Decision) -> Prospect {
        let Some(deadline) = &decision.deadline else { return Prospect::default() };
        match self.settings.slo.class_of(&ticket.features).late {
            Late::Refuse => {
                let left_ms = (deadline.limit_ms - deadline.waited_ms).max(0.0);
                Prospect { late: false, give_up: Some(now.plus_ms(left_ms)) }
            }
            Late::Defer => Prospect { late: deadline.is_late(), give_up: None },
        }
    }

    /// Has a held request for which a replica has room to wait on, because it cannot be in time and others can?
    pub(super) fn stays_late(&mut self, now: Time, request: RequestId, ticket: &Ticket) -> bool {
        let class = self.settings.slo.class_of(&ticket.features);
        if class.ttft_ms.is_none() || class.late != Late::Defer {
            return false;
        }
        let Some(ticket) = self.queue.ticket(now, request) else { return false };
        let mut decision = self.decide(now, request, &ticket).0;
        self.admit(&ticket, &mut decision);
        self.queue.expect(request, self.prospect(now, &ticket, &decision));
        decision.verdict == Verdict::Hold
    }

    /// After a refusal nothing is under way that would bring the next look at those behind.
    pub(super) fn look_soon_after(&mut self, now: Time, verdict: Verdict) {
        if matches!(verdict, Verdict::Reject { reason: Refusal::Deadline, .. }) {
            self.look_again_at(now.plus_ms(SHORTEST_LOOK_MS));
        }
    }

    /// Does another flow wait for the same replicas that could be in time and has had less? Then who comes now goes behind it.
    pub(super) fn is_preceded(&self, ticket: &Ticket) -> bool {
        let had = self.shares.counter(ticket.flow);
        self.queue.is_preceded(ticket, |waiting| self.shares.counter(waiting) < had)
    }

    /// Puts a new request among those who wait, whatever room there is: the next look, at once, goes by turns.
    pub(super) fn queue_up(&mut self, now: Time, request: RequestId, ticket: Ticket) -> Arc<Decision> {
        let (mut decision, _) = self.decide(now, request, &ticket);
        self.admit(&ticket, &mut decision);
        if !matches!(decision.verdict, Verdict::Reject { .. }) {
            decision.kept_local = false;
            let full = self.queue.len() >= self.settings.queue_limit;
            decision.verdict = if full { self.reject(now, Refusal::QueueFull) } else { Verdict::Hold };
        }
        if decision.verdict == Verdict::Hold {
            self.hold(now, ticket, &decision);
            self.look_again_at(now);
        } else {
            self.tuner_ends(now, request, End::Failed, Usage::default());
        }
        Arc::new(decision)
    }

    /// The queue is to be looked at then at the latest.
    pub(super) fn look_again_at(&mut self, at: Time) {
        self.look_again = Some(self.look_again.map_or(at, |planned| planned.min(at)));
    }

    /// What a request costs its flow where it was sent, or would be if it is held.
    pub(super) fn bill(&self, ticket: &Ticket, decision: &Decision) -> Bill {
        let uncached = decision.best().map_or(decision.prompt_tokens, |best| best.uncached_tokens);
        let weight = self.settings.slo.class_of(&ticket.features).weight;
        Shares::bill(ticket.flow, weight, uncached)
    }

    /// Charges a request's flow for its answer; what the answer does not tell is taken as expected.
    pub(super) fn settle(&mut self, attempt: &Attempt, usage: Usage) {
        let uncached =
            usage.prompt_tokens.zip(usage.cached_tokens).map(|(prompt, cached)| prompt.saturating_sub(cached));
        let output = usage.completion_tokens.unwrap_or_else(|| self.expected_output(&attempt.ticket.features));
        self.shares.settle(attempt.bill, uncached, output);
    }
}
