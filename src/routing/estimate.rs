//! Running estimates of measured figures. Time is an argument; a figure that makes no sense is ignored, not stored.

use crate::model::Time;

/// Weight of the newest sample in a round-trip estimate, as in the proxies of the GORGO paper: with a probe per second a changed path
/// counts for nine tenths within seven.
pub const RTT_WEIGHT: f64 = 0.3;

/// A round trip above this is a broken measurement, ms: no link on Earth takes a minute.
pub const RTT_MAX_MS: f64 = 60_000.0;

/// Exponentially weighted moving average per sample: `value ← value + weight · (sample − value)`; the first sample sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    weight: f64,
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Latest {
    at: Time,
    sample: f64,
    value: f64,
}

impl Ewma {
    /// An average without samples. `weight` of the newest sample is in (0, 1].
    #[must_use]
    pub const fn new(weight: f64) -> Self {
        Self { weight, latest: None }
    }

    /// Takes a sample; one that is not finite is ignored.
    pub fn update(&mut self, now: Time, sample: f64) {
        if !sample.is_finite() {
            return;
        }
        let value = self.latest.map_or(sample, |latest| latest.value + self.weight * (sample - latest.value));
        self.latest = Some(Latest { at: now, sample, value });
    }

    /// The estimate, if there was a sample.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.latest.map(|latest| latest.value)
    }

    /// The newest sample itself.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.latest.map(|latest| latest.sample)
    }

    /// Time since the newest sample, ms; 0 where `now` is before it.
    #[must_use]
    pub fn age_ms(&self, now: Time) -> Option<f64> {
        self.latest.map(|latest| now.since_ms(latest.at).max(0.0))
    }
}

/// Rate of events, as a count that decays with `exp(−elapsed / tau)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecayedRate {
    tau_ms: f64,
    count: f64,
    at: Time,
}

impl DecayedRate {
    /// No events yet; an event is forgotten over about `tau_ms` (positive).
    #[must_use]
    pub const fn new(tau_ms: f64) -> Self {
        Self { tau_ms, count: 0.0, at: Time::ZERO }
    }

    /// One event.
    pub fn add(&mut self, now: Time) {
        self.count = self.decayed(now) + 1.0;
        self.at = self.at.max(now);
    }

    /// Events per millisecond.
    #[must_use]
    pub fn per_ms(&self, now: Time) -> f64 {
        self.decayed(now) / self.tau_ms
    }

    fn decayed(&self, now: Time) -> f64 {
        self.count * (-now.since_ms(self.at).max(0.0) / self.tau_ms).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::{DecayedRate, Ewma};
    use crate::model::Time;

    fn ms(ms: f64) -> Time {
        Time::from_ms(ms)
    }

    #[test]
    fn ewma_follows_its_samples_and_ignores_nonsense() {
        let mut rtt = Ewma::new(0.3);
        assert_eq!((rtt.value(), rtt.age_ms(ms(5.0))), (None, None));
        let cases = [(100.0, 100.0), (200.0, 130.0), (f64::NAN, 130.0), (f64::INFINITY, 130.0), (30.0, 100.0)];
        for (i, (sample, expected)) in cases.into_iter().enumerate() {
            rtt.update(ms(i as f64), sample);
            assert!((rtt.value().unwrap() - expected).abs() < 1e-9, "sample {i}: {:?}", rtt.value());
        }
        assert_eq!((rtt.last(), rtt.age_ms(ms(10.0))), (Some(30.0), Some(6.0)));
        assert_eq!(rtt.age_ms(ms(1.0)), Some(0.0), "time that runs backwards is age 0");
    }

    #[test]
    fn rate_decays_and_converges_to_the_true_rate() {
        let mut rate = DecayedRate::new(1000.0);
        for i in 0..10_000 {
            rate.add(ms(f64::from(i) * 10.0));
        }
        let at = ms(99_990.0);
        assert!((rate.per_ms(at) - 0.1).abs() < 0.001, "{}", rate.per_ms(at));
        assert!(rate.per_ms(at.plus_ms(1000.0)) < 0.1 * 0.37);
        assert!(rate.per_ms(Time::ZERO).is_finite());
    }
}
