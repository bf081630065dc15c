//! `preble`: Preble's E2: to where most of the prompt is cached, if that is more than the rest, else to the least load of three minutes.
//!
//! ```text
//! score = prefill  +  decode  +  left_out                ms of load, no prediction; the smallest wins
//!
//! prefill  = Σ over the requests of the last `window_s`:  time to compute what of them was not cached there
//! decode   = output expected of the requests in flight there · median time per output token
//! left_out = more than anybody's load, for whoever does not come into question
//! ```
//!
//! 1. *Exploit*: the longest match is longer than the rest of the prompt. In question come those that have it. If that is the most loaded
//!    replica alone, it has more than `rebalance` times the load of the least loaded, and there were `rebalance_after` requests per
//!    replica: the least loaded instead, which will hold the prompt from then on.
//! 2. *Explore*: everybody comes into question.
//!
//! "Preble: Efficient Distributed Prompt Scheduling for LLM Serving" (ICLR '25, arXiv 2407.00023); WukLab/preble,
//! `preble/global_scheduler_with_time.py`: window 3 minutes, rebalance at 1.5 after 50 requests per GPU, median over the last 200 times
//! per output token, the first of which is taken to be 150 ms. The time of a prefill is their regression for Mistral-7B on an A6000
//! (`model_equations.py`, `LP_mistral_7b_A6000_sglang_extend_flashinfer`), unless the replica has a prefill rate of its own. What a
//! request does not have cached is counted where it was sent.
//!
//! Known weaknesses: distance is not known; GPUs are taken for equally fast unless they are given rates; a load of three minutes is still
//! high where nothing is left to do, and low where a burst has just begun; their regression falls below zero between 361 and 383 tokens
//! (here it stops at zero).
//!
//! Different from Preble: it sums per node of its prefix tree, with the node's mean miss rate and divided by the GPUs that hold it, where
//! here each request counts by itself; rebalancing turns requests away from the most loaded replica, as the paper describes it, instead
//! of moving nodes; eviction costs (off by default there) and second copies of prefixes whose TTFT doubles are not here. Its choice among
//! several GPUs that hold a prefix takes the position in that list for the number of a GPU; that is not copied. What is cached is this
//! router's mirror, and the expected output its own mean, instead of `max_tokens` or 45.

use std::collections::{BTreeMap, VecDeque};

use super::observation::{Event, Observation, Sent};
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::{Terms, Unit};
use crate::routing::fleet::Replica;

/// Times per output token that are remembered of each replica.
const MOST_TIMES: usize = 200;

pub(super) const ENTRY: Entry = Entry {
    name: "preble",
    help: "Preble: where more than half of the prompt is cached, else the least load of three minutes",
    unit: Unit::Rank,
    parameters: &[
        Parameter { key: "window_s", default: 180.0, min: 1.0, max: 3600.0, help: "requests that count as load, s" },
        Parameter {
            key: "first_tpot_ms",
            default: 150.0,
            min: 0.0,
            max: 10_000.0,
            help: "time per output token that stands before the measured ones, ms",
        },
        Parameter {
            key: "rebalance",
            default: 1.5,
            min: 1.0,
            max: 1_000_000.0,
            help: "ratio of the largest to the smallest load above which the former's matches go to the latter",
        },
        Parameter {
            key: "rebalance_after",
            default: 50.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "requests per replica before that",
        },
    ],
    build: |parameters, _| Box::new(Preble::new(parameters)),
};

/// A request of the window.
#[derive(Clone, Copy, Debug)]
struct Work {
    at: Time,
    replica: ReplicaId,
    prefill_ms: f64,
}

/// What is known of one replica.
#[derive(Clone, Debug)]
struct Gpu {
    /// Requests of the window.
    requests: u32,
    /// Sum of their prefill times, ms.
    prefill_ms: f64,
    /// Newest times per output token, ms.
    times: VecDeque<f64>,
    /// Their median, ms.
    tpot_ms: f64,
}

