//! How good predictions were, per replica: a bounded window of predicted and actual figures.

use std::collections::VecDeque;

/// Samples kept per figure. Enough for a stable median, few enough to sort on every look.
pub const WINDOW: usize = 256;

/// A predicted figure and what it turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// As predicted at dispatch.
    pub predicted: f64,
    /// As observed.
    pub actual: f64,
}

/// The newest [`WINDOW`] samples of one figure.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    ring: VecDeque<Sample>,
}

impl Samples {
    /// Takes a sample; figures that are not finite are ignored.
    pub fn push(&mut self, predicted: f64, actual: f64) {
        if !predicted.is_finite() || !actual.is_finite() {
            return;
        }
        if self.ring.len() == WINDOW {
            self.ring.pop_front();
        }
        self.ring.push_back(Sample { predicted, actual });
    }

    /// The samples, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Sample> {
        self.ring.iter().copied()
    }

    /// How many there are, at most [`WINDOW`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Median of |predicted − actual|, in the figure's unit.
    #[must_use]
    pub fn median_error(&self) -> Option<f64> {
        median(self.iter().map(|sample| (sample.predicted - sample.actual).abs()).collect())
    }

    /// Median of |predicted − actual| ÷ actual, over the samples whose actual figure is positive.
    #[must_use]
    pub fn median_relative_error(&self) -> Option<f64> {
        let positive = self.iter().filter(|sample| sample.actual > 0.0);
        median(positive.map(|sample| (sample.predicted - sample.actual).abs() / sample.actual).collect())
    }
}

/// Middle value; with an even count the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Predictions for one replica.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    /// Time to first token, ms: the score where the policy's unit is ms, against dispatch to first token at this router.
    pub ttft_ms: Samples,
    /// Cached prompt tokens: what the index believed against what the engine reported.
    pub cached_tokens: Samples,
}

#[cfg(test)]
mod tests {
    use super::{Samples, WINDOW};

    #[test]
    fn medians_over_a_bounded_window() {
        let mut samples = Samples::default();
        assert_eq!((samples.median_error(), samples.median_relative_error()), (None, None));
        samples.push(f64::NAN, 1.0);
        samples.push(10.0, 0.0);
        assert_eq!((samples.median_error(), samples.median_relative_error()), (Some(10.0), None));
        samples.push(90.0, 100.0);
        samples.push(150.0, 100.0);
        assert_eq!((samples.median_error(), samples.median_relative_error()), (Some(10.0), Some(0.3)));
        for _ in 0..2 * WINDOW {
            samples.push(1.0, 2.0);
        }
        assert_eq!((samples.len(), samples.median_relative_error()), (WINDOW, Some(0.5)));
    }
}
