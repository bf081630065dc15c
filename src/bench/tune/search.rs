//! What searches have in common: where candidates play, and what comes out.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use anyhow::Result;

use super::figures::{Cell, Objective};
use super::space::Point;
use crate::report::schema::Compared;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every combination on every draw.
    Grid,
    /// Every combination on a third of the seeds, the best third of them on all.
    Halving,
    /// Small steps from the present weights, each one measured again before it is kept.
    Evolution,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Grid, Self::Halving, Self::Evolution];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grid => "grid",
            Self::Halving => "halving",
            Self::Evolution => "evolution",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(|kind| kind.to_string()).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("found `{text}`; wanted one of {}", known()))
    }
}

/// Where candidates play. All that play a seed play the same requests over the same network, whenever they do, so that their figures
/// can be paired.
pub trait Arena {
    /// The cells of every point, one per draw of these seeds in their order; `None` after a stop. Seeds count from 0.
    ///
    /// # Errors
    /// What cannot be simulated.
    fn play(&mut self, points: &[Point], seeds: Range<u64>) -> Result<Option<Vec<Vec<Cell>>>>;

    /// Simulated runs that one point on one seed takes.
    fn runs_per_seed(&self) -> u64;
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was tried.
    Exhausted,
    /// Several generations in a row brought no gain larger than their noise.
    Settled,
    /// The next generation would have been beyond the budget.
    Budget,
    /// Somebody stopped it.
    Interrupted,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "everything was tried",
            Self::Settled => "no further gain was larger than the noise",
            Self::Budget => "the budget was used up",
            Self::Interrupted => "interrupted",
        })
    }
}

/// A point that was measured.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Where.
    pub point: Point,
    /// Its figures by draw.
    pub cells: Vec<Cell>,
    /// Those of what it is compared with, on the same draws.
    pub to: Vec<Cell>,
}

/// A point that took the place of the one before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Generation, from 1.
    pub generation: u64,
    /// The new point.
    pub point: Point,
    /// Its objective ÷ that of the one before, on seeds on which neither had played.
    pub ratio: Compared,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The best point; the start where nothing was better.
    pub winner: Point,
    /// What was measured, the best first; of a search by steps the last generation.
    pub trials: Vec<Trial>,
    /// The way to the winner, if there was one.
    pub steps: Vec<Step>,
    /// Simulated runs.
    pub runs: u64,
    /// Why it ended.
    pub ended: Ended,
}

impl Found {
    /// Nothing yet.
    pub(super) fn nothing(start: Point) -> Self {
        Self { winner: start, trials: Vec::new(), steps: Vec::new(), runs: 0, ended: Ended::Interrupted }
    }
}

/// The trials, each compared with the first one, the best first; equal ones keep their order, so that a tie changes nothing.
pub(super) fn ranked(objective: &Objective, points: &[Point], cells: Vec<Vec<Cell>>) -> Vec<Trial> {
    let to = cells.first().cloned().unwrap_or_default();
    let trial = |(point, cells): (&Point, Vec<Cell>)| Trial { point: point.clone(), cells, to: to.clone() };
    let mut trials: Vec<Trial> = points.iter().zip(cells).map(trial).collect();
    trials.sort_by(|a, b| objective.score(&a.cells, &a.to).total_cmp(&objective.score(&b.cells, &b.to)));
    trials
}

#[cfg(test)]
pub(super) mod testing {
    use std::ops::Range;

    use anyhow::Result;
    use rand::RngExt as _;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::{Arena, Cell};
    use crate::bench::tune::figures::COUNT;
    use crate::bench::tune::space::Point;

    /// An arena with a known best point: the logarithm of every figure is a bowl around it, plus what a seed does to all points, plus
    /// what it does to each.
    pub(in crate::bench::tune) struct Bowl {
        pub(in crate::bench::tune) best: Point,
        /// Height of the bowl one e-fold away from the best; 0 = flat.
        pub(in crate::bench::tune) depth: f64,
        /// Largest deviation of one point on one seed.
        pub(in crate::bench::tune) noise: f64,
        /// Every call.
        pub(in crate::bench::tune) calls: Vec<(Vec<Point>, Range<u64>)>,
        /// Calls after which a stop fires.
        pub(in crate::bench::tune) stop_after: usize,
    }

    impl Bowl {
        pub(in crate::bench::tune) fn new(best: &[f64], depth: f64, noise: f64) -> Self {
            Self { best: best.to_vec(), depth, noise, calls: Vec::new(), stop_after: usize::MAX }
        }

        fn cell(&self, point: &Point, seed: u64) -> Cell {
            let away = |(value, best): (&f64, &f64)| (value / best).ln().powi(2);
            let bowl: f64 = point.iter().zip(&self.best).map(away).sum();
            let common = ChaCha8Rng::seed_from_u64(seed).random_range(-3.0..3.0);
            let own = point.iter().fold(seed, |mixed, value| mixed.rotate_left(7) ^ value.to_bits());
            let own = ChaCha8Rng::seed_from_u64(own).random_range(-1.0..1.0);
            [5.0 + self.depth * bowl + common + self.noise * own; COUNT]
        }
    }

    impl Arena for Bowl {
        fn play(&mut self, points: &[Point], seeds: Range<u64>) -> Result<Option<Vec<Vec<Cell>>>> {
            self.calls.push((points.to_vec(), seeds.clone()));
            let of = |point: &Point| seeds.clone().map(|seed| self.cell(point, seed)).collect();
            Ok((self.calls.len() <= self.stop_after).then(|| points.iter().map(of).collect()))
        }

        fn runs_per_seed(&self) -> u64 {
            3
        }
    }
}
