//! What dumps tell of the difference between clocks.

use super::slices::micros;
use std::collections::BTreeMap;

use super::{AttemptSpan, Bound, Dump, RequestSpan};

/// Stamps are whole microseconds, rounded down: a difference of two of them is this much off at most.
const ROUNDING_US: i64 = 1;

/// When the one who collects dumps asked for one, and when it had the answer, µs on its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// It asked.
    pub asked_us: u64,
    /// It was answered.
    pub answered_us: u64,
}

/// Everything that is known of the clocks of these nodes: from the requests that they forwarded to each other, from the state that
/// they ask each other for, and from the trips of the one who collects, who is the node behind the last.
#[must_use]
pub fn bounds(dumps: &[Dump], trips: &[Trip]) -> Vec<Bound> {
    let collector = dumps.len();
    let mut bounds: Vec<Bound> = Vec::new();
    for (to, (dump, trip)) in dumps.iter().zip(trips).enumerate() {
        let now = micros(dump.node.now_us);
        bounds.push(bound(collector, to, now - micros(trip.answered_us), now - micros(trip.asked_us)));
    }
    for (from, dump) in dumps.iter().enumerate() {
        for peer in &dump.node.peers {
            let to = dumps.iter().position(|other| other.node.node == peer.name);
            bounds.extend(to.map(|to| bound(from, to, peer.low_us, peer.high_us)));
        }
    }
    let senders = Senders::new(dumps);
    for (to, dump) in dumps.iter().enumerate() {
        for request in &dump.requests {
            if let Some(Sender { node: from, attempt, .. }) = senders.of(to, request)
                && let (Some(head), Some(headers)) = (head(request), attempt.headers_us)
            {
                let (low, high) =
                    (micros(head) - micros(headers), micros(request.received_us) - micros(attempt.sent_us));
                bounds.push(bound(from, to, low, high));
            }
        }
    }
    bounds
}

fn bound(from: usize, to: usize, low_us: i64, high_us: i64) -> Bound {
    Bound { from, to, low_us: low_us.saturating_sub(ROUNDING_US), high_us: high_us.saturating_add(ROUNDING_US) }
}

/// A moment before which the head of its answer cannot have left.
fn head(request: &RequestSpan) -> Option<u64> {
    match request.attempts.last() {
        Some(AttemptSpan { headers_us: Some(headers), .. }) => Some(*headers),
        _ => request.refusal.as_ref().map(|_| request.received_us),
    }
}

/// Who forwarded which request: requests of all routers by their names.
pub(super) struct Senders<'a> {
    dumps: &'a [Dump],
    places: BTreeMap<&'a str, Vec<(usize, usize)>>,
}

/// An attempt that brought a request to another router.
pub(super) struct Sender<'a> {
    /// The node that made it.
    pub(super) node: usize,
    /// Its request there.
    pub(super) request: usize,
    /// Which attempt of it.
    pub(super) number: usize,
    /// The attempt.
    pub(super) attempt: &'a AttemptSpan,
}

impl<'a> Senders<'a> {
    /// Looks through all requests once.
    pub(super) fn new(dumps: &'a [Dump]) -> Self {
        let mut places: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        for (node, dump) in dumps.iter().enumerate() {
            for (index, request) in dump.requests.iter().enumerate() {
                places.entry(&request.request).or_default().push((node, index));
            }
        }
        Self { dumps, places }
    }

    /// The attempt of another router that brought this request to node `at`.
    pub(super) fn of(&self, at: usize, request: &RequestSpan) -> Option<Sender<'a>> {
        let name = &self.dumps[at].node.node;
        let places = self.places.get(request.parent.as_deref()?)?;
        places.iter().filter(|(node, _)| *node != at).find_map(|&(node, index)| {
            let span = &self.dumps[node].requests[index];
            if span.trace != request.trace {
                return None;
            }
            let attempts = || span.attempts.iter().enumerate().filter(|(_, attempt)| attempt.peer);
            let told = attempts().find(|(_, attempt)| attempt.peer_request.as_deref() == Some(&request.request));
            // One that got no answer was not told its name there.
            let named = || attempts().find(|(_, attempt)| attempt.peer_request.is_none() && attempt.replica == *name);
            let (number, attempt) = told.or_else(named)?;
            Some(Sender { node, request: index, number, attempt })
        })
    }
}
