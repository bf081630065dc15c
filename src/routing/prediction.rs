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

impl Sample {
    fn error(self) -> f64 {
        (self.predicted - self.actual).abs()
    }
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

    /// How good they were; `None` without samples.
    #[must_use]
    pub fn accuracy(&self) -> Option<Accuracy> {
        let over = |figure: fn(Sample) -> f64| median(self.iter().map(figure).collect());
        let positive = self.iter().filter(|sample| sample.actual > 0.0);
        let bias = self.iter().map(|sample| sample.predicted - sample.actual).sum::<f64>() / self.len() as f64;
        Some(Accuracy {
            count: self.len(),
            predicted_median: over(|sample| sample.predicted)?,
            actual_median: over(|sample| sample.actual)?,
            error_median: over(Sample::error)?,
            relative_error_median: median(positive.map(|sample| sample.error() / sample.actual).collect()),
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
    /// Median of |predicted − actual| ÷ actual over samples whose actual figure is positive, if there is one.
    pub relative_error_median: Option<f64>,
    /// Mean of predicted − actual: above 0 the prediction is too high.
    pub bias: f64,
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
    fn figures_over_a_bounded_window() {
        let mut samples = Samples::default();
        assert_eq!(samples.accuracy(), None);
        samples.push(f64::NAN, 1.0);
        samples.push(10.0, 0.0);
        let figures =
            |samples: &Samples| samples.accuracy().map(|a| (a.count, a.error_median, a.relative_error_median, a.bias));
        assert_eq!(figures(&samples), Some((1, 10.0, None, 10.0)));
        samples.push(90.0, 100.0);
        samples.push(130.0, 100.0);
        assert_eq!(figures(&samples), Some((3, 10.0, Some(0.2), 10.0)));
        let medians = samples.accuracy().map(|a| (a.predicted_median, a.actual_median));
        assert_eq!(medians, Some((90.0, 100.0)));
        for _ in 0..2 * WINDOW {
            samples.push(1.0, 2.0);
        }
        assert_eq!(figures(&samples), Some((WINDOW, 1.0, Some(0.5), -1.0)));
    }
}
