//! Clients: who sends what when, what counts, and when the run ends. The rules are those of the load generator (`bench::play`).

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::World;
use super::event::Event;
use super::request::{Leg, Request, Stage};
use super::scenario::Scenario;
use crate::model::Time;
use crate::model::geo::Coordinates;
use crate::report::{Outcome, Sample};
use crate::routing::{BLOCK_BYTES, Features};
use crate::sim::link::Way;
use crate::workload::reblock::chained_blocks;
use crate::workload::text::{BYTES_PER_TOKEN, prompt_bytes};
use crate::workload::{Session, Step};

/// Tokens per block of the routers' index, at the emulator's 4 bytes per token.
const ROUTER_BLOCK: u32 = (BLOCK_BYTES / BYTES_PER_TOKEN) as u32;

/// How far the sessions are.
pub(super) struct Play {
    /// By session: its start and the step to send next.
    under_way: Vec<(Time, u32)>,
    /// Started, not at their end.
    live: usize,
    /// Starts to come: of the open loop by the clock, of the closed loop by slots.
    next: usize,
    /// Sessions of an open loop that will start.
    due: usize,
    closed: bool,
    /// Clients send their session's name, for there are sessions of several requests.
    keyed: bool,
    model: Option<Arc<str>>,
    /// Where the clients of each group are; their requests say so.
    places: Vec<Option<Coordinates>>,
    deadline: Time,
}

impl Play {
    pub(super) fn new(scenario: &Scenario<'_>) -> Self {
        let plan = scenario.plan;
        let measured = scenario.measured;
        let closed = plan.concurrency.is_some();
        let due = plan.sessions.iter().take_while(|session| session.start_ms < measured.to_ms).count();
        let last_ms = plan.sessions.last().map_or(0.0, |session| session.start_ms);
        let drain_from_ms = if closed { measured.to_ms } else { measured.to_ms.min(last_ms) };
        Self {
            under_way: vec![(Time::ZERO, 0); plan.sessions.len()],
            live: 0,
            next: 0,
            due: if closed { plan.sessions.len() } else { due },
            closed,
            keyed: plan.has_sessions(),
            model: scenario.fleet.replicas.first().map(|replica| replica.model.as_str().into()),
            places: scenario.fleet.clients.iter().map(|group| scenario.fleet.places.region(&group.region)).collect(),
            deadline: Time::from_ms(drain_from_ms + measured.drain_ms),
        }
    }

    /// Nothing is left to be sent or answered.
    pub(super) fn is_over(&self) -> bool {
        self.live == 0 && self.next >= self.due
    }

    /// The last moment of the run.
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }
}

