//! What routers learn by asking and telling: round trips, health, gauges, and how their peers are.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::World;
use super::event::{Answer, Ask, Event, Question};
use super::exchange::Told;
use super::node::{Target, To};
use super::scenario::News;
use crate::model::Time;

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
            if self.nodes.len() > 1 && edge.news == News::Told {
                self.schedule.at(within(edge.peers_every_ms), Event::Tell { node: index as u32 });
            }
        }
    }

    pub(super) fn ask(&mut self, ask: Ask) {
        let sent = self.now;
        let limit = sent.plus_ms(self.scenario.edge.probe_timeout_ms);
        let to = &mut self.nodes[ask.node as usize].targets[ask.target as usize];
        let exit = to.control.up.exit(sent, 0);
        match to.link.arrival(sent, exit).filter(|at| *at <= limit) {
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
        let Some(at) = to.link.arrival(replied, exit).filter(|at| *at <= limit) else {
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
        let (now, edge) = (self.now, self.scenario.edge);
        let told = Arc::new(Told::of(&self.nodes[node].router, now));
        let limit = now.plus_ms(edge.probe_timeout_ms);
        for target in 0..self.nodes[node].targets.len() {
            let to = &mut self.nodes[node].targets[target];
            let To::Peer(peer) = to.to else { continue };
            let exit = to.control.up.exit(now, 0);
            // What is held up for longer is out of date: the next word replaces it.
            let arrival = to.link.arrival(now, exit).filter(|at| *at <= limit);
            let me = self.nodes[peer].targets.iter().position(|back| back.to == To::Peer(node));
            if let (Some(at), Some(me)) = (arrival, me) {
                let told = Arc::clone(&told);
                self.schedule.at(at, Event::Hear { node: peer as u32, target: me as u32, told });
            }
        }
        self.schedule.at(now.plus_ms(edge.peers_every_ms), Event::Tell { node: node as u32 });
    }

    pub(super) fn hear(&mut self, node: usize, target: usize, told: &Told) {
        let effects = told.hear(&mut self.nodes[node].router, self.now, Target::id(target));
        self.deliver(node, effects);
    }
}
