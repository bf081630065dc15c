//! From values to places on an axis, and where to put the ticks.

/// An axis: its ends in values and in SVG units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// Equal steps for equal differences; `low < high`.
    #[must_use]
    pub(super) fn linear((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        Self { low, high, from, to, log: false }
    }

    /// Equal steps for equal ratios; `0 < low < high`.
    #[must_use]
    pub(super) fn log((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        Self { low, high, from, to, log: true }
    }

    /// Place of a value; values beyond an end stick to it.
    #[must_use]
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Values worth a tick.
    #[must_use]
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.log { log_ticks(self.low, self.high) } else { linear_ticks(self.low, self.high) }
    }
}

/// The ends of a log axis that holds all `values`: the next of 1, 2, 5 × 10ⁿ outwards. `None` without a positive value.
#[must_use]
pub(super) fn log_range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| value.is_finite() && *value > 0.0) {
        low = low.min(value);
        high = high.max(value);
    }
    if high == 0.0 {
        return None;
    }
    let (down, up) = (nice_below(low), nice_above(high));
    Some(if down < up { (down, up) } else { (down / 2.0, up * 2.0) })
}

/// The smallest of 1, 2, 5 × 10ⁿ that is not below `value` (positive).
#[must_use]
pub(super) fn nice_above(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    // A thousandth of slack: 5.0000001 from rounding errors should not become 10.
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * decade)
        .find(|nice| *nice >= value * 0.999)
        .unwrap_or(10.0 * decade)
}

fn nice_below(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|step| step * decade).find(|nice| *nice <= value * 1.001).unwrap_or(decade)
}

fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    let steps: &[f64] = if last - first > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    all.filter(|tick| *tick >= low * 0.999 && *tick <= high * 1.001).collect()
}

/// Between 4 and 10 round values.
fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = nice_above((high - low) / 8.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step * 1.000_001).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// A tick's label: no needless digits.
#[must_use]
pub(super) fn label(value: f64) -> String {
    if value.abs() >= 10_000.0 {
        return format!("{}k", label(value / 1000.0));
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::{Scale, label, log_range, nice_above};

    #[test]
    fn ends_map_to_ends_and_values_beyond_stick() {
        let log = Scale::log((10.0, 1000.0), (0.0, 200.0));
        assert_eq!([1.0, 10.0, 100.0, 1000.0, 9e9].map(|value| log.at(value).round()), [0.0, 0.0, 100.0, 200.0, 200.0]);
        let up = Scale::linear((0.0, 4.0), (100.0, 0.0));
        assert_eq!([0.0, 1.0, 4.0].map(|value| up.at(value)), [100.0, 75.0, 0.0]);
    }

    #[test]
    fn ticks_are_round_values() {
        assert_eq!(Scale::log((20.0, 500.0), (0.0, 1.0)).ticks(), [20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(Scale::log((1.0, 1e6), (0.0, 1.0)).ticks(), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]);
        assert_eq!(Scale::linear((0.0, 60.0), (0.0, 1.0)).ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(Scale::linear((0.0, 1.0), (0.0, 1.0)).ticks().len(), 6);
    }

    #[test]
    fn ranges_and_labels() {
        assert_eq!(log_range([23.0, 440.0].into_iter()), Some((20.0, 500.0)));
        assert_eq!(log_range([100.0].into_iter()), Some((50.0, 200.0)));
        assert_eq!(log_range([0.0, f64::NAN].into_iter()), None);
        assert_eq!([0.5, 1.0, 250.0, 20_000.0].map(label), ["0.5", "1", "250", "20k"]);
        assert_eq!(nice_above(5.000_01), 5.0);
    }

    proptest! {
        #[test]
        fn a_range_holds_its_values_and_has_ticks(a in 0.001..1e7_f64, b in 0.001..1e7_f64) {
            let (low, high) = log_range([a, b].into_iter()).unwrap();
            prop_assert!(low <= a.min(b) * 1.01 && a.max(b) <= high * 1.01 && low < high);
            prop_assert!(Scale::log((low, high), (0.0, 1.0)).ticks().len() >= 2);
        }
    }
}
