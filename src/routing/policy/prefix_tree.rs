//! `prefix-tree`: the replica that holds the longest prefix of the prompt; among equals, and when nobody holds any, the least loaded.
//!
//! ```text
//! score = behind  +  load_share        tokens
//! ```
//!
//! behind: cached tokens that the replica lacks to the longest match among the candidates. load_share: its `least-load` score as a
//! share of one more than the largest among the candidates, so below 1: it decides among equal matches and never between
//! different ones.
//!
//! The rule looks at nothing else, and that is its weakness: where all traffic shares an opening (a system prompt, a tool list), the
//! first replica to see it matches everybody's prompt a little and gets **all** traffic for as long as it keeps the opening.
//!
//! Different from what the paper's authors run under such names: their first proxy (v1) picks the longest match among servers *with
//! capacity* (`--max-concurrent` gives that here); their later baseline `prefix-cache` leaves affinity for least-request when the running
//! counts are more than 8 apart, and prefers little loaded replicas among equal matches, so it collapses less.

use super::least_load::{GAUGE_MAX_AGE, LeastLoad};
use super::parameters::Parameters;
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::routing::decision::{Terms, Unit};

pub(super) const ENTRY: Entry = Entry {
    name: "prefix-tree",
    help: "longest cached prefix, else least load; collapses where all prompts open alike",
    unit: Unit::Tokens,
    parameters: &[GAUGE_MAX_AGE],
    build: |parameters, _| Box::new(PrefixTreePolicy::new(parameters)),
};

struct PrefixTreePolicy {
    least_load: LeastLoad,
    longest: u32,
    heaviest: f64,
}

impl PrefixTreePolicy {
    fn new(parameters: &Parameters) -> Self {
        Self { least_load: LeastLoad::new(parameters), longest: 0, heaviest: 0.0 }
    }

    fn load(&self, query: &Query<'_>, candidate: &View<'_>) -> f64 {
        self.least_load.terms(query, candidate).iter().map(|term| term.value).sum()
    }
}

impl Policy for PrefixTreePolicy {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        self.least_load.prepare(query, candidates);
        self.longest = candidates.iter().map(|view| view.cached_tokens).max().unwrap_or(0);
        self.heaviest = candidates.iter().map(|view| self.load(query, view)).fold(0.0, f64::max);
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let behind = f64::from(self.longest - candidate.cached_tokens);
        let load_share = self.load(query, candidate) / (self.heaviest + 1.0);
        terms([("behind", behind), ("load_share", load_share)])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "prefix-tree",
            "",
            "
            # the longest match wins, whatever it costs
            prompt=6000
            far rtt=165 cached=1024 sent=90000
            near rtt=2 cached=960

            # among equal matches the least loaded
            prompt=6000
            a cached=1024 sent=500
            b cached=1024 sent=400
            c cached=512

            # no match anywhere: least load
            prompt=6000
            a sent=500
            b decoding=300
            c sent=400

            # load never outweighs a single token
            prompt=6000
            a cached=1 sent=4000000000
            b cached=0
            ",
        );
        assert_snapshot!(log, @r"
        # the longest match wins, whatever it costs
        far        1.000 = behind 0.000 + load_share 1.000  <-
        near      64.000 = behind 64.000 + load_share 0.000

        # among equal matches the least loaded
        a          0.998 = behind 0.000 + load_share 0.998
        b          0.798 = behind 0.000 + load_share 0.798  <-
        c        512.000 = behind 512.000 + load_share 0.000

        # no match anywhere: least load
        a          0.998 = behind 0.000 + load_share 0.998
        b          0.599 = behind 0.000 + load_share 0.599  <-
        c          0.798 = behind 0.000 + load_share 0.798

        # load never outweighs a single token
        a          1.000 = behind 0.000 + load_share 1.000  <-
        b          1.000 = behind 1.000 + load_share 0.000
        ");
    }
}
