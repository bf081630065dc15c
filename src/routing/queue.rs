//! The router's own queue: requests that wait because every replica that could serve them is at its gate.
//!
//! Order: those who can still be in time before those who cannot ([`super::admission`]), the flow that has had the least ([`super::share`]), higher
//! priority first, then first come first served, or by a rank where the strategy gives one: shortest first, with age. So the requests of one
//! flow are in a fixed order, and flows take turns ([`Walk`]); where there is but one flow, this is the order. A request whose replicas are
//! all full does not hold up those behind it; [`super::Router`] walks the whole queue and skips it. Bounded in length and in age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::peer::Totals;
use super::share::{Bill, Flow, Shares};
use super::ticket::Ticket;
use crate::model::{RequestId, Time};

/// Place in the queue: among those who cannot be in time or not, by flow, then priority, turned round so that the higher comes first, then the
/// rank, then the order of first arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    late: bool,
    flow: Flow,
    priority: Reverse<i32>,
    rank: u64,
    turn: u64,
}

/// Most that are looked through for somebody: every event may have to look.
const SOUGHT: usize = 1_000;

/// One second of waiting outweighs a thousand uncached tokens: few enough that long prompts get their turn, enough that one of them does not
/// keep many short ones waiting.
const US_PER_TOKEN: u64 = 1000;

/// A waiting request.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) request: RequestId,
    pub(super) ticket: Ticket,
    /// Its prompt as estimated when it was put here, tokens.
    prompt_tokens: u32,
    /// What its flow will be charged for it, as estimated then.
    bill: Bill,
    /// When it is refused for having waited too long, whatever is predicted then.
    give_up: Option<Time>,
    /// Since when it would be waiting if it had done all its waiting at one time: the age limit is over all attempts.
    since: Time,
}

/// A request on its way into the queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) request: RequestId,
    pub(super) ticket: Ticket,
    /// Length of its prompt.
    pub(super) prompt_tokens: u32,
    pub(super) bill: Bill,
    pub(super) prospect: Prospect,
}

/// What is to be expected of a request's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prospect {
    /// It cannot be in time, and waits behind those who can.
    pub(super) late: bool,
    /// When it is refused for having waited too long, if it is.
    pub(super) give_up: Option<Time>,
}

/// The waiting requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Place, Held>,
    /// The same requests by id and by age: the three hold exactly the same places.
    places: BTreeMap<RequestId, Place>,
    ages: BTreeSet<(Time, Place)>,
    /// Those of them that will be given up.
    give_ups: BTreeSet<(Time, Place)>,
    /// Sum of their prompts.
    prompt_tokens: u64,
}

impl Queue {
    /// Requests waiting.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Prompt tokens of all that wait, but for `request`, if it is among them.
    pub(super) fn prompt_tokens_beside(&self, request: RequestId) -> u64 {
        let held = self.places.get(&request).and_then(|place| self.waiting.get(place));
        self.prompt_tokens - held.map_or(0, |held| u64::from(held.prompt_tokens))
    }

    /// How many wait, but for `request`, if it is among them.
    pub(super) fn len_beside(&self, request: RequestId) -> usize {
        self.len() - usize::from(self.places.contains_key(&request))
    }

    /// What waits, but for what this peer sent.
    pub(super) fn totals_beside(&self, origin: &str) -> Totals {
        let counts = |held: &&Held| held.ticket.features.origin.as_deref() != Some(origin);
        let (requests, tokens) = self
            .waiting
            .values()
            .filter(counts)
            .fold((0.0, 0.0), |(requests, tokens), held| (requests + 1.0, tokens + f64::from(held.prompt_tokens)));
        Totals::untouched(requests, tokens)
    }

