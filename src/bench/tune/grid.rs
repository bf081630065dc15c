//! Search of a grid: all of it, or a first look at all of it and a second one at what looked best.

use anyhow::Result;

use super::figures::Objective;
use super::search::{Arena, Ended, Found, ranked};
use super::space::Point;

/// Share of the seeds on which a first look is had, and of the points that get a second one.
const FIRST: u64 = 3;

/// Every point on every seed. The first point is the start; it stays unless another one is better.
///
/// # Errors
/// What cannot be simulated.
pub fn grid(arena: &mut dyn Arena, objective: &Objective, points: &[Point], seeds: u64) -> Result<Found> {
    let mut found = Found::nothing(points[0].clone());
    let Some(cells) = arena.play(points, 0..seeds)? else { return Ok(found) };
    found.runs = points.len() as u64 * seeds * arena.runs_per_seed();
    found.trials = ranked(objective, points, cells);
    found.winner = found.trials[0].point.clone();
    found.ended = Ended::Exhausted;
    Ok(found)
}

/// Every point on a third of the seeds, then the best third of the points, and the start, on all seeds. Only what played all seeds can
/// win: what looked best on few may have been lucky.
///
/// # Errors
/// What cannot be simulated.
pub fn halving(arena: &mut dyn Arena, objective: &Objective, points: &[Point], seeds: u64) -> Result<Found> {
    let few = seeds.div_ceil(FIRST);
    if few == seeds {
        return grid(arena, objective, points, seeds);
    }
    let first = grid(arena, objective, points, few)?;
    if first.ended != Ended::Exhausted {
        return Ok(first);
    }
    let kept = first.trials.len().div_ceil(FIRST as usize);
    let better = first.trials.iter().take(kept).map(|trial| &trial.point).filter(|point| **point != points[0]);
    let finalists: Vec<Point> = std::iter::once(&points[0]).chain(better).cloned().collect();
    let second = grid(arena, objective, &finalists, seeds)?;
    let runs = first.runs + second.runs;
    if second.ended != Ended::Exhausted {
        // The first look stays visible, but it chooses nobody.
        return Ok(Found { winner: points[0].clone(), ended: Ended::Interrupted, runs, ..first });
    }
    let rest = first.trials.into_iter().filter(|trial| !finalists.contains(&trial.point));
    Ok(Found { trials: second.trials.into_iter().chain(rest).collect(), runs, ..second })
}

/// Runs that a search of a grid takes.
#[must_use]
pub fn runs(points: usize, seeds: u64, runs_per_seed: u64, halved: bool) -> u64 {
    let points = points as u64;
    let few = seeds.div_ceil(FIRST);
    // The start is a finalist whether or not it is among the best.
    let finalists = (points.div_ceil(FIRST) + 1).min(points);
    let plays = if halved && few < seeds { points * few + finalists * seeds } else { points * seeds };
    plays * runs_per_seed
}

#[cfg(test)]
mod tests {
    use super::super::figures::Objective;
    use super::super::search::testing::Bowl;
    use super::super::search::{Arena as _, Ended};
    use super::{grid, halving, runs};
    use crate::bench::tune::space::Point;

    /// 6 × 7 points around (1, 0.1), which is the start.
    fn points() -> Vec<Point> {
        let rtt = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
        let queue = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
        let mut all: Vec<Point> = rtt.iter().flat_map(|a| queue.iter().map(|b| vec![*a, *b])).collect();
        all.retain(|point| *point != [1.0, 0.1]);
        all.insert(0, vec![1.0, 0.1]);
        all
    }

    #[test]
    fn a_grid_finds_the_point_nearest_to_the_best_and_ranks_the_others() {
        let mut bowl = Bowl::new(&[2.5, 0.022], 0.1, 0.0);
        let found = grid(&mut bowl, &Objective::default(), &points(), 2).unwrap();
        assert_eq!(found.winner, [3.0, 0.02]);
        assert_eq!((found.ended, found.runs, found.trials.len()), (Ended::Exhausted, 42 * 2 * 3, 42));
        assert_eq!(found.runs, runs(42, 2, bowl.runs_per_seed(), false));
        assert_eq!(found.trials[41].point, [0.1, 1.0], "the farthest is the worst");
        let compared = Objective::default().compared(&found.trials[0].cells, &found.trials[0].to);
        assert!(compared.mean < 1.0 && compared.low == compared.high, "paired seeds: what they do to all is gone");
    }

    #[test]
    fn where_nothing_is_better_the_start_stays() {
        let flat = grid(&mut Bowl::new(&[1.0, 1.0], 0.0, 0.0), &Objective::default(), &points(), 2).unwrap();
        assert_eq!(flat.winner, [1.0, 0.1]);
    }

    #[test]
    fn who_wins_after_a_first_look_played_all_seeds() {
        for noise in [0.0, 0.05, 2.0] {
            let mut bowl = Bowl::new(&[2.5, 0.022], 0.1, noise);
            let found = halving(&mut bowl, &Objective::default(), &points(), 6).unwrap();
            let [(all, first), (finalists, second)] = &bowl.calls[..] else { panic!("{} calls", bowl.calls.len()) };
            assert_eq!((all.len(), first.clone(), second.clone()), (42, 0..2, 0..6));
            assert!(finalists.len() <= 15 && finalists[0] == [1.0, 0.1] && finalists.contains(&found.winner));
            assert_eq!(found.trials[0].cells.len(), 6, "the winner's figures are those of all seeds");
            assert_eq!(found.trials.len(), 42, "the others are still told");
            assert!(found.runs <= runs(42, 6, 3, true) && found.runs < runs(42, 6, 3, false));
            if noise < 1.0 {
                assert_eq!(found.winner, [3.0, 0.02]);
            }
        }
        let mut few = Bowl::new(&[2.5, 0.022], 0.1, 0.0);
        assert_eq!(halving(&mut few, &Objective::default(), &points(), 1).unwrap().runs, runs(42, 1, 3, true));
    }

    #[test]
    fn a_stop_chooses_nobody() {
        for (calls, trials) in [(0, 0), (1, 42)] {
            let mut bowl = Bowl { stop_after: calls, ..Bowl::new(&[2.5, 0.022], 0.1, 0.0) };
            let found = halving(&mut bowl, &Objective::default(), &points(), 6).unwrap();
            assert_eq!((found.winner, found.ended), (vec![1.0, 0.1], Ended::Interrupted));
            assert_eq!(found.trials.len(), trials, "what was measured is still told");
        }
    }
}
