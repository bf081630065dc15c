//! How a peer's clock stands to our own, from the round trips in which it tells its state.

use crate::gateway::window::Window;
use crate::model::Time;

/// Round trips that are looked back on. Clocks drift by some 50 µs per second at most, so that a second-old bound is a good one.
const KEPT: usize = 16;

/// Bounds of the difference, µs: the peer's clock is ahead by at least the first and at most the second.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct PeerClocks {
    trips: Window<(i64, i64)>,
}

impl Default for PeerClocks {
    fn default() -> Self {
        Self { trips: Window::new(KEPT) }
    }
}

impl PeerClocks {
    /// A peer that was asked at `asked` and answered until `answered` says that its clock showed `told_us` in between.
    pub(in crate::gateway) fn heard(&mut self, asked: Time, answered: Time, told_us: u64) {
        let stamp = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let told = stamp(told_us);
        let trip = (told.saturating_sub(stamp(answered.micros())), told.saturating_sub(stamp(asked.micros())));
        if self.best().is_some_and(|(low, high)| trip.1 < low || trip.0 > high) {
            // Another process with another clock answers there now.
            *self = Self::default();
        }
        self.trips.push(trip);
    }

    /// The narrowest bounds.
    #[must_use]
    pub(in crate::gateway) fn best(&self) -> Option<(i64, i64)> {
        self.trips.iter().copied().min_by_key(|(low, high)| high.saturating_sub(*low))
    }
}

#[cfg(test)]
mod tests {
    use super::PeerClocks;
    use crate::model::Time;

    #[test]
    fn the_quickest_trip_tells_best_and_a_new_process_begins_anew() {
        let mut clocks = PeerClocks::default();
        assert_eq!(clocks.best(), None);
        // (asked, answered, told, best)
        let trips = [
            (1_000, 1_900, 601_000, (599_100, 600_000)),
            (2_000, 2_100, 602_050, (599_950, 600_050)),
            (3_000, 3_500, 603_100, (599_950, 600_050)),
            (4_000, 4_200, 150, (-4_050, -3_850)),
        ];
        for (asked, answered, told, best) in trips {
            clocks.heard(Time::from_micros(asked), Time::from_micros(answered), told);
            assert_eq!(clocks.best(), Some(best), "told {told}");
        }
    }
}
