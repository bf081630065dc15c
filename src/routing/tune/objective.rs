//! What a block of requests cost: percentiles of the time to first token and of the whole time, as one figure.
//!
//! ```text
//! cost = mean of ln TTFT p50, ln TTFT p95, ln E2E p50, ln E2E p95
//! ```
//!
//! Logarithms, so that a tenth less counts alike wherever it is. The whole time is in it because a router can buy time to first token with
//! decoding: everybody at the nearest replica is answered at once, and slowly. Sums of logs are a geometric mean of the four.

use std::fmt;

/// Two figures below this are alike, ms: a logarithm of nothing would outweigh everything.
const SMALLEST_MS: f64 = 0.1;

/// What is to be small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// All four figures.
    Whole,
    /// Those of the first token only. It can be won by making whole answers slower: for comparison, not for service.
    FirstToken,
}

/// How long one request took from its arrival at the router, or at the least took so far, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Until its first token.
    pub ttft_ms: f64,
    /// Until its end.
    pub e2e_ms: f64,
}

/// Percentiles of some requests, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Time to first token, median.
    pub ttft_p50: f64,
    /// Time to first token, 95th percentile.
    pub ttft_p95: f64,
    /// Whole time, median.
    pub e2e_p50: f64,
    /// Whole time, 95th percentile.
    pub e2e_p95: f64,
}

impl Figures {
    /// Of these requests; `None` of none.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let sorted = |of: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (ttft, e2e) = (sorted(|sample| sample.ttft_ms), sorted(|sample| sample.e2e_ms));
        Some(Self {
            ttft_p50: at(&ttft, 0.5),
            ttft_p95: at(&ttft, 0.95),
            e2e_p50: at(&e2e, 0.5),
            e2e_p95: at(&e2e, 0.95),
        })
    }

    /// Geometric means over blocks, figure by figure; `None` of none.
    #[must_use]
    pub fn mean(blocks: &[Self]) -> Option<Self> {
        let mean = |of: fn(&Self) -> f64| {
            let sum: f64 = blocks.iter().map(|block| of(block).max(SMALLEST_MS).ln()).sum();
            (sum / blocks.len() as f64).exp()
        };
        (!blocks.is_empty()).then(|| Self {
            ttft_p50: mean(|it| it.ttft_p50),
            ttft_p95: mean(|it| it.ttft_p95),
            e2e_p50: mean(|it| it.e2e_p50),
            e2e_p95: mean(|it| it.e2e_p95),
        })
    }

    /// The figure to be made small: differences of it are logarithms of ratios.
    #[must_use]
    pub fn cost(&self, objective: Objective) -> f64 {
        let log = |ms: f64| ms.max(SMALLEST_MS).ln();
        match objective {
            Objective::Whole => (log(self.ttft_p50) + log(self.ttft_p95) + log(self.e2e_p50) + log(self.e2e_p95)) / 4.0,
            Objective::FirstToken => f64::midpoint(log(self.ttft_p50), log(self.ttft_p95)),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ttft_p50, ttft_p95, e2e_p50, e2e_p95 } = self;
        write!(f, "ttft {ttft_p50:.0}/{ttft_p95:.0} ms, e2e {e2e_p50:.0}/{e2e_p95:.0} ms")
    }
}

/// The value of rank round(q·(n − 1)).
fn at(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * (sorted.len() - 1) as f64).round() as usize;
    sorted[rank]
}

#[cfg(test)]
mod tests {
    use super::{Figures, Objective, Sample};

    fn block(ttft_ms: f64, e2e_ms: f64) -> Figures {
        Figures::of(&[Sample { ttft_ms, e2e_ms }]).unwrap()
    }

    #[test]
    fn what_is_won_at_the_first_token_and_lost_afterwards_is_no_gain() {
        let (before, after) = (block(200.0, 2000.0), block(100.0, 4400.0));
        assert!(after.cost(Objective::FirstToken) < before.cost(Objective::FirstToken));
        assert!(after.cost(Objective::Whole) > before.cost(Objective::Whole));
    }

    #[test]
    fn percentiles_and_means() {
        let samples: Vec<Sample> =
            (0..=100).map(|i| Sample { ttft_ms: f64::from(100 - i), e2e_ms: f64::from(10 * i) }).collect();
        let figures = Figures::of(&samples).unwrap();
        assert_eq!(figures.to_string(), "ttft 50/95 ms, e2e 500/950 ms");
        let mean = Figures::mean(&[block(100.0, 1000.0), block(400.0, 4000.0)]).unwrap();
        assert_eq!(mean.to_string(), "ttft 200/200 ms, e2e 2000/2000 ms");
        assert_eq!((Figures::of(&[]), Figures::mean(&[])), (None, None));
        assert!(block(0.0, 0.0).cost(Objective::Whole).is_finite());
    }
}
