//! Timestamps that were rounded to coarse buckets, spread again inside their buckets.
//!
//! The public Mooncake conversation trace has 3-second buckets: replayed literally it sends bursts of about ten requests at once
//! that nobody sent. True order and gaps inside a bucket are lost; even spacing is the least that can be assumed.

use rand::RngExt;

use super::arrivals::{Stream, generator};

/// Rows per distinct timestamp from which timestamps can be buckets.
const ROWS_PER_BUCKET: usize = 2;

/// Tolerated deviation of a gap from a multiple of the bucket's width (clocks of recorders are off by a millisecond or two).
const TOLERANCE: f64 = 0.01;

/// The width of the buckets in ms, if the times are bucketed: several rows share most times, and the gaps between distinct
/// times are multiples of one width. `times` in any order.
#[must_use]
pub fn bucket_ms(times: &[f64]) -> Option<f64> {
    let mut distinct = times.to_vec();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    if distinct.len() < 3 || times.len() < ROWS_PER_BUCKET * distinct.len() {
        return None;
    }
    let gaps: Vec<f64> = distinct.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let width = sorted[sorted.len() / 2];
    let is_multiple = |gap: &&f64| {
        let count = (**gap / width).round();
        count >= 1.0 && (**gap - count * width).abs() <= TOLERANCE * width
    };
    let regular = gaps.iter().filter(is_multiple).count();
    (width > 1.0 && regular * 10 >= gaps.len() * 9).then_some(width)
}

/// The times, evenly spread inside their buckets if they are bucketed. Each bucket has one random shift, so that no instant is
/// hit by every bucket; the order of rows is kept, and no row leaves its bucket.
#[must_use]
pub fn spread(times: &[f64], seed: u64) -> Vec<f64> {
    let Some(width) = bucket_ms(times) else {
        return times.to_vec();
    };
    let mut rng = generator(seed, Stream::Spread);
    let mut rows: Vec<usize> = (0..times.len()).collect();
    rows.sort_by(|&a, &b| times[a].total_cmp(&times[b]));
    let mut spread = times.to_vec();
    let mut buckets = rows.chunk_by(|&a, &b| times[a] == times[b]).peekable();
    while let Some(bucket) = buckets.next() {
        let begin = times[bucket[0]];
        let room = buckets.peek().map_or(width, |next| width.min(times[next[0]] - begin));
        let shift: f64 = rng.random();
        for (place, &row) in bucket.iter().enumerate() {
            spread[row] = begin + room * (place as f64 + shift) / bucket.len() as f64;
        }
    }
    spread
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prop_assert, prop_assert_eq, proptest};

    use super::{bucket_ms, spread};

    /// `count` rows at each of the times.
    fn rows(times: &[f64], count: usize) -> Vec<f64> {
        times.iter().flat_map(|&at| std::iter::repeat_n(at, count)).collect()
    }

    #[test]
    fn buckets_are_recognised_by_equal_times_on_a_grid() {
        let cases = [
            ("a grid", rows(&[0.0, 3000.0, 6000.0, 9000.0], 3), Some(3000.0)),
            ("off by a millisecond, one bucket empty", rows(&[0.0, 3000.0, 5999.0, 12_000.0], 3), Some(3000.0)),
            ("one row each", rows(&[0.0, 3000.0, 6000.0, 9000.0], 1), None),
            ("bursts at irregular times", rows(&[0.0, 1234.0, 1800.0, 9111.0, 9999.0], 5), None),
            ("milliseconds", rows(&[0.0, 1.0, 2.0, 3.0], 4), None),
            ("too few to tell", rows(&[0.0, 3000.0], 9), None),
            ("none", vec![], None),
        ];
        for (name, times, wanted) in cases {
            assert_eq!(bucket_ms(&times), wanted, "{name}");
        }
    }

    #[test]
    fn rows_spread_evenly_and_depend_on_the_seed() {
        let times = rows(&[0.0, 3000.0, 6000.0], 3);
        let even = spread(&times, 1);
        for bucket in even.chunks(3) {
            assert!(bucket.windows(2).all(|pair| (pair[1] - pair[0] - 1000.0).abs() < 1e-6), "{bucket:?}");
        }
        assert_eq!(even, spread(&times, 1));
        assert_ne!(even, spread(&times, 2));
        assert_ne!(even[0], even[3] - 3000.0, "each bucket has its own shift");
    }

    proptest! {
        #[test]
        fn order_and_bucket_are_kept(counts in collection::vec(0_usize..12, 0..40), seed: u64) {
            let times: Vec<f64> =
                counts.iter().zip(0_u32..).flat_map(|(&n, k)| std::iter::repeat_n(f64::from(k) * 3000.0, n)).collect();
            let spread = spread(&times, seed);
            prop_assert_eq!(times.len(), spread.len());
            prop_assert!(spread.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!(times.iter().zip(&spread).all(|(old, new)| (*old..=old + 3000.0).contains(new)));
        }
    }
}
