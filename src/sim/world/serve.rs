//! The life of a request between its router and an engine, as the gateway lives it: decide, send, hand the answer on. What goes wrong
//! on the way stands in `fail`.

use std::sync::Arc;

use super::World;
use super::event::{Attempt, Event};
use super::node::To;
use super::request::{Leg, Stage};
use super::scenario::News;
use crate::model::{ReplicaId, RequestId};
use crate::report::Outcome as Ending;
use crate::routing::{Decision, Effect, Features, Outcome, Usage, Verdict};
use crate::sim::engine::{EngineEvent, Job};
use crate::sim::link::Way;
use crate::workload::reblock::chained_blocks;

/// Bytes of a request beside its prompt: head and JSON.
const ENVELOPE_BYTES: u64 = 500;

impl World<'_> {
    /// A request reaches a router: the client's (hop 0) or a peer's.
    pub(super) fn arrive(&mut self, request: u32, hop: usize) {
        let node = self.request(request).legs[hop].node;
        if self.scenario.edge.news == News::Oracle {
            self.enlighten(node);
        }
        let features = Arc::clone(&self.request(request).features);
        let features = if hop == 0 { features } else { self.forwarded(request, &features) };
        let now = self.now;
        let decision = self.nodes[node].router.arrive(now, id(request), features);
        self.act(request, hop, &decision);
        self.keep_time(node);
    }

    /// As a peer sees it: it has made its hop, and comes from the client's router.
    fn forwarded(&self, request: u32, features: &Features) -> Arc<Features> {
        let origin = Arc::clone(&self.nodes[self.request(request).legs[0].node].name);
        Arc::new(Features { forwarded: true, origin: Some(origin), ..features.clone() })
    }

    /// Does what a router decided.
    pub(super) fn act(&mut self, request: u32, hop: usize, decision: &Decision) {
        match decision.verdict {
            Verdict::Dispatch(replica) => self.send(request, hop, replica),
            Verdict::Hold => self.request_mut(request).legs[hop].stage = Stage::Held,
            Verdict::Reject { reason, .. } => self.refuse(request, hop, reason),
        }
    }

    /// Does what a router set free.
    pub(super) fn deliver(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            let decision = match effect {
                Effect::Released(decision) => decision,
                Effect::Recall(request) => {
                    self.recall(node, number(request));
                    continue;
                }
            };
            let request = number(decision.request);
            // A request is at most once at a router: whoever had it is not asked again.
            let legs = &self.request(request).legs;
            let hop = legs.iter().position(|leg| leg.node == node && leg.stage == Stage::Held);
            self.act(request, hop.expect("what is released was held"), &decision);
        }
        self.keep_time(node);
    }

    fn send(&mut self, request: u32, hop: usize, replica: ReplicaId) {
        let now = self.now;
        let open = self.requests[request as usize].as_deref_mut().expect("a request that is being sent");
        open.sends += 1;
        if hop == 0 {
            open.sample.gaps_ms.clear();
        }
        let leg = &mut open.legs[hop];
        let target = replica.0 as usize;
        let to = &mut self.nodes[leg.node].targets[target];
        debug_assert!(hop == 0 || matches!(to.to, To::Engine(_)), "a second hop");
        let mut connection = to.link.take();
        let exit = connection.up.exit(now, open.features.prompt_bytes + ENVELOPE_BYTES);
        let arrival = to.link.arrival(Way::Up, now, exit);
        let node = leg.node;
        *leg = Leg {
            stage: Stage::Sent,
            number: open.sends,
            target,
            connection: Some(connection),
            heard: now,
            of: leg.of,
            ..Leg::at(node)
        };
        let attempt = open.attempt(request, hop);
        if let Some(at) = arrival {
            self.schedule.at(at, Event::Reach(attempt));
        }
        self.schedule.at(now.plus_ms(self.scenario.edge.upstream_timeout_ms), Event::Silent(attempt));
    }

    /// It is where it was sent.
    pub(super) fn reach(&mut self, attempt: Attempt) {
        if !self.is_present(attempt) {
            return;
        }
        let request = attempt.request;
        let open = self.request(request);
        let leg = &open.legs[usize::from(attempt.hop)];
        match self.nodes[leg.node].targets[leg.target].to {
            To::Engine(machine) => {
                let step = &self.scenario.plan.sessions[open.session as usize].steps[open.step as usize];
                let block = self.machines[machine].spec().block;
                let job = Job {
                    id: job(attempt),
                    blocks: chained_blocks(step, self.scenario.plan.block_size, block).into(),
                    prompt_tokens: step.input_tokens,
                    output_tokens: step.output_tokens,
                };
                if self.machines[machine].submit(self.now, job) {
                    self.replan(machine);
                } else {
                    self.back(attempt, Event::Lost { attempt, gone: true });
                }
            }
            To::Peer(peer) => {
                self.forwarded += 1;
                let legs = &mut self.request_mut(request).legs;
                legs.push(Leg { of: Some(attempt), ..Leg::at(peer) });
                let hop = legs.len() - 1;
                self.arrive(request, hop);
            }
        }
    }

    /// Plans the engine's next event.
    pub(super) fn replan(&mut self, machine: usize) {
        if let Some((at, turn)) = self.machines[machine].plan(self.now) {
            self.schedule.at(at, Event::Step { machine: machine as u32, turn });
        }
    }

    /// The engine has got somewhere.
    pub(super) fn step(&mut self, machine: usize, turn: u32) {
        let mut events = std::mem::take(&mut self.heard);
        self.machines[machine].advance(self.now, turn, &mut events);
        for event in events.drain(..) {
            let attempt = attempt(event.id());
            if !self.is_present(attempt) {
                self.note_begun(event.id());
                continue;
            }
            match event {
                EngineEvent::FirstToken { at, cached_tokens, .. } => {
                    let open = self.request_mut(attempt.request);
                    open.legs[usize::from(attempt.hop)].cached_tokens = Some(cached_tokens);
                    if open.serves(attempt) {
                        open.token_at = at;
                        open.sample.cached_tokens = Some(cached_tokens);
                    }
                    self.back(attempt, Event::First(attempt));
                }
                EngineEvent::Token { at, .. } => {
                    let open = self.request_mut(attempt.request);
                    if open.serves(attempt) {
                        open.sample.gaps_ms.push(at.since_ms(open.token_at) as f32);
                        open.token_at = at;
                    }
                }
                EngineEvent::Done { .. } => self.back(attempt, Event::Done(attempt)),
                EngineEvent::TooLarge { .. } => self.back(attempt, Event::TooLarge(attempt)),
            }
        }
        self.heard = events;
        self.replan(machine);
    }

    /// Something travels back over the connection of an attempt.
    pub(super) fn back(&mut self, attempt: Attempt, event: Event) {
        let now = self.now;
        let open = self.requests[attempt.request as usize].as_deref_mut().expect("an attempt that is under way");
        let leg = &mut open.legs[usize::from(attempt.hop)];
        let Some(connection) = &mut leg.connection else { return };
        let exit = connection.down.exit(now, 0);
        let arrival = self.nodes[leg.node].targets[leg.target].link.arrival(Way::Down, now, exit);
        if let Some(at) = arrival {
            leg.back_at = leg.back_at.max(at);
            self.schedule.at(leg.back_at, event);
        }
    }

    /// The first token is at the router; a peer hands it on.
    pub(super) fn first(&mut self, attempt: Attempt) {
        if !self.is_present(attempt) {
            return;
        }
        let (now, request, hop) = (self.now, attempt.request, usize::from(attempt.hop));
        let leg = &mut self.request_mut(request).legs[hop];
        (leg.stage, leg.heard) = (Stage::Answering, now);
        let (node, target) = (leg.node, leg.target);
        let router = &mut self.nodes[node].router;
        let mut effects = router.headers(now, id(request));
        effects.extend(router.first_token(now, id(request)));
        self.deliver(node, effects);
        match (hop, self.nodes[node].targets[target].to) {
            (0, to) => self.show_first(request, to),
            (_, To::Engine(machine)) => {
                if self.request(request).serves(attempt) {
                    self.name_server(request, machine);
                }
                self.hand_back(attempt, Event::First);
            }
            (_, To::Peer(_)) => {}
        }
    }

    /// The first token goes to the client.
    fn show_first(&mut self, request: u32, to: To) {
        if let To::Engine(machine) = to {
            self.name_server(request, machine);
        }
        let now = self.now;
        let open = self.request_mut(request);
        let exit = open.connection.as_mut().map(|connection| connection.down.exit(now, 0));
        let seen = exit.map_or(Some(now), |exit| self.client_arrival(request, exit));
        self.request_mut(request).sample.first = seen;
    }

    fn name_server(&mut self, request: u32, machine: usize) {
        let server = self.servers[machine].clone();
        let sample = &mut self.request_mut(request).sample;
        (sample.replica, sample.region) = (Some(server.0), Some(server.1));
    }

    /// The whole answer is at the router.
    pub(super) fn done(&mut self, attempt: Attempt) {
        if !self.is_present(attempt) {
            return;
        }
        let request = attempt.request;
        let usage = self.usage(attempt);
        self.leave(attempt, Outcome::Done(usage), true);
        if attempt.hop == 0 {
            let step = {
                let open = self.request(request);
                &self.scenario.plan.sessions[open.session as usize].steps[open.step as usize]
            };
            self.request_mut(request).sample.output_tokens = step.output_tokens;
            self.close(request, Ending::Ok);
        } else {
            self.hand_back(attempt, Event::Done);
        }
    }

    /// A peer hands on to the client's router what has come of a forwarded request, if that still waits for it.
    pub(super) fn hand_back(&mut self, attempt: Attempt, event: impl FnOnce(Attempt) -> Event) {
        let Some(open) = self.requests[attempt.request as usize].as_deref() else { return };
        let entry = open.legs[usize::from(attempt.hop)].of.filter(|entry| open.is_present(*entry));
        if let Some(entry) = entry {
            self.back(entry, event(entry));
        }
    }

    /// What the answer says of itself, if it is one of those that do: every request draws by its number, whatever the strategy.
    fn usage(&self, attempt: Attempt) -> Usage {
        let open = self.request(attempt.request);
        let place = [open.session.to_le_bytes(), open.step.to_le_bytes()].concat();
        let draw = xxhash_rust::xxh3::xxh3_64_with_seed(&place, self.scenario.seed) as f64 / u64::MAX as f64;
        if draw >= self.scenario.edge.usage && self.scenario.edge.usage < 1.0 {
            return Usage::default();
        }
        let step = &self.scenario.plan.sessions[open.session as usize].steps[open.step as usize];
        let told = open.legs[usize::from(attempt.hop)].cached_tokens;
        // What a peer's engine said comes through with the answer.
        let cached = told.or(open.sample.cached_tokens);
        Usage {
            prompt_tokens: Some(step.input_tokens),
            cached_tokens: cached,
            completion_tokens: Some(step.output_tokens),
        }
    }

    /// A router is done with an attempt. A connection that `lives` is kept for the next request.
    pub(super) fn leave(&mut self, attempt: Attempt, outcome: Outcome, lives: bool) {
        let (now, request) = (self.now, attempt.request);
        let leg = &mut self.request_mut(request).legs[usize::from(attempt.hop)];
        leg.stage = Stage::Over;
        let (node, target, connection) = (leg.node, leg.target, leg.connection.take());
        if let Some(connection) = connection.filter(|_| lives) {
            self.nodes[node].targets[target].link.park(connection);
        }
        let effects = self.nodes[node].router.finish(now, id(request), outcome);
        self.deliver(node, effects);
        if self.request(request).recorded {
            self.forget(request);
        }
    }

    /// Is this attempt the present one of its hop?
    pub(super) fn is_present(&self, attempt: Attempt) -> bool {
        self.requests[attempt.request as usize].as_deref().is_some_and(|open| open.is_present(attempt))
    }

    /// Plans the next look at a router's queue, if it wants one earlier than planned.
    pub(super) fn keep_time(&mut self, node: usize) {
        let Some(deadline) = self.nodes[node].router.deadline() else { return };
        // As the gateway: a deadline that has passed must not spin.
        let at = deadline.max(self.now.plus_ms(1.0));
        if self.nodes[node].tick_at.is_none_or(|planned| at < planned) {
            self.nodes[node].tick_at = Some(at);
            self.schedule.at(at, Event::Tick { node: node as u32 });
        }
    }

    pub(super) fn tick(&mut self, node: usize) {
        let now = self.now;
        if self.nodes[node].tick_at == Some(now) {
            self.nodes[node].tick_at = None;
            let effects = self.nodes[node].router.tick(now);
            self.deliver(node, effects);
        }
    }
}

/// A request as routers know it.
pub(super) fn id(request: u32) -> RequestId {
    RequestId(u64::from(request))
}

/// A request as this world numbers it.
pub(super) fn number(request: RequestId) -> u32 {
    u32::try_from(request.0).expect("requests are numbered by this world")
}

/// An attempt as the engine's number for it, and back.
pub(super) fn job(attempt: Attempt) -> u64 {
    u64::from(attempt.request) << 32 | u64::from(attempt.hop) << 16 | u64::from(attempt.number)
}

pub(super) fn attempt(job: u64) -> Attempt {
    Attempt { request: (job >> 32) as u32, hop: (job >> 16) as u8, number: job as u16 }
}
