//! Routers of the direct form: what they tell each other of the engines that they share.

use std::sync::Arc;

use rand::RngExt;

use super::World;
use super::event::Event;
use super::scenario::News;
use crate::model::Time;
use crate::routing::router::sharing::Shares;
use crate::sim::link::Way;

impl World<'_> {
    /// First words, spread over the interval.
    pub(super) fn begin_sharing(&mut self, rng: &mut impl RngExt) {
        let edge = self.scenario.edge;
        if edge.news == News::Told && self.shares_engines() {
            for node in 0..self.nodes.len() {
                let first = Time::from_ms(edge.peers_every_ms * rng.random::<f64>());
                self.schedule.at(first, Event::Share { node: node as u32 });
            }
        }
    }

    fn shares_engines(&self) -> bool {
        self.nodes.len() > 1 && !self.scenario.fleet.has_agents()
    }

    /// A router tells all others what it has at each engine. Its replicas have the same numbers at every router.
    pub(super) fn share(&mut self, node: usize) {
        let now = self.now;
        let clock = now.plus_ms(self.scenario.edge.clocks_apart_ms * node as f64);
        let teller = &mut self.nodes[node];
        let shares = Arc::new(teller.router.shares());
        for (other, line) in teller.others.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            let exit = line.connection.up.exit(now, 0);
            if let Some(at) = line.link.arrival(Way::Up, now, exit) {
                let shares = Arc::clone(&shares);
                self.schedule.at(at, Event::Shared { node: other as u32, from: node as u32, sent: clock, shares });
            }
        }
        let again = now.plus_ms(self.scenario.edge.peers_every_ms);
        self.schedule.at(again, Event::Share { node: node as u32 });
    }

    pub(super) fn shared(&mut self, node: usize, from: u32, sent: Time, shares: &Shares) {
        let listener = &mut self.nodes[node];
        let rtt_ms = listener.others[from as usize].as_ref().map_or(0.0, |line| line.link.rtt_ms());
        listener.router.hear_shares(self.now, from, (sent, rtt_ms), shares);
    }

    /// A router knows at once what the others have.
    pub(super) fn share_at_once(&mut self, node: usize) {
        if !self.shares_engines() {
            return;
        }
        let now = self.now;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let shares = self.nodes[other].router.shares();
            self.nodes[node].router.hear_shares(now, other as u32, (now, 0.0), &shares);
        }
    }
}
