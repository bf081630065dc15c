//! The arena of a real search: the simulator, all loads, all windows to choose in.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use tokio_util::sync::CancellationToken;

use super::TuneConfig;
use super::figures::{Cell, cell};
use super::search::Arena;
use super::space::Point;
use crate::bench::Board;
use crate::bench::load::load;
use crate::bench::simulate::{Contender, Draw, Evaluated, Stage, Watch};
use crate::report::figures::{MAX_LOST_SHARE, lost_share};
use crate::report::strict::Strict;
use crate::workload::Arrivals;

/// Seeds from here on are for the check alone.
pub(super) const HELD_OUT: u64 = 1_000_000;

/// Simulates candidates and says how far it is.
pub(super) struct Simulated<'a> {
    pub(super) config: &'a TuneConfig,
    pub(super) loads: &'a [Arrivals],
    pub(super) board: &'a Board,
    pub(super) stop: &'a CancellationToken,
    /// Runs of the whole search: how many, or at most how many.
    pub(super) most: String,
    /// Runs so far.
    pub(super) done: AtomicU64,
    /// Loads under which the first candidate lost requests.
    pub(super) saturated: BTreeSet<String>,
}

impl Arena for Simulated<'_> {
    fn play(&mut self, points: &[Point], seeds: Range<u64>) -> Result<Option<Vec<Vec<Cell>>>> {
        ensure!(seeds.end <= HELD_OUT, "the search ran out of seeds: the later ones are kept for the check");
        let seeds: Vec<u64> = seeds.map(|seed| self.config.seed.wrapping_add(seed)).collect();
        let draws = Draw::all(&self.config.windows, &seeds);
        let candidates: Vec<Contender> = points.iter().map(|point| self.config.candidate(point)).collect();
        let mut by_load = Vec::new();
        for arrivals in self.loads {
            let Some(done) = self.under(*arrivals, &draws, &candidates)? else { return Ok(None) };
            by_load.push(done);
        }
        let cells = |candidate: usize| {
            (0..draws.len()).map(|draw| cell(by_load.iter().map(|load| &load[candidate][draw]))).collect::<Option<_>>()
        };
        let cells: Option<Vec<Vec<Cell>>> = (0..candidates.len()).map(cells).collect();
        cells.map(Some).context("no request counts in a part of the trace that was to choose the weights")
    }

    fn runs_per_seed(&self) -> u64 {
        (self.loads.len() * self.config.windows.len().max(1)) as u64
    }
}

impl Simulated<'_> {
    /// Latencies by candidate and draw; `None` after a stop.
    fn under(
        &mut self,
        arrivals: Arrivals,
        draws: &[Draw],
        candidates: &[Contender],
    ) -> Result<Option<Vec<Vec<Strict>>>> {
        let stage = Stage::new(&self.config.scene, arrivals, draws)?;
        let say = || {
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            self.board.phase(format!("searching: {done} of {} runs done", self.most));
        };
        let watch = Watch { stop: self.stop, partial: false, tallies: &[], finished: &say };
        let done = stage.evaluate(candidates, &watch)?;
        let lost = |evaluated: &Evaluated| lost_share(&evaluated.run) > MAX_LOST_SHARE;
        if done.first().is_some_and(|draws| draws.iter().flatten().any(lost)) {
            self.saturated.insert(load(arrivals).label());
        }
        let strict = |draws: Vec<Option<Evaluated>>| draws.into_iter().map(|one| Some(one?.strict)).collect();
        Ok(done.into_iter().map(strict).collect())
    }
}
