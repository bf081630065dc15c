//! Who has had how much: virtual counters by which what waits in the router is served in turn.
//!
//! Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), section 4: every client has a counter of the service that it got;
//! of those who wait, the one with the smallest goes next, so that no one's flood delays the others, and nobody is held back while nobody
//! else wants anything. Who returns from idle begins at the smallest counter of those who wait, or, if nobody does, at that of the one
//! who was served last: what was not used is not saved up.
//!
//! ```text
//! service = (uncached prompt tokens + 2 · output tokens) / weight of the class
//! ```
//!
//! As there, the prompt is charged when a request is sent and the output when it is known, here at the end: who was charged an expected output
//! in advance would lift others by it who then stay behind when it turns out shorter. What is cached costs an engine next to nothing, so
//! it is free here; where the answer tells other figures the prompt's charge is put right, and taken back where a replica failed it. A
//! flow is an API key; requests without one are a flow by class, which is what gives weights a meaning there. Each router counts for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What an output token counts in prompt tokens: the ratio of the paper's evaluation, and of common prices.
const OUTPUT_TOKEN: u64 = 2;

/// Counters are in thousandths of a prompt token of weight 1.
const UNITS_PER_TOKEN: f64 = 1000.0;

/// Number of a flow at this router, in the order in which they were first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow(u32);

#[cfg(test)]
impl Flow {
    /// One that was never seen.
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// What a request was charged, so that it can be put right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bill {
    flow: Flow,
    weight: f64,
    units: u64,
}

impl Bill {
    /// Whose.
    pub(super) fn flow(self) -> Flow {
        self.flow
    }

    /// How much.
    pub(super) fn units(self) -> u64 {
        self.units
    }
}

/// Whose requests count together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Nobody,
    Class(Arc<str>),
    Key(Arc<str>),
}

/// All flows that were seen. They are as many as keys and classes are configured: others count as no class.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    flows: BTreeMap<Name, Flow>,
    counters: Vec<u64>,
    /// The flow that was served last.
    last: Flow,
}

impl Shares {
    /// The flow of a key and a class.
    pub(super) fn flow(&mut self, tenant: Option<&Arc<str>>, class: Option<&Arc<str>>) -> Flow {
        let name = match (tenant, class) {
            (Some(key), _) => Name::Key(Arc::clone(key)),
            (None, Some(class)) => Name::Class(Arc::clone(class)),
            (None, None) => Name::Nobody,
        };
        let next = Flow(self.counters.len() as u32);
        let flow = *self.flows.entry(name).or_insert(next);
        if flow == next {
            self.counters.push(0);
        }
        flow
    }

    /// What a flow has had.
    pub(super) fn counter(&self, flow: Flow) -> u64 {
        self.counters.get(flow.0 as usize).copied().unwrap_or(0)
    }

    /// The flow that was served last.
    pub(super) fn last(&self) -> Flow {
        self.last
    }

    /// What a prompt with so many uncached tokens costs its flow.
    pub(super) fn bill(flow: Flow, weight: f64, uncached_tokens: u32) -> Bill {
        Bill { flow, weight, units: units(weight, uncached_tokens, 0) }
    }

    /// A flow that has nothing waiting wants service again; `waiting`: those who wait.
    pub(super) fn lift(&mut self, flow: Flow, waiting: impl Iterator<Item = Flow>) {
        let least = waiting.map(|other| self.counter(other)).min();
        let least = least.unwrap_or_else(|| self.counter(self.last));
        if let Some(counter) = self.counters.get_mut(flow.0 as usize) {
            *counter = least.max(*counter);
        }
    }

    /// A request is served.
    pub(super) fn charge(&mut self, bill: Bill) {
        if let Some(counter) = self.counters.get_mut(bill.flow.0 as usize) {
            *counter = counter.saturating_add(bill.units);
            self.last = bill.flow;
        }
    }

    /// It was answered: with so many tokens, and with so many of its prompt that had to be computed, if that is known.
    pub(super) fn settle(&mut self, bill: Bill, uncached_tokens: Option<u32>, output_tokens: u32) {
        let prompt = uncached_tokens.map_or(bill.units, |tokens| units(bill.weight, tokens, 0));
        let real = prompt.saturating_add(units(bill.weight, 0, output_tokens));
        if let Some(counter) = self.counters.get_mut(bill.flow.0 as usize) {
            *counter = counter.saturating_add(real).saturating_sub(bill.units);
        }
    }

    /// It was not served after all.
    pub(super) fn take_back(&mut self, bill: Bill) {
        if let Some(counter) = self.counters.get_mut(bill.flow.0 as usize) {
            *counter = counter.saturating_sub(bill.units);
        }
    }
}