impl Gpu {
    fn new(first_tpot_ms: f64) -> Self {
        Self { requests: 0, prefill_ms: 0.0, times: VecDeque::from([first_tpot_ms]), tpot_ms: first_tpot_ms }
    }

    fn add(&mut self, prefill_ms: f64) {
        self.requests += 1;
        self.prefill_ms += prefill_ms;
    }

    /// A request leaves the window. The sum of none is nothing, whatever rounding has left.
    fn forget(&mut self, prefill_ms: f64) {
        self.requests = self.requests.saturating_sub(1);
        self.prefill_ms = if self.requests == 0 { 0.0 } else { (self.prefill_ms - prefill_ms).max(0.0) };
    }

    fn measured(&mut self, tpot_ms: f64) {
        if self.times.len() == MOST_TIMES {
            self.times.pop_front();
        }
        self.times.push_back(tpot_ms);
        self.tpot_ms = median(self.times.iter().copied().collect());
    }
}

/// The mean of the middle two where there is no middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

struct Preble {
    window_ms: f64,
    first_tpot_ms: f64,
    rebalance: f64,
    rebalance_after: f64,
    /// Requests of the window, oldest first.
    window: VecDeque<Work>,
    gpus: BTreeMap<ReplicaId, Gpu>,
    /// First tokens of requests in flight: where and when.
    first_tokens: BTreeMap<RequestId, (ReplicaId, Time)>,
    /// Requests seen since the start.
    seen: u64,
    /// Who comes into question for the request being decided, if not everybody.
    shortlist: Option<Vec<ReplicaId>>,
    /// More than anybody's load, ms.
    left_out: f64,
}

impl Preble {
    fn new(parameters: &Parameters) -> Self {
        Self {
            window_ms: 1000.0 * parameters.get("window_s"),
            first_tpot_ms: parameters.get("first_tpot_ms"),
            rebalance: parameters.get("rebalance"),
            rebalance_after: parameters.get("rebalance_after"),
            window: VecDeque::new(),
            gpus: BTreeMap::new(),
            first_tokens: BTreeMap::new(),
            seen: 0,
            shortlist: None,
            left_out: 0.0,
        }
    }

    fn gpu(&mut self, replica: ReplicaId) -> &mut Gpu {
        let first = self.first_tpot_ms;
        self.gpus.entry(replica).or_insert_with(|| Gpu::new(first))
    }

    /// Forgets what is older than the window.
    fn expire(&mut self, now: Time) {
        while let Some(work) = self.window.front().copied().filter(|work| now.since_ms(work.at) > self.window_ms) {
            self.window.pop_front();
            if let Some(gpu) = self.gpus.get_mut(&work.replica) {
                gpu.forget(work.prefill_ms);
            }
        }
    }

    /// Load of the requests of the window, ms.
    fn prefill(&self, candidate: &View<'_>) -> f64 {
        self.gpus.get(&candidate.replica.id).map_or(0.0, |gpu| gpu.prefill_ms)
    }

    /// Load of the output that is still to come, ms.
    fn decode(&self, candidate: &View<'_>) -> f64 {
        let tpot_ms = self.gpus.get(&candidate.replica.id).map_or(self.first_tpot_ms, |gpu| gpu.tpot_ms);
        candidate.expected_output() * tpot_ms
    }

    fn load(&self, candidate: &View<'_>) -> f64 {
        self.prefill(candidate) + self.decode(candidate)
    }

