//! What may move: parameters of the strategy in force, each in a box that it never leaves.

use super::settings::{Range, TuneSettings};
use crate::routing::policy::{Entry, Parameter, Parameters};
use crate::routing::settings::{SettingsError, in_range};

/// Where no range is given: as far as this factor either way from the value at the start.
const REACH: f64 = 100.0;

/// One parameter and its box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// Its key.
    pub key: &'static str,
    /// Smallest value, above 0.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

impl Axis {
    /// The nearest value inside.
    #[must_use]
    pub fn clip(&self, value: f64) -> f64 {
        value.min(self.max).max(self.min)
    }
}

/// What is moved of a strategy where nobody says so: the weights of its score, not its sizes, gates and clocks. None of a strategy that
/// has no weights.
#[must_use]
pub fn usual(strategy: &str) -> &'static [&'static str] {
    match strategy {
        "predictive" => &["gamma", "kappa", "phi", "tail"],
        "gorgo" | "gorgo-score" | "gorgo-v3" => &["w_rtt", "w_queue"],
        "gorgo-v1" | "gorgo-proxy" => &["q"],
        "llm-d" => &["w_queue", "w_kv", "w_prefix"],
        "dynamo" => &["overlap_score_credit", "prefill_load_scale"],
        _ => &[],
    }
}

/// The rates that calibration moves.
pub(super) const RATES: [&str; 2] = ["prefill_ms_per_token", "queue_ms_per_token"];

/// Why nothing can be tuned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TuneError {
    /// The strategy, a parameter or a figure is not as wanted.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Nobody says what to move.
    #[error("strategy `{strategy}` has no weights that are usually tuned; name its parameters with `--key`")]
    NoKeys {
        /// The strategy in force.
        strategy: &'static str,
    },
    /// One weight cannot have two ranges.
    #[error("`{key}` is named twice")]
    Twice {
        /// The parameter.
        key: String,
    },
    /// Calibration fits rates and nothing else.
    #[error("`{key}` is no rate that calibration fits; those are prefill_ms_per_token and queue_ms_per_token")]
    NoRate {
        /// The parameter.
        key: String,
    },
    /// A factor does not move it.
    #[error("`{key}` is 0 and proposals are factors; set it above 0 first, or name other keys")]
    Zero {
        /// The parameter.
        key: String,
    },
    /// The ends do not fit.
    #[error(
        "range {min}..{max} of `{key}`: wanted 0 < MIN < MAX around its present value {value}, inside {lowest}..{highest}"
    )]
    Range {
        /// The parameter.
        key: String,
        /// As given.
        min: f64,
        /// As given.
        max: f64,
        /// In force.
        value: f64,
        /// Of the strategy's table.
        lowest: f64,
        /// Of the strategy's table.
        highest: f64,
    },
    /// Calibration is for a score with rates.
    #[error("strategy `{strategy}` has no rates to calibrate; `calibrated` is for `gorgo` and `gorgo-score`")]
    NoRates {
        /// The strategy in force.
        strategy: &'static str,
    },
    /// Something runs.
    #[error("a tuner runs already; stop it first")]
    Runs,
    /// Nothing does.
    #[error("no tuner runs; start one first")]
    NeverRan,
    /// It has ended.
    #[error("the tuner has ended ({why}); start a new one")]
    Over {
        /// Why.
        why: &'static str,
    },
}

/// The axes of a strategy with these parameters, and the values that they start at.
pub(super) fn axes(
    entry: &Entry,
    parameters: &Parameters,
    settings: &TuneSettings,
) -> Result<(Vec<Axis>, Vec<f64>), TuneError> {
    let strategy = entry.name;
    let calibrated = settings.method == super::Method::Calibrated;
    if calibrated && !RATES.iter().all(|rate| entry.parameters.iter().any(|parameter| parameter.key == *rate)) {
        return Err(TuneError::NoRates { strategy });
    }
    let usual = if calibrated { &RATES } else { usual(strategy) };
    let named: Vec<Range> = match settings.ranges.is_empty() || calibrated {
        true => usual.iter().map(|key| Range { key: (*key).to_owned(), bounds: bounds_of(settings, key) }).collect(),
        false => settings.ranges.clone(),
    };
    if named.is_empty() {
        return Err(TuneError::NoKeys { strategy });
    }
    if let Some(twice) =
        named.iter().enumerate().find(|(at, range)| named[..*at].iter().any(|other| other.key == range.key))
    {
        return Err(TuneError::Twice { key: twice.1.key.clone() });
    }
    if let Some(other) = settings.ranges.iter().find(|range| calibrated && !RATES.contains(&range.key.as_str())) {
        return Err(TuneError::NoRate { key: other.key.clone() });
    }
    let mut found = Vec::new();
    for range in &named {
        // An unknown key is told as everywhere: with the known ones.
        Parameters::resolve(strategy, entry.parameters, &[(range.key.clone(), f64::NAN)]).map(drop).or_else(known)?;
        let (parameter, value) =
            parameters.iter().find(|(parameter, _)| parameter.key == range.key).expect("resolved above");
        found.push((axis(parameter, *value, range)?, *value));
    }
    Ok(found.into_iter().unzip())
}

