//! What this router has in flight: per request once, per replica in sums. Every request is released exactly once, in whatever
//! order its events come; events of unknown requests and repeated events change nothing.

use std::collections::BTreeMap;

use super::peer::Totals;
use crate::model::{ReplicaId, RequestId, Time};

/// A request on its way that has not shown its first token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pending {
    /// The request.
    pub request: RequestId,
    /// When it reaches the engine, estimated: dispatch + RTT/2.
    pub arrival: Time,
    /// Prompt tokens that the engine has to compute for it, as predicted.
    pub uncached_tokens: u32,
}

/// What one replica has of this router's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests without a first token by their order of dispatch.
    pub pending: BTreeMap<u64, Pending>,
    /// Sum of their uncached tokens.
    pub uncached_tokens: u64,
    /// Requests past their first token, not finished.
    pub decoding: u32,
    /// Requests whose response headers have not come.
    pub unanswered: u32,
    /// Prompt tokens of those.
    pub unanswered_tokens: u64,
    /// Prompt tokens (cached ones too) of all requests until they finish.
    pub prompt_tokens: u64,
    /// Prompt and expected output tokens of all requests until they finish: the KV they will hold, shared prefixes counted again.
    pub held_tokens: u64,
}

impl Load {
    /// Of a replica that nothing was sent to.
    pub const NONE: Self = Self {
        pending: BTreeMap::new(),
        uncached_tokens: 0,
        decoding: 0,
        unanswered: 0,
        unanswered_tokens: 0,
        prompt_tokens: 0,
        held_tokens: 0,
    };

    /// Requests dispatched and not finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len() + self.decoding as usize
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Sent,
    Answered,
    Decoding,
}

/// What a request asks of its replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// Of these not cached, as predicted.
    pub uncached_tokens: u32,
    /// Output length expected, tokens.
    pub output_tokens: u32,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    replica: ReplicaId,
    demand: Demand,
    /// Key in [`Load::pending`].
    turn: u64,
    phase: Phase,
}

/// All requests in flight and their sums per replica.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    flights: BTreeMap<RequestId, Flight>,
    loads: BTreeMap<ReplicaId, Load>,
    turns: u64,
}

impl Ledger {
    /// What a replica has in flight.
    #[must_use]
    pub fn load(&self, replica: ReplicaId) -> &Load {
        static NONE: Load = Load::NONE;
        self.loads.get(&replica).unwrap_or(&NONE)
    }

    /// Requests in flight in total.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Sums over some of the requests.
    #[must_use]
    pub fn totals(&self, of: impl Fn(RequestId, ReplicaId) -> bool) -> Totals {
        let mut totals = Totals::NONE;
        for flight in self.flights.iter().filter(|(request, flight)| of(**request, flight.replica)).map(|(_, f)| f) {
            let prompt_tokens = f64::from(flight.demand.prompt_tokens);
            totals.prompt_tokens += prompt_tokens;
            totals.held_tokens += held(flight.demand) as f64;
            if flight.phase == Phase::Sent {
                totals.unanswered += 1.0;
                totals.unanswered_tokens += prompt_tokens;
            }
            if flight.phase == Phase::Decoding {
                totals.decoding += 1.0;
            } else {
                totals.pending += 1.0;
                totals.uncached_tokens += f64::from(flight.demand.uncached_tokens);
            }
        }
        totals
    }

    /// A request goes out. One of the same id that is still in flight is released first.
    pub fn dispatch(&mut self, request: RequestId, replica: ReplicaId, demand: Demand, arrival: Time) {
        self.release(request);
        let turn = self.turns;
        self.turns += 1;
        self.flights.insert(request, Flight { replica, demand, turn, phase: Phase::Sent });
        let load = self.loads.entry(replica).or_default();
        load.pending.insert(turn, Pending { request, arrival, uncached_tokens: demand.uncached_tokens });
        load.uncached_tokens += u64::from(demand.uncached_tokens);
        load.unanswered += 1;
        load.unanswered_tokens += u64::from(demand.prompt_tokens);
        load.prompt_tokens += u64::from(demand.prompt_tokens);
        load.held_tokens += held(demand);
    }

