//! The state of an agent as numbered figures, each a whole number or unknown, and the changes from one state to the next.

/// What a figure is about. The discriminant is its field number on the wire: never used again for anything else. 1 is the sender's clock
/// ([`super::State::sent_us`]).
///
/// "Others'": without what the listener itself sent there. It knows that better and adds its own, so that nothing counts twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Figure {
    /// 1 while its own engine is in rotation and it takes requests.
    Serving = 2,
    /// 1 while it takes no new requests and finishes those that it has.
    Draining = 3,
    /// Requests at its engine, whoever sent them.
    Running = 4,
    /// Requests in its queue, whoever sent them.
    Queued = 5,
    /// Others' requests without a first token, those in the queue included.
    Pending = 6,
    /// Others' requests past their first token.
    Decoding = 7,
    /// Prompt tokens that the engine has yet to compute for others' requests.
    UncachedTokens = 8,
    /// Others' requests whose response headers have not come.
    Unanswered = 9,
    /// Prompt tokens of those.
    UnansweredTokens = 10,
    /// Prompt tokens, cached ones too, of all of others' requests.
    PromptTokens = 11,
    /// Prompt and expected output tokens of all of others' requests.
    HeldTokens = 12,
    /// Predicted service time of others' requests without a first token, µs.
    PendingUs = 13,
    /// Share of its engine's KV cache in use, millionths.
    KvUsagePpm = 14,
    /// Tokens of its engine's KV cache in use.
    KvUsedTokens = 15,
    /// KV capacity of its engine, tokens.
    KvTokens = 16,
    /// How often what it held in its cache was lost at once. Another number: nothing that was believed before holds.
    CacheGeneration = 17,
    /// Learned fixed part of one prefill, µs.
    ServiceUs = 18,
    /// Learned prefill time per uncached token, ns.
    PrefillNsPerToken = 19,
}

impl Figure {
    /// All of them in order.
    pub const ALL: [Self; 18] = [
        Self::Serving,
        Self::Draining,
        Self::Running,
        Self::Queued,
        Self::Pending,
        Self::Decoding,
        Self::UncachedTokens,
        Self::Unanswered,
        Self::UnansweredTokens,
        Self::PromptTokens,
        Self::HeldTokens,
        Self::PendingUs,
        Self::KvUsagePpm,
        Self::KvUsedTokens,
        Self::KvTokens,
        Self::CacheGeneration,
        Self::ServiceUs,
        Self::PrefillNsPerToken,
    ];

    /// Its field number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    const fn index(self) -> usize {
        (self as u32 - Self::Serving as u32) as usize
    }

    /// The figure of this number, if we know it.
    fn known(number: u32) -> Option<Self> {
        let index = number.checked_sub(Self::Serving.number())?;
        Self::ALL.get(index as usize).copied()
    }
}

/// One figure that is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Field number: a [`Figure`]'s, or one that we don't know.
    pub number: u32,
    /// What it is now; `None` = unknown.
    pub value: Option<u64>,
}

/// All figures of one agent. Unknown at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    values: [Option<u64>; Figure::ALL.len()],
}

impl Figures {
    /// A figure, if it is known.
    #[must_use]
    pub fn get(&self, figure: Figure) -> Option<u64> {
        self.values[figure.index()]
    }

    /// Sets a figure.
    pub fn set(&mut self, figure: Figure, value: Option<u64>) {
        self.values[figure.index()] = value;
    }

    /// What has to be told to whoever knows `before`.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let changed = Figure::ALL.into_iter().filter(|figure| self.get(*figure) != before.get(*figure));
        changed.map(|figure| Change { number: figure.number(), value: self.get(figure) }).collect()
    }

    /// Takes changes. Figures that we don't know are none of our business.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            if let Some(figure) = Figure::known(change.number) {
                self.set(figure, change.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Change, Figure, Figures};

    #[test]
    fn every_number_leads_back_to_its_figure() {
        for figure in Figure::ALL {
            assert_eq!(Figure::known(figure.number()), Some(figure));
        }
        for number in [0, 1, Figure::PrefillNsPerToken.number() + 1, u32::MAX] {
            assert_eq!(Figure::known(number), None, "{number}");
        }
    }

    fn figures(values: Vec<Option<u64>>) -> Figures {
        let mut figures = Figures::default();
        for (figure, value) in Figure::ALL.into_iter().zip(values) {
            figures.set(figure, value);
        }
        figures
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_state_to_the_next(
            before in prop::collection::vec(any::<Option<u64>>(), 18),
            after in prop::collection::vec(any::<Option<u64>>(), 18),
            strange in prop::collection::vec((20_u32.., any::<Option<u64>>()), 0..4),
        ) {
            let (before, after) = (figures(before), figures(after));
            let strange = strange.into_iter().map(|(number, value)| Change { number, value });
            let changes: Vec<Change> = after.changes_since(&before).into_iter().chain(strange).collect();
            let mut state = before;
            state.apply(&changes);
            prop_assert_eq!(&state, &after);
            prop_assert_eq!(after.changes_since(&state), Vec::new());
        }
    }
}
