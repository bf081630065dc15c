//! What the guarded tuner is told at its start.

use super::objective::Objective;
use crate::routing::settings::{SettingsError, in_range};

/// Where proposals come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Bounded steps of one weight at a time, each tried the other way round if it fails.
    Evolution,
    /// Rates of `gorgo` fitted to measured times to first token.
    Calibrated,
}

impl Method {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Evolution, Self::Calibrated];

    /// Lower-case name, stable: `evolution`, `calibrated`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evolution => "evolution",
            Self::Calibrated => "calibrated",
        }
    }
}

/// A parameter to move, and how far.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Its key.
    pub key: String,
    /// Smallest and largest value that may be tried, inside those of the strategy's table; `None` = a hundredth of the value at the start
    /// to a hundred times it.
    pub bounds: Option<(f64, f64)>,
}

/// What the guarded tuner is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneSettings {
    /// Where proposals come from.
    pub method: Method,
    /// What may move; empty = what is usual for the strategy ([`super::usual`]).
    pub ranges: Vec<Range>,
    /// Share of the requests of a candidate's own blocks that stays with the incumbent, 0.05..=0.95. Half of the blocks are the incumbent's,
    /// so that the candidate never gets more than (1 − share) / 2 of a period.
    pub share: f64,
    /// Requests in a block, 8..=100,000.
    pub block: usize,
    /// Periods (a block of the incumbent and one of the candidate) in a trial, 7..=12: with fewer, even a candidate that is better every
    /// time could not be told from luck at [`super::LEVEL`]; with more the exact test would be slow.
    pub periods: usize,
    /// First step size, natural logarithm.
    pub sigma: f64,
    /// Step size below which it ends.
    pub stop: f64,
    /// Largest factor by which a proposal changes a parameter, above 1.
    pub factor: f64,
    /// What is to be small.
    pub objective: Objective,
    /// Seed of proposals, of the order of blocks and of who stays with the incumbent.
    pub seed: u64,
}

impl Default for TuneSettings {
    fn default() -> Self {
        Self {
            method: Method::Evolution,
            ranges: Vec::new(),
            share: 0.3,
            block: 64,
            periods: 10,
            sigma: 0.5,
            stop: 0.1,
            factor: 2.0,
            objective: Objective::Whole,
            seed: 0,
        }
    }
}

impl TuneSettings {
    /// Checks what does not belong to a parameter.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        in_range("share", self.share, 0.05, 0.95)?;
        in_range("block", self.block as f64, 8.0, 100_000.0)?;
        in_range("periods", self.periods as f64, 7.0, 12.0)?;
        in_range("sigma", self.sigma, 0.001, 3.0)?;
        in_range("stop", self.stop, 0.001, 3.0)?;
        in_range("factor", self.factor, 1.01, 100.0)
    }
}