    /// Who comes into question; `None` = everybody.
    fn shortlist(&self, query: &Query<'_>, candidates: &[View<'_>]) -> Option<Vec<ReplicaId>> {
        let longest = candidates.iter().map(|view| view.cached_tokens).max().unwrap_or(0);
        if longest <= query.prompt_tokens - longest {
            return None;
        }
        let holders = candidates.iter().filter(|view| view.cached_tokens == longest);
        let holders: Vec<ReplicaId> = holders.map(|view| view.replica.id).collect();
        match holders.as_slice() {
            [holder] => Some(vec![self.rebalanced(*holder, candidates).unwrap_or(*holder)]),
            _ => Some(holders),
        }
    }

    /// The least loaded, if this one is the most loaded and far above it.
    fn rebalanced(&self, holder: ReplicaId, candidates: &[View<'_>]) -> Option<ReplicaId> {
        if (self.seen as f64) < self.rebalance_after * candidates.len() as f64 {
            return None;
        }
        let by_load = |a: &&View<'_>, b: &&View<'_>| self.load(a).total_cmp(&self.load(b));
        let (least, most) = (candidates.iter().min_by(by_load)?, candidates.iter().max_by(by_load)?);
        let far = self.load(most) > self.rebalance * self.load(least);
        (far && most.replica.id == holder).then_some(least.replica.id)
    }

    fn dispatched(&mut self, now: Time, replica: &Replica, sent: Sent<'_>) {
        let prefill_ms = prefill_ms(replica, sent.prompt_tokens - sent.cached_tokens, sent.prompt_tokens);
        self.seen += 1;
        self.window.push_back(Work { at: now, replica: replica.id, prefill_ms });
        self.gpu(replica.id).add(prefill_ms);
    }

    /// Learns the time per output token of a request that ended.
    fn finished(&mut self, now: Time, replica: ReplicaId, request: RequestId, output_tokens: Option<u32>) {
        let Some((_, first)) = self.first_tokens.remove(&request) else { return };
        let after_first = output_tokens.unwrap_or(0).saturating_sub(1);
        if after_first > 0 {
            self.gpu(replica).measured(now.since_ms(first).max(0.0) / f64::from(after_first));
        }
    }

    fn removed(&mut self, replica: ReplicaId) {
        self.gpus.remove(&replica);
        self.window.retain(|work| work.replica != replica);
        self.first_tokens.retain(|_, (at, _)| *at != replica);
    }
}

/// Time to compute so many tokens of a prompt of this length there, ms.
fn prefill_ms(replica: &Replica, tokens: u32, prompt: u32) -> f64 {
    let rate = replica.spec.rates.prefill_ms_per_token;
    rate.map_or_else(|| regression_ms(f64::from(tokens), f64::from(prompt)), |rate| rate * f64::from(tokens))
}

/// Preble's regression for Mistral-7B on an A6000 with SGLang: the linear layers, attention over the whole prompt, and what long prompts
/// take beyond; all that is 0.9 of the time.
fn regression_ms(tokens: f64, prompt: f64) -> f64 {
    let linear = if tokens >= 384.0 {
        0.108_425_71 * tokens + 4.209_777_054_806_409
    } else if tokens >= 192.0 {
        -118.0 + 1.25 * tokens - 2.56e-3 * tokens * tokens
    } else {
        22.0
    };
    let attention = if prompt <= 1024.0 { 0.32 } else { 1.86e-4 * prompt + 0.159 };
    let long = tokens * prompt > 1024.0 * 1024.0;
    let beyond = if long { 1.13e-3 * tokens + 1.75e-3 * prompt + 2.19e-6 * tokens * prompt } else { 0.0 };
    ((linear + attention + beyond) / 0.9).max(0.0)
}

