//! What dumps tell of the difference between clocks.

use super::slices::micros;
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
    for (to, dump) in dumps.iter().enumerate() {
        for request in dump.requests.iter().filter(|request| request.parent.is_some()) {
            if let Some((from, _, _, attempt)) = sender(dumps, to, request)
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

/// The attempt of another router that brought this request to node `at`: (node, index of its request, index of its attempt, attempt).
pub(super) fn sender<'a>(
    dumps: &'a [Dump],
    at: usize,
    request: &RequestSpan,
) -> Option<(usize, usize, usize, &'a AttemptSpan)> {
    let parent = request.parent.as_deref()?;
    let name = &dumps[at].node.node;
    dumps.iter().enumerate().filter(|(node, _)| *node != at).find_map(|(node, dump)| {
        let is_parent = |span: &&RequestSpan| span.request == parent && span.trace == request.trace;
        let (index, span) = dump.requests.iter().enumerate().find(|(_, span)| is_parent(span))?;
        let attempts = || span.attempts.iter().enumerate().filter(|(_, attempt)| attempt.peer);
        let told = attempts().find(|(_, attempt)| attempt.peer_request.as_deref() == Some(&request.request));
        // One that got no answer was not told its name there.
        let named = || attempts().find(|(_, attempt)| attempt.peer_request.is_none() && attempt.replica == *name);
        let (place, attempt) = told.or_else(named)?;
        Some((node, index, place, attempt))
    })
}
