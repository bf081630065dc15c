//! `least-request`: the fewest requests running.
//!
//! ```text
//! score = running        requests: the larger of the engine's gauge and this router's requests in flight
//! ```
//!
//! The gauge covers requests that came past this router; it is used while it is no older than `gauge_max_age_ms`. The authors' baseline
//! breaks ties at random; here they go by requests without a first token, then by id, as everywhere.

use super::least_load::GAUGE_MAX_AGE;
use super::parameters::Parameters;
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "least-request",
    help: "fewest requests running, by gauge or own count",
    unit: Unit::Requests,
    parameters: &[GAUGE_MAX_AGE],
    build: |parameters, _| Box::new(LeastRequest::new(parameters)),
};

struct LeastRequest {
    gauge_max_age_ms: f64,
}

impl LeastRequest {
    fn new(parameters: &Parameters) -> Self {
        Self { gauge_max_age_ms: parameters.get(GAUGE_MAX_AGE.key) }
    }
}

impl Policy for LeastRequest {
    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let gauges = candidate.replica.fresh_gauges(query.now, self.gauge_max_age_ms);
        let running = gauges.and_then(|gauges| gauges.running).unwrap_or(0.0);
        let in_flight = candidate.in_flight();
        terms([("running", running.max(in_flight))])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "least-request",
            "",
            "
            # the larger of gauge and own count
            prompt=100
            a running=1 sent=10,10,10
            b running=4
            c running=2 decoding=10,10 age=60000

            # a gauge that is too old does not count
            prompt=100
            a running=9 sent=10 age=60001
            b running=2

            # ties: fewest without a first token, then the first
            prompt=100
            a sent=10
            b decoding=10
            c decoding=10

            # others' requests at a peer, by its word or by its gauge
            prompt=100
            own sent=10,10,10
            a peer=1 sent=10 others=10,10,10
            b peer=1 sent=10 others=10 running=2
            ",
        );
        assert_snapshot!(log, @r"
        # the larger of gauge and own count
        a          3.000 = running 3.000
        b          4.000 = running 4.000
        c          2.000 = running 2.000  <-

        # a gauge that is too old does not count
        a          1.000 = running 1.000  <-
        b          2.000 = running 2.000

        # ties: fewest without a first token, then the first
        a          1.000 = running 1.000
        b          1.000 = running 1.000  <-
        c          1.000 = running 1.000

        # others' requests at a peer, by its word or by its gauge
        own        3.000 = running 3.000
        a          4.000 = running 4.000
        b          2.000 = running 2.000  <-
        ");
    }
}
