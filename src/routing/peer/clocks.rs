//! How old a message is, from two clocks that agree on nothing but the length of a second.
//!
//! receipt − sending, each by its own clock, is the time under way plus the unknown difference of the clocks. The smallest one seen is that
//! of a message that waited nowhere, which takes half a round trip; what another takes longer, it waited on its way. So a clock that is
//! ten minutes off does not matter, and what a broken line held back is known to be old when it comes.

use crate::model::Time;

/// How much faster than ours a clock may run, ms per ms: quartz is good to a twentieth of that. Without this, the smallest difference
/// of a clock that runs ahead would be that of long ago, and every message would look older than the one before.
const DRIFT: f64 = 0.001;

/// The two clocks of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Clocks {
    /// Smallest difference, ms, and when.
    least: Option<(f64, Time)>,
}

impl Clocks {
    /// Age, ms, of a message that was sent at `sent` by its sender's clock and came `now`, over a link with this round trip.
    pub(super) fn age_ms(&mut self, now: Time, sent: Time, rtt_ms: f64) -> f64 {
        let difference = now.since_ms(sent);
        let least = self.least.map_or(difference, |(least, at)| least + DRIFT * now.since_ms(at).max(0.0));
        let least = least.min(difference);
        self.least = Some((least, now));
        rtt_ms / 2.0 + (difference - least)
    }
}

#[cfg(test)]
mod tests {
    use super::Clocks;
    use crate::model::Time;

    const MINUTE_MS: f64 = 60_000.0;

    /// Ages of messages sent every 200 ms by a clock that is `offset` ms ahead and runs `pace` times as fast as ours; `waits` on the way.
    fn ages(offset: f64, pace: f64, waits: &[f64]) -> Vec<f64> {
        let mut clocks = Clocks::default();
        let message = |(i, wait): (usize, &f64)| {
            let sent = 20.0 * MINUTE_MS + i as f64 * 200.0;
            let age = clocks.age_ms(Time::from_ms(sent + 40.0 + wait), Time::from_ms(sent * pace + offset), 80.0);
            (age * 10.0).round() / 10.0
        };
        waits.iter().enumerate().map(message).collect()
    }

    #[test]
    fn a_clock_ten_minutes_off_does_not_matter() {
        for offset in [0.0, 10.0 * MINUTE_MS, -10.0 * MINUTE_MS] {
            assert_eq!(ages(offset, 1.0, &[0.0, 0.0, 5.0, 0.0]), [40.0, 40.0, 44.8, 40.0], "{offset} ms ahead");
        }
    }

    #[test]
    fn what_was_held_on_its_way_is_old_when_it_comes() {
        let held: Vec<f64> = (0..6).map(|i| if i < 3 { 0.0 } else { 5_000.0 - f64::from(i) * 200.0 }).collect();
        let ages = ages(3.0, 1.0, &held);
        assert!(ages[3] > 4_400.0 && ages[5] > 3_900.0 && ages[5] < ages[3], "{ages:?}");
    }

    #[test]
    fn clocks_that_drift_do_not_age_messages() {
        for pace in [0.9995, 1.0005] {
            let ages = ages(0.0, pace, &[0.0; 20_000]);
            assert!(ages.iter().all(|age| (39.0..=42.0).contains(age)), "{pace}");
        }
    }

    #[test]
    fn a_message_that_was_late_at_first_is_put_right_by_the_next_that_was_not() {
        let ages = ages(-MINUTE_MS, 1.0, &[300.0, 0.0, 300.0]);
        assert_eq!(ages[..2], [40.0, 40.0]);
        assert!((ages[2] - 340.0).abs() < 1.0, "{ages:?}");
    }
}
