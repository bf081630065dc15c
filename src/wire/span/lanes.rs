//! Lanes: intervals that overlap are put beside each other, as few as will do.
//!
//! Perfetto drops a slice that overlaps another on its track without lying inside it; so each track carries one interval at a time.

use std::collections::BTreeSet;

/// The lane of each interval `(start, end)`, counted from 0, in the order of the intervals given. An interval begins where another
/// ends without needing a lane of its own. The number of lanes is the largest number of intervals at any one time.
#[must_use]
pub(super) fn lanes(intervals: &[(i64, i64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&index| (intervals[index], index));
    let mut lanes = vec![0; intervals.len()];
    let mut busy: BTreeSet<(i64, usize)> = BTreeSet::new();
    let mut free: BTreeSet<usize> = BTreeSet::new();
    for index in order {
        let (start, end) = intervals[index];
        while let Some(&(until, lane)) = busy.first()
            && until <= start
        {
            busy.pop_first();
            free.insert(lane);
        }
        let lane = free.pop_first().unwrap_or(busy.len());
        lanes[index] = lane;
        busy.insert((end.max(start), lane));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::prop;
    use proptest::{prop_assert, proptest};

    use super::lanes;

    #[test]
    fn one_lane_while_nothing_overlaps() {
        type Intervals = &'static [(i64, i64)];
        let cases: [(Intervals, &[usize]); 6] = [
            (&[], &[]),
            (&[(0, 5), (5, 9), (9, 9)], &[0, 0, 0]),
            (&[(0, 5), (4, 9), (5, 6)], &[0, 1, 0]),
            (&[(4, 9), (0, 5)], &[1, 0]),
            (&[(0, 9), (0, 9), (0, 9), (9, 10)], &[0, 1, 2, 0]),
            (&[(3, 1), (3, 3)], &[0, 0]),
        ];
        for (intervals, wanted) in cases {
            assert_eq!(lanes(intervals), wanted, "{intervals:?}");
        }
    }

    proptest! {
        #[test]
        fn no_lane_has_two_at_a_time_and_no_lane_is_wasted(
            intervals in prop::collection::vec((0_i64..60, 0_i64..20), 0..40),
        ) {
            let intervals: Vec<_> = intervals.into_iter().map(|(start, length)| (start, start + length)).collect();
            let lanes = lanes(&intervals);
            for (i, a) in intervals.iter().enumerate() {
                for (j, b) in intervals.iter().enumerate().skip(i + 1) {
                    let together = a.0.max(b.0) < a.1.min(b.1);
                    prop_assert!(!together || lanes[i] != lanes[j], "{a:?} and {b:?}");
                }
            }
            let at_once = |t: i64| intervals.iter().filter(|(start, end)| *start <= t && (t < *end || *start == t)).count();
            let most = (0..80).map(at_once).max().unwrap_or(0);
            prop_assert!(lanes.iter().max().is_none_or(|lane| *lane < most));
        }
    }
}