impl World<'_> {
    /// The first start of an open loop, which brings the next one, or all slots of a closed one.
    pub(super) fn begin_sessions(&mut self) {
        match self.scenario.plan.concurrency {
            None => self.start_next(),
            Some(slots) => (0..slots).for_each(|_| self.start_next()),
        }
    }

    /// Starts the session whose turn it is, if there is one and time for it.
    fn start_next(&mut self) {
        let plan = self.scenario.plan;
        let session = self.play.next;
        if session >= self.play.due {
            return;
        }
        let start = if self.play.closed { self.now } else { Time::from_ms(plan.sessions[session].start_ms) };
        if self.play.closed && start.ms() >= self.scenario.measured.to_ms {
            self.play.next = self.play.due;
            return;
        }
        self.play.next += 1;
        self.play.live += 1;
        self.play.under_way[session] = (start, 0);
        self.follow(session as u32, start);
    }

    /// Plans the next request of a session whose reply before ended at `before`, or ends the session.
    fn follow(&mut self, session: u32, before: Time) {
        let step = self.play.under_way[session as usize].1;
        let next = self.session(session).steps.get(step as usize);
        let at = next.map(|step| before.plus_ms(step.think_ms));
        match at.filter(|at| !self.play.closed || at.ms() < self.scenario.measured.to_ms) {
            Some(at) => self.schedule.at(at, Event::Due { session }),
            None => {
                self.play.live -= 1;
                // In an open loop it is the first request of a session that brings the next session.
                if self.play.closed || step == 0 {
                    self.start_next();
                }
            }
        }
    }

    fn session(&self, session: u32) -> &Session {
        &self.scenario.plan.sessions[session as usize]
    }

    /// Sends a session's next request.
    pub(super) fn due(&mut self, session: u32) {
        let (start, step) = self.play.under_way[session as usize];
        if step == 0 && !self.play.closed {
            self.start_next();
        }
        self.play.under_way[session as usize].1 += 1;
        let counts = if self.play.closed { self.now } else { start }.ms() >= self.scenario.measured.from_ms;
        let group = self.scenario.homes[session as usize].0;
        let node = self.scenario.fleet.clients[group].router;
        let wanted = &self.session(session).steps[step as usize];
        let (bytes, sample) = (prompt_bytes(wanted), Sample::new(counts, self.now, self.now, wanted.input_tokens));
        let features = Arc::new(self.features(session, wanted));
        let request = self.requests.len() as u32;
        let mut connection = None;
        let mut arrival = Some(self.now);
        if let Some(link) = &mut self.nodes[node].clients[group] {
            let mut own = link.take();
            arrival = link.arrival(Way::Up, self.now, own.up.exit(self.now, bytes as u64));
            connection = Some(own);
        }
        let apart = connection.is_some();
        let legs = vec![Leg::at(node)];
        let made = Request {
            session,
            step,
            sample,
            features,
            legs,
            sends: 0,
            token_at: Time::ZERO,
            connection,
            recorded: false,
        };
        self.requests.push(Some(Box::new(made)));
        self.observer.sent();
        match arrival {
            Some(_) if !apart => self.arrive(request, 0),
            Some(at) => self.schedule.at(at, Event::Arrive { request }),
            None => {}
        }
    }

    fn features(&self, session: u32, step: &Step) -> Features {
        Features {
            model: self.play.model.clone(),
            session: self.play.keyed.then(|| xxh3_64(self.session(session).id.as_bytes())),
            blocks: chained_blocks(step, self.scenario.plan.block_size, ROUTER_BLOCK).into(),
            place: self.play.places[self.scenario.homes[session as usize].0],
            prompt_bytes: prompt_bytes(step) as u64,
            prompt_tokens: Some(step.input_tokens),
            max_tokens: Some(step.output_tokens),
            ..Features::default()
        }
    }

    /// A request is over for its router: its client hears of it.
    pub(super) fn close(&mut self, request: u32, outcome: Outcome) {
        let now = self.now;
        let open = self.request_mut(request);
        open.sample.outcome = outcome;
        let at = match &mut open.connection {
            None => Some(now),
            Some(connection) => {
                let exit = connection.down.exit(now, 0);
                self.client_arrival(request, exit)
            }
        };
        match at {
            Some(at) if at <= now => self.ended(request),
            Some(at) => self.schedule.at(at, Event::Ended { request }),
            // Never: the client waits until the end of the run.
            None => {}
        }
    }

    /// When what leaves the client's link at `exit` is there, not before what came earlier.
    pub(super) fn client_arrival(&mut self, request: u32, exit: Time) -> Option<Time> {
        let open = self.request(request);
        let (node, session, first) = (open.legs[0].node, open.session, open.sample.first);
        let group = self.scenario.homes[session as usize].0;
        let now = self.now;
        let link = self.nodes[node].clients[group].as_mut()?;
        link.arrival(Way::Down, now, exit).map(|at| first.map_or(at, |first| at.max(first)))
    }

    /// The client has it all: the sample is complete and the session goes on.
    pub(super) fn ended(&mut self, request: u32) {
        let now = self.now;
        let open = self.request_mut(request);
        open.sample.end = now;
        if open.sample.ok() {
            open.sample.last = Some(now);
        }
        let place = (open.session, open.step);
        let sample = std::mem::replace(&mut open.sample, Sample::new(false, now, now, 0));
        open.recorded = true;
        if let Some(connection) = open.connection.take() {
            let (node, group) = (open.legs[0].node, self.scenario.homes[place.0 as usize].0);
            if let Some(link) = &mut self.nodes[node].clients[group] {
                link.park(connection);
            }
        }
        self.record(request, place, sample);
        self.follow(place.0, now);
    }

    fn record(&mut self, request: u32, place: (u32, u32), sample: Sample) {
        let home = Arc::clone(&self.nodes[self.request(request).legs[0].node].name);
        self.observer.ended(&sample, &home);
        self.samples.push((place, Sample { home: Some(home), ..sample }));
        self.forget(request);
    }

    /// Lets go of a request that nobody has to do with any more.
    pub(super) fn forget(&mut self, request: u32) {
        let slot = &mut self.requests[request as usize];
        let done = |open: &Request| open.legs.iter().all(|leg| leg.stage == Stage::Over);
        if slot.as_deref().is_some_and(done) {
            *slot = None;
        }
    }

    /// The time is up: what is under way is given up by its clients.
    pub(super) fn give_up(&mut self) {
        for request in 0..self.requests.len() {
            let Some(open) = self.requests[request].take() else { continue };
            if !open.recorded {
                let home = Some(Arc::clone(&self.nodes[open.legs[0].node].name));
                let sample = Sample { outcome: Outcome::Cancelled, end: self.now, home, ..open.sample };
                self.samples.push(((open.session, open.step), sample));
            }
        }
    }

    /// Requests that were never sent though their sessions count and had started.
    pub(super) fn unsent(&self) -> u64 {
        if self.play.closed {
            return 0;
        }
        let sessions = self.scenario.plan.sessions.iter().zip(&self.play.under_way).take(self.play.next);
        let left = sessions.filter(|(_, (start, _))| start.ms() >= self.scenario.measured.from_ms);
        left.map(|(session, (_, sent))| session.steps.len() as u64 - u64::from(*sent)).sum()
    }
}
