//! What a search of weights found: the document `gorgo.tuning/1`, and its face as text.
//!
//! Every ratio is to the weights as they were before the search, on the same draws; below 1 is better.

mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::schema::{Compared, Load, Report};
use super::{html, json};

pub use self::text::{render, verdict};

/// Name of the schema of this version.
pub const SCHEMA: &str = "gorgo.tuning/1";

/// Values of weights by key.
pub type Weights = BTreeMap<String, f64>;

/// A whole search and its check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of gorgo.
    pub gorgo: String,
    /// Whose weights.
    pub strategy: String,
    /// What was asked for, as resolved. Free-form; keys are those of the command.
    pub config: BTreeMap<String, serde_json::Value>,
    /// Keys of the figures whose geometric mean was made small.
    pub objective: Vec<String>,
    /// What was searched.
    pub axes: Vec<Axis>,
    /// How it went.
    pub search: Search,
    /// What was measured, the best first; of a search by steps its last generation, compared with the weights before it.
    pub trials: Vec<Trial>,
    /// Steps from the weights as they were to the best ones, in a search by steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The best weights found; those as they were where nothing was better.
    pub weights: Weights,
    /// What they do where nothing was chosen; absent after an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// What to be careful about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Lines for gorgo.toml with what is recommended; empty after an interruption.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub toml: String,
}

/// A weight that was searched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Its key.
    pub key: String,
    /// Values tried; of a search by steps the ends are the range.
    pub values: Vec<f64>,
    /// Its value before.
    pub start: f64,
}

/// How a search went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// `grid`, `halving` or `evolution`.
    pub kind: String,
    /// Why it ended.
    pub ended: String,
    /// True after an interruption: the figures cover what was measured until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Simulated runs of the search, without those of the capacity and of the check.
    pub runs: u64,
    /// Loads at which everything was measured.
    pub loads: Vec<Load>,
    /// Parts of the trace in which it was chosen, s; empty for all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows_s: Vec<String>,
}

/// A point that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Where.
    pub weights: Weights,
    /// On how many draws; each is played under all loads.
    pub draws: u64,
    /// Its objective ÷ that of the weights it is compared with.
    pub objective: Compared,
    /// The same figure by figure.
    pub ratios: BTreeMap<String, Compared>,
}

/// A step of a search.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Generation, from 1.
    pub generation: u64,
    /// Where it led.
    pub weights: Weights,
    /// Objective ÷ that before the step, on draws by which nothing was chosen.
    pub objective: Compared,
}

/// What a check on held-out draws says of the best weights found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gain {
    /// Better, and the interval says that it is not noise.
    Real,
    /// Better or worse by no more than the noise.
    Noise,
    /// Worse than before, and that is not noise.
    Loss,
    /// The search found nothing better than what was there.
    Nothing,
}

impl Gain {
    /// Of a ratio to what was there before.
    #[must_use]
    pub fn of(ratio: &Compared) -> Self {
        match (ratio.low, ratio.high) {
            (_, Some(high)) if high < 1.0 => Self::Real,
            (Some(low), _) if low > 1.0 => Self::Loss,
            _ => Self::Noise,
        }
    }
}

/// A check on draws by which nothing was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// What it says.
    pub gain: Gain,
    /// Objective of the best weights ÷ that of the weights as they were; absent where they are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Compared>,
    /// The same figure by figure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ratios: BTreeMap<String, Compared>,
    /// The comparison as `gorgo simulate` makes it: before, tuned, and the baseline if one was named.
    pub report: Report,
}

impl Tuning {
    /// As a file's text.
    ///
    /// # Errors
    /// Only if a number is none.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        json::text(self)
    }

    /// The check as one page, with what it says among its findings; `None` without a check.
    ///
    /// # Errors
    /// As [`html::page`].
    pub fn page(&self, title: &str) -> Result<Option<String>, serde_json::Error> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let mut report = held_out.report.clone();
        report.remarks.insert(0, verdict(self));
        report.remarks.extend(self.remarks.iter().cloned());
        html::page(&report, title).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::Gain;
    use crate::report::schema::Compared;

    #[test]
    fn a_gain_is_real_when_the_whole_interval_is_below_one() {
        let of = |mean, low, high| Gain::of(&Compared { mean, low, high });
        let cases = [
            (0.9, Some(0.8), Some(0.99), Gain::Real),
            (0.9, Some(0.8), Some(1.0), Gain::Noise),
            (1.0, Some(0.9), Some(1.1), Gain::Noise),
            (1.2, Some(1.01), Some(1.4), Gain::Loss),
            (0.5, None, None, Gain::Noise),
        ];
        for (mean, low, high, wanted) in cases {
            assert_eq!(of(mean, low, high), wanted, "{mean} [{low:?}, {high:?}]");
        }
    }
}
