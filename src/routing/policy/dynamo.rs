//! `dynamo`: the worker selector of NVIDIA Dynamo's KV router: blocks to compute and blocks held.
//!
//! ```text
//! score = prefill  +  decode  +  requests  +  not_drawn             KV blocks
//!
//! prefill  = prefill_load_scale · max(0, active + prompt − overlap_score_credit · decay · cached) / block_size
//! decay    = 1 / (1 + overlap_score_credit_decay · (active − least active) / prompt)
//! decode   = (held + prompt) / block_size, each rounded up to blocks
//! requests = decode_active_request_weight · in_flight
//! ```
//!
//! ai-dynamo/dynamo: `lib/kv-router/src/scheduling/selector/default.rs` for the formula, `scheduling/config.rs` for the defaults (credit
//! 1, decay 0, scale 1, weight of requests 0, temperature 0) and `docs/components/router`. active: prompt tokens that this router expects
//! to be computed there, of requests without a first token. held: prompt tokens, cached ones too, of requests there until they end.
//! cached: prompt tokens believed cached there. A block is 16 tokens, vLLM's default.
//!
//! With a `temperature` above 0 one candidate is drawn with probabilities proportional to exp(−score / (range · temperature)), range
//! being that of the scores; not_drawn puts the others behind it. At 0 the smallest score wins.
//!
//! Known weaknesses: a block that is held counts as much as one that is still to be computed, whatever either takes, so that many short
//! requests in flight drive prompts away from their caches; all replicas are taken for equally fast; distance is not known.
//!
//! Different from Dynamo: it follows KV events of its workers, which this router does not have, and uses its mirror of each cache, which
//! is bounded by the KV capacity and corrected by what the engine reports; blocks that requests in flight share are counted for each of
//! them, where Dynamo counts them once; equal scores go by requests without a first token instead of at random. Tiers of host memory and
//! disk, shared caches, taints and the queue are not here.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::ReplicaId;
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "dynamo",
    help: "Dynamo's KV router: fewest blocks to compute and blocks held",
    unit: Unit::Blocks,
    parameters: &[
        Parameter {
            key: "overlap_score_credit",
            default: 1.0,
            min: 0.0,
            max: 1.0,
            help: "what a cached token takes off the tokens to compute",
        },
        Parameter {
            key: "overlap_score_credit_decay",
            default: 0.0,
            min: 0.0,
            max: 1000.0,
            help: "how fast the credit falls with the tokens to compute beyond those of the least loaded",
        },
        Parameter {
            key: "prefill_load_scale",
            default: 1.0,
            min: 0.0,
            max: 1000.0,
            help: "weight of a block to compute",
        },
        Parameter {
            key: "decode_active_request_weight",
            default: 0.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "blocks that a request in flight counts beside its own",
        },
        Parameter {
            key: "temperature",
            default: 0.0,
            min: 0.0,
            max: 1000.0,
            help: "0 = the smallest score; above, drawn by a softmax over the scores",
        },
        Parameter { key: "block_size", default: 16.0, min: 1.0, max: 65_536.0, help: "tokens per KV block" },
    ],
    build: |parameters, seed| Box::new(Dynamo::new(parameters, seed)),
};

struct Dynamo {
    credit: f64,
    credit_decay: f64,
    prefill_load_scale: f64,
    request_weight: f64,
    temperature: f64,
    block_size: f64,
    generator: ChaCha8Rng,
    /// Tokens to compute at the least loaded candidate of this decision.
    least_active: f64,
    /// The candidate drawn, if there is a temperature.
    drawn: Option<ReplicaId>,
    /// What puts all others behind it, blocks.
    handicap: f64,
}

impl Dynamo {
    fn new(parameters: &Parameters, seed: u64) -> Self {
        Self {
            credit: parameters.get("overlap_score_credit"),
            credit_decay: parameters.get("overlap_score_credit_decay"),
            prefill_load_scale: parameters.get("prefill_load_scale"),
            request_weight: parameters.get("decode_active_request_weight"),
            temperature: parameters.get("temperature"),
            block_size: parameters.get("block_size"),
            generator: ChaCha8Rng::seed_from_u64(seed),
            least_active: 0.0,
            drawn: None,
            handicap: 0.0,
        }
    }

    /// Share of the credit that is left.
    fn decay(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        let excess = candidate.uncached_in_flight() - self.least_active;
        1.0 / (1.0 + self.credit_decay * excess / f64::from(query.prompt_tokens.max(1)))
    }

    /// Blocks that would be to compute there.
    fn prefill(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        let credit = self.credit * self.decay(query, candidate) * f64::from(candidate.cached_tokens);
        let tokens = candidate.uncached_in_flight() + f64::from(query.prompt_tokens) - credit;
        self.prefill_load_scale * tokens.max(0.0) / self.block_size
    }

    /// Blocks that would be held there.
    fn decode(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        let blocks = |tokens: f64| (tokens / self.block_size).ceil();
        blocks(candidate.prompt_tokens()) + blocks(f64::from(query.prompt_tokens))
    }

    fn requests(&self, candidate: &View<'_>) -> f64 {
        self.request_weight * candidate.in_flight()
    }

    fn cost(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        self.prefill(query, candidate) + self.decode(query, candidate) + self.requests(candidate)
    }

    fn draw(&mut self, costs: &[f64]) -> usize {
        let weights = softmax(costs, self.temperature);
        let mut left = self.generator.random_range(0.0..1.0) * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        chosen.unwrap_or(costs.len() - 1)
    }
}

