//! `gorgo`: the paper's third cost, in milliseconds.
//!
//! ```text
//! score = w_rtt · rtt_ms  +  prefill_ms_per_token · uncached  +  w_queue · queue_ms_per_token · queued        ms
//! ```
//!
//! uncached: prompt tokens not believed cached on the replica. queued: raw prompt tokens (cache hits not subtracted) of this
//! router's requests there, from dispatch to the end of decoding. Both rates may be set per replica.
//!
//! The rates default to 0.094 ms per token, the authors' cold prefill rate (Mistral-7B on 8 × A100), so that 1 ms of distance
//! weighs what it is: about 11 tokens of prefill. `w_queue` is 0.1, the authors' starting value; with the 0.5 that their tuner
//! ended at, a few tokens in flight outweigh a warm cache and affinity is lost under load.
//!
//! `gorgo-score` is the same rule under a name that means it everywhere: on an agent `gorgo` is the paper's rule for agents
//! ([`super::gorgo_v1`]). There it scores the own engine and the peers alike.

use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

/// Prefill time per token that the paper assumes, ms.
pub(super) const PAPER_MS_PER_TOKEN: f64 = 0.094;

pub(super) const ENTRY: Entry = Entry {
    name: "gorgo",
    help: "least predicted cost in ms: round trip, prefill of uncached tokens, queue",
    unit: Unit::Ms,
    parameters: &[
        Parameter { key: "w_rtt", default: 1.0, min: 0.0, max: 1000.0, help: "weight of the round trip" },
        Parameter {
            key: "prefill_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.0,
            max: 1000.0,
            help: "prefill time per uncached token, ms; a replica's own rate overrides it",
        },
        Parameter {
            key: "queue_ms_per_token",
            default: PAPER_MS_PER_TOKEN,
            min: 0.0,
            max: 1000.0,
            help: "queueing time per queued token, ms; a replica's own rate overrides it",
        },
        Parameter { key: "w_queue", default: 0.1, min: 0.0, max: 100.0, help: "weight of the queue" },
    ],
    build: |parameters, _| Box::new(Gorgo::new(parameters)),
};

/// The same rule by the name that is not another one on agents.
pub(super) const SCORE: Entry = Entry {
    name: "gorgo-score",
    help: "the rule of `gorgo`, on agents too: scores the own engine and peers alike",
    ..ENTRY
};

struct Gorgo {
    w_rtt: f64,
    prefill_ms_per_token: f64,
    queue_ms_per_token: f64,
    w_queue: f64,
}

impl Gorgo {
    fn new(parameters: &Parameters) -> Self {
        Self {
            w_rtt: parameters.get("w_rtt"),
            prefill_ms_per_token: parameters.get("prefill_ms_per_token"),
            queue_ms_per_token: parameters.get("queue_ms_per_token"),
            w_queue: parameters.get("w_queue"),
        }
    }
}

