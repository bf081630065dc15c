//! What is to come of a conversation: how many turns, and how much of each has to be computed.

/// What an earlier dispatch counts against the next one.
const FADE: f64 = 0.998;
/// Most turns that are expected to follow.
const MOST: f64 = 8.0;
/// Weight of the newest in the mean of uncached tokens, of hits and of all.
const WEIGHT: f64 = 0.02;
/// A dispatch is a hit when more than this share of its prompt is predicted cached.
const HIT_SHARE: f64 = 0.5;

/// Over all dispatches of a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    hits: f64,
    colds: f64,
    uncached_tokens: f64,
    any_uncached_tokens: f64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { hits: 1.0, colds: 1.0, uncached_tokens: 300.0, any_uncached_tokens: 1000.0 }
    }
}

impl Turns {
    /// A request of `prompt_tokens` goes out, of which `uncached_tokens` have to be computed.
    pub(super) fn learn(&mut self, prompt_tokens: f64, uncached_tokens: f64) {
        self.any_uncached_tokens += WEIGHT * (uncached_tokens - self.any_uncached_tokens);
        (self.hits, self.colds) = (self.hits * FADE, self.colds * FADE);
        if prompt_tokens - uncached_tokens > HIT_SHARE * prompt_tokens {
            self.hits += 1.0;
            self.uncached_tokens += WEIGHT * (uncached_tokens - self.uncached_tokens);
        } else {
            self.colds += 1.0;
        }
    }

    /// F: turns that are expected to follow a new conversation's first.
    pub(super) fn expected(&self) -> f64 {
        (self.hits / self.colds.max(1.0)).min(MOST)
    }

    /// hbar: uncached tokens of such a turn.
    pub(super) fn uncached_tokens(&self) -> f64 {
        self.uncached_tokens
    }

    /// x: uncached tokens of any dispatch.
    pub(super) fn any_uncached_tokens(&self) -> f64 {
        self.any_uncached_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    #[test]
    fn turns_follow_the_hits() {
        let mut turns = Turns::default();
        assert_eq!((turns.expected(), turns.uncached_tokens()), (1.0, 300.0));
        turns.learn(1000.0, 500.0);
        assert!((turns.expected() - 0.998 / 1.998).abs() < 1e-9, "half is no hit");
        turns.learn(1000.0, 499.0);
        assert!((turns.uncached_tokens() - (300.0 + 0.02 * 199.0)).abs() < 1e-9);
        for _ in 0..5000 {
            (0..3).for_each(|_| turns.learn(4000.0, 200.0));
            turns.learn(4000.0, 4000.0);
        }
        assert!((turns.expected() - 3.0).abs() < 0.02, "{}", turns.expected());
        assert!((turns.uncached_tokens() - 200.0).abs() < 1.0);
        assert!((turns.any_uncached_tokens() - 1150.0).abs() < 60.0, "{}", turns.any_uncached_tokens());
        (0..5000).for_each(|_| turns.learn(4000.0, 200.0));
        assert_eq!(turns.expected(), 8.0, "never more");
    }
}
