//! `skywalker`: a request is pushed only to a replica where nobody waits; near ones first, and among them to the one that knows its prompt.
//!
//! ```text
//! score = unavailable  +  remote  +  not_matched  +  in_flight            requests; the smallest wins, if it is available
//! ```
//!
//! 1. Available is an engine where no request waits (its gauge), at most `max_pending` requests are without a first token, and, with
//!    `--max-concurrent`, fewer are in flight. A peer is available if no more requests wait there than here (this one included) and no
//!    more than `max_peer_queue`, and at most `max_pending` are without a first token.
//! 2. Own engines before peers: a peer is asked only when no own engine is available. What a peer sent is never sent on.
//! 3. Among these the fewest requests in flight; but if the longest match is more than `match_threshold` of the prompt, and they are not
//!    out of balance (more than `balance_abs` requests apart *and* the busiest above `balance_rel` times the least busy), only those that
//!    have it.
//! 4. Nobody is available: it waits in the router's queue, first come first served, and 1 to 3 are tried again after every event.
//!
//! unavailable, remote and not_matched are 4, 2 and 1 times one more than the most requests in flight anywhere, so that they order the
//! candidates as 1 to 3 do.
//!
//! "SkyWalker: A Locality-Aware Cross-Region Load Balancer for LLM Inference" (EuroSys '26, arXiv 2505.24095), selective pushing by
//! pending requests; constants from skypilot-org/skypilot, branch `serve-multi-region-lb`: `sky/serve/load_balancer.py` (queue of a peer
//! at most 10, one hop) and `load_balancing_policies.py` (match above 0.5, balance 32 and 1.0001).
//!
//! Known weaknesses: distance orders local before remote and is not in any cost, so that a warm cache far away never competes with a cold
//! free engine here; a replica far away may run empty for a round trip before it gets the next request; conversations scatter while their
//! replica has somebody waiting, so that near saturation the hit rate falls, which makes saturation worse.
//!
//! Different from SkyWalker: it looks at its engines' waiting count every 100 ms, this router every 500, in which time it could send any
//! number to one of them. So its own count of requests without a first token, which is not stale, bounds a burst (3; theirs has no such
//! bound). The queue is looked at after every event instead of every 10 ms; what peers hold and how long their queues are is known from
//! what they tell; one match is a share of tokens instead of characters; priority goes before order of arrival, as always in this
//! router's queue.

use super::balance::{self, Balance};
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Choice, Policy, Query, View, terms};
use crate::routing::decision::{Candidate, Terms, Unit};
use crate::routing::filter::GATE_GAUGE_AGE_MS;
use crate::routing::fleet::ReplicaKind;

pub(super) const ENTRY: Entry = Entry {
    name: "skywalker",
    help: "SkyWalker: only where nobody waits, near before far, there by cached prefix; else it waits here",
    unit: Unit::Requests,
    parameters: &[
        Parameter {
            key: "match_threshold",
            default: 0.5,
            min: 0.0,
            max: 1.0,
            help: "share of the prompt above which a match decides",
        },
        Parameter {
            key: "max_pending",
            default: 3.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "requests without a first token up to which a replica is available",
        },
        Parameter {
            key: "max_peer_queue",
            default: 10.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "requests in a peer's queue up to which it is available",
        },
        balance::ABSOLUTE,
        balance::RELATIVE,
    ],
    build: |parameters, _| Box::new(SkyWalker::new(parameters)),
};

/// Weights of what goes before what, in units of one more than the most requests in flight.
const UNAVAILABLE: f64 = 4.0;
const REMOTE: f64 = 2.0;
const NOT_MATCHED: f64 = 1.0;

struct SkyWalker {
    match_threshold: f64,
    max_pending: f64,
    max_peer_queue: f64,
    balance: Balance,
    /// Match that decides among the candidates of this decision, tokens; 0 = none does.
    decisive: u32,
    /// One more than the most requests in flight at any of them.
    step: f64,
}

impl SkyWalker {
    fn new(parameters: &Parameters) -> Self {
        Self {
            match_threshold: parameters.get("match_threshold"),
            max_pending: parameters.get("max_pending"),
            max_peer_queue: parameters.get("max_peer_queue"),
            balance: Balance::new(parameters),
            decisive: 0,
            step: 1.0,
        }
    }

    fn available(&self, query: &Query<'_>, view: &View<'_>) -> bool {
        let gauges = view.replica.fresh_gauges(query.now, GATE_GAUGE_AGE_MS).unwrap_or_default();
        let waiting = gauges.waiting.unwrap_or(0.0);
        let queue_allows = match view.replica.spec.kind {
            ReplicaKind::Engine => waiting == 0.0,
            ReplicaKind::Peer => waiting <= self.max_peer_queue.min(query.queued_requests as f64 + 1.0),
        };
        let limit_allows = query.max_concurrent.is_none_or(|limit| view.in_flight() < f64::from(limit));
        queue_allows && limit_allows && view.pending() <= self.max_pending
    }