impl Policy for Gorgo {
    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let rates = candidate.replica.spec.rates;
        let prefill_rate = rates.prefill_ms_per_token.unwrap_or(self.prefill_ms_per_token);
        let queue_rate = rates.queue_ms_per_token.unwrap_or(self.queue_ms_per_token);
        let uncached = f64::from(candidate.uncached_tokens);
        let queued = candidate.prompt_tokens();
        terms([
            ("network", self.w_rtt * candidate.rtt_ms),
            ("prefill", prefill_rate * uncached),
            ("queue", self.w_queue * queue_rate * queued),
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
            "gorgo",
            "",
            "
            # a cold, near replica against a far one that holds most of the prompt
            prompt=6000
            near rtt=40 cached=0
            far rtt=110 cached=5376

            # a short prompt stays near
            prompt=200
            near rtt=40 cached=0
            far rtt=110 cached=128

            # the queue counts raw prompt tokens until the end of decoding, cache hits included, at a tenth
            prompt=1000
            busy rtt=2 cached=960 sent=20000 answered=10000 decoding=60000
            idle rtt=90 cached=0

            # a replica's own rates
            prompt=1000
            slow rtt=2 prefill=0.4 queue=0.8 sent=1000
            fast rtt=90 prefill=0.05 sent=1000

            # without a probe the longest known round trip is assumed
            prompt=100
            new
            far rtt=165
            near rtt=97

            # equal scores: fewest requests without a first token, then the first
            prompt=100
            a rtt=5 sent=100
            b rtt=5 decoding=100
            c rtt=5 decoding=100

            # nothing to compute at all
            prompt=0
            a rtt=5
            b rtt=4
            ",
        );
        assert_snapshot!(log, @r"
        # a cold, near replica against a far one that holds most of the prompt
        near     604.000 = network 40.000 + prefill 564.000 + queue 0.000
        far      168.656 = network 110.000 + prefill 58.656 + queue 0.000  <-

        # a short prompt stays near
        near      58.800 = network 40.000 + prefill 18.800 + queue 0.000  <-
        far      116.768 = network 110.000 + prefill 6.768 + queue 0.000

        # the queue counts raw prompt tokens until the end of decoding, cache hits included, at a tenth
        busy     851.760 = network 2.000 + prefill 3.760 + queue 846.000
        idle     184.000 = network 90.000 + prefill 94.000 + queue 0.000  <-

        # a replica's own rates
        slow     482.000 = network 2.000 + prefill 400.000 + queue 80.000
        fast     149.400 = network 90.000 + prefill 50.000 + queue 9.400  <-

        # without a probe the longest known round trip is assumed
        new      174.400 = network 165.000 + prefill 9.400 + queue 0.000
        far      174.400 = network 165.000 + prefill 9.400 + queue 0.000
        near     106.400 = network 97.000 + prefill 9.400 + queue 0.000  <-

        # equal scores: fewest requests without a first token, then the first
        a         15.340 = network 5.000 + prefill 9.400 + queue 0.940
        b         15.340 = network 5.000 + prefill 9.400 + queue 0.940  <-
        c         15.340 = network 5.000 + prefill 9.400 + queue 0.940

        # nothing to compute at all
        a          5.000 = network 5.000 + prefill 0.000 + queue 0.000
        b          4.000 = network 4.000 + prefill 0.000 + queue 0.000  <-
        ");
    }

    #[test]
    fn what_others_have_at_a_peer_counts_like_what_was_sent_from_here() {
        let log = scores(
            "gorgo",
            "",
            "
            prompt=1000
            own rtt=2 sent=20000
            busy peer=1 rtt=10 sent=1000 others=15000,4000
            idle peer=1 rtt=40 others=500

            # ties, too
            prompt=100
            a rtt=5
            b peer=1 rtt=5 sent=100
            c peer=1 rtt=5 others=100
            ",
        );
        assert_snapshot!(log, @r"
        own      284.000 = network 2.000 + prefill 94.000 + queue 188.000
        busy     292.000 = network 10.000 + prefill 94.000 + queue 188.000
        idle     138.700 = network 40.000 + prefill 94.000 + queue 4.700  <-

        # ties, too
        a         14.400 = network 5.000 + prefill 9.400 + queue 0.000  <-
        b         15.340 = network 5.000 + prefill 9.400 + queue 0.940
        c         15.340 = network 5.000 + prefill 9.400 + queue 0.940
        ");
    }

    #[test]
    fn weights_and_rates() {
        let log = scores(
            "gorgo",
            "w_rtt=2 w_queue=0.5 prefill_ms_per_token=0.1 queue_ms_per_token=0.2",
            "
            # each weight in its place
            prompt=1000
            a rtt=10 cached=400 sent=300
            b rtt=10 cached=400 sent=300 prefill=1 queue=1
            ",
        );
        assert_snapshot!(log, @r"
        # each weight in its place
        a        110.000 = network 20.000 + prefill 60.000 + queue 30.000  <-
        b        770.000 = network 20.000 + prefill 600.000 + queue 150.000
        ");
    }
}
