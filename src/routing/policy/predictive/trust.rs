//! Whether predictions may be relied on: by how far the newest were off.
//!
//! Off by a factor of two either way, in the middle of the newest fifty, is a model that does not fit its fleet. Until half of them are
//! within a factor of one and a half again, the rule falls back to the least uncached work.

use std::collections::VecDeque;

/// Predictions that are looked at.
const WINDOW: usize = 50;
/// Median factor, predicted to actual or the other way round, less 1, at which trust is lost, and at which it is found again.
const LOST: f64 = 1.0;
const FOUND: f64 = 0.5;
/// Differences below this are noise, ms.
const NOISE_MS: f64 = 20.0;

/// The newest predictions.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    errors: VecDeque<f64>,
    /// Of the same predictions: was it too high?
    high: VecDeque<bool>,
    lost: bool,
}

impl Trust {
    /// Is the fallback in force?
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// What was predicted is mostly more than what came.
    pub(super) fn is_too_high(&self) -> bool {
        2 * self.high.iter().filter(|high| **high).count() > self.high.len()
    }

    /// A first token came after `actual_ms` instead of `predicted_ms`.
    pub(super) fn learn(&mut self, predicted_ms: f64, actual_ms: f64) {
        let (least, most) = (predicted_ms.min(actual_ms), predicted_ms.max(actual_ms));
        let error = (most - least) / least.max(NOISE_MS);
        if !error.is_finite() {
            return;
        }
        if self.errors.len() == WINDOW {
            self.errors.pop_front();
            self.high.pop_front();
        }
        self.errors.push_back(error);
        self.high.push_back(predicted_ms > actual_ms);
        if self.errors.len() == WINDOW {
            let bound = if self.lost { FOUND } else { LOST };
            // More than half of them.
            self.lost = self.errors.iter().filter(|error| **error > bound).count() > WINDOW / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Trust;

    #[test]
    fn it_is_lost_by_half_of_fifty_and_comes_back() {
        let mut trust = Trust::default();
        let mut learn = |times: usize, predicted: f64, actual: f64| {
            (0..times).for_each(|_| trust.learn(predicted, actual));
            trust.is_lost()
        };
        assert!(!learn(49, 100.0, 900.0), "too few");
        assert!(learn(1, 100.0, 900.0));
        assert!(learn(24, 100.0, 140.0), "half is not enough");
        assert!(!learn(1, 100.0, 140.0));
        assert!(!learn(100, 100.0, 199.0), "within a factor of two");
        assert!(!learn(25, 300.0, 100.0) && learn(1, 300.0, 100.0), "too high counts, too");
        assert!(learn(100, 100.0, 160.0), "not yet good enough");
        assert!(!learn(100, 1.0, 10.0), "a few ms are noise");
        assert!(!learn(200, f64::NAN, 100.0), "nonsense is ignored");
    }

    #[test]
    fn it_knows_on_which_side_predictions_are_wrong() {
        let mut trust = Trust::default();
        assert!(!trust.is_too_high(), "nothing is known");
        (0..50).for_each(|_| trust.learn(900.0, 100.0));
        assert!(trust.is_lost() && trust.is_too_high());
        (0..25).for_each(|_| trust.learn(100.0, 900.0));
        assert!(trust.is_lost() && !trust.is_too_high());
    }
}