    /// Whom the request may go to now: own engines, or else peers.
    fn open<'a, 'b>(&self, query: &Query<'_>, views: &'a [View<'b>]) -> Vec<&'a View<'b>> {
        let of_kind = |kind| {
            let of_kind = views.iter().filter(move |view| view.replica.spec.kind == kind);
            of_kind.filter(|view| self.available(query, view)).collect::<Vec<_>>()
        };
        let own = of_kind(ReplicaKind::Engine);
        if own.is_empty() { of_kind(ReplicaKind::Peer) } else { own }
    }
}

impl Policy for SkyWalker {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        let open = self.open(query, candidates);
        let longest = open.iter().map(|view| view.cached_tokens).max().unwrap_or(0);
        let share = f64::from(longest) / f64::from(query.prompt_tokens.max(1));
        let balanced = !self.balance.is_lost(open.iter().map(|view| view.in_flight()));
        let decides = share > self.match_threshold && balanced;
        self.decisive = if decides { longest } else { 0 };
        self.step = candidates.iter().map(View::in_flight).fold(0.0, f64::max) + 1.0;
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let step = |of: f64, counts: bool| if counts { of * self.step } else { 0.0 };
        terms([
            ("unavailable", step(UNAVAILABLE, !self.available(query, candidate))),
            ("remote", step(REMOTE, candidate.replica.spec.kind == ReplicaKind::Peer)),
            ("not_matched", step(NOT_MATCHED, candidate.cached_tokens < self.decisive)),
            ("in_flight", candidate.in_flight()),
        ])
    }

    fn keeps_local(&self) -> bool {
        true
    }

