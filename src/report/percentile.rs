//! Percentiles by nearest rank and means.
//!
//! Nearest rank returns a value that was really measured and needs no interpolation rule; small samples therefore show steps.

use super::schema::{Latency, Spread};

/// The smallest value such that at least `per_mille` thousandths of the sample are not larger; `None` for an empty sample.
///
/// `sorted` ascends. Per mille instead of a fraction keeps the rank exact: `0.95 * 20.0` is not 19 in binary.
#[must_use]
pub fn nearest_rank(sorted: &[f64], per_mille: u32) -> Option<f64> {
    let rank = (sorted.len() as u64 * u64::from(per_mille)).div_ceil(1000).max(1);
    sorted.get(usize::try_from(rank - 1).ok()?).copied()
}

/// The arithmetic mean; `None` for an empty sample.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sorts ascending; NaN (never measured, but a total order costs nothing) goes last.
#[must_use]
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// All figures of a latency sample, in its own unit, rounded to a thousandth.
#[must_use]
pub fn latency(values: Vec<f64>) -> Latency {
    let values = sorted(values);
    let at = |per_mille| nearest_rank(&values, per_mille).map(round);
    Latency {
        mean: mean(&values).map(round),
        p50: at(500),
        p90: at(900),
        p95: at(950),
        p99: at(990),
        max: values.last().copied().map(round),
    }
}

/// Median and tail of a sample of errors or lags, rounded to a thousandth.
#[must_use]
pub fn spread(values: Vec<f64>) -> Spread {
    let values = sorted(values);
    let at = |per_mille| nearest_rank(&values, per_mille).map(round);
    Spread { n: values.len() as u64, p50: at(500), p95: at(950), p99: at(990), max: values.last().copied().map(round) }
}

/// Rounds to a thousandth: microseconds where the unit is ms. More digits would be noise that makes files differ.
#[must_use]
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// `part / whole`, `None` where there is no whole.
#[must_use]
pub fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{latency, mean, nearest_rank, ratio, sorted, spread};

    #[test]
    fn nearest_rank_against_hand_computed_tables() {
        let one_to = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        let cases = [
            (vec![], 500, None),
            (vec![7.0], 1, Some(7.0)),
            (vec![7.0], 1000, Some(7.0)),
            (vec![15.0, 20.0, 35.0, 40.0, 50.0], 300, Some(20.0)),
            (vec![15.0, 20.0, 35.0, 40.0, 50.0], 400, Some(20.0)),
            (vec![15.0, 20.0, 35.0, 40.0, 50.0], 500, Some(35.0)),
            (one_to(20), 950, Some(19.0)),
            (one_to(100), 990, Some(99.0)),
            (one_to(1000), 999, Some(999.0)),
            (one_to(4), 500, Some(2.0)),
        ];
        for (values, per_mille, expected) in cases {
            assert_eq!(nearest_rank(&values, per_mille), expected, "{per_mille} per mille of {values:?}");
        }
    }

    #[test]
    fn a_latency_sample_in_any_order() {
        let figures = latency(vec![30.0, 10.0, 20.0, 40.0]);
        assert_eq!(
            (figures.mean, figures.p50, figures.p90, figures.max),
            (Some(25.0), Some(20.0), Some(40.0), Some(40.0))
        );
        let nothing = latency(vec![]);
        assert_eq!((nothing.mean, nothing.p99), (None, None));
    }

    #[test]
    fn means_ratios_and_spreads() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
        assert_eq!(ratio(1.0, 4.0), Some(0.25));
        assert_eq!(ratio(1.0, 0.0), None);
        let lag = spread(vec![0.1, 0.2, 5.0]);
        assert_eq!((lag.n, lag.p50, lag.p95), (3, Some(0.2), Some(5.0)));
    }

    proptest! {
        #[test]
        fn a_percentile_is_a_measured_value_with_enough_values_below(
            values in proptest::collection::vec(0.0..1e6_f64, 1..200),
            per_mille in 1..=1000_u32,
        ) {
            let values = sorted(values);
            let found = nearest_rank(&values, per_mille).unwrap();
            prop_assert!(values.contains(&found));
            let not_larger = values.iter().filter(|value| **value <= found).count() as u64;
            prop_assert!(not_larger * 1000 >= values.len() as u64 * u64::from(per_mille));
        }

        #[test]
        fn percentiles_never_fall_as_the_rank_grows(values in proptest::collection::vec(any::<u32>(), 1..100)) {
            let figures = latency(values.into_iter().map(f64::from).collect());
            prop_assert!(figures.p50 <= figures.p90 && figures.p90 <= figures.p95);
            prop_assert!(figures.p95 <= figures.p99 && figures.p99 <= figures.max);
        }
    }
}
