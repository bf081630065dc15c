//! Requests of one block, and what came of them.

use super::objective::{Figures, Sample};

/// Share of a block's requests at its start that does not count: what the block before has left in queues and batches.
const WASHOUT: f64 = 0.25;

/// A block and what is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    /// Requests that arrived.
    pub(super) arrived: usize,
    /// Of these with a candidate's weights.
    pub(super) with_rival: usize,
    /// Counting requests without an end.
    pub(super) open: usize,
    /// How many arrivals of the trial there had been when it was full.
    pub(super) full_at: Option<usize>,
    samples: Vec<Sample>,
    figures: Option<Figures>,
}

impl Block {
    /// Does the next request count?
    pub(super) fn counts_next(&self, size: usize) -> bool {
        self.arrived as f64 >= WASHOUT * size as f64
    }

    /// A counting request has ended, or is given up on.
    pub(super) fn ended(&mut self, sample: Sample) {
        self.open = self.open.saturating_sub(1);
        self.samples.push(sample);
    }

    /// Is nothing more waited for? `seen` arrivals of the trial so far: after `patience` more than when it was full, nothing is.
    pub(super) fn is_ripe(&self, seen: usize, patience: usize) -> bool {
        self.full_at.is_some_and(|full| self.open == 0 || seen >= full + patience)
    }

    /// Its figures, from then on fixed.
    pub(super) fn close(&mut self) -> Option<Figures> {
        if self.figures.is_none() {
            self.figures = Figures::of(&self.samples);
        }
        self.figures
    }

    /// Its figures, once they are fixed.
    pub(super) fn figures(&self) -> Option<Figures> {
        self.figures
    }
}
