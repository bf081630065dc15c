//! Where a search looks: which parameters of a strategy, and which of their values.

use std::str::FromStr;

use crate::model::spelling;
use crate::routing::decision::Unit;
use crate::routing::policy::{Entry, Parameters};

/// Values of a range where a search needs single ones: as many as the paper's grid has for `w_rtt`.
const STEPS: i32 = 6;
/// Most points of a grid. Beyond it a grid is the wrong tool.
const MOST_POINTS: usize = 10_000;

/// `w_rtt` of the grid `paper`, tokens per ms of round trip: from below the range in which the paper's authors searched to far above it.
/// Their published weights, 0.276 and 0.5, are among the points.
const PAPER_RTT_TOKENS: [f64; 6] = [0.05, 0.276, 1.0, 3.0, 10.0, 25.0];
/// `w_queue` of the same grid.
const PAPER_QUEUE: [f64; 7] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// What a person asked to search.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// The named grid of six values of `w_rtt` and seven of `w_queue`.
    Paper,
    /// A parameter and its values, in their order.
    Values(String, Vec<f64>),
    /// A parameter and the ends of its range.
    Range(String, f64, f64),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("found `{text}`; wanted `paper`, `KEY=VALUE,VALUE,…` or `KEY=LOW..HIGH`");
        if text == "paper" {
            return Ok(Self::Paper);
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(wanted);
        let (key, values) = text.split_once('=').ok_or_else(wanted)?;
        let key = key.trim().to_owned();
        if let Some((low, high)) = values.split_once("..") {
            let (low, high) = (number(low)?, number(high)?);
            return if 0.0 < low && low < high {
                Ok(Self::Range(key, low, high))
            } else {
                Err(format!("found `{text}`; wanted a range that begins above 0 and ends above its begin"))
            };
        }
        Ok(Self::Values(key, values.split(',').map(number).collect::<Result<_, _>>()?))
    }
}

/// One parameter that is searched.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its key.
    pub key: String,
    /// Its values, ascending, no two equal; at least one.
    pub values: Vec<f64>,
    /// Its value before the search.
    pub start: f64,
}

impl Axis {
    /// Smallest value.
    #[must_use]
    pub fn low(&self) -> f64 {
        self.values[0]
    }

    /// Largest value.
    #[must_use]
    pub fn high(&self) -> f64 {
        self.values[self.values.len() - 1]
    }
}

/// Values of the searched parameters, in the order of the axes.
pub type Point = Vec<f64>;

/// The parameters that are searched, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// In the order in which they were asked for.
    pub axes: Vec<Axis>,
}

impl Space {
    /// What was asked for of a strategy with its present parameters. Nothing asked for means the grid `paper`.
    ///
    /// # Errors
    /// Parameters that the strategy does not have, values out of their ranges, a parameter twice, too many points.
    pub fn new(entry: &Entry, present: &Parameters, asked: &[Asked]) -> Result<Self, String> {
        let asked = if asked.is_empty() { &[Asked::Paper][..] } else { asked };
        let mut axes: Vec<Axis> = Vec::new();
        for asked in asked {
            let wanted = match asked {
                Asked::Paper => paper(entry, present)?,
                Asked::Values(key, values) => vec![(key.clone(), values.clone())],
                Asked::Range(key, low, high) => vec![(key.clone(), steps(*low, *high))],
            };
            for (key, values) in wanted {
                if axes.iter().any(|axis| axis.key == key) {
                    return Err(format!("`{key}` is given twice"));
                }
                axes.push(axis(entry, present, key, values)?);
            }
        }
        let points = axes.iter().fold(1_usize, |points, axis| points.saturating_mul(axis.values.len()));
        if points > MOST_POINTS {
            return Err(format!(
                "{points} points; wanted at most {MOST_POINTS}: give fewer values, or `--search evolution`"
            ));
        }
        Ok(Self { axes })
    }

