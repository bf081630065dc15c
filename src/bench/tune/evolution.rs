//! Search by small steps: an evolution strategy, (1 + λ), in the logarithms of the weights.
//!
//! A generation draws λ children of the incumbent, and all of them and the incumbent play seeds that nobody has played. The best of many
//! noisy figures is too good to be true, so the best child meets the incumbent once more, on further fresh seeds, and only what it does
//! there counts. An incumbent is therefore never known by one lucky measurement alone, in contrast to the online (1 + 1) strategy of the
//! paper, whose incumbent keeps the figure that it was accepted with for as long as it stays.
//!
//! Steps are bounded: no weight changes by more than e^(2σ) at once, σ is at most [`SIGMA_MOST`], and all stays inside the ranges. After
//! a step σ grows, without one it shrinks (Rechenberg's rule of success). The search ends when [`PATIENCE`] generations in a row brought
//! no gain that is larger than its 95 % interval, or when the next generation would be beyond the budget.

use anyhow::Result;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::StandardNormal;

use super::figures::Objective;
use super::search::{Arena, Ended, Found, Step, ranked};
use super::space::{Point, Space, short};
use crate::report::schema::Compared;

/// Children per generation: as many as there are directions to go in two weights.
const CHILDREN: usize = 4;
/// First step size in e-folds: as the paper's tuner.
const SIGMA: f64 = 0.5;
/// Largest step size.
const SIGMA_MOST: f64 = 1.0;
/// Factor on the step size after a step; its inverse fourth root follows a generation without one, so that one success in five keeps
/// the size (the rule's share).
const GROWTH: f64 = 1.5;
/// Generations in a row without a gain above the noise after which a search ends.
const PATIENCE: u32 = 4;
/// Draws from the normal distribution are cut off here, so that a step has a bound.
const CUT: f64 = 2.0;
/// Attempts at a child that nobody in its generation equals; near an end of all ranges there may be none.
const ATTEMPTS: u32 = 20;

/// How an evolution goes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Seeds per measurement, at least 2 for an interval.
    pub seeds: u64,
    /// Most simulated runs.
    pub budget: u64,
    /// Seed of the steps.
    pub seed: u64,
}

impl Rules {
    /// Runs that a generation takes at most: the children and the incumbent, then two of them again.
    #[must_use]
    pub fn generation(self, runs_per_seed: u64) -> u64 {
        (CHILDREN as u64 + 3) * self.seeds * runs_per_seed
    }
}

/// Searches from the start of the space.
///
/// # Errors
/// What cannot be simulated.
pub fn evolution(arena: &mut dyn Arena, objective: &Objective, space: &Space, rules: Rules) -> Result<Found> {
    let mut search = Search {
        objective,
        space,
        rules,
        rng: ChaCha8Rng::seed_from_u64(rules.seed),
        sigma: SIGMA,
        next_seed: 0,
        quiet: 0,
        found: Found::nothing(space.start()),
    };
    let most = rules.generation(arena.runs_per_seed());
    for generation in 1.. {
        if search.quiet >= PATIENCE {
            search.found.ended = Ended::Settled;
            break;
        }
        if search.found.runs + most > rules.budget {
            search.found.ended = Ended::Budget;
            break;
        }
        if search.generation(arena, generation)?.is_none() {
            search.found.ended = Ended::Interrupted;
            break;
        }
    }
    Ok(search.found)
}

struct Search<'a> {
    objective: &'a Objective,
    space: &'a Space,
    rules: Rules,
    rng: ChaCha8Rng,
    sigma: f64,
    /// Nobody has played this seed or a later one.
    next_seed: u64,
    /// Generations without a gain above the noise.
    quiet: u32,
    found: Found,
}