    /// Since when the request that waits longest has been waiting.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.ages.first().map(|(since, _)| *since)
    }

    /// When the first request will be given up.
    pub(super) fn first_give_up(&self) -> Option<Time> {
        self.give_ups.first().map(|(at, _)| *at)
    }

    /// Puts a request in its place.
    pub(super) fn push(&mut self, now: Time, entry: Entry) {
        let Entry { request, ticket, prompt_tokens, bill, prospect } = entry;
        self.remove(now, request);
        let priority = Reverse(ticket.features.priority);
        let place = Place { late: prospect.late, flow: bill.flow(), priority, rank: 0, turn: ticket.turn };
        let since = Time::from_ms(now.ms() - ticket.held_ms);
        self.places.insert(request, place);
        self.prompt_tokens += u64::from(prompt_tokens);
        self.enter(place, Held { request, ticket, prompt_tokens, bill, give_up: prospect.give_up, since });
    }

    /// Takes a request out, with the time it waited written on its ticket.
    pub(super) fn remove(&mut self, now: Time, request: RequestId) -> Option<Ticket> {
        let place = self.places.remove(&request)?;
        let held = self.leave(place)?;
        self.prompt_tokens -= u64::from(held.prompt_tokens);
        Some(Ticket { held_ms: now.since_ms(held.since).max(0.0), ..held.ticket })
    }

    fn enter(&mut self, place: Place, held: Held) {
        self.ages.insert((held.since, place));
        self.give_ups.extend(held.give_up.map(|at| (at, place)));
        self.waiting.insert(place, held);
    }

    fn leave(&mut self, place: Place) -> Option<Held> {
        let held = self.waiting.remove(&place)?;
        self.ages.remove(&(held.since, place));
        if let Some(at) = held.give_up {
            self.give_ups.remove(&(at, place));
        }
        Some(held)
    }

    /// Ranks a request by the work it means, so many uncached tokens: each puts it back by a millisecond of waiting.
    pub(super) fn rank(&mut self, request: RequestId, uncached_tokens: u32) {
        let waiting = self.places.get(&request).and_then(|place| self.waiting.get(place));
        let since = waiting.map(|held| held.since.micros());
        let rank = since.map_or(0, |since| since.saturating_add(US_PER_TOKEN * u64::from(uncached_tokens)));
        self.change(request, |place, _| place.rank = rank);
    }

    /// Notes what is to be expected of a request now.
    pub(super) fn expect(&mut self, request: RequestId, prospect: Prospect) {
        let place = self.places.get(&request);
        let known = place.and_then(|place| Some((place.late, self.waiting.get(place)?.give_up)));
        if known.is_none_or(|known| known == (prospect.late, prospect.give_up)) {
            return;
        }
        self.change(request, |place, held| {
            place.late = prospect.late;
            held.give_up = prospect.give_up;
        });
    }

    /// Forgets all ranks: first come first served.
    pub(super) fn unrank(&mut self) {
        let all: Vec<RequestId> = self.places.keys().copied().collect();
        all.into_iter().for_each(|request| self.change(request, |place, _| place.rank = 0));
    }

    fn change(&mut self, request: RequestId, change: impl FnOnce(&mut Place, &mut Held)) {
        let Some(mut place) = self.places.get(&request).copied() else { return };
        let Some(mut held) = self.leave(place) else { return };
        change(&mut place, &mut held);
        self.places.insert(request, place);
        self.enter(place, held);
    }

    /// The first requests in order.
    pub(super) fn first(&self, most: usize, shares: &Shares) -> Vec<RequestId> {
        let mut walk = self.walk(shares);
        std::iter::from_fn(|| walk.next(self).map(|held| held.request)).take(most).collect()
    }

    /// The first of those behind the first `most` that are wanted, as many of them at most; it is not looked for them for ever.
    pub(super) fn behind(&self, most: usize, shares: &Shares, wanted: impl Fn(&Ticket) -> bool) -> Vec<RequestId> {
        let mut walk = self.walk(shares);
        let all = std::iter::from_fn(|| walk.next(self)).take(SOUGHT).skip(most);
        all.filter(|held| wanted(&held.ticket)).map(|held| held.request).take(most).collect()
    }

    /// The ticket of a request, with the time it has waited until now.
    pub(super) fn ticket(&self, now: Time, request: RequestId) -> Option<Ticket> {
        let held = self.waiting.get(self.places.get(&request)?)?;
        Some(Ticket { held_ms: now.since_ms(held.since).max(0.0), ..held.ticket.clone() })
    }

    /// Begins a walk through the queue as it is now.
    pub(super) fn walk(&self, shares: &Shares) -> Walk {
        let lanes = self.lanes(None).map(|(late, flow)| Lane { late, flow, at: None, counter: shares.counter(flow) });
        Walk { lanes: lanes.collect(), last: shares.last() }
    }

    /// The flows that have requests waiting.
    pub(super) fn flows(&self) -> impl Iterator<Item = Flow> {
        self.lanes(None).map(|(_, flow)| flow)
    }

    /// Does somebody wait for the same replicas that can be in time, but for `request`?
    pub(super) fn is_awaited_beside(&self, request: RequestId, ticket: &Ticket) -> bool {
        let mut first = self.in_time().take(SOUGHT);
        first.any(|held| held.request != request && held.ticket.same_filters(ticket))
    }

    /// Does somebody of another flow, of whom `before` holds, wait for the same replicas and can be in time?
    pub(super) fn is_preceded(&self, ticket: &Ticket, before: impl Fn(Flow) -> bool) -> bool {
        let mut others = self.in_time().take(SOUGHT).filter(|held| held.ticket.flow != ticket.flow);
        others.any(|held| held.ticket.same_filters(ticket) && before(held.ticket.flow))
    }

    /// Those who can be in time.
    fn in_time(&self) -> impl Iterator<Item = &Held> {
        self.waiting.iter().take_while(|(place, _)| !place.late).map(|(_, held)| held)
    }

    /// Groups of requests with an order of their own, behind `after`.
    fn lanes(&self, mut after: Option<(bool, Flow)>) -> impl Iterator<Item = (bool, Flow)> {
        std::iter::from_fn(move || {
            let last = |(late, flow)| Place { late, flow, priority: Reverse(i32::MIN), rank: u64::MAX, turn: u64::MAX };
            let from = after.map_or(Bound::Unbounded, |lane| Bound::Excluded(last(lane)));
            let (place, _) = self.waiting.range((from, Bound::Unbounded)).next()?;
            after = Some((place.late, place.flow));
            after
        })
    }

    /// The next request of a lane behind its position, or its first.
    fn next(&self, lane: &Lane) -> Option<(Place, &Held)> {
        let first = Place { late: lane.late, flow: lane.flow, priority: Reverse(i32::MAX), rank: 0, turn: 0 };
        let from = lane.at.map_or(Bound::Included(first), Bound::Excluded);
        let (place, held) = self.waiting.range((from, Bound::Unbounded)).next()?;
        ((place.late, place.flow) == (lane.late, lane.flow)).then_some((*place, held))
    }

    /// A request whose time to be given up has come.
    pub(super) fn given_up(&self, now: Time) -> Option<RequestId> {
        let (_, place) = self.give_ups.first().filter(|(at, _)| *at <= now)?;
        self.waiting.get(place).map(|held| held.request)
    }

    /// A request that has waited for at least `limit_ms`, the oldest first.
    pub(super) fn overdue(&self, now: Time, limit_ms: f64) -> Option<RequestId> {
        let (since, place) = self.ages.first()?;
        let due = since.plus_ms(limit_ms) <= now;
        due.then(|| self.waiting.get(place).map(|held| held.request)).flatten()
    }
}