    /// Response headers came. False if that was known or the request is not.
    pub fn headers(&mut self, request: RequestId) -> bool {
        self.advance(request, Phase::Answered)
    }

    /// The first token came. False if that was known or the request is not.
    pub fn first_token(&mut self, request: RequestId) -> bool {
        self.advance(request, Phase::Decoding)
    }

    /// The attempt is over. `None` if that was known or the request is not; else the replica it was at.
    pub fn release(&mut self, request: RequestId) -> Option<ReplicaId> {
        let flight = self.flights.remove(&request)?;
        if let Some(load) = self.loads.get_mut(&flight.replica) {
            load.release(&flight);
        }
        Some(flight.replica)
    }

    /// A replica is gone: its sums with it. Its requests stay known until they are released.
    pub fn forget_replica(&mut self, replica: ReplicaId) {
        self.loads.remove(&replica);
    }

    /// Moves a request on to a later phase; never back.
    fn advance(&mut self, request: RequestId, phase: Phase) -> bool {
        let Some(flight) = self.flights.get_mut(&request) else { return false };
        if flight.phase >= phase {
            return false;
        }
        let before = std::mem::replace(&mut flight.phase, phase);
        if let Some(load) = self.loads.get_mut(&flight.replica) {
            if before == Phase::Sent {
                load.answer(flight);
            }
            if phase == Phase::Decoding {
                load.settle(flight);
                load.decoding += 1;
            }
        }
        true
    }
}

impl Load {
    /// Its response headers are here, or will never be.
    fn answer(&mut self, flight: &Flight) {
        self.unanswered -= 1;
        self.unanswered_tokens -= u64::from(flight.demand.prompt_tokens);
    }

    /// Its first token is here, or will never be.
    fn settle(&mut self, flight: &Flight) {
        self.pending.remove(&flight.turn);
        self.uncached_tokens -= u64::from(flight.demand.uncached_tokens);
    }

    /// It is over, in whatever phase it was.
    fn release(&mut self, flight: &Flight) {
        if flight.phase == Phase::Sent {
            self.answer(flight);
        }
        if flight.phase == Phase::Decoding {
            self.decoding -= 1;
        } else {
            self.settle(flight);
        }
        self.prompt_tokens -= u64::from(flight.demand.prompt_tokens);
        self.held_tokens -= held(flight.demand);
    }
}