impl Search<'_> {
    /// One generation; `None` after a stop.
    fn generation(&mut self, arena: &mut dyn Arena, generation: u64) -> Result<Option<()>> {
        let incumbent = self.found.winner.clone();
        let points = self.family(&incumbent);
        if self.play(arena, &points)?.is_none() {
            return Ok(None);
        }
        let best = self.found.trials[0].point.clone();
        let mut gain = None;
        if best != incumbent {
            let screened = std::mem::take(&mut self.found.trials);
            if self.play(arena, &[incumbent, best.clone()])?.is_none() {
                self.found.trials = screened;
                return Ok(None);
            }
            gain = self.gain(&best);
            self.found.trials = screened;
        }
        self.judge(generation, best, gain);
        Ok(Some(()))
    }

    /// All points on seeds that nobody has played; the trials become theirs.
    fn play(&mut self, arena: &mut dyn Arena, points: &[Point]) -> Result<Option<()>> {
        let seeds = self.next_seed..self.next_seed + self.rules.seeds;
        self.next_seed = seeds.end;
        let Some(cells) = arena.play(points, seeds)? else { return Ok(None) };
        self.found.runs += points.len() as u64 * self.rules.seeds * arena.runs_per_seed();
        self.found.trials = ranked(self.objective, points, cells);
        Ok(Some(()))
    }

    /// What the best child has against the incumbent on the latest seeds.
    fn gain(&self, best: &Point) -> Option<Compared> {
        let trial = self.found.trials.iter().find(|trial| trial.point == *best)?;
        Some(self.objective.compared(&trial.cells, &trial.to))
    }

    fn judge(&mut self, generation: u64, best: Point, gain: Option<Compared>) {
        let better = gain.filter(|ratio| ratio.mean < 1.0);
        let above_noise = better.is_some_and(|ratio| ratio.high.is_some_and(|high| high < 1.0));
        self.quiet = if above_noise { 0 } else { self.quiet + 1 };
        match better {
            Some(ratio) => {
                self.sigma = (self.sigma * GROWTH).min(SIGMA_MOST);
                self.found.winner.clone_from(&best);
                self.found.steps.push(Step { generation, point: best, ratio });
            }
            None => self.sigma *= GROWTH.powf(-0.25),
        }
    }

    /// The incumbent and its children, no two equal.
    fn family(&mut self, incumbent: &Point) -> Vec<Point> {
        let mut points = vec![incumbent.clone()];
        for _ in 0..CHILDREN {
            let child = (0..ATTEMPTS).map(|_| self.child(incumbent)).find(|child| !points.contains(child));
            points.extend(child);
        }
        points
    }

    fn child(&mut self, parent: &Point) -> Point {
        let axes = self.space.axes.iter().zip(parent);
        axes.map(|(axis, value)| {
            let z: f64 = self.rng.sample(StandardNormal);
            let (low, high) = (axis.low(), axis.high());
            short(value.max(low) * (self.sigma * z.clamp(-CUT, CUT)).exp()).clamp(low, high)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Objective;
    use super::super::search::testing::Bowl;
    use super::super::search::{Ended, Found};
    use super::super::space::{Axis, Space};
    use super::{CUT, Rules, SIGMA_MOST, evolution};

    fn space() -> Space {
        let axis = |key: &str, low: f64, high: f64, start| Axis { key: key.into(), values: vec![low, high], start };
        Space { axes: vec![axis("w_rtt", 0.05, 25.0, 1.0), axis("w_queue", 0.01, 1.0, 0.1)] }
    }

    fn search(bowl: &mut Bowl, budget: u64, seed: u64) -> Found {
        evolution(bowl, &Objective::default(), &space(), Rules { seeds: 4, budget, seed }).unwrap()
    }

    #[test]
    fn it_comes_near_the_best_point_with_and_without_noise() {
        for (noise, seed) in [(0.0, 1), (0.0, 2), (0.05, 3), (0.05, 4), (0.05, 5)] {
            let mut bowl = Bowl::new(&[8.0, 0.02], 0.2, noise);
            let found = search(&mut bowl, 10_000, seed);
            let away = |value: f64, best: f64| (value / best).ln().abs();
            let [rtt, queue] = found.winner[..] else { panic!("{:?}", found.winner) };
            let (before, after) = (away(1.0, 8.0) + away(0.1, 0.02), away(rtt, 8.0) + away(queue, 0.02));
            assert!(after < 0.4 * before, "noise {noise}, seed {seed}: {:?} in {} runs", found.winner, found.runs);
            assert_eq!(found.steps.last().unwrap().point, found.winner);
        }
    }

    #[test]
    fn where_there_is_nothing_to_gain_it_soon_ends_and_claims_nothing() {
        let mut claimed = 0;
        for seed in 0..20 {
            let found = search(&mut Bowl::new(&[1.0, 1.0], 0.0, 0.3), 100_000, seed);
            assert_eq!(found.ended, Ended::Settled);
            claimed += found.steps.iter().filter(|step| step.ratio.high.is_some_and(|high| high < 1.0)).count();
        }
        // Half of 5 % of the generations look like a gain by chance; there are about five of them in a search.
        assert!(claimed <= 10, "{claimed} false gains in 20 searches");
    }

    #[test]
    fn the_incumbent_is_measured_anew_on_fresh_seeds_in_every_generation() {
        let mut bowl = Bowl::new(&[8.0, 0.02], 0.2, 0.05);
        let found = search(&mut bowl, 2000, 1);
        let mut incumbent = vec![1.0, 0.1];
        let mut steps = found.steps.iter();
        let (mut generation, mut next_seed) = (0, 0);
        for (points, seeds) in &bowl.calls {
            assert_eq!(seeds.start, next_seed, "no seed is played twice");
            next_seed = seeds.end;
            assert_eq!(points[0], incumbent);
            generation += u64::from(points.len() > 2);
            if points.len() == 2 {
                let step = steps.clone().next().filter(|step| step.generation == generation);
                if let Some(step) = step {
                    assert_eq!(points[1], step.point);
                    incumbent = steps.next().unwrap().point.clone();
                }
            }
        }
        assert_eq!((steps.next(), incumbent), (None, found.winner));
    }

    #[test]
    fn steps_are_bounded_and_stay_in_range_and_a_seed_repeats_them() {
        let mut bowl = Bowl::new(&[1000.0, 0.000_1], 0.2, 0.02);
        let found = search(&mut bowl, 5000, 9);
        assert_eq!(found.winner, [25.0, 0.01], "the best point lies outside of the ranges");
        for (points, _) in &bowl.calls {
            for (value, from) in points.iter().flat_map(|point| point.iter().zip(&points[0])) {
                assert!((value / from).ln().abs() <= CUT * SIGMA_MOST + 0.01, "{from} to {value}");
            }
        }
        let mut again = Bowl::new(&[1000.0, 0.000_1], 0.2, 0.02);
        let repeated = search(&mut again, 5000, 9);
        assert_eq!((again.calls, repeated.steps), (bowl.calls, found.steps));
    }

    #[test]
    fn the_budget_is_kept_and_a_stop_keeps_what_was_found() {
        let rules = Rules { seeds: 4, budget: 0, seed: 1 };
        let one = rules.generation(3);
        for (budget, ended) in [(one - 1, Ended::Budget), (one, Ended::Budget), (5 * one, Ended::Budget)] {
            let found = search(&mut Bowl::new(&[8.0, 0.02], 0.2, 0.0), budget, 1);
            assert!(found.runs <= budget && found.ended == ended, "{} of {budget}", found.runs);
        }
        let mut bowl = Bowl { stop_after: 5, ..Bowl::new(&[8.0, 0.02], 0.2, 0.0) };
        let found = search(&mut bowl, 10_000, 1);
        assert_eq!((found.ended, bowl.calls.len()), (Ended::Interrupted, 6));
        assert!(!found.steps.is_empty() && !found.trials.is_empty());
    }
}
