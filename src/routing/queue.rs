//! The router's own queue: requests that wait because every replica that could serve them is at its gate.
//!
//! Order: higher priority first, then first come first served, or by a rank where the strategy gives one: shortest first, with age. A
//! request whose replicas are all full does not hold up those behind it; [`super::Router`] walks the whole queue and skips it. Bounded in
//! length and in age.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::peer::Totals;
use super::ticket::Ticket;
use crate::model::{RequestId, Time};

/// Place in the queue: priority, turned round so that the higher comes first, then the rank, then the order of first arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    priority: Reverse<i32>,
    rank: u64,
    turn: u64,
}

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
    /// Since when it would be waiting if it had done all its waiting at one time: the age limit is over all attempts.
    since: Time,
}

/// The waiting requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Place, Held>,
    /// The same requests by id and by age: the three hold exactly the same places.
    places: BTreeMap<RequestId, Place>,
    ages: BTreeSet<(Time, Place)>,
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

    /// Puts a request with a prompt of this length in its place.
    pub(super) fn push(&mut self, now: Time, request: RequestId, ticket: Ticket, prompt_tokens: u32) {
        self.remove(now, request);
        let place = Place { priority: Reverse(ticket.features.priority), rank: 0, turn: ticket.turn };
        let since = Time::from_ms(now.ms() - ticket.held_ms);
        self.places.insert(request, place);
        self.ages.insert((since, place));
        self.prompt_tokens += u64::from(prompt_tokens);
        self.waiting.insert(place, Held { request, ticket, prompt_tokens, since });
    }

    /// Takes a request out, with the time it waited written on its ticket.
    pub(super) fn remove(&mut self, now: Time, request: RequestId) -> Option<Ticket> {
        let place = self.places.remove(&request)?;
        let held = self.waiting.remove(&place)?;
        self.ages.remove(&(held.since, place));
        self.prompt_tokens -= u64::from(held.prompt_tokens);
        Some(Ticket { held_ms: now.since_ms(held.since).max(0.0), ..held.ticket })
    }

    /// Ranks a request by the work it means, so many uncached tokens: each puts it back by a millisecond of waiting.
    pub(super) fn rank(&mut self, request: RequestId, uncached_tokens: u32) {
        let waiting = self.places.get(&request).and_then(|place| self.waiting.get(place));
        let since = waiting.map(|held| held.since.micros());
        self.move_to(request, since.map_or(0, |since| since.saturating_add(US_PER_TOKEN * u64::from(uncached_tokens))));
    }

    /// Forgets all ranks: first come first served.
    pub(super) fn unrank(&mut self) {
        let all: Vec<RequestId> = self.places.keys().copied().collect();
        all.into_iter().for_each(|request| self.move_to(request, 0));
    }

    fn move_to(&mut self, request: RequestId, rank: u64) {
        let Some(place) = self.places.get_mut(&request) else { return };
        let before = std::mem::replace(place, Place { rank, ..*place });
        let after = *place;
        if let Some(held) = self.waiting.remove(&before) {
            self.ages.remove(&(held.since, before));
            self.ages.insert((held.since, after));
            self.waiting.insert(after, held);
        }
    }

    /// The first requests in order.
    pub(super) fn first(&self, most: usize) -> Vec<RequestId> {
        self.waiting.values().take(most).map(|held| held.request).collect()
    }

    /// The ticket of a request.
    pub(super) fn ticket(&self, request: RequestId) -> Option<&Ticket> {
        let place = self.places.get(&request)?;
        self.waiting.get(place).map(|held| &held.ticket)
    }

    /// The next request behind `after` in order, or the first.
    pub(super) fn next(&self, after: Option<Place>) -> Option<(Place, &Held)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.waiting.range((from, Bound::Unbounded)).next().map(|(place, held)| (*place, held))
    }

    /// A request that has waited for at least `limit_ms`, the oldest first.
    pub(super) fn overdue(&self, now: Time, limit_ms: f64) -> Option<RequestId> {
        let (since, place) = self.ages.first()?;
        let due = since.plus_ms(limit_ms) <= now;
        due.then(|| self.waiting.get(place).map(|held| held.request)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::proptest;

    use super::{Queue, Ticket};
    use crate::model::{RequestId, Time};
    use crate::routing::Features;

    fn ticket(turn: u64, priority: i32) -> Ticket {
        let features = Arc::new(Features { priority, ..Features::default() });
        Ticket { features, turn, attempt: 1, tried: Vec::new(), held_ms: 0.0 }
    }

    fn order(queue: &Queue) -> Vec<u64> {
        let mut at = None;
        std::iter::from_fn(|| {
            let (place, held) = queue.next(at)?;
            at = Some(place);
            Some(held.request.0)
        })
        .collect()
    }

    #[test]
    fn priority_first_then_arrival_even_after_a_failed_attempt() {
        let mut queue = Queue::default();
        for (request, turn, priority) in [(1, 1, 0), (2, 2, 0), (3, 3, 5), (4, 4, -1), (5, 0, 0)] {
            queue.push(Time::from_ms(turn as f64), RequestId(request), ticket(turn, priority), 100);
        }
        assert_eq!(order(&queue), [3, 5, 1, 2, 4]);
        assert!(queue.remove(Time::ZERO, RequestId(9)).is_none());
        queue.remove(Time::from_ms(7.0), RequestId(5));
        assert_eq!((order(&queue), queue.len()), (vec![3, 1, 2, 4], 4));
    }

    #[test]
    fn the_age_limit_is_over_all_waits() {
        let mut queue = Queue::default();
        queue.push(Time::from_ms(100.0), RequestId(1), ticket(0, 0), 70);
        let waited = queue.remove(Time::from_ms(140.0), RequestId(1)).unwrap();
        assert_eq!(waited.held_ms, 40.0);
        queue.push(Time::from_ms(500.0), RequestId(2), ticket(1, 9), 30);
        queue.push(Time::from_ms(500.0), RequestId(1), waited, 70);
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
            queue.push(Time::from_ms(at_ms), RequestId(request), ticket(request, 0), 6000);
            queue.rank(RequestId(request), uncached);
        }
        assert_eq!(order(&queue), [2, 4, 1, 5, 3]);
        queue.rank(RequestId(1), 4000);
        queue.rank(RequestId(9), 1);
        assert_eq!((order(&queue), queue.first(2)), (vec![2, 1, 4, 5, 3], vec![RequestId(2), RequestId(1)]));
        assert_eq!((queue.oldest(), queue.ticket(RequestId(3)).map(|ticket| ticket.turn)), (Some(Time::ZERO), Some(3)));
        queue.unrank();
        assert_eq!(order(&queue), [1, 2, 3, 4, 5]);
    }

    proptest! {
        #[test]
        fn its_three_views_agree(steps in proptest::collection::vec((0..8u64, -2..2i32, proptest::bool::ANY), 0..60)) {
            let mut queue = Queue::default();
            for (turn, (request, priority, push)) in steps.into_iter().enumerate() {
                let now = Time::from_ms(turn as f64);
                if push {
                    queue.push(now, RequestId(request), ticket(turn as u64, priority), turn as u32);
                    queue.rank(RequestId(request / 2), turn as u32);
                } else {
                    queue.remove(now, RequestId(request));
                }
                let held: Vec<_> = queue.places.iter().map(|(request, place)| (queue.waiting[place].since, *place, *request)).collect();
                assert_eq!((queue.waiting.len(), queue.ages.len()), (held.len(), held.len()));
                let tokens: u64 = queue.waiting.values().map(|held| u64::from(held.prompt_tokens)).sum();
                assert_eq!(queue.prompt_tokens_beside(RequestId(99)), tokens);
                assert!(held.iter().all(|(since, place, request)| queue.ages.contains(&(*since, *place)) && queue.waiting[place].request == *request));
            }
        }
    }
}