    /// The values before the search.
    #[must_use]
    pub fn start(&self) -> Point {
        self.axes.iter().map(|axis| axis.start).collect()
    }

    /// Every combination of the values, the last axis changing fastest; the start is first, whether or not it is among them.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let mut all: Vec<Point> = vec![Vec::new()];
        for axis in &self.axes {
            let longer = |point: &Point| -> Vec<Point> {
                axis.values.iter().map(|value| point.iter().copied().chain([*value]).collect()).collect()
            };
            all = all.iter().flat_map(longer).collect();
        }
        let start = self.start();
        all.retain(|point| *point != start);
        all.insert(0, start);
        all
    }

    /// A point with its keys.
    pub fn named<'a>(&'a self, point: &'a [f64]) -> impl Iterator<Item = (String, f64)> + 'a {
        self.axes.iter().zip(point).map(|(axis, value)| (axis.key.clone(), *value))
    }

    /// Keys whose value in a point stands at an end of what was searched, and whether that is the upper one.
    pub fn ends<'a>(&'a self, point: &'a [f64]) -> impl Iterator<Item = (&'a str, bool)> + 'a {
        let several = self.axes.iter().zip(point).filter(|(axis, _)| axis.values.len() > 1);
        several.filter_map(|(axis, value)| {
            let (low, high) = (*value <= axis.low(), *value >= axis.high());
            (low || high).then_some((axis.key.as_str(), high))
        })
    }
}

fn axis(entry: &Entry, present: &Parameters, key: String, mut values: Vec<f64>) -> Result<Axis, String> {
    let Some((parameter, start)) = present.iter().find(|(parameter, _)| parameter.key == key) else {
        let known: Vec<&str> = entry.parameters.iter().map(|parameter| parameter.key).collect();
        let hint = spelling::hint(&key, known.iter().copied());
        return Err(format!("strategy `{}` has no parameter `{key}`; it has: {}{hint}", entry.name, listed(&known)));
    };
    if let Some(value) = values.iter().find(|value| !(parameter.min..=parameter.max).contains(*value)) {
        return Err(format!("`{key}` is {value}, wanted {} to {}", parameter.min, parameter.max));
    }
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    Ok(Axis { key, values, start: *start })
}