fn held(demand: Demand) -> u64 {
    u64::from(demand.prompt_tokens) + u64::from(demand.output_tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::{Demand, Ledger, Load, Pending, Phase, Totals, held};
    use crate::model::{ReplicaId, RequestId, Time};

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Dispatch(u64, u32, Demand),
        Headers(u64),
        FirstToken(u64),
        Release(u64),
        ForgetReplica(u32),
    }

    fn events() -> impl Strategy<Value = Event> {
        let demand = (0..5000u32, 0..5000u32, 0..500u32).prop_map(|(prompt_tokens, uncached_tokens, output_tokens)| {
            Demand { prompt_tokens, uncached_tokens, output_tokens }
        });
        let request = 0..12u64;
        prop_oneof![
            4 => (request.clone(), 0..3u32, demand).prop_map(|(r, u, d)| Event::Dispatch(r, u, d)),
            3 => request.clone().prop_map(Event::Headers),
            3 => request.clone().prop_map(Event::FirstToken),
            3 => request.prop_map(Event::Release),
            1 => prop_oneof![Just(0u32), any::<u32>()].prop_map(Event::ForgetReplica),
        ]
    }

    fn apply(ledger: &mut Ledger, event: Event) {
        match event {
            Event::Dispatch(r, u, demand) => ledger.dispatch(RequestId(r), ReplicaId(u), demand, Time::ZERO),
            Event::Headers(r) => drop(ledger.headers(RequestId(r))),
            Event::FirstToken(r) => drop(ledger.first_token(RequestId(r))),
            Event::Release(r) => drop(ledger.release(RequestId(r))),
            // A replica's id is never used again: forgetting one with requests in flight and then sending it more cannot happen.
            Event::ForgetReplica(u) => {
                let busy = ledger.flights.values().any(|flight| flight.replica == ReplicaId(u));
                if !busy {
                    ledger.forget_replica(ReplicaId(u));
                }
            }
        }
    }

    /// The sums as they should be, from the requests alone.
    fn recount(ledger: &Ledger, replica: ReplicaId) -> Load {
        let mut load = Load::NONE;
        for (request, flight) in ledger.flights.iter().filter(|(_, flight)| flight.replica == replica) {
            let demand = flight.demand;
            load.prompt_tokens += u64::from(demand.prompt_tokens);
            load.held_tokens += held(demand);
            if flight.phase == Phase::Sent {
                load.unanswered += 1;
                load.unanswered_tokens += u64::from(demand.prompt_tokens);
            }
            if flight.phase == Phase::Decoding {
                load.decoding += 1;
            } else {
                let uncached_tokens = demand.uncached_tokens;
                load.uncached_tokens += u64::from(uncached_tokens);
                load.pending.insert(flight.turn, Pending { request: *request, arrival: Time::ZERO, uncached_tokens });
            }
        }
        load
    }

    proptest! {
        #[test]
        fn sums_equal_a_recount_and_end_at_zero(events in proptest::collection::vec(events(), 0..120)) {
            let mut ledger = Ledger::default();
            for event in events {
                apply(&mut ledger, event);
                for (replica, load) in &ledger.loads {
                    assert_eq!(load, &recount(&ledger, *replica), "after {event:?}");
                    let totals = ledger.totals(|_, at| at == *replica);
                    assert_eq!(totals, Totals::of(load), "after {event:?}");
                }
            }
            for request in 0..12 {
                ledger.release(RequestId(request));
                assert_eq!(ledger.release(RequestId(request)), None, "released twice");
            }
            assert_eq!(ledger.in_flight(), 0);
            for load in ledger.loads.values() {
                assert_eq!(load, &Load::NONE);
            }
        }
    }

    #[test]
    fn a_request_moves_through_its_phases_once() {
        let mut ledger = Ledger::default();
        let (request, replica) = (RequestId(7), ReplicaId(1));
        let demand = Demand { prompt_tokens: 100, uncached_tokens: 40, output_tokens: 20 };
        let figures = |ledger: &Ledger| {
            let load = ledger.load(replica);
            (load.pending.len(), load.uncached_tokens, load.unanswered_tokens, load.decoding, load.prompt_tokens)
        };
        assert!(!ledger.headers(request) && !ledger.first_token(request), "unknown requests are ignored");
        ledger.dispatch(request, replica, demand, Time::from_ms(5.0));
        assert_eq!(figures(&ledger), (1, 40, 100, 0, 100));
        assert!(ledger.headers(request));
        assert_eq!(figures(&ledger), (1, 40, 0, 0, 100));
        assert!(ledger.first_token(request) && !ledger.first_token(request) && !ledger.headers(request));
        assert_eq!(figures(&ledger), (0, 0, 0, 1, 100));
        assert_eq!(ledger.load(replica).held_tokens, 120);
        assert_eq!(ledger.release(request), Some(replica));
        assert_eq!(figures(&ledger), (0, 0, 0, 0, 0));
    }

    #[test]
    fn requests_outlive_their_replica() {
        let mut ledger = Ledger::default();
        let demand = Demand { prompt_tokens: 100, uncached_tokens: 40, output_tokens: 20 };
        ledger.dispatch(RequestId(1), ReplicaId(0), demand, Time::ZERO);
        ledger.forget_replica(ReplicaId(0));
        assert!(ledger.headers(RequestId(1)) && ledger.first_token(RequestId(1)));
        assert_eq!(ledger.release(RequestId(1)), Some(ReplicaId(0)));
        assert_eq!(ledger.load(ReplicaId(0)), &Load::NONE);
    }
}
