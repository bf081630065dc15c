//! How the clocks of several nodes stand to each other, as far as messages between them tell.
//!
//! Every round trip bounds the difference of two clocks: what B stamps stands between what A stamps before and after (NTP, RFC 5905,
//! section 8, has the midpoint of the same interval as its offset and half its width as the error). Bounds of one pair are
//! intersected; a node that did not talk to the reference is reached over others, along the way with the smallest error. Nothing is
//! assumed of symmetry: the true difference lies within the error, however lopsided the way there and back. Clocks drift (some 10 µs per
//! second) or are set, and then bounds of one pair contradict each other: the narrowest is kept, and the error grows until it reaches
//! all of them, so that it holds for the whole of a trace.

use std::collections::BTreeMap;

/// Something that is known of two clocks: `to` shows between `low_us` and `high_us` more than `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// One node, by its place in the list.
    pub from: usize,
    /// Another.
    pub to: usize,
    /// Least difference, µs.
    pub low_us: i64,
    /// Largest difference, µs.
    pub high_us: i64,
}

/// How a clock stands to the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// It shows this much more than the reference, µs.
    pub offset_us: i64,
    /// The truth is no further away than this, µs.
    pub error_us: i64,
}

/// Clocks of all nodes, and what did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Per node; the first with 0 ± 0 is the reference, `None` = nothing ties it to the reference.
    pub offsets: Vec<Option<Offset>>,
    /// Bounds that contradict narrower ones of the same pair, or themselves.
    pub contradictions: usize,
}

/// Aligns the clocks of `nodes` nodes with that of node 0.
#[must_use]
pub fn align(nodes: usize, bounds: &[Bound]) -> Alignment {
    let (edges, contradictions) = intersect(nodes, bounds);
    let mut offsets: Vec<Option<Offset>> = vec![None; nodes];
    let mut best: Vec<Option<Offset>> = vec![None; nodes];
    if let Some(first) = best.first_mut() {
        *first = Some(Offset { offset_us: 0, error_us: 0 });
    }
    // Dijkstra over a handful of nodes: the nearest one that is not settled, then its neighbours through it.
    while let Some((node, at)) = nearest(&best, &offsets) {
        offsets[node] = Some(at);
        for (&(from, to), &Edge { low, high, slack }) in &edges {
            let (other, low, high) = match node {
                _ if node == from => (to, low, high),
                _ if node == to => (from, high.saturating_neg(), low.saturating_neg()),
                _ => continue,
            };
            let middle = low.midpoint(high);
            let reached = Offset {
                offset_us: at.offset_us.saturating_add(middle),
                error_us: at.error_us.saturating_add(high.saturating_sub(middle)).saturating_add(slack),
            };
            if best[other].is_none_or(|known| reached.error_us < known.error_us) {
                best[other] = Some(reached);
            }
        }
    }
    Alignment { offsets, contradictions }
}

fn nearest(best: &[Option<Offset>], settled: &[Option<Offset>]) -> Option<(usize, Offset)> {
    let open = best.iter().enumerate().filter(|(node, _)| settled[*node].is_none());
    open.filter_map(|(node, at)| Some((node, (*at)?))).min_by_key(|(node, at)| (at.error_us, *node))
}

/// What is known of a pair.
#[derive(Clone, Copy)]
struct Edge {
    low: i64,
    high: i64,
    /// How far away the farthest bound is that contradicts these.
    slack: i64,
}

type Edges = BTreeMap<(usize, usize), Edge>;

/// One interval per pair: the narrowest bound, narrowed by those that agree with it.
fn intersect(nodes: usize, bounds: &[Bound]) -> (Edges, usize) {
    let mut sorted: Vec<Bound> = bounds
        .iter()
        .filter(|bound| bound.from != bound.to && bound.from.max(bound.to) < nodes && bound.low_us <= bound.high_us)
        .map(|&bound| turned(bound))
        .collect();
    sorted.sort_by_key(|bound| {
        (bound.from, bound.to, i128::from(bound.high_us) - i128::from(bound.low_us), bound.low_us)
    });
    let mut edges = Edges::new();
    let mut contradictions = bounds.len() - sorted.len();
    for Bound { from, to, low_us, high_us } in sorted {
        let edge = edges.entry((from, to)).or_insert(Edge { low: low_us, high: high_us, slack: 0 });
        let (low, high) = (edge.low.max(low_us), edge.high.min(high_us));
        if low <= high {
            (edge.low, edge.high) = (low, high);
        } else {
            contradictions += 1;
            edge.slack = edge.slack.max(low.saturating_sub(high));
        }
    }
    (edges, contradictions)
}