/// Weights exp(−(cost − smallest) / (range · temperature)); all 1 where the costs are equal.
fn softmax(costs: &[f64], temperature: f64) -> Vec<f64> {
    let (smallest, largest) =
        costs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), cost| (low.min(*cost), high.max(*cost)));
    let scale = (largest - smallest) * temperature;
    costs.iter().map(|cost| if scale > 0.0 { (-(cost - smallest) / scale).exp() } else { 1.0 }).collect()
}

impl Policy for Dynamo {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        self.least_active = candidates.iter().map(View::uncached_in_flight).fold(f64::INFINITY, f64::min);
        if self.temperature > 0.0 {
            let costs: Vec<f64> = candidates.iter().map(|view| self.cost(query, view)).collect();
            self.drawn = Some(candidates[self.draw(&costs)].replica.id);
            self.handicap = costs.iter().fold(0.0, |highest: f64, cost| highest.max(*cost)) + 1.0;
        }
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let behind = self.drawn.is_some_and(|drawn| drawn != candidate.replica.id);
        terms([
            ("prefill", self.prefill(query, candidate)),
            ("decode", self.decode(query, candidate)),
            ("requests", self.requests(candidate)),
            ("not_drawn", if behind { self.handicap } else { 0.0 }),
        ])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::{scores, scores_seeded};
    use super::softmax;

    #[test]
    fn cases() {
        let log = scores(
            "dynamo",
            "",
            "
            # cold: 1600 tokens are 100 blocks to compute and 100 to hold
            prompt=1600
            a
            b cached=800

            # until its first token a request counts twice, then only as held
            prompt=1600
            a cached=800 sent=800
            b cached=800 decoding=800
            c decoding=400

            # partial blocks are held whole
            prompt=10
            a sent=17
            b

            # credit may not go below nothing
            prompt=1600
            a cached=1599
            b rtt=400 running=50 waiting=9 usage=1 cached=1599

            # others' work at a peer
            prompt=1600
            own sent=320
            b peer=1 others=160,320
            ",
        );
        assert_snapshot!(log, @r"
        # cold: 1600 tokens are 100 blocks to compute and 100 to hold
        a        200.000 = prefill 100.000 + decode 100.000 + requests 0.000 + not_drawn 0.000
        b        150.000 = prefill 50.000 + decode 100.000 + requests 0.000 + not_drawn 0.000  <-

        # until its first token a request counts twice, then only as held
        a        250.000 = prefill 100.000 + decode 150.000 + requests 0.000 + not_drawn 0.000
        b        200.000 = prefill 50.000 + decode 150.000 + requests 0.000 + not_drawn 0.000  <-
        c        225.000 = prefill 100.000 + decode 125.000 + requests 0.000 + not_drawn 0.000

        # partial blocks are held whole
        a          4.688 = prefill 1.688 + decode 3.000 + requests 0.000 + not_drawn 0.000
        b          1.625 = prefill 0.625 + decode 1.000 + requests 0.000 + not_drawn 0.000  <-

        # credit may not go below nothing
        a        100.062 = prefill 0.062 + decode 100.000 + requests 0.000 + not_drawn 0.000  <-
        b        100.062 = prefill 0.062 + decode 100.000 + requests 0.000 + not_drawn 0.000

        # others' work at a peer
        own      240.000 = prefill 120.000 + decode 120.000 + requests 0.000 + not_drawn 0.000  <-
        b        260.000 = prefill 130.000 + decode 130.000 + requests 0.000 + not_drawn 0.000
        ");
    }

    #[test]
    fn weights() {
        let log = scores(
            "dynamo",
            "overlap_score_credit=0.5 overlap_score_credit_decay=2 prefill_load_scale=3 decode_active_request_weight=7 block_size=10",
            "
            # 1000 in flight is 2.5 prompts above the least loaded: 400 of credit · 0.5 / (1 + 2·2.5)
            prompt=400
            a cached=400 sent=600,400
            b cached=400
            c cached=0 decoding=200
            ",
        );
        assert_snapshot!(log, @r"
        # 1000 in flight is 2.5 prompts above the least loaded: 400 of credit · 0.5 / (1 + 2·2.5)
        a        564.000 = prefill 410.000 + decode 140.000 + requests 14.000 + not_drawn 0.000
        b        100.000 = prefill 60.000 + decode 40.000 + requests 0.000 + not_drawn 0.000  <-
        c        187.000 = prefill 120.000 + decode 60.000 + requests 7.000 + not_drawn 0.000
        ");
    }

    #[test]
    fn softmax_is_over_the_range_of_the_costs() {
        let weights = |costs: &[f64], temperature| softmax(costs, temperature);
        assert_eq!(weights(&[5.0, 5.0], 1.0), [1.0, 1.0]);
        assert_eq!(weights(&[5.0], 1.0), [1.0]);
        let e = std::f64::consts::E;
        assert_eq!(weights(&[100.0, 300.0], 1.0), [1.0, 1.0 / e]);
        assert_eq!(weights(&[100.0, 200.0, 300.0], 0.5), [1.0, 1.0 / e, 1.0 / e / e]);
    }

    #[test]
    fn a_temperature_draws_by_the_softmax() {
        let cases = "prompt=16\na cached=15\nb\n\n".repeat(3000);
        let log = scores_seeded("dynamo", "temperature=1", 1, &cases);
        let wins = |name: &str| log.lines().filter(|line| line.starts_with(name) && line.ends_with("<-")).count();
        // 1 / (1 + 1/e) = 0.731
        assert!((2100..2290).contains(&wins("a")) && wins("a") + wins("b") == 3000, "{} {}", wins("a"), wins("b"));
        assert_eq!(log, scores_seeded("dynamo", "temperature=1", 1, &cases));
        assert_ne!(log, scores_seeded("dynamo", "temperature=1", 2, &cases));
    }
}