/// A way through the queue by turns: every request once, those who can be in time first, of the flows the one that has had the least,
/// counting what it would have had by now on this way. What leaves the queue meanwhile is not met any more; what comes may be missed.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    lanes: Vec<Lane>,
    /// The flow that was met last: of two that have had the same the other one goes first.
    last: Flow,
}

/// How far the walk is in one flow.
#[derive(Clone, Copy, Debug)]
struct Lane {
    late: bool,
    flow: Flow,
    at: Option<Place>,
    /// What the flow has had, and what it would have had for those that were passed.
    counter: u64,
}

impl Walk {
    /// The next request.
    pub(super) fn next<'q>(&mut self, queue: &'q Queue) -> Option<&'q Held> {
        let heads = self.lanes.iter().enumerate().filter_map(|(at, lane)| {
            let (place, held) = queue.next(lane)?;
            Some(((lane.late, lane.counter, lane.flow == self.last, place.turn), at, place, held))
        });
        let (_, at, place, held) = heads.min_by_key(|(order, ..)| *order)?;
        let lane = &mut self.lanes[at];
        (lane.at, self.last) = (Some(place), lane.flow);
        lane.counter = lane.counter.saturating_add(held.bill.units());
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::proptest;

    use super::{Entry, Prospect, Queue, Ticket};
    use crate::model::{RequestId, Time};
    use crate::routing::Features;
    use crate::routing::share::{Flow, Shares};

    /// Of nobody in particular.
    const ONE: Flow = Flow::new(0);

    fn ticket(flow: Flow, turn: u64, priority: i32) -> Ticket {
        let features = Arc::new(Features { priority, ..Features::default() });
        Ticket { features, flow, turn, attempt: 1, tried: Vec::new(), held_ms: 0.0 }
    }

    fn entry(request: u64, ticket: Ticket, prompt_tokens: u32) -> Entry {
        let bill = Shares::bill(ticket.flow, 1.0, prompt_tokens);
        Entry { request: RequestId(request), ticket, prompt_tokens, bill, prospect: Prospect::default() }
    }

    /// As the release of requests meets them.
    fn order(queue: &Queue) -> Vec<u64> {
        ids(queue.first(usize::MAX, &Shares::default()))
    }

    fn ids(requests: Vec<RequestId>) -> Vec<u64> {
        requests.into_iter().map(|request| request.0).collect()
    }

    #[test]
    fn priority_first_then_arrival_even_after_a_failed_attempt() {
        let mut queue = Queue::default();
        for (request, turn, priority) in [(1, 1, 0), (2, 2, 0), (3, 3, 5), (4, 4, -1), (5, 0, 0)] {
            queue.push(Time::from_ms(turn as f64), entry(request, ticket(ONE, turn, priority), 100));
        }
        assert_eq!(order(&queue), [3, 5, 1, 2, 4]);
        assert!(queue.remove(Time::ZERO, RequestId(9)).is_none());
        queue.remove(Time::from_ms(7.0), RequestId(5));
        assert_eq!((order(&queue), queue.len()), (vec![3, 1, 2, 4], 4));
    }

    #[test]
    fn the_age_limit_is_over_all_waits() {
        let mut queue = Queue::default();
        queue.push(Time::from_ms(100.0), entry(1, ticket(ONE, 0, 0), 70));
        assert_eq!(queue.ticket(Time::from_ms(120.0), RequestId(1)).map(|ticket| ticket.held_ms), Some(20.0));
        let waited = queue.remove(Time::from_ms(140.0), RequestId(1)).unwrap();
        assert_eq!(waited.held_ms, 40.0);
        queue.push(Time::from_ms(500.0), entry(2, ticket(ONE, 1, 9), 30));
        queue.push(Time::from_ms(500.0), entry(1, waited, 70));
        assert_eq!([1, 2, 3].map(|request| queue.prompt_tokens_beside(RequestId(request))), [30, 70, 100]);
        assert_eq!(queue.oldest(), Some(Time::from_ms(460.0)));
        assert_eq!(queue.overdue(Time::from_ms(559.9), 100.0), None);
        assert_eq!(queue.overdue(Time::from_ms(560.0), 100.0), Some(RequestId(1)));
        assert_eq!(queue.remove(Time::from_ms(560.0), RequestId(1)).unwrap().held_ms, 100.0);
    }

    #[test]
    fn ranked_the_shorter_goes_first_until_the_longer_has_waited_for_it() {
        let mut queue = Queue::default();
        for (request, at_ms, uncached) in
            [(1, 0.0, 5000), (2, 10.0, 100), (3, 3000.0, 2500), (4, 4980.0, 0), (5, 4900.0, 200)]
        {
            queue.push(Time::from_ms(at_ms), entry(request, ticket(ONE, request, 0), 6000));
            queue.rank(RequestId(request), uncached);
        }
        assert_eq!(order(&queue), [2, 4, 1, 5, 3]);
        queue.rank(RequestId(1), 4000);
        queue.rank(RequestId(9), 1);
        assert_eq!((order(&queue), ids(queue.first(2, &Shares::default()))), (vec![2, 1, 4, 5, 3], vec![2, 1]));
        let turn = queue.ticket(Time::ZERO, RequestId(3)).map(|ticket| ticket.turn);
        assert_eq!((queue.oldest(), turn), (Some(Time::ZERO), Some(3)));
        queue.unrank();
        assert_eq!(order(&queue), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn flows_take_turns_by_what_they_have_had_and_the_late_come_last() {
        let mut shares = Shares::default();
        let flow = |shares: &mut Shares, key: &str| shares.flow(Some(&key.into()), None);
        let [ann, bob] = ["ann", "bob"].map(|key| flow(&mut shares, key));
        let mut queue = Queue::default();
        // Ann floods; Bob sends two prompts twice as long.
        for (request, flow, tokens) in
            [(1, ann, 100), (2, ann, 100), (3, ann, 100), (4, ann, 100), (5, ann, 100), (6, bob, 200), (7, bob, 200)]
        {
            queue.push(Time::ZERO, entry(request, ticket(flow, request, 0), tokens));
        }
        assert_eq!(ids(queue.first(9, &shares)), [6, 1, 2, 7, 3, 4, 5], "Ann was met last");
        shares.charge(Shares::bill(ann, 1.0, 250));
        assert_eq!(ids(queue.first(9, &shares)), [6, 7, 1, 2, 3, 4, 5]);
        queue.expect(RequestId(6), Prospect { late: true, give_up: None });
        queue.expect(RequestId(9), Prospect { late: true, give_up: None });
        assert_eq!(ids(queue.first(9, &shares)), [7, 1, 2, 3, 4, 5, 6]);
        assert_eq!(queue.flows().count(), 3, "Bob's both ways");
        let cyd = ticket(flow(&mut shares, "cyd"), 10, 0);
        assert!(queue.is_preceded(&cyd, |other| other == bob) && !queue.is_preceded(&cyd, |_| false));
        let features = Arc::new(Features { model: Some("other".into()), ..Features::default() });
        assert!(!queue.is_preceded(&Ticket { features, ..cyd }, |_| true), "nobody waits for its replicas");
        for request in [1, 2, 3, 4, 5] {
            queue.remove(Time::ZERO, RequestId(request));
        }
        let beside = |request| queue.is_awaited_beside(RequestId(request), &ticket(bob, request, 0));
        assert!(beside(6) && !beside(7));
    }

    #[test]
    fn who_is_given_up_is_known_by_the_clock() {
        let mut queue = Queue::default();
        let give_up = |ms| Prospect { late: false, give_up: Some(Time::from_ms(ms)) };
        queue.push(Time::ZERO, Entry { prospect: give_up(100.0), ..entry(1, ticket(ONE, 1, 0), 1) });
        queue.push(Time::ZERO, Entry { prospect: give_up(50.0), ..entry(2, ticket(ONE, 2, 0), 1) });
        queue.push(Time::ZERO, entry(3, ticket(ONE, 0, 0), 1));
        assert_eq!((queue.first_give_up(), queue.given_up(Time::from_ms(49.9))), (Some(Time::from_ms(50.0)), None));
        assert_eq!(queue.given_up(Time::from_ms(50.0)), Some(RequestId(2)));
        queue.expect(RequestId(2), give_up(200.0));
        assert_eq!(queue.given_up(Time::from_ms(150.0)), Some(RequestId(1)));
        queue.remove(Time::ZERO, RequestId(1));
        queue.remove(Time::ZERO, RequestId(2));
        assert_eq!((queue.first_give_up(), order(&queue)), (None, vec![3]));
    }

    proptest! {
        #[test]
        fn its_views_agree(steps in proptest::collection::vec((0..8u64, -2..2i32, 0..3u32, proptest::bool::ANY), 0..60)) {
            let mut queue = Queue::default();
            for (turn, (request, priority, flow, push)) in steps.into_iter().enumerate() {
                let now = Time::from_ms(turn as f64);
                if push {
                    queue.push(now, entry(request, ticket(Flow::new(flow), turn as u64, priority), turn as u32));
                    queue.rank(RequestId(request / 2), turn as u32);
                    let give_up = (flow > 0).then(|| Time::from_ms(f64::from(flow)));
                    queue.expect(RequestId(request / 3), Prospect { late: priority > 0, give_up });
                } else {
                    queue.remove(now, RequestId(request));
                }
                let held: Vec<_> = queue.places.iter().map(|(request, place)| (queue.waiting[place].since, *place, *request)).collect();
                assert_eq!((queue.waiting.len(), queue.ages.len()), (held.len(), held.len()));
                let tokens: u64 = queue.waiting.values().map(|held| u64::from(held.prompt_tokens)).sum();
                assert_eq!(queue.prompt_tokens_beside(RequestId(99)), tokens);
                assert!(held.iter().all(|(since, place, request)| queue.ages.contains(&(*since, *place)) && queue.waiting[place].request == *request));
                let give_ups = queue.waiting.iter().filter_map(|(place, held)| Some((held.give_up?, *place)));
                assert_eq!(give_ups.collect::<std::collections::BTreeSet<_>>(), queue.give_ups);
                let mut met = order(&queue);
                met.sort_unstable();
                assert_eq!(met, held.iter().map(|(_, _, request)| request.0).collect::<Vec<_>>(), "everybody once");
            }
        }
    }
}
