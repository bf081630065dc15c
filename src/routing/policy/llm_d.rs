//! `llm-d`: the default scorers of llm-d's endpoint picker: short queue, free KV cache, cached prefix.
//!
//! ```text
//! score = w_queue · (1 − queue)  +  w_kv · (1 − kv)  +  w_prefix · (1 − prefix)        0..7 by default; the smallest wins
//!
//! queue  = (longest − waiting) / (longest − shortest), 1 where all wait alike
//! kv     = 1 − KV use
//! prefix = cached / prompt
//! ```
//!
//! llm-d/llm-d-router: weights 2, 2 and 3 in `pkg/epp/config/loader/defaults.go`; the scorers are `queuedepth`, `kvcacheutilization` and
//! `prefix` below `pkg/epp/framework/plugins/scheduling/scorer`, each clamped to 0..=1, and its picker takes the largest sum. Here every
//! part is what is missing to the full mark, so that the smallest sum wins; nothing else is changed by that. waiting and KV use are the
//! engine's gauges. One without gauges, or with some that are older than `gauge_max_age_ms`, gets nothing for queue and KV and does not
//! count for shortest and longest, as there.
//!
//! Known weaknesses: **nothing of it knows what was sent since the gauges were read** (llm-d reads them every 50 ms, this router every
//! 500), so that a burst goes to one replica; the queue is relative, and one request waiting weighs as much as a hundred; the prefix is a
//! share, so a match of 50 of 100 tokens weighs as much as one of 50,000 of 100,000.
//!
//! Different from llm-d: cached is this router's mirror of each replica's cache, bounded by its KV capacity and corrected by what the
//! engine reports, instead of an LRU of 31,250 blocks; equal scores go by requests without a first token instead of at random. Its
//! filters, its flow control and its predictor of latencies are not part of the default and not here.

use super::least_load::GAUGE_MAX_AGE;
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "llm-d",
    help: "llm-d's default scorers: short engine queue, free KV cache, share of the prompt cached",
    unit: Unit::Rank,
    parameters: &[
        Parameter { key: "w_queue", default: 2.0, min: 0.0, max: 1000.0, help: "weight of a short engine queue" },
        Parameter { key: "w_kv", default: 2.0, min: 0.0, max: 1000.0, help: "weight of a free KV cache" },
        Parameter { key: "w_prefix", default: 3.0, min: 0.0, max: 1000.0, help: "weight of a cached prompt" },
        GAUGE_MAX_AGE,
    ],
    build: |parameters, _| Box::new(LlmD::new(parameters)),
};

struct LlmD {
    w_queue: f64,
    w_kv: f64,
    w_prefix: f64,
    gauge_max_age_ms: f64,
    /// Requests waiting at the candidates of this decision: at the least and at the most.
    shortest: f64,
    longest: f64,
}

impl LlmD {
    fn new(parameters: &Parameters) -> Self {
        Self {
            w_queue: parameters.get("w_queue"),
            w_kv: parameters.get("w_kv"),
            w_prefix: parameters.get("w_prefix"),
            gauge_max_age_ms: parameters.get(GAUGE_MAX_AGE.key),
            shortest: 0.0,
            longest: 0.0,
        }
    }

    fn waiting(&self, query: &Query<'_>, candidate: &View<'_>) -> Option<f64> {
        candidate.replica.fresh_gauges(query.now, self.gauge_max_age_ms)?.waiting
    }

    /// Mark for a short queue, 0..=1.
    fn queue(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        let Some(waiting) = self.waiting(query, candidate) else { return 0.0 };
        if self.longest > self.shortest { (self.longest - waiting) / (self.longest - self.shortest) } else { 1.0 }
    }

    /// Mark for a free cache, 0..=1.
    fn kv(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        let gauges = candidate.replica.fresh_gauges(query.now, self.gauge_max_age_ms);
        gauges.and_then(|gauges| gauges.kv_usage).map_or(0.0, |usage| (1.0 - usage).max(0.0))
    }
}

/// Mark for a cached prompt, 0..=1.
fn prefix(query: &Query<'_>, candidate: &View<'_>) -> f64 {
    f64::from(candidate.cached_tokens) / f64::from(query.prompt_tokens.max(1))
}

