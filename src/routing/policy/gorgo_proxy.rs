//! `gorgo-proxy`: the paper's first policy in one central place, with its capacity gate.
//!
//! ```text
//! cost = rtt_ms  +  t_p · ( q · running  +  queued  +  uncached )        ms
//! ```
//!
//! t_p: prefill time per token, 0.094 ms, or the replica's own. running: prompt tokens of this router's requests there from
//! dispatch until the response headers arrive. q: what a running token counts, 0.5 in the paper; the authors' program uses 1
//! unless the flag is given. queued: 0 while the gate is on; with the gate off (`gate_running` 0) the engine's waiting count times
//! the mean prompt length of the running requests (500 when none runs). The count is looked at only while every candidate has gauges that
//! are no older than `gauge_max_age_ms`: a replica whose metrics are gone would look idle beside the others.
//!
//! A replica takes nothing while `gate_running` (10) of this router's requests are in flight there or its KV use is at 0.95, the latter
//! also with `gate_running` 0; when all are closed the request waits in the router's queue.
//!
//! Different from the authors' code, on purpose: the round trip is not taken from `/health` (SGLang sleeps a second in it), "running"
//! for the gate is the router's own count instead of a gauge half a second old, the head of the queue does not block the rest, the
//! index is bounded and keeps a shared prefix when paths split, it learns at dispatch instead of at the 2xx headers, and tokens are counted by
//! a learned ratio instead of 4 bytes each.

use super::gorgo::PAPER_MS_PER_TOKEN;
use super::least_load::GAUGE_MAX_AGE;
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};
use crate::routing::filter::{Gate, KV_USAGE_LIMIT};

/// Prompt length assumed for a request waiting in the engine while none of ours runs, tokens (the authors' constant).
const ASSUMED_PROMPT_TOKENS: f64 = 500.0;

pub(super) const ENTRY: Entry = Entry {
    name: "gorgo-proxy",
    help: "the paper's central proxy: round trip, running and uncached tokens in ms; holds requests at 10 running",
    unit: Unit::Ms,
    parameters: &[
        Parameter {
            key: "prefill_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.0,
            max: 1000.0,
            help: "prefill time per token, ms; a replica's own rate overrides it",
        },
        Parameter {
            key: "q",
            default: 0.5,
            min: 0.0,
            max: 100.0,
            help: "what a running token counts (the authors' program: 1)",
        },
        Parameter {
            key: "gate_running",
            default: 10.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "requests in flight at which a replica is full; 0 = no such limit, the engine's queue is priced instead",
        },
        GAUGE_MAX_AGE,
    ],
    build: |parameters, _| Box::new(GorgoProxy::new(parameters)),
};

struct GorgoProxy {
    prefill_ms_per_token: f64,
    q: f64,
    gate_running: u32,
    gauge_max_age_ms: f64,
    /// Do all candidates of this decision have fresh gauges?
    gauges_count: bool,
}

impl GorgoProxy {
    fn new(parameters: &Parameters) -> Self {
        Self {
            prefill_ms_per_token: parameters.get("prefill_ms_per_token"),
            q: parameters.get("q"),
            gate_running: parameters.get("gate_running") as u32,
            gauge_max_age_ms: parameters.get(GAUGE_MAX_AGE.key),
            gauges_count: false,
        }
    }

    fn queued(&self, candidate: &View<'_>) -> f64 {
        if self.gate_running > 0 || !self.gauges_count {
            return 0.0;
        }
        let waiting = candidate.replica.gauges.and_then(|(_, gauges)| gauges.waiting).unwrap_or(0.0);
        let running = candidate.unanswered();
        // Less than one is an estimate's remainder.
        let mean = if running < 1.0 { ASSUMED_PROMPT_TOKENS } else { candidate.unanswered_tokens() / running };
        waiting * mean
    }
}