fn listed(keys: &[&str]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

/// Values at equal ratios from one end to the other.
fn steps(low: f64, high: f64) -> Vec<f64> {
    let at = |step: i32| {
        if step == STEPS - 1 { high } else { short(low * (high / low).powf(f64::from(step) / f64::from(STEPS - 1))) }
    };
    (0..STEPS).map(at).collect()
}

/// The paper's score counts in tokens. Where a strategy counts in ms, a token per ms of round trip is worth its prefill time per token.
fn paper(entry: &Entry, present: &Parameters) -> Result<Vec<(String, Vec<f64>)>, String> {
    let has = |key: &str| entry.parameters.iter().any(|parameter| parameter.key == key);
    let ms_per_token = match entry.unit {
        Unit::Ms if has("prefill_ms_per_token") => present.get("prefill_ms_per_token"),
        Unit::Tokens if has("prefill_rate") => present.get("prefill_rate"),
        _ => 0.0,
    };
    if !has("w_rtt") || !has("w_queue") || ms_per_token <= 0.0 {
        let known: Vec<&str> = entry.parameters.iter().map(|parameter| parameter.key).collect();
        return Err(format!(
            "the grid `paper`, which is the default, is for scores with w_rtt and w_queue; name what is searched of `{}`, e.g. `--grid KEY=LOW..HIGH`, of: {}",
            entry.name,
            listed(&known)
        ));
    }
    let rtt = PAPER_RTT_TOKENS.iter().map(|tokens| short(tokens * ms_per_token)).collect();
    Ok(vec![("w_rtt".to_owned(), rtt), ("w_queue".to_owned(), PAPER_QUEUE.to_vec())])
}

/// To three digits: more cannot be told apart, and what is measured shall be what is printed.
#[must_use]
pub(super) fn short(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::{Asked, Space, short};
    use crate::routing::policy::{Parameters, find};

    fn space(strategy: &str, asked: &[&str]) -> Result<Space, String> {
        let entry = find(strategy).unwrap();
        let present = Parameters::resolve(entry.name, entry.parameters, &[]).unwrap();
        let asked: Vec<Asked> = asked.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        Space::new(entry, &present, &asked)
    }

    fn values(space: &Space) -> Vec<(&str, &[f64])> {
        space.axes.iter().map(|axis| (axis.key.as_str(), axis.values.as_slice())).collect()
    }

    #[test]
    fn the_paper_s_grid_is_in_the_unit_of_the_strategy() {
        let tokens = space("gorgo-v3", &[]).unwrap();
        let queue = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
        assert_eq!(values(&tokens), [("w_rtt", &[0.05, 0.276, 1.0, 3.0, 10.0, 25.0][..]), ("w_queue", &queue)]);
        assert_eq!((tokens.start(), tokens.points().len()), (vec![0.276, 0.5], 42), "the start is one of them");
        // Times 0.094 ms per token.
        let ms = space("gorgo", &["paper"]).unwrap();
        assert_eq!(values(&ms), [("w_rtt", &[0.0047, 0.0259, 0.094, 0.282, 0.94, 2.35][..]), ("w_queue", &queue)]);
        assert_eq!((ms.start(), ms.points().len()), (vec![1.0, 0.1], 43), "the start is none of them");
    }

    #[test]
    fn points_are_every_combination_with_the_start_first() {
        let found = space("gorgo", &["w_rtt=3,1", "w_queue=0.1,0.2,0.1"]).unwrap();
        let wanted = [[1.0, 0.1], [1.0, 0.2], [3.0, 0.1], [3.0, 0.2]].map(Vec::from);
        assert_eq!(found.points(), wanted);
        let named: Vec<_> = found.named(&wanted[3]).collect();
        assert_eq!(named, [("w_rtt".to_owned(), 3.0), ("w_queue".to_owned(), 0.2)]);
        let ends: Vec<_> = found.ends(&wanted[2]).collect();
        assert_eq!(ends, [("w_rtt", true), ("w_queue", false)]);
        let range = space("predictive", &["gamma=0.05..0.8"]).unwrap();
        assert_eq!(range.axes[0].values, [0.05, 0.0871, 0.152, 0.264, 0.459, 0.8]);
        assert_eq!(range.ends(&[0.152]).count(), 0);
    }

    #[test]
    fn mistakes_are_told_with_what_was_wanted() {
        let error = |strategy: &str, asked: &[&str]| space(strategy, asked).unwrap_err();
        for bad in ["w_rtt", "w_rtt=", "w_rtt=1,x", "w_rtt=2..1", "w_rtt=0..1", "w_rtt=nan"] {
            assert!(error("gorgo", &[bad]).starts_with(&format!("found `{bad}`; wanted ")), "{bad}");
        }
        assert!(error("gorgo", &["w_rt=1"]).ends_with("did you mean `w_rtt`?"));
        assert!(error("gorgo", &["w_rtt=-1"]).contains("`w_rtt` is -1, wanted 0 to 1000"));
        assert!(error("gorgo", &["paper", "w_rtt=1"]).contains("`w_rtt` is given twice"));
        assert!(error("predictive", &[]).contains("of: gamma, kappa"));
        assert!(error("round-robin", &[]).contains("of: none"));
        let many =
            format!("w_rtt={}", (0..2000).map(|n| (f64::from(n) / 2.0).to_string()).collect::<Vec<_>>().join(","));
        assert!(error("gorgo", &[&many, "w_queue=0.1..1"]).starts_with("12000 points; wanted at most"));
    }

    #[test]
    fn three_digits_are_kept() {
        assert_eq!([0.012_345, 1.0, 9.996, 1234.0].map(short), [0.0123, 1.0, 10.0, 1230.0]);
    }
}
