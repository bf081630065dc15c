//! What a search looks at: figures of a draw as logarithms, and which of them make its objective.

use std::str::FromStr;

use crate::report::compare::{FIGURES as COMPARED, compared};
use crate::report::schema::{Compared, Latency};
use crate::report::strict::Strict;

/// Reads a figure.
type Read = fn(&Latency) -> Option<f64>;

/// How many figures there are.
pub const COUNT: usize = 10;

/// All figures: key, whether it is of whole answers instead of first tokens, and how to read it.
const FIGURES: [(&str, bool, Read); COUNT] = [
    ("ttft_ms.mean", false, |latency| latency.mean),
    ("ttft_ms.p50", false, |latency| latency.p50),
    ("ttft_ms.p90", false, |latency| latency.p90),
    ("ttft_ms.p95", false, |latency| latency.p95),
    ("ttft_ms.p99", false, |latency| latency.p99),
    ("e2e_ms.mean", true, |latency| latency.mean),
    ("e2e_ms.p50", true, |latency| latency.p50),
    ("e2e_ms.p90", true, |latency| latency.p90),
    ("e2e_ms.p95", true, |latency| latency.p95),
    ("e2e_ms.p99", true, |latency| latency.p99),
];

/// Keys of all figures.
pub fn keys() -> impl Iterator<Item = &'static str> {
    FIGURES.iter().map(|(key, ..)| *key)
}

/// The figures of one draw: natural logarithms of ms, means over the loads, in the order of [`keys`].
pub type Cell = [f64; COUNT];

/// One figure, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure(usize);

impl Figure {
    /// Its key.
    #[must_use]
    pub fn key(self) -> &'static str {
        FIGURES[self.0].0
    }
}

impl FromStr for Figure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || keys().collect::<Vec<_>>().join(", ");
        keys().position(|key| key == text).map(Self).ok_or_else(|| format!("found `{text}`; wanted one of {}", known()))
    }
}

/// What is made small: the geometric mean of figures. At least one, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objective(Vec<Figure>);

impl Default for Objective {
    /// The four figures that comparisons have: first tokens alone can be bettered by piling decodes onto one replica.
    fn default() -> Self {
        Self(COMPARED.iter().filter_map(|(key, ..)| key.parse().ok()).collect())
    }
}

impl Objective {
    /// The mean of these.
    ///
    /// # Errors
    /// None, or one twice.
    pub fn new(figures: Vec<Figure>) -> Result<Self, String> {
        match figures.iter().enumerate().find(|(index, figure)| figures[..*index].contains(figure)) {
            Some((_, twice)) => Err(format!("`{}` is named twice", twice.key())),
            None if figures.is_empty() => Err("wanted at least one figure".to_owned()),
            None => Ok(Self(figures)),
        }
    }

    /// Keys of its figures.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|figure| figure.key())
    }

    /// Its logarithm.
    #[must_use]
    pub fn of(&self, cell: &Cell) -> f64 {
        self.0.iter().map(|figure| cell[figure.0]).sum::<f64>() / self.0.len() as f64
    }

    /// Own objective ÷ that of `to`, draw by draw, as logarithms.
    #[must_use]
    pub fn ratios(&self, own: &[Cell], to: &[Cell]) -> Vec<f64> {
        own.iter().zip(to).map(|(own, to)| self.of(own) - self.of(to)).collect()
    }

    /// Geometric mean over the draws of own objective ÷ that of `to`, with its interval.
    #[must_use]
    pub fn compared(&self, own: &[Cell], to: &[Cell]) -> Compared {
        compared(&self.ratios(own, to))
    }

    /// Mean logarithm of own objective ÷ that of `to`: what a search makes small.
    #[must_use]
    pub fn score(&self, own: &[Cell], to: &[Cell]) -> f64 {
        let ratios = self.ratios(own, to);
        ratios.iter().sum::<f64>() / ratios.len() as f64
    }
}

/// Every figure ÷ that of `to`, draw by draw, with its interval.
pub fn each(own: &[Cell], to: &[Cell]) -> impl Iterator<Item = (&'static str, Compared)> {
    keys().enumerate().map(move |(index, key)| {
        let logs: Vec<f64> = own.iter().zip(to).map(|(own, to)| own[index] - to[index]).collect();
        (key, compared(&logs))
    })
}

/// The cell of a draw from its latencies under each load; `None` where a figure is missing because no request counted.
#[must_use]
pub fn cell<'a>(loads: impl Iterator<Item = &'a Strict> + Clone) -> Option<Cell> {
    let count = loads.clone().count() as f64;
    let mut cell = [0.0; COUNT];
    for ((_, whole, read), sum) in FIGURES.iter().zip(&mut cell) {
        for strict in loads.clone() {
            let ms = read(if *whole { &strict.e2e_ms } else { &strict.ttft_ms })?;
            // Below a microsecond nothing is known; 0 has no logarithm.
            *sum += ms.max(0.001).ln() / count;
        }
    }
    (count > 0.0).then_some(cell)
}

#[cfg(test)]
mod tests {
    use super::{Figure, Objective, cell, each};
    use crate::report::schema::Latency;
    use crate::report::strict::Strict;

    fn strict(ttft_ms: f64, e2e_ms: f64) -> Strict {
        let all =
            |ms| Latency { mean: Some(ms), p50: Some(ms), p90: Some(ms), p95: Some(ms), p99: Some(ms), max: Some(ms) };
        Strict { ttft_ms: all(ttft_ms), e2e_ms: all(e2e_ms) }
    }

    #[test]
    fn the_objective_is_a_geometric_mean_over_figures_loads_and_draws() {
        let before = [cell([strict(100.0, 1000.0), strict(200.0, 2000.0)].iter()).unwrap()];
        // A quarter of the TTFT under one load, the same under the other; E2E twice as long under both.
        let after = [cell([strict(25.0, 2000.0), strict(200.0, 4000.0)].iter()).unwrap()];
        let of = |keys: &[&str]| {
            let figures: Vec<Figure> = keys.iter().map(|key| key.parse().unwrap()).collect();
            Objective::new(figures).unwrap().compared(&after, &before).mean
        };
        assert_eq!(of(&["ttft_ms.p95"]), 0.5);
        assert_eq!(of(&["e2e_ms.p95"]), 2.0);
        assert_eq!(of(&["ttft_ms.p95", "e2e_ms.mean"]), 1.0);
        let found: Vec<_> = each(&after, &before).filter(|(key, _)| key.ends_with("p99")).collect();
        assert_eq!(
            found.iter().map(|(key, ratio)| (*key, ratio.mean)).collect::<Vec<_>>(),
            [("ttft_ms.p99", 0.5), ("e2e_ms.p99", 2.0)]
        );
        let default: Vec<_> = Objective::default().keys().collect();
        assert_eq!(default, ["ttft_ms.p50", "ttft_ms.p95", "ttft_ms.p99", "e2e_ms.p95"]);
    }

    #[test]
    fn a_draw_without_requests_has_no_cell_and_wrong_objectives_are_told() {
        assert_eq!(cell([Strict::default()].iter()), None);
        assert_eq!(cell([].iter()), None);
        let p95: Figure = "ttft_ms.p95".parse().unwrap();
        assert!(Objective::new(vec![p95, p95]).unwrap_err().contains("`ttft_ms.p95` is named twice"));
        assert!(Objective::new(Vec::new()).is_err());
        assert!("p95".parse::<Figure>().unwrap_err().contains("wanted one of ttft_ms.mean, ttft_ms.p50"));
    }
}
