//! `aibrix-prefix`: AIBrix's `prefix-cache`: the longest match among replicas that are not far busier than the others.
//!
//! ```text
//! score = not_matched  +  behind  +  load_share            points of a hundred; the smallest wins
//!
//! 1. If the requests of the candidates are more than `imbalance` apart, only those with the fewest are considered.
//! 2. Of these the ones that match and whose requests ≤ mean + deviations · σ: the largest match, then the fewest requests.
//! 3. Nobody is left: the fewest requests of all.
//! ```
//!
//! behind: points of the match that a replica of step 2 lacks to the largest. not_matched: 101 where step 2 has found others. load_share:
//! requests as a share of one more than the largest among the candidates, so below 1.
//!
//! vllm-project/aibrix, `pkg/plugins/gateway/algorithms/prefix_cache.go`: the imbalance is 8 and the factor 1 in the code (its README
//! says 16 and 2). Mean and σ (of a sample) are over all candidates. A match is a whole percentage of the prompt: what is below a
//! hundredth is none. requests: this router's in flight there, as AIBrix's gateway counts its own, and others' at a peer.
//!
//! Known weaknesses: among few replicas the limit means little or much (of two nobody is ever above it, of three one that is ahead of two
//! equals always is); a match of one hundredth goes before none, however busy, up to that limit, so that a common opening attracts all
//! traffic to the replicas that have it; near saturation the switch at 8 scatters conversations over all replicas. Later versions switch
//! when the busiest has more than twice the mean plus two, and at least 8 more than the least busy.
//!
//! Different from AIBrix: this router's blocks of 256 bytes instead of 128 characters; its mirror of each replica's cache, bounded by the
//! KV capacity, instead of one table of 200,000 blocks that knows nothing of it; equals go by requests without a first token instead of
//! at random.

use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "aibrix-prefix",
    help: "AIBrix's prefix-cache: longest match below mean + 1 σ requests; fewest requests when 8 apart",
    unit: Unit::Rank,
    parameters: &[
        Parameter {
            key: "imbalance",
            default: 8.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "difference in requests above which only the least busy replicas are considered",
        },
        Parameter {
            key: "deviations",
            default: 1.0,
            min: 0.0,
            max: 1000.0,
            help: "standard deviations above the mean of requests up to which a match counts",
        },
    ],
    build: |parameters, _| Box::new(AibrixPrefix::new(parameters)),
};

/// Puts whoever does not match behind whoever does: no match is further behind than 100.
const NOT_MATCHED: f64 = 101.0;

struct AibrixPrefix {
    imbalance: f64,
    deviations: f64,
    limits: Limits,
}

/// What the candidates of one decision have in common.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// Most requests of a replica whose match counts.
    requests: f64,
    /// Largest match that counts, percent; 0 = nobody's does.
    percent: u32,
    /// Most requests of any.
    busiest: f64,
}

impl AibrixPrefix {
    fn new(parameters: &Parameters) -> Self {
        Self {
            imbalance: parameters.get("imbalance"),
            deviations: parameters.get("deviations"),
            limits: Limits::default(),
        }
    }

    /// Most requests with which a match counts: the fewest of all where they are too far apart.
    fn most_requests(&self, requests: &[f64]) -> f64 {
        let (fewest, most) = range(requests);
        if most - fewest > self.imbalance { fewest } else { mean(requests) + self.deviations * deviation(requests) }
    }

    fn matches(&self, query: &Query<'_>, candidate: &View<'_>) -> bool {
        percent(query, candidate) > 0 && candidate.in_flight() <= self.limits.requests
    }
}

/// Whole percents of the prompt that are cached there.
fn percent(query: &Query<'_>, candidate: &View<'_>) -> u32 {
    let hundredths = 100 * u64::from(candidate.cached_tokens) / u64::from(query.prompt_tokens.max(1));
    hundredths as u32
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(least, most), value| (value.min(least), value.max(most)))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample; 0 of a single value.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let degrees = values.len().saturating_sub(1).max(1);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (squares / degrees as f64).sqrt()
}

impl Policy for AibrixPrefix {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        let requests: Vec<f64> = candidates.iter().map(View::in_flight).collect();
        self.limits = Limits { requests: self.most_requests(&requests), percent: 0, busiest: range(&requests).1 };
        let matching = candidates.iter().filter(|view| self.matches(query, view));
        self.limits.percent = matching.map(|view| percent(query, view)).max().unwrap_or(0);
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let matches = self.matches(query, candidate);
        let behind = if matches { self.limits.percent - percent(query, candidate) } else { 0 };
        let load_share = candidate.in_flight() / (self.limits.busiest + 1.0);
        terms([
            ("not_matched", if !matches && self.limits.percent > 0 { NOT_MATCHED } else { 0.0 }),
            ("behind", f64::from(behind)),
            ("load_share", load_share),
        ])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;
    use super::{deviation, mean};

