//! The decode floor of one replica: the time per output token that its hardware needs, whatever its load.
//!
//! The running 20 % quantile ([`Quantile`]) of each request's mean gap between tokens. A mean, or a regression on the batch size, would be
//! dominated by the prefills that interrupt decoding, and would drive conversations away from whoever is busy.

use super::quantile::Quantile;

/// Which quantile.
const SHARE: f64 = 0.2;
/// Step at first, and after so many samples.
const FIRST_STEP: f64 = 0.2;
const STEP: f64 = 0.05;
const FIRST_SAMPLES: u32 = 20;
/// Shorter answers say nothing, tokens.
const LEAST_TOKENS: u32 = 5;
/// Floors outside are no engine's, ms per token.
const PLAUSIBLE_MS: (f64, f64) = (0.01, 1000.0);

/// The floor as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Floor {
    value: Option<Quantile>,
    samples: u32,
}

impl Floor {
    /// Time per output token, ms; `None` = nothing measured.
    pub(super) fn ms(&self) -> Option<f64> {
        self.value.map(|value| value.value())
    }

    /// An answer of `tokens` tokens took `ms` from its first to its last.
    pub(super) fn learn(&mut self, tokens: u32, ms: f64) {
        let gap = ms / f64::from(tokens.saturating_sub(1));
        if tokens < LEAST_TOKENS || !(gap.is_finite() && gap > 0.0) {
            return;
        }
        let step = if self.samples < FIRST_SAMPLES { FIRST_STEP } else { STEP };
        self.samples = self.samples.saturating_add(1);
        match &mut self.value {
            Some(value) => value.learn(gap, step),
            None => self.value = Some(Quantile::new(gap, SHARE, PLAUSIBLE_MS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Floor;

    #[test]
    fn the_first_sample_sets_it_and_it_settles_at_the_fifth_part() {
        let mut floor = Floor::default();
        for (tokens, ms) in [(0, 10.0), (1, 10.0), (4, 30.0), (10, 0.0), (10, f64::NAN)] {
            floor.learn(tokens, ms);
            assert_eq!(floor.ms(), None, "{tokens} tokens in {ms} ms");
        }
        floor.learn(11, 200.0);
        assert_eq!(floor.ms(), Some(20.0));
        floor.learn(11, 250.0);
        assert!((floor.ms().unwrap() - 20.8).abs() < 1e-9, "above: 20 · (1 + 0.2 · 0.2)");
        floor.learn(11, 100.0);
        assert!((floor.ms().unwrap() - 17.472).abs() < 1e-9, "below: 20.8 · (1 − 0.2 · 0.8)");
        // Gaps of 10 to 109 ms evenly: a fifth is below 30.
        for i in 0..3000_u32 {
            floor.learn(2 * 50, 99.0 * f64::from(10 + i * 37 % 100));
        }
        let found = floor.ms().unwrap();
        assert!((25.0..36.0).contains(&found), "{found}");
    }
}
