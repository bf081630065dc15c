//! What to try next: a bounded step from the incumbent, inside the box.
//!
//! One weight moves at a time, by the factor exp(σ) or its inverse, so that a comparison, which costs hundreds of requests, is about a step
//! that is long enough to be told from noise, and its result says which weight did it. The order of the weights and which way goes first are
//! drawn; where one way fails, the other is next. After a gain the same way goes on. A round in which everything fails halves σ, a gain makes
//! it longer again, up to where it began; so it ends by itself.

use std::collections::VecDeque;

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::axes::Axis;
use super::settings::TuneSettings;

/// Factor of σ after a round of failures.
const SHRINK: f64 = 0.5;
/// Factor of σ after a gain.
const GROW: f64 = 1.4;
/// A step smaller than this on every axis is none, natural logarithm.
const SMALLEST: f64 = 0.01;

/// A weight, by its place, and which way: 1 or −1.
type Way = (usize, f64);

/// The search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    axes: Vec<Axis>,
    random: ChaCha8Rng,
    first: f64,
    sigma: f64,
    longest: f64,
    /// The way that was tried last.
    last: Option<Way>,
    /// What is left of the round.
    round: VecDeque<Way>,
    failures: u32,
}

impl Search {
    pub(super) fn new(axes: Vec<Axis>, settings: &TuneSettings) -> Self {
        Self {
            axes,
            random: ChaCha8Rng::seed_from_u64(settings.seed),
            first: settings.sigma,
            sigma: settings.sigma,
            longest: settings.factor.ln(),
            last: None,
            round: VecDeque::new(),
            failures: 0,
        }
    }

    pub(super) fn axes(&self) -> &[Axis] {
        &self.axes
    }

    pub(super) fn sigma(&self) -> f64 {
        self.sigma
    }

    /// Failures since the last gain.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The next candidate; `None` where the box leaves no room for any.
    pub(super) fn next(&mut self, incumbent: &[f64]) -> Option<Vec<f64>> {
        // What is left of this round, then a whole one.
        for _ in 0..=2 * self.ways() {
            if self.round.is_empty() {
                self.draw_round();
            }
            let (axis, way) = self.round.pop_front()?;
            let mut step = vec![0.0; self.axes.len()];
            step[axis] = way * self.sigma;
            if let Some(candidate) = self.at(incumbent, &step) {
                self.last = Some((axis, way));
                return Some(candidate);
            }
        }
        None
    }

    /// A candidate on the way to `target`; `None` where the incumbent is there, or as near as the box allows.
    pub(super) fn towards(&mut self, incumbent: &[f64], target: &[f64], near: f64) -> Option<Vec<f64>> {
        let target: Vec<f64> = self.axes.iter().zip(target).map(|(axis, value)| axis.clip(*value)).collect();
        let step: Vec<f64> = incumbent.iter().zip(&target).map(|(from, to)| (to / from).ln()).collect();
        self.last = None;
        if step.iter().all(|part| part.abs() < near) {
            return None;
        }
        self.at(incumbent, &step)
    }

    /// How the last candidate did.
    pub(super) fn judged(&mut self, gained: bool) {
        if gained {
            self.sigma = (self.sigma * GROW).min(self.first);
            self.failures = 0;
            if let Some(way) = self.last.take() {
                self.round.push_front(way);
            }
        } else {
            self.sigma *= SHRINK.powf(1.0 / self.ways() as f64);
            self.failures += 1;
        }
    }

    fn ways(&self) -> usize {
        2 * self.axes.len()
    }

    fn draw_round(&mut self) {
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        order.shuffle(&mut self.random);
        for axis in order {
            let way = if self.random.random() { 1.0 } else { -1.0 };
            self.round.extend([(axis, way), (axis, -way)]);
        }
    }

    /// The incumbent moved by this much, as far as is allowed.
    fn at(&self, incumbent: &[f64], step: &[f64]) -> Option<Vec<f64>> {
        let moved = |((axis, value), part): ((&Axis, &f64), &f64)| {
            axis.clip(value * part.clamp(-self.longest, self.longest).exp())
        };
        let candidate: Vec<f64> = self.axes.iter().zip(incumbent).zip(step).map(moved).collect();
        let moves = candidate.iter().zip(incumbent).any(|(to, from)| (to / from).ln().abs() >= SMALLEST);
        moves.then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::super::{Axis, TuneSettings};
    use super::Search;

    fn search(seed: u64) -> Search {
        let axes = vec![Axis { key: "a", min: 0.1, max: 10.0 }, Axis { key: "b", min: 0.05, max: 0.5 }];
        Search::new(axes, &TuneSettings { seed, ..TuneSettings::default() })
    }

    #[test]
    fn both_ways_of_every_weight_are_tried_and_a_gain_goes_on() {
        let mut search = search(1);
        let start = [1.0, 0.2];
        let mut tried = Vec::new();
        for _ in 0..4 {
            let candidate = search.next(&start).unwrap();
            let moved: Vec<f64> = candidate.iter().zip(start).map(|(to, from)| (to / from).ln()).collect();
            assert_eq!(moved.iter().filter(|part| **part == 0.0).count(), 1, "{moved:?}");
            tried.push((usize::from(moved[0] == 0.0), moved[0] + moved[1] > 0.0));
            search.judged(false);
        }
        assert_eq!((tried[0].0, tried[2].0), (tried[1].0, tried[3].0), "the other way is next");
        tried.sort_unstable();
        assert_eq!(tried, [(0, false), (0, true), (1, false), (1, true)]);
        assert!((search.sigma() - 0.25).abs() < 1e-12 && search.failures() == 4, "half after a round");
        let first = search.next(&start).unwrap();
        search.judged(true);
        let second = search.next(&first).unwrap();
        let axis = usize::from(first[0] == 1.0);
        let ups = (first[axis] > start[axis], second[axis] > first[axis]);
        assert_eq!((ups.0, second[1 - axis]), (ups.1, start[1 - axis]));
        (0..9).for_each(|_| search.judged(true));
        assert_eq!((search.sigma(), search.failures()), (0.5, 0), "never longer than at the start");
    }

    #[test]
    fn a_target_is_reached_in_bounded_steps() {
        let mut search = search(1);
        let mut at = vec![1.0, 0.2];
        let mut steps = Vec::new();
        while let Some(next) = search.towards(&at, &[7.0, 0.01], 0.05) {
            at = next;
            steps.push(at.clone());
        }
        assert_eq!(
            steps,
            [vec![2.0, 0.1], vec![4.0, 0.05], vec![7.0, 0.05]],
            "twice as much at a time, and never out of the box"
        );
    }

    proptest! {
        #[test]
        fn no_candidate_leaves_the_box_or_the_largest_step(
            seed in any::<u64>(),
            gains in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let mut search = search(seed);
            let mut at = vec![1.0, 0.2];
            for gained in gains {
                let Some(candidate) = search.next(&at) else { break };
                for ((to, from), axis) in candidate.iter().zip(&at).zip(search.axes()) {
                    prop_assert!((axis.min..=axis.max).contains(to));
                    prop_assert!((to / from).ln().abs() <= 2.0_f64.ln() + 1e-12);
                }
                if gained {
                    at = candidate;
                }
                search.judged(gained);
            }
        }
    }
}
