//! How good predictions of the time to first token were, per replica: a bounded window of predicted and actual figures.
//!
//! Both run from dispatch at this router to the first token: what a request waited in the router's queue before is not predicted.

use std::collections::VecDeque;

/// Samples kept per replica: enough for a stable median, few enough to sort when somebody asks.
pub const WINDOW: usize = 512;

/// Smallest figure that errors are related to.
const LEAST: f64 = 1.0;

/// A predicted figure and what it turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// As predicted at dispatch.
    pub predicted: f64,
    /// As observed.
    pub actual: f64,
}

impl Sample {
    /// |predicted − actual|.
    #[must_use]
    pub fn error(self) -> f64 {
        (self.predicted - self.actual).abs()
    }

    /// (predicted − actual) ÷ actual: above 0 the prediction was too high. An actual figure of next to nothing counts as [`LEAST`].
    #[must_use]
    pub fn relative(self) -> f64 {
        (self.predicted - self.actual) / self.actual.max(LEAST)
    }
}

/// The newest [`WINDOW`] samples of one replica.
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

    /// How good they were; `None` without samples. Sorts them: for people who ask, and not under a lock.
    #[must_use]
    pub fn accuracy(&self) -> Option<Accuracy> {
        let over = |figure: fn(Sample) -> f64| median(self.iter().map(figure).collect());
        let bias = self.iter().map(|sample| sample.predicted - sample.actual).sum::<f64>() / self.len() as f64;
        Some(Accuracy {
            count: self.len(),
            predicted_median: over(|sample| sample.predicted)?,
            actual_median: over(|sample| sample.actual)?,
            error_median: over(Sample::error)?,
            relative_error_median: over(|sample| sample.relative().abs())?,
            relative_bias_median: over(Sample::relative)?,
            bias,
        })
    }
}

/// Figures over the newest samples, in the samples' unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Samples, at most [`WINDOW`].
    pub count: usize,
    /// Median of the predicted figures.
    pub predicted_median: f64,
    /// Median of the actual figures.
    pub actual_median: f64,
    /// Median of |predicted − actual|.
    pub error_median: f64,
    /// Median of |predicted − actual| ÷ actual.
    pub relative_error_median: f64,
    /// Median of (predicted − actual) ÷ actual: above 0 the prediction is mostly too high.
    pub relative_bias_median: f64,
    /// Mean of predicted − actual: above 0 the prediction is too high.
    pub bias: f64,
}

/// Median by nearest rank, as in the reports: a value that was really seen.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().div_ceil(2).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::{Samples, WINDOW};

    #[test]
    fn figures_over_a_bounded_window() {
        let mut samples = Samples::default();
        assert_eq!(samples.accuracy(), None);
        samples.push(f64::NAN, 1.0);
        samples.push(10.0, 0.0);
        let figures = |samples: &Samples| samples.accuracy().map(|a| (a.count, a.error_median, a.bias));
        assert_eq!(figures(&samples), Some((1, 10.0, 10.0)));
        samples.push(90.0, 100.0);
        samples.push(130.0, 100.0);
        assert_eq!(figures(&samples), Some((3, 10.0, 10.0)));
        let medians = samples.accuracy().map(|a| (a.predicted_median, a.actual_median));
        assert_eq!(medians, Some((90.0, 100.0)));
        let relative = samples.accuracy().map(|a| (a.relative_error_median, a.relative_bias_median));
        assert_eq!(relative, Some((0.3, 0.3)), "0.1 too low, 0.3 too high, and ten where one counts");
        samples.push(200.0, 200.0);
        let medians = samples.accuracy().map(|a| (a.predicted_median, a.actual_median));
        assert_eq!(medians, Some((90.0, 100.0)), "nearest rank: of four the second");
        for _ in 0..2 * WINDOW {
            samples.push(1.0, 2.0);
        }
        assert_eq!(figures(&samples), Some((WINDOW, 1.0, -1.0)));
    }
}