    #[test]
    fn mean_and_deviation() {
        let cases: [(&[f64], f64, f64); 4] = [
            (&[3.0], 3.0, 0.0),
            (&[1.0, 3.0, 5.0], 3.0, 2.0),
            (&[2.0, 2.0, 2.0, 6.0], 3.0, 2.0),
            (&[6.0, 6.0, 6.0], 6.0, 0.0),
        ];
        for (values, expected_mean, expected_deviation) in cases {
            assert_eq!((mean(values), deviation(values)), (expected_mean, expected_deviation), "{values:?}");
        }
    }

    #[test]
    fn cases() {
        let log = scores(
            "aibrix-prefix",
            "",
            "
            # the largest match, whatever is idle or near
            prompt=1000
            a cached=700 rtt=400
            b cached=690 rtt=2
            c rtt=2

            # of equal matches the fewest requests: 704 and 700 of 1000 are both 70 %
            prompt=1000
            a cached=704 sent=1,1
            b cached=700 sent=1
            c sent=1,1

            # of three with 4, 1, 1 requests the limit is 2 + 1.732: the best match is above it
            prompt=1000
            a cached=900 decoding=1,1,1,1
            b cached=100 sent=1
            c decoding=1

            # nobody that matches is below it: the fewest requests
            prompt=1000
            a cached=900 decoding=1,1,1,1
            b sent=1,1
            c decoding=1

            # less than a hundredth is no match
            prompt=1000
            a cached=9 sent=1
            b

            # eight apart: affinity holds (of two nobody is above mean + 1 σ)
            prompt=1000
            a cached=900 decoding=1,1,1,1,1,1,1,1
            b

            # nine apart: only the least busy are considered, by their matches
            prompt=1000
            a cached=900 decoding=1,1,1,1,1,1,1,1,1
            b
            c cached=20

            # others' requests at a peer count
            prompt=1000
            own sent=1
            b peer=1 cached=900 others=1,1,1,1,1,1,1,1,1,1
            c peer=1 cached=800 others=1
            ",
        );
        assert_snapshot!(log, @r"
        # the largest match, whatever is idle or near
        a          0.000 = not_matched 0.000 + behind 0.000 + load_share 0.000  <-
        b          1.000 = not_matched 0.000 + behind 1.000 + load_share 0.000
        c        101.000 = not_matched 101.000 + behind 0.000 + load_share 0.000

        # of equal matches the fewest requests: 704 and 700 of 1000 are both 70 %
        a          0.667 = not_matched 0.000 + behind 0.000 + load_share 0.667
        b          0.333 = not_matched 0.000 + behind 0.000 + load_share 0.333  <-
        c        101.667 = not_matched 101.000 + behind 0.000 + load_share 0.667

        # of three with 4, 1, 1 requests the limit is 2 + 1.732: the best match is above it
        a        101.800 = not_matched 101.000 + behind 0.000 + load_share 0.800
        b          0.200 = not_matched 0.000 + behind 0.000 + load_share 0.200  <-
        c        101.200 = not_matched 101.000 + behind 0.000 + load_share 0.200

        # nobody that matches is below it: the fewest requests
        a          0.800 = not_matched 0.000 + behind 0.000 + load_share 0.800
        b          0.400 = not_matched 0.000 + behind 0.000 + load_share 0.400
        c          0.200 = not_matched 0.000 + behind 0.000 + load_share 0.200  <-

        # less than a hundredth is no match
        a          0.500 = not_matched 0.000 + behind 0.000 + load_share 0.500
        b          0.000 = not_matched 0.000 + behind 0.000 + load_share 0.000  <-

        # eight apart: affinity holds (of two nobody is above mean + 1 σ)
        a          0.889 = not_matched 0.000 + behind 0.000 + load_share 0.889  <-
        b        101.000 = not_matched 101.000 + behind 0.000 + load_share 0.000

        # nine apart: only the least busy are considered, by their matches
        a        101.900 = not_matched 101.000 + behind 0.000 + load_share 0.900
        b        101.000 = not_matched 101.000 + behind 0.000 + load_share 0.000
        c          0.000 = not_matched 0.000 + behind 0.000 + load_share 0.000  <-

        # others' requests at a peer count
        own      101.091 = not_matched 101.000 + behind 0.000 + load_share 0.091
        b        101.909 = not_matched 101.000 + behind 0.000 + load_share 0.909
        c          0.091 = not_matched 0.000 + behind 0.000 + load_share 0.091  <-
        ");
    }

    #[test]
    fn the_readme_s_figures_are_parameters() {
        let cases = "
            prompt=1000
            a cached=900 decoding=1,1,1,1
            b decoding=1
            c sent=1

            prompt=1000
            a cached=900 decoding=1,1,1,1,1,1,1,1,1,1
            b
            ";
        let log = scores("aibrix-prefix", "imbalance=16 deviations=2", cases);
        assert_eq!(log.lines().filter(|line| line.starts_with('a') && line.ends_with("<-")).count(), 2, "{log}");
        let log = scores("aibrix-prefix", "", cases);
        assert_eq!(log.lines().filter(|line| line.starts_with('b') && line.ends_with("<-")).count(), 2, "{log}");
    }
}
