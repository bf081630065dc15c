//! What happens when: events in the order of their times, equal times in the order in which they were planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::model::Time;

/// Events to come.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    heap: BinaryHeap<Planned<E>>,
    turns: u64,
}

#[derive(Debug)]
struct Planned<E> {
    at: Time,
    /// Order of planning: decides between equal times, so that no run depends on the heap's inner order.
    turn: u64,
    event: E,
}

impl<E> Schedule<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), turns: 0 }
    }

    /// Plans an event.
    pub(super) fn at(&mut self, at: Time, event: E) {
        self.heap.push(Planned { at, turn: self.turns, event });
        self.turns += 1;
    }

    /// The next event, if any.
    pub(super) fn next(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|planned| (planned.at, planned.event))
    }
}

/// Reversed, because the heap hands out the largest.
impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.turn).cmp(&(self.at, self.turn))
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Planned<E> {}

#[cfg(test)]
mod tests {
    use proptest::{collection, prop_assert_eq, proptest};

    use super::Schedule;
    use crate::model::Time;

    proptest! {
        #[test]
        fn by_time_and_then_by_turn(times in collection::vec(0_u64..20, 0..100)) {
            let mut schedule = Schedule::new();
            for (turn, at) in times.iter().enumerate() {
                schedule.at(Time::from_micros(*at), turn);
            }
            let mut wanted: Vec<(u64, usize)> = times.iter().copied().zip(0..).collect();
            wanted.sort_unstable();
            let found: Vec<(u64, usize)> =
                std::iter::from_fn(|| schedule.next()).map(|(at, turn)| (at.micros(), turn)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