impl Policy for LlmD {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        let waiting = || candidates.iter().filter_map(|view| self.waiting(query, view));
        let (shortest, longest) = (waiting().fold(f64::INFINITY, f64::min), waiting().fold(0.0, f64::max));
        (self.shortest, self.longest) = (shortest, longest);
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        terms([
            ("queue", self.w_queue * (1.0 - self.queue(query, candidate))),
            ("kv", self.w_kv * (1.0 - self.kv(query, candidate))),
            ("prefix", self.w_prefix * (1.0 - prefix(query, candidate))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "llm-d",
            "",
            "
            # three parts: 2·(1−(8−2)/8) + 2·0.5 + 3·(1−750/1000), …
            prompt=1000
            a waiting=2 usage=0.5 cached=750
            b waiting=0 usage=0.1 cached=250
            c waiting=8 usage=0.9 cached=500

            # a whole prompt cached outweighs a full KV cache, but not the queue as well
            prompt=1000
            a waiting=0 usage=1 cached=999
            b waiting=0 usage=0

            prompt=1000
            a waiting=1 usage=1 cached=999
            b waiting=0 usage=0

            # the queue is relative: one waiting is as bad as a hundred
            prompt=1000
            a waiting=1 usage=0
            b waiting=0 usage=0

            prompt=1000
            a waiting=100 usage=0
            b waiting=0 usage=0

            # whoever tells nothing, or told it long ago, gets nothing for it and moves nobody else
            prompt=1000
            a waiting=3 usage=0
            b
            c waiting=9 usage=0 age=60001

            # what was sent since decides between equals only
            prompt=1000
            a waiting=0 usage=0 sent=5000,5000
            b waiting=0 usage=0

            # nothing to compute at all
            prompt=0
            a waiting=0 usage=0.5
            b waiting=0 usage=0.25
            ",
        );
        assert_snapshot!(log, @r"
        # three parts: 2·(1−(8−2)/8) + 2·0.5 + 3·(1−750/1000), …
        a          2.250 = queue 0.500 + kv 1.000 + prefix 0.750  <-
        b          2.450 = queue 0.000 + kv 0.200 + prefix 2.250
        c          5.300 = queue 2.000 + kv 1.800 + prefix 1.500

        # a whole prompt cached outweighs a full KV cache, but not the queue as well
        a          2.003 = queue 0.000 + kv 2.000 + prefix 0.003  <-
        b          3.000 = queue 0.000 + kv 0.000 + prefix 3.000

        a          4.003 = queue 2.000 + kv 2.000 + prefix 0.003
        b          3.000 = queue 0.000 + kv 0.000 + prefix 3.000  <-

        # the queue is relative: one waiting is as bad as a hundred
        a          5.000 = queue 2.000 + kv 0.000 + prefix 3.000
        b          3.000 = queue 0.000 + kv 0.000 + prefix 3.000  <-

        a          5.000 = queue 2.000 + kv 0.000 + prefix 3.000
        b          3.000 = queue 0.000 + kv 0.000 + prefix 3.000  <-

        # whoever tells nothing, or told it long ago, gets nothing for it and moves nobody else
        a          3.000 = queue 0.000 + kv 0.000 + prefix 3.000  <-
        b          7.000 = queue 2.000 + kv 2.000 + prefix 3.000
        c          7.000 = queue 2.000 + kv 2.000 + prefix 3.000

        # what was sent since decides between equals only
        a          3.000 = queue 0.000 + kv 0.000 + prefix 3.000
        b          3.000 = queue 0.000 + kv 0.000 + prefix 3.000  <-

        # nothing to compute at all
        a          4.000 = queue 0.000 + kv 1.000 + prefix 3.000
        b          3.500 = queue 0.000 + kv 0.500 + prefix 3.000  <-
        ");
    }

    #[test]
    fn weights_and_peers() {
        let log = scores(
            "llm-d",
            "w_queue=1 w_kv=10 w_prefix=100",
            "
            # each weight in its place; a peer tells its own queue
            prompt=1000
            own waiting=1 usage=0.25 cached=0
            b peer=1 waiting=3 usage=0.5 cached=500
            ",
        );
        assert_snapshot!(log, @r"
        # each weight in its place; a peer tells its own queue
        own      102.500 = queue 0.000 + kv 2.500 + prefix 100.000
        b         56.000 = queue 1.000 + kv 5.000 + prefix 50.000  <-
        ");
    }
}
