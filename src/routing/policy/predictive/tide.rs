//! How much this router sends a replica: sums that fade by `exp(−elapsed / 30 s)`.

use super::price::Pressure;
use crate::model::Time;

/// Memory, ms.
const MEMORY_MS: f64 = 30_000.0;

/// Dispatches and their predicted service at one replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tide {
    dispatches: f64,
    service_ms: f64,
    at: Time,
}

impl Tide {
    /// A request goes out whose prompt takes `service_ms`.
    pub(super) fn add(&mut self, now: Time, service_ms: f64) {
        let fade = self.fade(now);
        self.dispatches = self.dispatches * fade + 1.0;
        self.service_ms = self.service_ms * fade + service_ms;
        self.at = self.at.max(now);
    }

    /// Per ms, and as a share of the replica's time.
    pub(super) fn pressure(&self, now: Time) -> Pressure {
        let fade = self.fade(now) / MEMORY_MS;
        Pressure::new(self.dispatches * fade, self.service_ms * fade)
    }

    fn fade(&self, now: Time) -> f64 {
        if self.dispatches == 0.0 {
            return 0.0;
        }
        (-now.since_ms(self.at).max(0.0) / MEMORY_MS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::{Pressure, Tide};
    use crate::model::Time;

    #[test]
    fn steady_traffic_shows_as_it_is_and_fades() {
        let mut tide = Tide::default();
        assert_eq!(tide.pressure(Time::from_ms(5.0)), Pressure::default());
        for i in 0..2000 {
            tide.add(Time::from_ms(f64::from(i) * 200.0), 80.0);
        }
        let end = 1999.0 * 200.0;
        let steady = tide.pressure(Time::from_ms(end));
        assert!((steady.per_ms - 0.005).abs() < 0.0001 && (steady.share - 0.4).abs() < 0.01, "{steady:?}");
        let later = tide.pressure(Time::from_ms(end + 30_000.0));
        assert!((later.per_ms / steady.per_ms - (-1.0_f64).exp()).abs() < 1e-9);
        (0..1000).for_each(|_| tide.add(Time::from_ms(end), 1000.0));
        assert_eq!(tide.pressure(Time::from_ms(end)).share, 0.9, "never full");
        assert!(tide.pressure(Time::ZERO).per_ms.is_finite(), "time that runs backwards");
    }
}
