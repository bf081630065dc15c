//! The router's own queue: requests that wait because every replica that could serve them is at its gate.
//!
//! Order: higher priority first, then first come first served. A request whose replicas are all full does not hold up those
//! behind it; [`super::Router`] walks the whole queue and skips it. Bounded in length and in age.

use std::collections::{BTreeMap, BTreeSet};

use super::ticket::Ticket;
use crate::model::{RequestId, Time};

/// Place in the queue: priority, turned round so that the higher comes first, then the order of first arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    priority: std::cmp::Reverse<i32>,
    turn: u64,
}

/// A waiting request.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) request: RequestId,
    pub(super) ticket: Ticket,
    /// Since when it waits this time.
    since: Time,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Place, Held>,
    /// The same requests by id and by age: the three hold exactly the same places.
    places: BTreeMap<RequestId, Place>,
    ages: BTreeSet<(Time, Place)>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Since when the request that waits longest has been waiting.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.ages.first().map(|(since, _)| *since)
    }

    pub(super) fn push(&mut self, now: Time, request: RequestId, ticket: Ticket) {
        self.remove(now, request);
        let place = Place { priority: std::cmp::Reverse(ticket.features.priority), turn: ticket.turn };
        self.places.insert(request, place);
        self.ages.insert((now, place));
        self.waiting.insert(place, Held { request, ticket, since: now });
    }

    /// Takes a request out, with the time it waited added to its ticket.
    pub(super) fn remove(&mut self, now: Time, request: RequestId) -> Option<Ticket> {
        let place = self.places.remove(&request)?;
        let held = self.waiting.remove(&place)?;
        self.ages.remove(&(held.since, place));
        let waited = now.since_ms(held.since).max(0.0);
        Some(Ticket { held_ms: held.ticket.held_ms + waited, ..held.ticket })
    }

    /// The next request behind `after` in order, or the first.
    pub(super) fn next(&self, after: Option<Place>) -> Option<(Place, &Held)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.waiting.range((from, std::ops::Bound::Unbounded)).next().map(|(place, held)| (*place, held))
    }

    /// A request that has waited for at least `limit_ms`, the oldest first.
    pub(super) fn overdue(&self, now: Time, limit_ms: f64) -> Option<RequestId> {
        let (since, place) = self.ages.first()?;
        let due = since.plus_ms(limit_ms) <= now;
        due.then(|| self.waiting.get(place).map(|held| held.request)).flatten()
    }
}
