//! Arrows: the chains of slices that one request passes through, from its client over routers to the engine.
//!
//! A slice lies on one chain at most, since it can name one only. The first attempt continues the chain of its request; every further
//! attempt begins one of its own.

use std::collections::BTreeMap;

use super::Dump;
use super::bounds::{Sender, Senders};

/// A slice that arrows can touch: (node, request, …) by their places in the dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// The client's.
    Client(usize, usize),
    /// The request at a router.
    Request(usize, usize),
    /// An attempt at a router.
    Attempt(usize, usize, usize),
    /// An attempt at an engine.
    Engine(usize, usize, usize),
}

/// The arrows of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrows {
    /// Number of the chain, from 1.
    pub(super) chain: u64,
    /// One comes from the stop before.
    pub(super) from: bool,
    /// One goes to the next stop.
    pub(super) to: bool,
}

/// All chains.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// The arrows of each slice that has some.
    pub(super) arrows: BTreeMap<Stop, Arrows>,
    /// Number of chains.
    pub(super) chains: u64,
    /// Stops without an arrow because the clocks say that they came before the stop before them.
    pub(super) reversed: u64,
}

type Place = (usize, usize);

/// Finds the chains. `start` tells when a stop begins on the common clock.
pub(super) fn flows(dumps: &[Dump], start: impl Fn(Stop) -> i64) -> Flows {
    let senders = Senders::new(dumps);
    let (mut received, mut begins) = (BTreeMap::new(), Vec::new());
    for (node, dump) in dumps.iter().enumerate() {
        for (index, request) in dump.requests.iter().enumerate() {
            match senders.of(node, request) {
                Some(Sender { node: from, request: parent, number, .. }) => {
                    received.entry((from, parent, number)).or_insert((node, index));
                }
                None => begins.push((node, index)),
            }
        }
    }
    let mut flows = Flows::default();
    for (node, index) in begins {
        let mut chain = Vec::new();
        if dumps[node].requests[index].parent.is_none() {
            chain.push(Stop::Client(node, index));
        }
        flows.follow(dumps, &received, (node, index), chain, &start);
    }
    flows
}

impl Flows {
    /// Follows a request from its router on; `chain` leads to it.
    fn follow(
        &mut self,
        dumps: &[Dump],
        received: &BTreeMap<(usize, usize, usize), Place>,
        (node, index): Place,
        mut chain: Vec<Stop>,
        start: &impl Fn(Stop) -> i64,
    ) {
        chain.push(Stop::Request(node, index));
        for (number, attempt) in dumps[node].requests[index].attempts.iter().enumerate() {
            chain.push(Stop::Attempt(node, index, number));
            if !attempt.peer {
                chain.push(Stop::Engine(node, index, number));
            }
            match received.get(&(node, index, number)) {
                // One hop at most, so this goes no deeper than there are routers on the way.
                Some(&there) => self.follow(dumps, received, there, std::mem::take(&mut chain), start),
                None => self.add(std::mem::take(&mut chain), start),
            }
        }
        self.add(chain, start);
    }

    fn add(&mut self, chain: Vec<Stop>, start: &impl Fn(Stop) -> i64) {
        let mut kept: Vec<Stop> = Vec::new();
        for stop in chain {
            if kept.last().is_some_and(|last| start(*last) > start(stop)) {
                self.reversed += 1;
            } else {
                kept.push(stop);
            }
        }
        if kept.len() < 2 {
            return;
        }
        self.chains += 1;
        let last = kept.len() - 1;
        for (place, stop) in kept.into_iter().enumerate() {
            self.arrows.insert(stop, Arrows { chain: self.chains, from: place > 0, to: place < last });
        }
    }
}
