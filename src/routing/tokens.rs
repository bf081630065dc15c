//! Bytes per token of each model, learned from what engines count: the router has no tokenizer.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes per token before anything was learned: the usual figure for English text and code.
pub const BYTES_PER_TOKEN: f64 = 4.0;

/// Ratios outside this range are not text (0.25: many template tokens around few bytes; 64: long runs of one character).
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 0.25..=64.0;

/// Shorter prompts say more about the chat template than about the tokenizer, bytes.
const SHORTEST_SAMPLE: u64 = 256;

/// Weight of the newest sample once there are many.
const WEIGHT: f64 = 0.05;

/// Models remembered; further ones use [`BYTES_PER_TOKEN`]. Bounds memory against clients that invent model names.
const MOST_MODELS: usize = 64;

/// The learned ratios.
#[derive(Clone, Debug, Default)]
pub struct TokenRatios {
    by_model: BTreeMap<Option<Arc<str>>, Ratio>,
}

#[derive(Clone, Copy, Debug)]
struct Ratio {
    bytes_per_token: f64,
    samples: u32,
}

impl TokenRatios {
    /// Estimated tokens of a prompt of `bytes` bytes: 0 for an empty one, else at least 1.
    #[must_use]
    pub fn tokens(&self, model: &Option<Arc<str>>, bytes: u64) -> u32 {
        (bytes as f64 / self.bytes_per_token(model)).ceil() as u32
    }

    /// The model's ratio, learned or assumed.
    #[must_use]
    pub fn bytes_per_token(&self, model: &Option<Arc<str>>) -> f64 {
        self.by_model.get(model).map_or(BYTES_PER_TOKEN, |ratio| ratio.bytes_per_token)
    }

    /// Of these models, or of all where there are none, the one that most was learned of; the first of equals. `None` if nothing was.
    #[must_use]
    pub fn best_known(&self, models: &[Arc<str>]) -> Option<&Option<Arc<str>>> {
        let among =
            |model: &Option<Arc<str>>| models.is_empty() || model.as_ref().is_some_and(|model| models.contains(model));
        let known = self.by_model.iter().filter(|(model, _)| among(model));
        known.rev().max_by_key(|(_, ratio)| ratio.samples).map(|(model, _)| model)
    }

    /// Learns that a prompt of `bytes` bytes was `tokens` tokens.
    ///
    /// A running mean that counts the assumed ratio as one sample, until the newest sample's weight has fallen to [`WEIGHT`].
    pub fn learn(&mut self, model: &Option<Arc<str>>, bytes: u64, tokens: u32) {
        let sample = bytes as f64 / f64::from(tokens);
        if bytes < SHORTEST_SAMPLE || !PLAUSIBLE.contains(&sample) {
            return;
        }
        if !self.by_model.contains_key(model) && self.by_model.len() >= MOST_MODELS {
            return;
        }
        let start = Ratio { bytes_per_token: BYTES_PER_TOKEN, samples: 0 };
        let ratio = self.by_model.entry(model.clone()).or_insert(start);
        ratio.samples = ratio.samples.saturating_add(1);
        let weight = (1.0 / f64::from(ratio.samples.saturating_add(1))).max(WEIGHT);
        ratio.bytes_per_token += weight * (sample - ratio.bytes_per_token);
    }

    /// Every learned ratio with its number of samples, in order of the models' names (`None` first: requests without a model).
    pub fn iter(&self) -> impl Iterator<Item = (Option<&Arc<str>>, f64, u32)> {
        self.by_model.iter().map(|(model, ratio)| (model.as_ref(), ratio.bytes_per_token, ratio.samples))
    }
}

#[cfg(test)]
mod tests {
    use super::TokenRatios;

    #[test]
    fn learns_per_model_and_ignores_nonsense() {
        let (llama, none) = (Some("llama".into()), None);
        let mut ratios = TokenRatios::default();
        assert_eq!((ratios.tokens(&llama, 401), ratios.tokens(&none, 0), ratios.tokens(&none, 1)), (101, 0, 1));
        for (bytes, tokens) in [(0, 0), (10_000, 0), (10_000, 1), (255, 100), (1000, u32::MAX)] {
            ratios.learn(&llama, bytes, tokens);
            assert_eq!(ratios.bytes_per_token(&llama), 4.0, "{bytes} bytes as {tokens} tokens");
        }
        ratios.learn(&llama, 1000, 500);
        assert_eq!(ratios.bytes_per_token(&llama), 3.0, "the assumption counts as one sample");
        for _ in 0..200 {
            ratios.learn(&llama, 3000, 1000);
        }
        assert!((ratios.bytes_per_token(&llama) - 3.0).abs() < 0.01);
        assert_eq!(ratios.bytes_per_token(&none), 4.0);
        assert_eq!(ratios.tokens(&none, u64::MAX), u32::MAX, "saturates");
    }

    #[test]
    fn the_best_known_model_has_the_most_samples() {
        let mut ratios = TokenRatios::default();
        assert_eq!(ratios.best_known(&[]), None);
        for (model, samples) in [(None, 2), (Some("a"), 3), (Some("b"), 3), (Some("c"), 1)] {
            for _ in 0..samples {
                ratios.learn(&model.map(Into::into), 1000, 300);
            }
        }
        let cases = [(vec![], Some("a")), (vec!["b", "c"], Some("b")), (vec!["c", "x"], Some("c")), (vec!["x"], None)];
        for (models, best) in cases {
            let models: Vec<_> = models.into_iter().map(Into::into).collect();
            assert_eq!(ratios.best_known(&models).and_then(|model| model.as_deref()), best, "{models:?}");
        }
    }

    #[test]
    fn invented_model_names_do_not_grow_it() {
        let mut ratios = TokenRatios::default();
        for i in 0..1000 {
            ratios.learn(&Some(format!("model-{i}").into()), 1000, 300);
        }
        assert_eq!(ratios.iter().count(), 64);
        ratios.learn(&Some("model-0".into()), 1000, 300);
        assert_eq!(ratios.iter().next().map(|(_, _, samples)| samples), Some(2), "known models go on learning");
    }
}
