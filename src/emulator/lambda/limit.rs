//! The service's two limits: calls overall, and launches.

use crate::model::Time;

/// About one call per second.
const CALL_MS: f64 = 1_000.0;
/// One launch per 12 s, which is also the documented 5 per minute.
const LAUNCH_MS: f64 = 12_000.0;
/// How early a call may come: clients that keep exactly to the limit still arrive unevenly.
const SLACK_MS: f64 = 1_000.0;

/// When the next calls would be on time ("generic cell rate algorithm", ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limiter {
    call: Time,
    launch: Time,
}

impl Limiter {
    /// Whether a call made now is let through; one that is turned away does not count.
    pub(super) fn admits(&mut self, now: Time, launch: bool) -> bool {
        let early = |due: Time| due.since_ms(now) > SLACK_MS;
        if early(self.call) || (launch && early(self.launch)) {
            return false;
        }
        self.call = self.call.max(now).plus_ms(CALL_MS);
        if launch {
            self.launch = self.launch.max(now).plus_ms(LAUNCH_MS);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Limiter;
    use crate::model::Time;

    #[test]
    fn a_polite_client_passes_and_a_hasty_one_does_not() {
        let mut limiter = Limiter::default();
        for second in 0..60 {
            let jitter = if second % 2 == 0 { 0.0 } else { 300.0 };
            assert!(limiter.admits(Time::from_ms(f64::from(second) * 1000.0 + jitter), false), "{second}");
        }
        let mut limiter = Limiter::default();
        let passed = (0..100).filter(|i| limiter.admits(Time::from_ms(f64::from(*i) * 100.0), false)).count();
        assert!((10..=12).contains(&passed), "{passed} calls in ten seconds");
        let mut limiter = Limiter::default();
        let launches = (0..600).filter(|i| limiter.admits(Time::from_ms(f64::from(*i) * 1000.0), true)).count();
        assert_eq!(launches, 51, "five a minute for ten minutes, and the next one a second early");
    }
}
