//! `least-load`: the fewest requests and tokens, wherever they are and whatever is cached.
//!
//! ```text
//! score = running + waiting + used_kv  +  in_flight        tokens (a request counts as one)
//! ```
//!
//! running, waiting, used_kv (tokens): the engine's gauges. in_flight: prompt tokens of this router's requests there until they
//! finish. As the authors' baseline computes it, requests and tokens are added as they are, and a prompt in the engine may count
//! twice.
//!
//! A gauge that the engine does not tell counts as 0. Gauges are stale by design: an engine renews them per batch and the router reads
//! them per poll (the authors every 30 s), so a burst is invisible to them; in_flight is not stale. Gauges count only while **every**
//! candidate has some that are no older than `gauge_max_age_ms`; otherwise all are compared by in_flight alone, since a replica whose
//! metrics are gone would look idle beside the others.

use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};
use crate::routing::fleet::{Gauges, Replica};

pub(super) const GAUGE_MAX_AGE: Parameter = Parameter {
    key: "gauge_max_age_ms",
    default: 60_000.0,
    min: 0.0,
    max: 3_600_000.0,
    help: "gauges older than this are not used, ms",
};

pub(super) const ENTRY: Entry = Entry {
    name: "least-load",
    help: "fewest running, waiting, KV tokens and own prompt tokens in flight",
    unit: Unit::Tokens,
    parameters: &[GAUGE_MAX_AGE],
    build: |parameters, _| Box::new(LeastLoad::new(parameters)),
};

pub(super) struct LeastLoad {
    gauge_max_age_ms: f64,
    /// Do all candidates of this decision have fresh gauges?
    gauges_count: bool,
}

impl LeastLoad {
    pub(super) fn new(parameters: &Parameters) -> Self {
        Self { gauge_max_age_ms: parameters.get(GAUGE_MAX_AGE.key), gauges_count: false }
    }
}

/// KV tokens in use: as told, else as share of the capacity.
fn used_kv(replica: &Replica, gauges: Gauges) -> f64 {
    let share = gauges.kv_usage.zip(replica.kv_tokens()).map(|(usage, capacity)| usage * capacity);
    gauges.used_tokens.or(share).unwrap_or(0.0)
}

impl Policy for LeastLoad {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        let fresh = |view: &View<'_>| view.replica.fresh_gauges(query.now, self.gauge_max_age_ms).is_some();
        self.gauges_count = candidates.iter().all(fresh);
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let fresh = candidate.replica.fresh_gauges(query.now, self.gauge_max_age_ms);
        let gauges = fresh.filter(|_| self.gauges_count).unwrap_or_default();
        terms([
            ("running", gauges.running.unwrap_or(0.0)),
            ("waiting", gauges.waiting.unwrap_or(0.0)),
            ("used_kv", used_kv(candidate.replica, gauges)),
            ("in_flight", candidate.prompt_tokens()),
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
            "least-load",
            "",
            "
            # gauges and own tokens, all added
            prompt=100
            a running=3 waiting=2 used=5000 sent=100
            b running=9 waiting=0 used=5100

            # used KV as a share of the capacity, where tokens are not told
            prompt=100
            a usage=0.5 kv=20000
            b used=9999

            # a replica without gauges would look idle: own counts alone decide
            prompt=100
            a running=3 waiting=2 used=5000 sent=100
            b sent=200

            # so do gauges that are too old
            prompt=100
            a running=1 used=10 sent=100
            b running=1 used=5 sent=50 age=60001

            # cache and distance are not looked at
            prompt=100
            a rtt=200 cached=0
            b rtt=2 cached=64 sent=1

            # others' prompts at a peer count like our own
            prompt=100
            own sent=300
            a peer=1 sent=100 others=150
            ",
        );
        assert_snapshot!(log, @r"
        # gauges and own tokens, all added
        a       5105.000 = running 3.000 + waiting 2.000 + used_kv 5000.000 + in_flight 100.000  <-
        b       5109.000 = running 9.000 + waiting 0.000 + used_kv 5100.000 + in_flight 0.000

        # used KV as a share of the capacity, where tokens are not told
        a      10000.000 = running 0.000 + waiting 0.000 + used_kv 10000.000 + in_flight 0.000
        b       9999.000 = running 0.000 + waiting 0.000 + used_kv 9999.000 + in_flight 0.000  <-

        # a replica without gauges would look idle: own counts alone decide
        a        100.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 100.000  <-
        b        200.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 200.000

        # so do gauges that are too old
        a        100.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 100.000
        b         50.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 50.000  <-

        # cache and distance are not looked at
        a          0.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 0.000  <-
        b          1.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 1.000

        # others' prompts at a peer count like our own
        own      300.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 300.000
        a        250.000 = running 0.000 + waiting 0.000 + used_kv 0.000 + in_flight 250.000  <-
        ");
    }
}
