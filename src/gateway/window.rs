//! The last few samples of a figure, and their percentiles.

use std::collections::VecDeque;

use crate::wire::Percentiles;

/// A bounded sample, oldest out first.
#[derive(Clone, Debug)]
pub(super) struct Window<T> {
    size: usize,
    samples: VecDeque<T>,
}

impl<T> Window<T> {
    /// Room for `size` samples.
    #[must_use]
    pub(super) fn new(size: usize) -> Self {
        Self { size, samples: VecDeque::new() }
    }

    /// Takes a sample.
    pub(super) fn push(&mut self, sample: T) {
        if self.samples.len() >= self.size {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.samples.iter()
    }
}

/// Mean and percentiles (nearest rank); `None` for an empty sample.
#[must_use]
pub(super) fn percentiles(samples: impl Iterator<Item = f64>) -> Option<Percentiles> {
    let mut sorted: Vec<f64> = samples.collect();
    sorted.sort_by(f64::total_cmp);
    let max = *sorted.last()?;
    let rank = |share: f64| sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
    Some(Percentiles {
        count: sorted.len() as u64,
        mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        p50: rank(0.5),
        p90: rank(0.9),
        p95: rank(0.95),
        p99: rank(0.99),
        max,
    })
}

/// Median by nearest rank; `None` for an empty sample.
#[must_use]
pub(super) fn median(samples: impl Iterator<Item = f64>) -> Option<f64> {
    percentiles(samples).map(|percentiles| percentiles.p50)
}

#[cfg(test)]
mod tests {
    use super::{Window, median, percentiles};

    #[test]
    fn the_oldest_sample_goes_first() {
        let mut window = Window::new(3);
        (1..=5).for_each(|sample| window.push(sample));
        assert_eq!(window.iter().copied().collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = |n: u32| percentiles((1..=n).rev().map(f64::from));
        let hundred = of(100).unwrap();
        assert_eq!((hundred.p50, hundred.p90, hundred.p99, hundred.max, hundred.mean), (50.0, 90.0, 99.0, 100.0, 50.5));
        let one = of(1).unwrap();
        assert_eq!((one.count, one.p50, one.p99), (1, 1.0, 1.0));
        assert_eq!(of(0), None);
        assert_eq!(median([3.0, 1.0].into_iter()), Some(1.0));
    }
}
