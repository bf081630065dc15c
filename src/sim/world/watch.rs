//! What routers learn by asking and telling: round trips, health, gauges, and how their peers are.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::World;
use super::event::{Answer, Ask, Event, Question};
use super::exchange::{Ear, Told};
use super::node::{Target, To};
use super::scenario::News;
use crate::model::Time;
use crate::sim::link::Way;

/// Pause before another attempt to get a stream, ms (the gateway's longest).
const CALL_AGAIN_MS: f64 = 1000.0;

/// Random numbers for the first questions, apart from those of links.
const STREAM: u64 = u64::MAX - 1;

impl World<'_> {
    /// First questions and words, spread over their intervals.
    pub(super) fn begin_watching(&mut self) {
        let edge = self.scenario.edge;
        let mut rng = ChaCha8Rng::seed_from_u64(self.scenario.seed);
        rng.set_stream(STREAM);
        let mut within = |every_ms: f64| Time::from_ms(every_ms * rng.random::<f64>());
        for (index, node) in self.nodes.iter().enumerate() {
            for (target, to) in node.targets.iter().enumerate() {
                let ask = |what| Ask { node: index as u32, target: target as u32, what };
                self.schedule.at(within(edge.rtt_every_ms), Event::Ask(ask(Question::Alive)));
                if matches!(to.to, To::Engine(_)) {
                    self.schedule.at(within(edge.gauges_every_ms), Event::Ask(ask(Question::Gauges)));
                }
            }
            if self.scenario.fleet.has_agents() && edge.news == News::Told {
                self.schedule.at(within(edge.peers_every_ms), Event::Tell { node: index as u32 });
                for (target, _) in node.targets.iter().enumerate().filter(|(_, to)| matches!(to.to, To::Peer(_))) {
                    let listen = Event::Listen { node: index as u32, target: target as u32 };
                    self.schedule.at(Time::from_ms(edge.peers_silence_ms), listen);
                }
            }
        }
        self.begin_sharing(&mut rng);
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        let sent = self.now;
        let limit = sent.plus_ms(self.scenario.edge.probe_timeout_ms);
        let to = &mut self.nodes[ask.node as usize].targets[ask.target as usize];
        let exit = to.control.up.exit(sent, 0);
        match to.link.arrival(Way::Up, sent, exit).filter(|at| *at <= limit) {
            Some(at) => self.schedule.at(at, Event::Asked { ask, sent }),
            None => self.schedule.at(limit, Event::Answered { ask, answer: Answer::Silence }),
        }
    }

    /// The question is there: an engine answers unless its process is gone (which its machine says) or hangs.
    pub(super) fn asked(&mut self, ask: Ask, sent: Time) {
        let now = self.now;
        let limit = sent.plus_ms(self.scenario.edge.probe_timeout_ms).max(now);
        let to = &mut self.nodes[ask.node as usize].targets[ask.target as usize];
        let machine = match to.to {
            To::Engine(machine) => Some(&self.machines[machine]),
            To::Peer(_) => None,
        };
        let replied = machine.map_or(now, |machine| machine.hangs_until.max(now));
        let exit = to.control.down.exit(replied, 0);
        let Some(at) = to.link.arrival(Way::Down, replied, exit).filter(|at| *at <= limit) else {
            return self.schedule.at(limit, Event::Answered { ask, answer: Answer::Silence });
        };
        let answer = match (machine.map(|machine| machine.gauges()), ask.what) {
            (Some(None), _) => Answer::Refused,
            (Some(Some(gauges)), Question::Gauges) => Answer::Gauges(Box::new(gauges)),
            (_, Question::Alive) => Answer::Alive(at.since_ms(sent)),
            (None, Question::Gauges) => Answer::Silence,
        };
        self.schedule.at(at, Event::Answered { ask, answer });
    }

    pub(super) fn answered(&mut self, ask: Ask, answer: Answer) {
        let now = self.now;
        let (index, target) = (ask.node as usize, ask.target as usize);
        let node = &mut self.nodes[index];
        let (router, id) = (&mut node.router, Target::id(target));
        let engine = matches!(node.targets[target].to, To::Engine(_));
        let effects = match (answer, ask.what) {
            (Answer::Alive(rtt_ms), _) => {
                router.rtt(now, id, rtt_ms);
                // Whether a peer can serve it says itself.
                if engine { router.health(now, id, true) } else { Vec::new() }
            }
            (Answer::Gauges(gauges), _) => router.gauges(now, id, *gauges),
            (Answer::Refused, Question::Alive) => {
                router.clear_cache(Some(id));
                router.health(now, id, false)
            }
            (Answer::Silence, Question::Alive) => router.health(now, id, false),
            (Answer::Refused | Answer::Silence, Question::Gauges) => Vec::new(),
        };
        self.deliver(index, effects);
        let pause_ms = match ask.what {
            Question::Alive => self.scenario.edge.rtt_every_ms,
            Question::Gauges => self.scenario.edge.gauges_every_ms,
        };
        self.schedule.at(now.plus_ms(pause_ms), Event::Ask(ask));
    }

    /// A router tells all its peers how it is now.
    pub(super) fn tell(&mut self, node: usize) {
        for target in 0..self.nodes[node].targets.len() {
            self.tell_one(node, target);
        }
        let again = self.now.plus_ms(self.scenario.edge.peers_every_ms);
        self.schedule.at(again, Event::Tell { node: node as u32 });
    }

    fn tell_one(&mut self, node: usize, target: usize) {
        let now = self.now;
        let To::Peer(peer) = self.nodes[node].targets[target].to else { return };
        let Some(me) = self.target_of(peer, node) else { return };
        let listener = self.nodes[peer].name.clone();
        let clock = now.plus_ms(self.scenario.edge.clocks_apart_ms * node as f64);
        let teller = &mut self.nodes[node];
        let to = &mut teller.targets[target];
        let Some(mouth) = &mut to.mouth else { return };
        let told = mouth.say(&teller.router, (now, clock), &listener);
        let exit = to.control.up.exit(now, 0);
        if let Some(at) = to.link.arrival(Way::Up, now, exit) {
            self.schedule.at(at, Event::Hear { node: peer as u32, target: me as u32, told: Box::new(told) });
        }
    }

    /// Which of a node's targets another node is.
    fn target_of(&self, node: usize, peer: usize) -> Option<usize> {
        self.nodes[node].targets.iter().position(|target| target.to == To::Peer(peer))
    }

    pub(super) fn hear(&mut self, node: usize, target: usize, told: &Told) {
        let now = self.now;
        let ear = &mut self.nodes[node].targets[target].ear;
        if told.stream < ear.stream || (told.stream == ear.stream && ear.heard.is_none()) {
            // Of a stream that was given up.
            return;
        }
        let deaf = ear.heard.is_none();
        *ear = Ear { stream: told.stream, heard: Some(now) };
        if deaf {
            self.plan_listening(node, target);
        }
        let effects = told.hear(&mut self.nodes[node].router, now, Target::id(target));
        self.deliver(node, effects);
    }

    fn plan_listening(&mut self, node: usize, target: usize) {
        let Some(heard) = self.nodes[node].targets[target].ear.heard else { return };
        let due = heard.plus_ms(self.scenario.edge.peers_silence_ms);
        self.schedule.at(due, Event::Listen { node: node as u32, target: target as u32 });
    }

    /// Gives a peer up that has said nothing for too long.
    pub(super) fn listen(&mut self, node: usize, target: usize) {
        let now = self.now;
        let Some(heard) = self.nodes[node].targets[target].ear.heard else { return };
        if now < heard.plus_ms(self.scenario.edge.peers_silence_ms) {
            return self.plan_listening(node, target);
        }
        self.nodes[node].targets[target].ear.heard = None;
        let effects = self.nodes[node].router.unreachable(now, Target::id(target));
        self.deliver(node, effects);
        self.lose_waiting(node, target);
        self.schedule.at(now, Event::Call { node: node as u32, target: target as u32 });
    }

    /// Asks a peer for a new stream, again and again until it comes.
    pub(super) fn call(&mut self, node: usize, target: usize) {
        let (now, silence_ms) = (self.now, self.scenario.edge.peers_silence_ms);
        let to = &mut self.nodes[node].targets[target];
        let To::Peer(peer) = to.to else { return };
        if to.ear.heard.is_some() {
            return;
        }
        let exit = to.control.up.exit(now, 0);
        let arrival = to.link.arrival(Way::Up, now, exit).filter(|at| *at <= now.plus_ms(silence_ms));
        if let (Some(at), Some(me)) = (arrival, self.target_of(peer, node)) {
            self.schedule.at(at, Event::Called { node: peer as u32, target: me as u32 });
        }
        let again = now.plus_ms(silence_ms + CALL_AGAIN_MS);
        self.schedule.at(again, Event::Call { node: node as u32, target: target as u32 });
    }

    /// A listener wants a new stream, and gets the first state at once.
    pub(super) fn called(&mut self, node: usize, target: usize) {
        let To::Peer(peer) = self.nodes[node].targets[target].to else { return };
        let Some(me) = self.target_of(peer, node) else { return };
        let stream = self.nodes[peer].targets[me].ear.stream + 1;
        self.nodes[node].open_stream(target, stream);
        self.tell_one(node, target);
    }

    /// A router knows at once what its peers would tell it now.
    pub(super) fn enlighten(&mut self, node: usize) {
        let now = self.now;
        self.share_at_once(node);
        for target in 0..self.nodes[node].targets.len() {
            let To::Peer(peer) = self.nodes[node].targets[target].to else { continue };
            let Some(me) = self.target_of(peer, node) else { continue };
            let Ok([listener, teller]) = self.nodes.get_disjoint_mut([node, peer]) else { continue };
            let Some(mouth) = &mut teller.targets[me].mouth else { continue };
            let to = (&mut listener.router, &*listener.name);
            let effects = mouth.pour(&teller.router, now, to, Target::id(target));
            self.deliver(node, effects);
        }
    }
}