impl Policy for GorgoProxy {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        let fresh = |view: &View<'_>| view.replica.fresh_gauges(query.now, self.gauge_max_age_ms).is_some();
        self.gauges_count = candidates.iter().all(fresh);
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let t_p = candidate.replica.spec.rates.prefill_ms_per_token.unwrap_or(self.prefill_ms_per_token);
        let running = candidate.unanswered_tokens();
        let uncached = f64::from(candidate.uncached_tokens);
        terms([
            ("network", candidate.rtt_ms),
            ("running", t_p * self.q * running),
            ("queue", t_p * self.queued(candidate)),
            ("prefill", t_p * uncached),
        ])
    }

    fn gate(&self) -> Option<Gate> {
        let max_running = if self.gate_running > 0 { self.gate_running } else { u32::MAX };
        Some(Gate { max_running, max_kv_usage: KV_USAGE_LIMIT })
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;
    use super::{ENTRY, Parameters};

    #[test]
    fn cases() {
        let log = scores(
            "gorgo-proxy",
            "",
            "
            # running: prompt tokens until the headers, at half; what is answered or decoding counts nothing
            prompt=2000
            busy rtt=2 sent=3000,1000 answered=5000 decoding=9000
            idle rtt=97

            # cache against distance
            prompt=2000
            near rtt=2 cached=0
            far rtt=97 cached=1024

            # with the gate on the engine's queue is not in the cost
            prompt=2000
            full rtt=2 waiting=50
            free rtt=97

            # a replica's own rate holds for all its tokens
            prompt=1000
            slow rtt=2 sent=1000 prefill=0.2
            fast rtt=97 sent=1000 prefill=0.05

            # others' prompts at a peer until their headers
            prompt=1000
            own sent=1000
            a peer=1 rtt=10 others=1000,1000
            ",
        );
        assert_snapshot!(log, @r"
        # running: prompt tokens until the headers, at half; what is answered or decoding counts nothing
        busy     378.000 = network 2.000 + running 188.000 + queue 0.000 + prefill 188.000
        idle     285.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 188.000  <-

        # cache against distance
        near     190.000 = network 2.000 + running 0.000 + queue 0.000 + prefill 188.000
        far      188.744 = network 97.000 + running 0.000 + queue 0.000 + prefill 91.744  <-

        # with the gate on the engine's queue is not in the cost
        full     190.000 = network 2.000 + running 0.000 + queue 0.000 + prefill 188.000  <-
        free     285.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 188.000

        # a replica's own rate holds for all its tokens
        slow     302.000 = network 2.000 + running 100.000 + queue 0.000 + prefill 200.000
        fast     172.000 = network 97.000 + running 25.000 + queue 0.000 + prefill 50.000  <-

        # others' prompts at a peer until their headers
        own      151.000 = network 10.000 + running 47.000 + queue 0.000 + prefill 94.000  <-
        a        198.000 = network 10.000 + running 94.000 + queue 0.000 + prefill 94.000
        ");
    }

    #[test]
    fn without_the_gate_the_engine_queue_is_priced() {
        let log = scores(
            "gorgo-proxy",
            "gate_running=0 q=1",
            "
            # three waiting, at the mean prompt of the two running
            prompt=1000
            a rtt=2 waiting=3 sent=600,1000
            b rtt=97 waiting=0

            # at 500 tokens while none of ours runs
            prompt=1000
            a rtt=2 waiting=3
            b rtt=97 waiting=0

            # a replica without gauges would look idle: nobody's count
            prompt=1000
            a rtt=2 waiting=3
            b rtt=97

            # so would one whose gauges are too old
            prompt=1000
            a rtt=2 waiting=3
            b rtt=97 waiting=0 age=60001

            # at a peer the mean is over others' prompts as well
            prompt=1000
            a peer=1 rtt=2 waiting=1 others=1000,3000
            b rtt=97 waiting=0
            ",
        );
        assert_snapshot!(log, @r"
        # three waiting, at the mean prompt of the two running
        a        472.000 = network 2.000 + running 150.400 + queue 225.600 + prefill 94.000
        b        191.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 94.000  <-

        # at 500 tokens while none of ours runs
        a        237.000 = network 2.000 + running 0.000 + queue 141.000 + prefill 94.000
        b        191.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 94.000  <-

        # a replica without gauges would look idle: nobody's count
        a         96.000 = network 2.000 + running 0.000 + queue 0.000 + prefill 94.000  <-
        b        191.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 94.000

        # so would one whose gauges are too old
        a         96.000 = network 2.000 + running 0.000 + queue 0.000 + prefill 94.000  <-
        b        191.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 94.000

        # at a peer the mean is over others' prompts as well
        a        660.000 = network 2.000 + running 376.000 + queue 188.000 + prefill 94.000
        b        191.000 = network 97.000 + running 0.000 + queue 0.000 + prefill 94.000  <-
        ");
    }

    #[test]
    fn the_gate_is_a_parameter() {
        let gate = |value: f64| {
            let parameters = Parameters::resolve(ENTRY.name, ENTRY.parameters, &[("gate_running".into(), value)]);
            (ENTRY.build)(&parameters.unwrap(), 0).gate().map(|gate| (gate.max_running, gate.max_kv_usage))
        };
        assert_eq!((gate(10.0), gate(3.0), gate(0.0)), (Some((10, 0.95)), Some((3, 0.95)), Some((u32::MAX, 0.95))));
    }
}
