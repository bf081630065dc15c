//! `sglang-cache-aware`: the `cache_aware` policy of SGLang's router: the longest match, or the smallest tree, or the fewest requests.
//!
//! ```text
//! score = requests  +  behind  +  tree              rank; one of the three counts, the others are 0; the smallest wins
//!
//! out of balance (most − fewest > balance_abs and most > balance_rel · fewest requests):  requests
//! else the longest match is more than cache_threshold of the prompt:                      behind
//! else:                                                                                   tree
//! ```
//!
//! requests: in flight there, of this router, and of others at a peer. behind: cached tokens that a replica lacks to the longest match.
//! tree: tokens of all prompts that went there and were not cached there already, up to `max_tree_size`: the size of what SGLang's router
//! keeps per worker to guess its cache.
//!
//! sgl-project/sglang, `sgl-router/src/policies/cache_aware.rs`, with the defaults of its launcher (`sglang_router`, `RouterArgs`):
//! threshold 0.5, balance 32 and 1.0001, tree 2^24 characters, here in tokens of four characters. (The Rust default of the second balance
//! is 1.1; its successor's launcher has 0.3, 64 and 1.5.)
//!
//! Known weaknesses: until replicas are 32 requests apart load does not count at all, so that popular prefixes overload one replica
//! (sgl-project/sglang, issue 14305); half of a long prompt cached elsewhere counts as nothing; a new replica gets all prompts without a
//! match until its tree has grown like the others'; trees at their limit are all equal.
//!
//! Different from SGLang: what is cached is this router's mirror, which is bounded by the replica's KV capacity and corrected by what the
//! engine reports, instead of the tree, which knows neither; among replicas with equal matches the one with the fewest requests without a
//! first token instead of any; the tree is never evicted, only its count stops.

use std::collections::BTreeMap;

use super::balance::{self, Balance};
use super::observation::{Event, Observation};
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::{ReplicaId, Time};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "sglang-cache-aware",
    help: "SGLang's router: longest match above half of the prompt, else smallest tree; fewest requests when 32 apart",
    unit: Unit::Rank,
    parameters: &[
        Parameter {
            key: "cache_threshold",
            default: 0.5,
            min: 0.0,
            max: 1.0,
            help: "share of the prompt above which a match decides",
        },
        balance::ABSOLUTE,
        balance::RELATIVE,
        Parameter {
            key: "max_tree_size",
            default: 4_194_304.0,
            min: 0.0,
            max: 1e12,
            help: "size at which a tree is no longer counted on, tokens",
        },
    ],
    build: |parameters, _| Box::new(SglangCacheAware::new(parameters)),
};

/// What one decision goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Requests,
    /// Its length, tokens.
    Longest(u32),
    Tree,
}

struct SglangCacheAware {
    cache_threshold: f64,
    balance: Balance,
    max_tree_size: f64,
    /// Sizes of the trees, tokens.
    trees: BTreeMap<ReplicaId, f64>,
    rule: Rule,
}

impl SglangCacheAware {
    fn new(parameters: &Parameters) -> Self {
        Self {
            cache_threshold: parameters.get("cache_threshold"),
            balance: Balance::new(parameters),
            max_tree_size: parameters.get("max_tree_size"),
            trees: BTreeMap::new(),
            rule: Rule::Tree,
        }
    }

    fn rule(&self, query: &Query<'_>, candidates: &[View<'_>]) -> Rule {
        if self.balance.is_lost(candidates.iter().map(View::in_flight)) {
            return Rule::Requests;
        }
        let longest = candidates.iter().map(|view| view.cached_tokens).max().unwrap_or(0);
        let share = f64::from(longest) / f64::from(query.prompt_tokens.max(1));
        if share > self.cache_threshold { Rule::Longest(longest) } else { Rule::Tree }
    }

    fn tree(&self, replica: ReplicaId) -> f64 {
        self.trees.get(&replica).copied().unwrap_or(0.0)
    }
}