impl Policy for Preble {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        self.expire(query.now);
        self.shortlist = self.shortlist(query, candidates);
        self.left_out = candidates.iter().map(|view| self.load(view)).fold(0.0, f64::max) + 1.0;
    }

    fn terms(&self, _query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let left_out = self.shortlist.as_ref().is_some_and(|list| !list.contains(&candidate.replica.id));
        terms([
            ("prefill", self.prefill(candidate)),
            ("decode", self.decode(candidate)),
            ("left_out", if left_out { self.left_out } else { 0.0 }),
        ])
    }

    fn observe(&mut self, now: Time, observation: &Observation<'_>) {
        let replica = observation.replica;
        match observation.event {
            Event::Dispatched(sent) => self.dispatched(now, replica, sent),
            Event::FirstToken { request } => drop(self.first_tokens.insert(request, (replica.id, now))),
            Event::Finished { request, usage } => self.finished(now, replica.id, request, usage.completion_tokens),
            Event::Left { request } | Event::Lost { request } => drop(self.first_tokens.remove(&request)),
            Event::Removed => self.removed(replica.id),
            // What was cached was paid for.
            Event::Emptied => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::proptest;

    use super::super::testing::scores;
    use super::{Gpu, MOST_TIMES, median, regression_ms};

    #[test]
    fn the_regression() {
        // By hand, from its three parts.
        let cases = [
            (0.0, 0.0, (22.0 + 0.32) / 0.9),
            (191.0, 1024.0, (22.0 + 0.32) / 0.9),
            (192.0, 192.0, (-118.0 + 240.0 - 94.371_84 + 0.32) / 0.9),
            (384.0, 1000.0, (41.635_472_64 + 4.209_777_05 + 0.32) / 0.9),
            (1000.0, 2000.0, (108.425_71 + 4.209_777_05 + 0.531 + 1.13 + 3.5 + 4.38) / 0.9),
            (380.0, 380.0, 0.0),
        ];
        for (tokens, prompt, expected) in cases {
            let found = regression_ms(tokens, prompt);
            assert!((found - expected).abs() < 1e-6, "{tokens} of {prompt}: {found}, wanted {expected}");
        }
    }

    #[test]
    fn medians_are_over_the_newest_times() {
        assert_eq!((median(vec![3.0]), median(vec![5.0, 1.0]), median(vec![9.0, 1.0, 2.0])), (3.0, 3.0, 2.0));
        let mut gpu = Gpu::new(150.0);
        gpu.measured(50.0);
        assert_eq!(gpu.tpot_ms, 100.0, "the first one stands among them");
        (0..MOST_TIMES).for_each(|_| gpu.measured(20.0));
        assert_eq!((gpu.tpot_ms, gpu.times.len()), (20.0, MOST_TIMES));
    }

    #[test]
    fn exploit_and_explore() {
        let log = scores(
            "preble",
            "",
            "
            # 501 of 1000 are more than the rest: there, whatever is near
            prompt=1000 go=1
            a prefill=0.1 cached=501 rtt=400
            b prefill=0.2

            # 500 are not; a has the 49.9 ms of the first in its window
            prompt=1000 go=2
            a prefill=0.1 cached=500
            b prefill=0.2

            # b has 200 ms by now
            prompt=1000
            a prefill=0.1
            b prefill=0.2

            # of several that hold it, the least loaded
            prompt=1000
            a prefill=0.1 cached=900
            b prefill=0.2 cached=900
            c

            # three minutes later both are still there, and a moment after that no longer
            prompt=1000 at=180000
            a prefill=0.1
            b prefill=0.2

            prompt=1000 at=180001
            a prefill=0.1
            b prefill=0.2
            ",
        );
        assert_snapshot!(log, @r"
        # 501 of 1000 are more than the rest: there, whatever is near
        a          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000  <-
        b          1.000 = prefill 0.000 + decode 0.000 + left_out 1.000

        # 500 are not; a has the 49.9 ms of the first in its window
        a         49.900 = prefill 49.900 + decode 0.000 + left_out 0.000
        b          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000  <-

        # b has 200 ms by now
        a         49.900 = prefill 49.900 + decode 0.000 + left_out 0.000  <-
        b        200.000 = prefill 200.000 + decode 0.000 + left_out 0.000

        # of several that hold it, the least loaded
        a         49.900 = prefill 49.900 + decode 0.000 + left_out 0.000  <-
        b        200.000 = prefill 200.000 + decode 0.000 + left_out 0.000
        c        201.000 = prefill 0.000 + decode 0.000 + left_out 201.000

        # three minutes later both are still there, and a moment after that no longer
        a         49.900 = prefill 49.900 + decode 0.000 + left_out 0.000  <-
        b        200.000 = prefill 200.000 + decode 0.000 + left_out 0.000

        a          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000  <-
        b          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000
        ");
    }

    #[test]
    fn the_time_per_output_token_is_measured() {
        let log = scores(
            "preble",
            "",
            "
            # 10 output tokens are expected of each in flight, at 150 ms
            prompt=1000 go=1
            a prefill=0 output=10 sent=1
            b prefill=0 output=10 sent=1,1
            > first 1 a at=100
            > done 1 a at=2100 out=41

            # (150 + 2000 / 40) / 2 = 100 ms at a
            prompt=1000 at=3000
            a prefill=0 output=10 sent=1
            b prefill=0 output=10 decoding=1

            # what left without an answer, or without a second token, teaches nothing
            prompt=1000 at=4000 go=2
            a prefill=0 output=10
            b prefill=0 output=10
            > first 2 a at=4100
            > left 2 a at=9000
            > first 3 a at=4100
            > done 3 a at=9000 out=1

            prompt=1000 at=9000
            a prefill=0 output=10 sent=1
            b prefill=0 output=10 sent=1
            ",
        );
        assert_snapshot!(log, @r"
        # 10 output tokens are expected of each in flight, at 150 ms
        a       1500.000 = prefill 0.000 + decode 1500.000 + left_out 0.000  <-
        b       3000.000 = prefill 0.000 + decode 3000.000 + left_out 0.000

        # (150 + 2000 / 40) / 2 = 100 ms at a
        a       1000.000 = prefill 0.000 + decode 1000.000 + left_out 0.000  <-
        b       1500.000 = prefill 0.000 + decode 1500.000 + left_out 0.000

        # what left without an answer, or without a second token, teaches nothing
        a          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000  <-
        b          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000

        a       1000.000 = prefill 0.000 + decode 1000.000 + left_out 0.000  <-
        b       1500.000 = prefill 0.000 + decode 1500.000 + left_out 0.000
        ");
    }

    #[test]
    fn far_above_the_least_loaded_the_most_loaded_gives_matches_away() {
        let log = scores(
            "preble",
            "rebalance_after=1",
            "
            # two requests are not seen yet
            prompt=1000 go=1
            a prefill=0.1 cached=600
            b prefill=0.1

            prompt=1000 go=2
            a prefill=0.1 cached=600
            b prefill=0.1

            # 80 ms against none
            prompt=1000 go=3
            a prefill=0.1 cached=600
            b prefill=0.1

            # a is not the most loaded any more
            prompt=1000
            a prefill=0.1 cached=600
            b prefill=0.1

            # b is, but 100 is not 1.5 times 80
            prompt=1000
            a prefill=0.1
            b prefill=0.1 cached=600
            ",
        );
        assert_snapshot!(log, @r"
        # two requests are not seen yet
        a          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000  <-
        b          1.000 = prefill 0.000 + decode 0.000 + left_out 1.000

        a         40.000 = prefill 40.000 + decode 0.000 + left_out 0.000  <-
        b         41.000 = prefill 0.000 + decode 0.000 + left_out 41.000

        # 80 ms against none
        a        161.000 = prefill 80.000 + decode 0.000 + left_out 81.000
        b          0.000 = prefill 0.000 + decode 0.000 + left_out 0.000  <-

        # a is not the most loaded any more
        a         80.000 = prefill 80.000 + decode 0.000 + left_out 0.000  <-
        b        201.000 = prefill 100.000 + decode 0.000 + left_out 101.000

        # b is, but 100 is not 1.5 times 80
        a        181.000 = prefill 80.000 + decode 0.000 + left_out 101.000
        b        100.000 = prefill 100.000 + decode 0.000 + left_out 0.000  <-
        ");
    }

    proptest! {
        #[test]
        fn a_window_that_is_empty_again_is_no_load(loads in proptest::collection::vec(0.0..1e6f64, 0..40)) {
            let mut gpu = Gpu::new(150.0);
            loads.iter().for_each(|load| gpu.add(*load));
            for load in &loads {
                assert!(gpu.prefill_ms >= 0.0);
                gpu.forget(*load);
            }
            assert_eq!((gpu.requests, gpu.prefill_ms), (0, 0.0));
        }
    }
}
