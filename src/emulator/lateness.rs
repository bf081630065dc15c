//! How late the emulator is: an emulator that cannot keep up would fake every result measured against it.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::model::Time;

/// Samples kept; older ones are overwritten.
pub(super) const KEPT: usize = 1 << 16;

/// Lateness of whatever has a time at which it is due: time handed on less time asked for by the model, ms.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    samples: Mutex<Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    ring: Vec<f32>,
    total: u64,
}

/// Figures over the kept samples, ms; percentiles by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Samples so far.
    pub(super) count: u64,
    mean_ms: f64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Lateness {
    /// Something that was due at `due` leaves at `now`.
    pub(super) fn record(&self, due: Time, now: Time) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let late = now.since_ms(due) as f32;
        let place = (samples.total % KEPT as u64) as usize;
        match samples.ring.get_mut(place) {
            Some(old) => *old = late,
            None => samples.ring.push(late),
        }
        samples.total += 1;
    }

    /// The kept samples, ms, in no particular order.
    pub(super) fn samples_ms(&self) -> Vec<f64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.ring.iter().map(|&late| f64::from(late)).collect()
    }

    /// Their figures; zeros without samples.
    pub(super) fn summary(&self) -> Summary {
        let mut sorted = self.samples_ms();
        sorted.sort_by(f64::total_cmp);
        let Some(&max_ms) = sorted.last() else { return Summary::default() };
        let rank = |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).saturating_sub(1)];
        Summary {
            count: self.samples.lock().unwrap_or_else(PoisonError::into_inner).total,
            mean_ms: sorted.iter().sum::<f64>() / sorted.len() as f64,
            p50_ms: rank(0.5),
            p95_ms: rank(0.95),
            p99_ms: rank(0.99),
            max_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Lateness, Summary};
    use crate::model::Time;

    #[test]
    fn figures_are_nearest_rank() {
        let lateness = Lateness::default();
        assert_eq!(lateness.summary(), Summary::default());
        for late in 1..=100 {
            lateness.record(Time::from_ms(10.0), Time::from_ms(10.0 + f64::from(late)));
        }
        let expected = Summary { count: 100, mean_ms: 50.5, p50_ms: 50.0, p95_ms: 95.0, p99_ms: 99.0, max_ms: 100.0 };
        assert_eq!(lateness.summary(), expected);
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stay() {
        let lateness = Lateness::default();
        for late in 0..KEPT + 10 {
            lateness.record(Time::ZERO, Time::from_ms(if late < KEPT { 0.0 } else { 7.0 }));
        }
        let samples = lateness.samples_ms();
        assert_eq!(samples.len(), KEPT);
        assert_eq!(samples.iter().filter(|&&late| late == 7.0).count(), 10);
        assert_eq!(lateness.summary().count, KEPT as u64 + 10);
    }
}