impl Policy for SglangCacheAware {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        self.rule = self.rule(query, candidates);
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let counts = |counts: bool, value: f64| if counts { value } else { 0.0 };
        let behind = match self.rule {
            Rule::Longest(longest) => f64::from(longest - candidate.cached_tokens),
            Rule::Requests | Rule::Tree => 0.0,
        };
        terms([
            ("requests", counts(self.rule == Rule::Requests, candidate.in_flight())),
            ("behind", behind),
            ("tree", counts(self.rule == Rule::Tree, self.tree(candidate.replica.id))),
        ])
    }

    fn observe(&mut self, _now: Time, observation: &Observation<'_>) {
        let replica = observation.replica.id;
        match observation.event {
            Event::Dispatched(sent) => {
                let grown = self.tree(replica) + f64::from(sent.prompt_tokens - sent.cached_tokens);
                self.trees.insert(replica, grown.min(self.max_tree_size));
            }
            Event::Removed => drop(self.trees.remove(&replica)),
            // Nobody tells SGLang's router of the rest.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "sglang-cache-aware",
            "",
            "
            # more than half of the prompt: the longest match, whatever is near or idle
            prompt=1000
            a cached=501 rtt=400 sent=1,1
            b cached=500 rtt=2

            # no more than half: the smallest tree, and all are empty
            prompt=1000 go=1
            a cached=500 sent=1
            b

            # b's tree has grown by 1000 tokens
            prompt=600 go=2
            a sent=1
            b

            # a's by 600: the next new prompt goes there as well
            prompt=600 go=3
            a sent=1,1
            b

            # now b's is smaller: 1000 and 1200; of this prompt only 250 are new to it
            prompt=500 go=4
            a sent=1,1,1,1,1
            b cached=250

            prompt=500
            a
            b

            # a match decides whatever the trees are
            prompt=1000
            a cached=900
            b

            # 32 apart is balanced
            prompt=1000
            a cached=900 decoding=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1
            b

            # 33 is not: fewest requests
            prompt=1000
            a cached=900 decoding=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1
            b
            ",
        );
        assert_snapshot!(log, @r"
        # more than half of the prompt: the longest match, whatever is near or idle
        a          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        b          1.000 = requests 0.000 + behind 1.000 + tree 0.000

        # no more than half: the smallest tree, and all are empty
        a          0.000 = requests 0.000 + behind 0.000 + tree 0.000
        b          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-

        # b's tree has grown by 1000 tokens
        a          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        b       1000.000 = requests 0.000 + behind 0.000 + tree 1000.000

        # a's by 600: the next new prompt goes there as well
        a        600.000 = requests 0.000 + behind 0.000 + tree 600.000  <-
        b       1000.000 = requests 0.000 + behind 0.000 + tree 1000.000

        # now b's is smaller: 1000 and 1200; of this prompt only 250 are new to it
        a       1200.000 = requests 0.000 + behind 0.000 + tree 1200.000
        b       1000.000 = requests 0.000 + behind 0.000 + tree 1000.000  <-

        a       1200.000 = requests 0.000 + behind 0.000 + tree 1200.000  <-
        b       1250.000 = requests 0.000 + behind 0.000 + tree 1250.000

        # a match decides whatever the trees are
        a          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        b        900.000 = requests 0.000 + behind 900.000 + tree 0.000

        # 32 apart is balanced
        a          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        b        900.000 = requests 0.000 + behind 900.000 + tree 0.000

        # 33 is not: fewest requests
        a         33.000 = requests 33.000 + behind 0.000 + tree 0.000
        b          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        ");
    }

    #[test]
    fn parameters_and_peers() {
        let log = scores(
            "sglang-cache-aware",
            "cache_threshold=0.2 balance_abs=1 balance_rel=3 max_tree_size=700",
            "
            # 2 apart, but not more than thrice as many
            prompt=1000
            own cached=201 decoding=1,1,1
            b peer=1 others=1

            # 3 apart and more than thrice as many
            prompt=1000
            own cached=201 decoding=1,1,1,1
            b peer=1 others=1

            # a tree at its limit
            prompt=1000 go=1
            own
            b peer=1

            prompt=1000 go=2
            own
            b peer=1

            prompt=1000
            own
            b peer=1
            ",
        );
        assert_snapshot!(log, @r"
        # 2 apart, but not more than thrice as many
        own        0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        b        201.000 = requests 0.000 + behind 201.000 + tree 0.000

        # 3 apart and more than thrice as many
        own        4.000 = requests 4.000 + behind 0.000 + tree 0.000
        b          1.000 = requests 1.000 + behind 0.000 + tree 0.000  <-

        # a tree at its limit
        own        0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-
        b          0.000 = requests 0.000 + behind 0.000 + tree 0.000

        own      700.000 = requests 0.000 + behind 0.000 + tree 700.000
        b          0.000 = requests 0.000 + behind 0.000 + tree 0.000  <-

        own      700.000 = requests 0.000 + behind 0.000 + tree 700.000  <-
        b        700.000 = requests 0.000 + behind 0.000 + tree 700.000
        ");
    }
}