fn units(weight: f64, uncached_tokens: u32, output_tokens: u32) -> u64 {
    let tokens = u64::from(uncached_tokens) + OUTPUT_TOKEN * u64::from(output_tokens);
    (tokens as f64 * UNITS_PER_TOKEN / weight) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::{Strategy, prop, prop_assert, proptest};

    use super::{Flow, Shares};

    fn of(shares: &mut Shares, key: Option<&str>, class: Option<&str>) -> Flow {
        let name = |text: &str| Arc::<str>::from(text);
        shares.flow(key.map(name).as_ref(), class.map(name).as_ref())
    }

    #[test]
    fn a_flow_is_a_key_or_else_a_class() {
        let mut shares = Shares::default();
        let mut flow = |key, class| of(&mut shares, key, class);
        let nobody = flow(None, None);
        let (ann, batch) = (flow(Some("ann"), None), flow(None, Some("batch")));
        assert!(ann != nobody && batch != nobody && ann != batch);
        assert_eq!((flow(Some("ann"), Some("batch")), flow(None, None)), (ann, nobody));
        assert_ne!(flow(None, Some("ann")), ann, "a class of the same name");
    }

    #[test]
    fn tokens_are_charged_by_weight_and_put_right() {
        let mut shares = Shares::default();
        let ann = of(&mut shares, Some("ann"), None);
        let bill = Shares::bill(ann, 2.0, 1000);
        shares.charge(bill);
        assert_eq!(shares.counter(ann), 500_000, "1000 tokens at twice the weight");
        shares.settle(bill, None, 100);
        assert_eq!(shares.counter(ann), 600_000, "and 2 * 100");
        shares.charge(bill);
        shares.settle(bill, Some(800), 0);
        assert_eq!(shares.counter(ann), 1_000_000, "a fifth of the prompt was cached after all");
        shares.charge(bill);
        shares.take_back(bill);
        assert_eq!(shares.counter(ann), 1_000_000);
        shares.take_back(Shares::bill(ann, 1.0, u32::MAX));
        assert_eq!(shares.counter(ann), 0, "never below nothing");
        shares.charge(Shares::bill(Flow(7), 1.0, 1));
        assert_eq!(shares.counter(Flow(7)), 0, "nobody");
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let mut shares = Shares::default();
        let [ann, bob, cyd] = ["ann", "bob", "cyd"].map(|key| of(&mut shares, Some(key), None));
        for (flow, tokens) in [(ann, 900), (bob, 500)] {
            shares.charge(Shares::bill(flow, 1.0, tokens));
        }
        shares.lift(cyd, [ann, bob].into_iter());
        assert_eq!(shares.counter(cyd), 500_000, "as little as one of those who wait");
        shares.lift(ann, [bob].into_iter());
        assert_eq!(shares.counter(ann), 900_000, "never down");
        shares.charge(Shares::bill(ann, 1.0, 100));
        shares.lift(cyd, std::iter::empty());
        assert_eq!(shares.counter(cyd), 1_000_000, "as much as who was served last, if nobody waits");
    }

    /// One server that takes the flow with the smallest counter, requests of so many tokens per flow that are all there, and what each flow
    /// has had, in units, after every request.
    fn serve(weights: &[f64], requests: &[Vec<u32>]) -> Vec<(usize, Vec<u64>)> {
        let mut shares = Shares::default();
        let flows: Vec<Flow> = (0..weights.len()).map(|i| of(&mut shares, Some(&i.to_string()), None)).collect();
        let mut waiting: Vec<VecDeque<u32>> = requests.iter().map(|of| of.iter().copied().collect()).collect();
        let mut log = Vec::new();
        while let Some(next) =
            (0..flows.len()).filter(|i| !waiting[*i].is_empty()).min_by_key(|i| shares.counter(flows[*i]))
        {
            let tokens = waiting[next].pop_front().unwrap_or_default();
            shares.charge(Shares::bill(flows[next], weights[next], tokens));
            log.push((next, flows.iter().map(|flow| shares.counter(*flow)).collect()));
        }
        log
    }

    /// Weights and requests of two to four flows.
    fn flows() -> impl Strategy<Value = (Vec<f64>, Vec<Vec<u32>>)> {
        prop::collection::vec((0.5..4.0_f64, prop::collection::vec(1..5000_u32, 1..30)), 2..5)
            .prop_map(|flows| flows.into_iter().unzip())
    }

    proptest! {
        /// Theorem 4.4 of the paper for a server that charges when it takes: while two flows both have requests waiting, they have had the same
        /// but for the largest request of one of them, by weight.
        #[test]
        fn who_waits_has_had_as_much_as_who_waits_beside_it((weights, requests) in flows()) {
            let largest = |i: usize| {
                f64::from(requests[i].iter().copied().max().unwrap_or(0)) * super::UNITS_PER_TOKEN / weights[i]
            };
            let mut left: Vec<usize> = requests.iter().map(Vec::len).collect();
            for (served, had) in serve(&weights, &requests) {
                left[served] -= 1;
                let waiting: Vec<usize> = (0..had.len()).filter(|i| left[*i] > 0).collect();
                for (a, b) in waiting.iter().flat_map(|a| waiting.iter().map(move |b| (*a, *b))) {
                    let apart = had[a].abs_diff(had[b]) as f64;
                    prop_assert!(apart <= largest(a).max(largest(b)) + 1.0, "{had:?} of {weights:?}");
                }
            }
            prop_assert!(left.iter().all(|left| *left == 0), "all are served");
        }
    }
}