/// The same from the lower node to the higher.
fn turned(bound: Bound) -> Bound {
    if bound.from < bound.to {
        return bound;
    }
    let (low_us, high_us) = (bound.high_us.saturating_neg(), bound.low_us.saturating_neg());
    Bound { from: bound.to, to: bound.from, low_us, high_us }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, prop};
    use proptest::{prop_assert, proptest};

    use super::{Alignment, Bound, Offset, align};

    fn bound(from: usize, to: usize, low_us: i64, high_us: i64) -> Bound {
        Bound { from, to, low_us, high_us }
    }

    fn at(offset_us: i64, error_us: i64) -> Option<Offset> {
        Some(Offset { offset_us, error_us })
    }

    const TEN_MINUTES: i64 = 600_000_000;

    #[test]
    fn clocks_from_round_trips() {
        let zero = at(0, 0);
        type Case = (&'static str, usize, Vec<Bound>, Vec<Option<Offset>>, usize);
        let cases: [Case; 9] = [
            ("nobody", 0, vec![], vec![], 0),
            ("nobody talks", 2, vec![], vec![zero, None], 0),
            (
                "ten minutes off",
                2,
                vec![bound(0, 1, TEN_MINUTES - 40, TEN_MINUTES + 60)],
                vec![zero, at(TEN_MINUTES + 10, 50)],
                0,
            ),
            (
                "the other way round",
                2,
                vec![bound(1, 0, -TEN_MINUTES - 60, -TEN_MINUTES + 40)],
                vec![zero, at(TEN_MINUTES + 10, 50)],
                0,
            ),
            // One way takes all of the time in the one sample, none in the other: together they leave nothing open.
            ("lopsided", 2, vec![bound(0, 1, 100, 200), bound(0, 1, 0, 100)], vec![zero, at(100, 0)], 0),
            (
                "over a third",
                3,
                vec![bound(0, 1, 90, 110), bound(2, 1, -20, 0)],
                vec![zero, at(100, 10), at(110, 20)],
                0,
            ),
            (
                "the way with the smaller error",
                3,
                vec![bound(0, 1, 90, 110), bound(1, 2, 0, 20), bound(0, 2, 0, 200)],
                vec![zero, at(100, 10), at(110, 20)],
                0,
            ),
            ("a clock that was set", 2, vec![bound(0, 1, 5, 9), bound(0, 1, 1000, 1010)], vec![zero, at(7, 993)], 1),
            ("nonsense", 2, vec![bound(0, 0, 1, 2), bound(0, 7, 1, 2), bound(0, 1, 9, 5)], vec![zero, None], 3),
        ];
        for (name, nodes, bounds, offsets, contradictions) in cases {
            assert_eq!(align(nodes, &bounds), Alignment { offsets, contradictions }, "{name}");
        }
    }

    proptest! {
        /// However far the clocks are apart and however lopsided every trip, the truth is within the error that is told.
        #[test]
        fn the_truth_lies_within_the_error(
            clocks in prop::collection::vec(-TEN_MINUTES..TEN_MINUTES, 2..6),
            trips in prop::collection::vec((0_usize..6, 0_usize..6, 0_i64..500_000, 0_i64..500_000), 1..60)
                .prop_map(|trips| trips.into_iter().filter(|(a, b, ..)| a != b).collect::<Vec<_>>()),
        ) {
            let nodes = clocks.len();
            let trips = trips.iter().filter(|(a, b, ..)| *a < nodes && *b < nodes);
            let bounds: Vec<Bound> = trips
                .map(|&(from, to, there, back)| {
                    // `to` stamps at true time 0; `from` has stamped before and stamps after.
                    let stamp = clocks[to];
                    bound(from, to, stamp - (clocks[from] + back), stamp - (clocks[from] - there))
                })
                .collect();
            let Alignment { offsets, contradictions } = align(nodes, &bounds);
            prop_assert!(contradictions == 0);
            for (node, offset) in offsets.iter().enumerate() {
                if let Some(Offset { offset_us, error_us }) = offset {
                    let truth = clocks[node] - clocks[0];
                    // The midpoint is rounded to a whole microsecond at every node on the way.
                    prop_assert!((offset_us - truth).abs() <= error_us + nodes as i64, "{node}: {offset_us} ± {error_us}, is {truth}");
                }
            }
        }
    }
}
