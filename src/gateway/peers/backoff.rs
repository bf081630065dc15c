//! How long to wait before the next attempt to reach a peer.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Doubles from `first` to `most` as long as nothing comes of it; each pause is cut by up to half at random, so that agents that lost
/// each other at the same moment do not return at the same moment.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    generator: ChaCha8Rng,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub(super) fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self { first, most, failures: 0, generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The pause after an attempt from which something came, or not.
    pub(super) fn pause(&mut self, worked: bool) -> Duration {
        self.failures = if worked { 0 } else { self.failures.saturating_add(1) };
        // The first failure waits as long as the end of a stream that worked: doubling begins with the second.
        let doublings = self.failures.saturating_sub(1).min(20);
        let whole = self.first.saturating_mul(1 << doublings).min(self.most);
        whole.mul_f64(1.0 - self.generator.random_range(0.0..0.5))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn pauses_double_within_bounds_and_begin_anew_after_success() {
        let (first, most) = (Duration::from_millis(100), Duration::from_millis(1000));
        for seed in 0..20 {
            let mut backoff = Backoff::new(first, most, seed);
            for whole in [100, 200, 400, 800, 1000, 1000] {
                let pause = backoff.pause(false).as_secs_f64() * 1000.0;
                assert!(pause > f64::from(whole) / 2.0 && pause <= f64::from(whole), "{pause} of {whole}");
            }
            assert!(backoff.pause(true) <= first);
            assert!(backoff.pause(false) <= first);
        }
        let mut endless = Backoff::new(first, most, 7);
        assert!((0..1000).all(|_| endless.pause(false) <= most));
        let pauses = |seed| (0..5).map(|_| Backoff::new(first, most, seed).pause(false)).collect::<Vec<_>>();
        assert_eq!(pauses(3), pauses(3));
        assert_ne!(pauses(3), pauses(4));
    }
}
