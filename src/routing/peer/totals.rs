//! The sums of the ledger as plain figures, so that they can be told, added and averaged.

use crate::routing::ledger::Load;

/// What a replica has in flight, in the terms of [`Load`]. Estimates are no whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests without a first token.
    pub pending: f64,
    /// Prompt tokens that have yet to be computed for them.
    pub uncached_tokens: f64,
    /// Requests whose response headers have not come.
    pub unanswered: f64,
    /// Prompt tokens of those.
    pub unanswered_tokens: f64,
    /// Requests past their first token.
    pub decoding: f64,
    /// Prompt tokens, cached ones too, of all requests.
    pub prompt_tokens: f64,
    /// Prompt and expected output tokens of all requests.
    pub held_tokens: f64,
}

impl Totals {
    /// So many requests with so many prompt tokens, of which nothing has been answered, and all has yet to be computed as far as is known.
    #[must_use]
    pub fn untouched(requests: f64, tokens: f64) -> Self {
        Self {
            pending: requests,
            uncached_tokens: tokens,
            unanswered: requests,
            unanswered_tokens: tokens,
            decoding: 0.0,
            prompt_tokens: tokens,
            held_tokens: tokens,
        }
    }

    /// Nothing in flight.
    pub const NONE: Self = Self {
        pending: 0.0,
        uncached_tokens: 0.0,
        unanswered: 0.0,
        unanswered_tokens: 0.0,
        decoding: 0.0,
        prompt_tokens: 0.0,
        held_tokens: 0.0,
    };

    /// The sums of a load.
    #[must_use]
    pub fn of(load: &Load) -> Self {
        Self {
            pending: load.pending.len() as f64,
            uncached_tokens: load.uncached_tokens as f64,
            unanswered: f64::from(load.unanswered),
            unanswered_tokens: load.unanswered_tokens as f64,
            decoding: f64::from(load.decoding),
            prompt_tokens: load.prompt_tokens as f64,
            held_tokens: load.held_tokens as f64,
        }
    }

    /// Requests dispatched and not finished.
    #[must_use]
    pub fn in_flight(&self) -> f64 {
        self.pending + self.decoding
    }

    /// Figure by figure.
    #[must_use]
    pub fn zip(self, other: Self, figure: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            pending: figure(self.pending, other.pending),
            uncached_tokens: figure(self.uncached_tokens, other.uncached_tokens),
            unanswered: figure(self.unanswered, other.unanswered),
            unanswered_tokens: figure(self.unanswered_tokens, other.unanswered_tokens),
            decoding: figure(self.decoding, other.decoding),
            prompt_tokens: figure(self.prompt_tokens, other.prompt_tokens),
            held_tokens: figure(self.held_tokens, other.held_tokens),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    /// The larger of both, figure by figure.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, f64::max)
    }

    /// What makes no sense counts as 0.
    #[must_use]
    pub(super) fn plausible(self) -> Self {
        self.zip(Self::NONE, |figure, zero| if figure.is_finite() { figure.max(zero) } else { zero })
    }
}
