//! A running quantile, by stochastic approximation in proportion to the value (Robbins and Monro, A Stochastic Approximation Method, 1951):
//!
//! ```text
//! q ← q · (1 + step · (share − [sample < q]))
//! ```
//!
//! It needs no memory of samples, follows a change within some 1 / step of them, and one wild sample moves it no further than any other.

/// The value below which `share` of the recent samples lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantile {
    value: f64,
    share: f64,
    bounds: (f64, f64),
}

impl Quantile {
    /// Begins at `value`; it never leaves `bounds`, which are above 0.
    pub(super) fn new(value: f64, share: f64, bounds: (f64, f64)) -> Self {
        Self { value: value.clamp(bounds.0, bounds.1), share, bounds }
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    /// One more sample; what is not a number is ignored.
    pub(super) fn learn(&mut self, sample: f64, step: f64) {
        if sample.is_nan() {
            return;
        }
        let below = if sample < self.value { 1.0 } else { 0.0 };
        self.value = (self.value * (1.0 + step * (self.share - below))).clamp(self.bounds.0, self.bounds.1);
    }
}

#[cfg(test)]
mod tests {
    use super::Quantile;

    #[test]
    fn settles_where_its_share_lies_below() {
        for share in [0.2, 0.5, 0.9] {
            let mut quantile = Quantile::new(1000.0, share, (1.0, 1e6));
            for i in 0..5000_u32 {
                quantile.learn(f64::from(100 + i * 37 % 100), 0.02);
            }
            let found = (quantile.value() - 100.0) / 100.0;
            assert!((found - share).abs() < 0.1, "{share}: {found}");
        }
    }

    #[test]
    fn stays_within_its_bounds_and_ignores_nonsense() {
        let mut quantile = Quantile::new(0.0, 0.5, (1.0, 10.0));
        assert_eq!(quantile.value(), 1.0);
        quantile.learn(f64::NAN, 0.5);
        assert_eq!(quantile.value(), 1.0);
        (0..100).for_each(|_| quantile.learn(f64::INFINITY, 0.5));
        assert_eq!(quantile.value(), 10.0);
    }
}
