//! What goes wrong with a request, as the gateway takes it: elsewhere before the first byte, the end after it, and giving up after too
//! long a silence.

use super::World;
use super::event::{Attempt, Event};
use super::node::{Target, To};
use super::outcome::{cut, refused, silent, too_large, worth_another_try};
use super::request::{Leg, Request, Stage};
use super::serve::{id, job};
use crate::routing::{Outcome, Refusal, Verdict};
use crate::sim::link::Way;

impl World<'_> {
    /// What the engine refuses is the client's doing: handed on, and nothing is learned from it.
    pub(super) fn too_large(&mut self, attempt: Attempt) {
        if !self.is_present(attempt) {
            return;
        }
        let request = attempt.request;
        self.leave(attempt, Outcome::Cancelled, true);
        if attempt.hop == 0 {
            self.close(request, too_large());
        } else {
            self.hand_back(attempt, Event::TooLarge);
        }
    }

    /// An attempt failed: elsewhere if nothing has come of it, else that was it.
    pub(super) fn lost(&mut self, attempt: Attempt, gone: bool) {
        if !self.is_present(attempt) {
            return;
        }
        let (now, request, hop) = (self.now, attempt.request, usize::from(attempt.hop));
        let leg = &mut self.request_mut(request).legs[hop];
        let (node, target, stage) = (leg.node, leg.target, leg.stage);
        if gone && matches!(self.nodes[node].targets[target].to, To::Engine(_)) {
            self.nodes[node].router.clear_cache(Some(Target::id(target)));
        }
        if stage == Stage::Answering {
            return self.broken(attempt);
        }
        let leg = &mut self.request_mut(request).legs[hop];
        (leg.stage, leg.connection) = (Stage::Held, None);
        let (decision, effects) = self.nodes[node].router.failed(now, id(request));
        if !matches!(decision.verdict, Verdict::Reject { .. }) {
            self.retried += 1;
            self.request_mut(request).sample.retried = true;
        }
        self.act(request, hop, &decision);
        self.deliver(node, effects);
    }

    /// An answer that had begun broke off.
    pub(super) fn broken(&mut self, attempt: Attempt) {
        if !self.is_present(attempt) {
            return;
        }
        let request = attempt.request;
        self.leave(attempt, Outcome::Broken, false);
        if attempt.hop == 0 {
            self.close(request, cut());
        } else {
            self.hand_back(attempt, Event::Broken);
        }
    }

    /// A router refuses a request: its client is told, or the peer that forwarded it, which may try elsewhere.
    pub(super) fn refuse(&mut self, request: u32, hop: usize, reason: Refusal) {
        let comes_back = hop == 0 && reason == Refusal::Deadline && self.scenario.edge.come_back_ms.is_finite();
        if comes_back {
            // Its way to the client and back is in the pause.
            self.request_mut(request).legs[hop].stage = Stage::Held;
            let at = self.now.plus_ms(self.scenario.edge.come_back_ms);
            return self.schedule.at(at, Event::Arrive { request });
        }
        self.request_mut(request).legs[hop].stage = Stage::Over;
        if hop == 0 {
            return self.close(request, refused(reason));
        }
        let attempt = self.request(request).attempt(request, hop);
        if worth_another_try(reason) {
            self.hand_back(attempt, |entry| Event::Lost { attempt: entry, gone: false });
        } else {
            self.hand_back(attempt, Event::TooLarge);
        }
        if self.request(request).recorded {
            self.forget(request);
        }
    }

    /// Nothing may have come for as long as a router waits.
    pub(super) fn silent(&mut self, attempt: Attempt) {
        if !self.is_present(attempt) {
            return;
        }
        let (now, request, hop) = (self.now, attempt.request, usize::from(attempt.hop));
        let open = self.request(request);
        let leg = &open.legs[hop];
        let heard = if leg.stage == Stage::Answering { leg.heard.max(open.token_at) } else { leg.heard };
        let due = heard.plus_ms(self.scenario.edge.upstream_timeout_ms);
        if now < due {
            return self.schedule.at(due, Event::Silent(attempt));
        }
        self.call_off(attempt);
        self.leave(attempt, Outcome::Broken, false);
        if hop == 0 {
            self.close(request, silent());
        } else {
            self.hand_back(attempt, |entry| Event::Lost { attempt: entry, gone: false });
        }
    }

    /// A peer has fallen silent: its line is dead, and with it what waits for an answer of it.
    pub(super) fn lose_waiting(&mut self, node: usize, target: usize) {
        let waits = |(request, open): (usize, &Option<Box<Request>>)| {
            let open = open.as_deref()?;
            let leg = open.legs.first()?;
            let there = leg.stage == Stage::Sent && (leg.node, leg.target) == (node, target);
            there.then(|| open.attempt(request as u32, 0))
        };
        let waiting: Vec<Attempt> = self.requests.iter().enumerate().filter_map(waits).collect();
        for attempt in waiting {
            self.call_off(attempt);
            self.lost(attempt, false);
        }
    }

    /// A router calls back what an engine has certainly not begun, and decides anew.
    pub(super) fn recall(&mut self, node: usize, request: u32) {
        let Some(open) = self.requests[request as usize].as_deref() else { return };
        let waits = |leg: &Leg| leg.node == node && leg.stage == Stage::Sent;
        let Some(hop) = open.legs.iter().position(waits) else { return };
        let attempt = open.attempt(request, hop);
        self.call_off(attempt);
        self.recalled.calls += 1;
        self.recalled.jobs.insert(job(attempt));
        let leg = &mut self.request_mut(request).legs[hop];
        (leg.stage, leg.connection) = (Stage::Held, None);
        let (decision, effects) = self.nodes[node].router.recalled(self.now, id(request));
        self.retried += 1;
        self.request_mut(request).sample.retried = true;
        self.act(request, hop, &decision);
        self.deliver(node, effects);
    }

    /// An engine has come to something of a job that was called back: it has begun it all the same.
    pub(super) fn note_begun(&mut self, job: u64) {
        if self.recalled.jobs.remove(&job) {
            self.recalled.begun += 1;
        }
    }

    /// The other end of an attempt will notice that nobody waits for it any more.
    fn call_off(&mut self, attempt: Attempt) {
        let now = self.now;
        let open = self.requests[attempt.request as usize].as_deref_mut().expect("an attempt that is under way");
        let leg = &open.legs[usize::from(attempt.hop)];
        let target = &mut self.nodes[leg.node].targets[leg.target];
        let event = match target.to {
            To::Engine(machine) => Event::Abort { machine: machine as u32, job: job(attempt) },
            To::Peer(_) => {
                // Who has not got it yet will find that nobody waits for it.
                let Some(hop) = open.legs.iter().position(|leg| leg.of == Some(attempt)) else { return };
                Event::Gone { request: attempt.request, hop: hop as u8 }
            }
        };
        let Some(connection) = &mut open.legs[usize::from(attempt.hop)].connection else { return };
        let exit = connection.up.exit(now, 0);
        if let Some(at) = target.link.arrival(Way::Up, now, exit) {
            self.schedule.at(at, event);
        }
    }

    pub(super) fn abort(&mut self, machine: usize, job: u64) {
        if self.machines[machine].has_begun(self.now, job) {
            self.note_begun(job);
        }
        self.recalled.jobs.remove(&job);
        self.machines[machine].abort(self.now, job);
        self.replan(machine);
    }

    /// A peer learns that a forwarded request is not wanted any more.
    pub(super) fn gone(&mut self, request: u32, hop: usize) {
        let Some(open) = self.requests[request as usize].as_deref() else { return };
        let attempt = open.attempt(request, hop);
        match open.legs[hop].stage {
            Stage::Over => return,
            Stage::Held => {}
            Stage::Sent | Stage::Answering => self.call_off(attempt),
        }
        self.leave(attempt, Outcome::Cancelled, false);
    }
}