fn bounds_of(settings: &TuneSettings, key: &str) -> Option<(f64, f64)> {
    settings.ranges.iter().find(|range| range.key == key).and_then(|range| range.bounds)
}

/// Only the key was asked about, with a value that is out of every range.
fn known(error: SettingsError) -> Result<(), SettingsError> {
    if matches!(error, SettingsError::OutOfRange { .. }) { Ok(()) } else { Err(error) }
}

fn axis(parameter: &Parameter, value: f64, range: &Range) -> Result<Axis, TuneError> {
    let key = parameter.key;
    if value <= 0.0 {
        return Err(TuneError::Zero { key: key.to_owned() });
    }
    let Some((min, max)) = range.bounds else {
        let axis = Axis { key, min: (value / REACH).max(parameter.min), max: (value * REACH).min(parameter.max) };
        return Ok(axis);
    };
    let fits = min > 0.0 && min < max && (min..=max).contains(&value);
    let inside = in_range(key, min, parameter.min, parameter.max).and(in_range(key, max, parameter.min, parameter.max));
    if !fits || inside.is_err() {
        let (lowest, highest) = (parameter.min, parameter.max);
        return Err(TuneError::Range { key: key.to_owned(), min, max, value, lowest, highest });
    }
    Ok(Axis { key, min, max })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::{Method, Range, TuneSettings};
    use super::{axes, usual};
    use crate::routing::policy::{Parameters, find, strategies};

    fn told(strategy: &str, set: &[(&str, f64)], settings: &TuneSettings) -> String {
        let entry = find(strategy).unwrap();
        let set: Vec<_> = set.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        let parameters = Parameters::resolve(entry.name, entry.parameters, &set).unwrap();
        match axes(entry, &parameters, settings) {
            Err(error) => error.to_string(),
            Ok((axes, start)) => {
                let line =
                    |(axis, start): (&super::Axis, &f64)| format!("{} {start} in {}..{}", axis.key, axis.min, axis.max);
                axes.iter().zip(&start).map(line).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn keys(ranges: &[(&str, Option<(f64, f64)>)]) -> TuneSettings {
        let range = |(key, bounds): &(&str, Option<(f64, f64)>)| Range { key: (*key).to_owned(), bounds: *bounds };
        TuneSettings { ranges: ranges.iter().map(range).collect(), ..TuneSettings::default() }
    }

    #[test]
    fn boxes_come_from_the_table_and_from_what_is_asked() {
        let usual = TuneSettings::default();
        let calibrated = TuneSettings { method: Method::Calibrated, ..TuneSettings::default() };
        let lines = [
            told("gorgo", &[], &usual),
            told("gorgo", &[("w_rtt", 100.0)], &usual),
            told("gorgo", &[], &calibrated),
            told("gorgo", &[], &keys(&[("w_queue", Some((0.01, 1.0)))])),
            told("random", &[], &usual),
            told("gorgo", &[("w_queue", 0.0)], &usual),
            told("gorgo", &[], &keys(&[("w_queu", None)])),
            told("gorgo", &[], &keys(&[("w_queue", Some((0.2, 1.0)))])),
            told("gorgo", &[], &keys(&[("w_queue", Some((0.01, 1000.0)))])),
            told("predictive", &[], &calibrated),
        ];
        assert_snapshot!(lines.join("\n"), @"
        w_rtt 1 in 0.01..100, w_queue 0.1 in 0.001..10
        w_rtt 100 in 1..1000, w_queue 0.1 in 0.001..10
        prefill_ms_per_token 0.094 in 0.00094..9.4, queue_ms_per_token 0.094 in 0.00094..9.4
        w_queue 0.1 in 0.01..1
        strategy `random` has no weights that are usually tuned; name its parameters with `--key`
        `w_queue` is 0 and proposals are factors; set it above 0 first, or name other keys
        strategy `gorgo` has no parameter `w_queu`; it has: w_rtt, prefill_ms_per_token, queue_ms_per_token, w_queue; did you mean `w_queue`?
        range 0.2..1 of `w_queue`: wanted 0 < MIN < MAX around its present value 0.1, inside 0..100
        range 0.01..1000 of `w_queue`: wanted 0 < MIN < MAX around its present value 0.1, inside 0..100
        strategy `predictive` has no rates to calibrate; `calibrated` is for `gorgo` and `gorgo-score`
        ");
    }

    #[test]
    fn what_is_usual_exists_and_can_be_moved() {
        for entry in strategies() {
            for key in usual(entry.name) {
                let parameter = entry.parameters.iter().find(|parameter| parameter.key == *key);
                assert!(parameter.is_some_and(|parameter| parameter.default > 0.0), "{} {key}", entry.name);
            }
        }
    }
}