    fn choose(&self, query: &Query<'_>, views: &[View<'_>], _candidates: &[Candidate], best: usize) -> Choice {
        if self.available(query, &views[best]) { Choice::Best(best) } else { Choice::Hold }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::proptest;

    use super::super::testing::scores;

    #[test]
    fn one_router_and_its_engines() {
        let log = scores(
            "skywalker",
            "",
            "
            # more than half of the prompt cached decides
            prompt=1000
            a rtt=400 cached=501 sent=1,1
            b rtt=2 cached=400

            # half does not: fewest requests
            prompt=1000
            a cached=500 sent=1,1
            b rtt=400

            # of those with the longest match the fewest requests
            prompt=1000
            a cached=800 sent=1,1
            b cached=800 decoding=1
            c cached=700

            # somebody waits there: the next best is asked, not waited for
            prompt=1000
            a cached=900 waiting=1
            b cached=600 decoding=1,1
            c

            # three without a first token are available, four are not
            prompt=1000
            a cached=900 sent=1,1,1 answered=1
            b cached=800 sent=1,1,1 decoding=1,1,1
            c

            # nobody is available
            prompt=1000
            a cached=900 waiting=1
            b sent=1,1,1,1

            # a count that is too old says nothing
            prompt=1000
            a cached=900 waiting=1 age=5001
            b

            # out of balance: 33 apart
            prompt=1000 limit=99
            a cached=900 decoding=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1
            b

            # with a limit
            prompt=1000 limit=2
            a cached=900 decoding=1,1
            b decoding=1
            ",
        );
        assert_snapshot!(log, @r"
        # more than half of the prompt cached decides
        a          2.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 2.000  <-
        b          3.000 = unavailable 0.000 + remote 0.000 + not_matched 3.000 + in_flight 0.000

        # half does not: fewest requests
        a          2.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 2.000
        b          0.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000  <-

        # of those with the longest match the fewest requests
        a          2.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 2.000
        b          1.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 1.000  <-
        c          3.000 = unavailable 0.000 + remote 0.000 + not_matched 3.000 + in_flight 0.000

        # somebody waits there: the next best is asked, not waited for
        a         12.000 = unavailable 12.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        b          2.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 2.000  <-
        c          3.000 = unavailable 0.000 + remote 0.000 + not_matched 3.000 + in_flight 0.000

        # three without a first token are available, four are not
        a         32.000 = unavailable 28.000 + remote 0.000 + not_matched 0.000 + in_flight 4.000
        b          6.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 6.000  <-
        c          7.000 = unavailable 0.000 + remote 0.000 + not_matched 7.000 + in_flight 0.000

        # nobody is available
        a         20.000 = unavailable 20.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        b         24.000 = unavailable 20.000 + remote 0.000 + not_matched 0.000 + in_flight 4.000
        hold

        # a count that is too old says nothing
        a          0.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000  <-
        b          1.000 = unavailable 0.000 + remote 0.000 + not_matched 1.000 + in_flight 0.000

        # out of balance: 33 apart
        a         33.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 33.000
        b          0.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000  <-

        # with a limit
        a         14.000 = unavailable 12.000 + remote 0.000 + not_matched 0.000 + in_flight 2.000
        b          1.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 1.000  <-
        ");
    }

    #[test]
    fn an_agent_and_its_peers() {
        let log = scores(
            "skywalker",
            "",
            "
            # the own engine is available: nobody else is asked, whatever they hold
            prompt=1000
            own decoding=1,1
            east peer=1 rtt=10 cached=999

            # it is not
            prompt=1000
            own cached=999 waiting=1
            east peer=1 rtt=10 cached=100 sent=1
            west peer=1 rtt=90 cached=600 sent=1,1

            # peers' queues: no longer than ours with this request in it
            prompt=1000 waits=1
            own waiting=1
            east peer=1 waiting=2
            west peer=1 waiting=3

            # and no longer than ten
            prompt=1000 waits=20
            own waiting=1
            east peer=1 waiting=10 others=1,1,1
            west peer=1 waiting=11

            # others' requests there count
            prompt=1000
            own waiting=1
            east peer=1 others=1,1 sent=1,1
            west peer=1 others=1,1,1

            # all are busy
            prompt=1000
            own waiting=1
            east peer=1 waiting=2
            ",
        );
        assert_snapshot!(log, @r"
        # the own engine is available: nobody else is asked, whatever they hold
        own        2.000 = unavailable 0.000 + remote 0.000 + not_matched 0.000 + in_flight 2.000  <-
        east       6.000 = unavailable 0.000 + remote 6.000 + not_matched 0.000 + in_flight 0.000

        # it is not
        own       12.000 = unavailable 12.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        east      10.000 = unavailable 0.000 + remote 6.000 + not_matched 3.000 + in_flight 1.000
        west       8.000 = unavailable 0.000 + remote 6.000 + not_matched 0.000 + in_flight 2.000  <-

        # peers' queues: no longer than ours with this request in it
        own        4.000 = unavailable 4.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        east       2.000 = unavailable 0.000 + remote 2.000 + not_matched 0.000 + in_flight 0.000  <-
        west       6.000 = unavailable 4.000 + remote 2.000 + not_matched 0.000 + in_flight 0.000

        # and no longer than ten
        own       16.000 = unavailable 16.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        east      11.000 = unavailable 0.000 + remote 8.000 + not_matched 0.000 + in_flight 3.000  <-
        west      24.000 = unavailable 16.000 + remote 8.000 + not_matched 0.000 + in_flight 0.000

        # others' requests there count
        own       20.000 = unavailable 20.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        east      34.000 = unavailable 20.000 + remote 10.000 + not_matched 0.000 + in_flight 4.000
        west      13.000 = unavailable 0.000 + remote 10.000 + not_matched 0.000 + in_flight 3.000  <-

        # all are busy
        own        4.000 = unavailable 4.000 + remote 0.000 + not_matched 0.000 + in_flight 0.000
        east       6.000 = unavailable 4.000 + remote 2.000 + not_matched 0.000 + in_flight 0.000
        hold
        ");
    }

    proptest! {
        /// The terms order candidates as the steps say: available before own before matching before idle.
        #[test]
        fn what_is_chosen_is_available_and_the_own_engine_goes_before_peers(
            fleet in proptest::collection::vec((0..2u8, 0..6usize, 0..6usize, 0..1000u32, 0..3u32), 1..6),
        ) {
            let line = |(i, (peer, pending, decoding, cached, waiting)): (usize, &(u8, usize, usize, u32, u32))| {
                let ones = |key: &str, n: usize| if n > 0 { format!(" {key}={}", vec!["1"; n].join(",")) } else { String::new() };
                let peer = if *peer == 1 { " peer=1" } else { "" };
                format!("r{i}{peer} cached={cached} waiting={waiting}{}{}", ones("sent", *pending), ones("decoding", *decoding))
            };
            let lines: Vec<String> = fleet.iter().enumerate().map(line).collect();
            let log = scores("skywalker", "", &format!("prompt=1001\n{}\n", lines.join("\n")));
            let open = |(peer, pending, _, _, waiting): &(u8, usize, usize, u32, u32)| *pending <= 3 && *waiting <= u32::from(*peer);
            let chosen = log.lines().position(|line| line.ends_with("<-"));
            match chosen {
                Some(chosen) => {
                    assert!(open(&fleet[chosen]), "{log}");
                    assert!(fleet[chosen].0 == 0 || !fleet.iter().any(|replica| replica.0 == 0 && open(replica)), "{log}");
                }
                None => assert!(!fleet.iter().any(open), "{log}"),
            }
        }
    }
}
