//! The least time to first token that a plan allows on a fleet: the distance to the limit, not a result to expect.
//!
//! Each request goes to the replica that answers it soonest when nothing else runs there; nothing queues and nothing shares a
//! step; all replicas share one prefix cache of infinite size into which a prompt goes the moment it is sent:
//!
//! `bound(request) = min over replicas of (rtt + prefill(prompt, cached))`, with cached < prompt (one token has to be computed).
//!
//! Why nothing beats it: queueing, batching with others, eviction, a cache per replica and prefill that has not ended yet each
//! only add time, and a distinct block has to be computed at least once by somebody, so no routing finds more tokens cached than
//! [`Bound::reuse`] in total. Why nothing reaches it: the caches are separate, the same fast replica cannot serve everybody at
//! once, and a prefix that is still being computed helps nobody. Limits: a single request's bound holds for requests sent in plan
//! order ([`Plan::in_order`]); where two sessions overlap and the later one overtakes, one of them may find what the bound gave to
//! the other. Sums and distributions over a run are hardly touched by that.

use super::plan::Plan;
use super::reuse::{InfiniteCache, Reuse};

/// The limit for one plan on one fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Least TTFT per request, ms, in plan order.
    pub ttft_ms: Vec<f64>,
    /// What the shared infinite cache found.
    pub reuse: Reuse,
}

/// The bound of `plan` on `replicas` replicas (at least one).
///
/// `rtt_ms(session, replica)` is the round trip between the session's client and the replica; `prefill_ms(replica, prompt_tokens,
/// cached_tokens)` the time of an idle engine from the arrival of a prompt to its first token.
pub fn lower_bound(
    plan: &Plan,
    replicas: usize,
    rtt_ms: impl Fn(usize, usize) -> f64,
    prefill_ms: impl Fn(usize, u32, u32) -> f64,
) -> Bound {
    let mut cache = InfiniteCache::default();
    let mut ttft_ms = Vec::with_capacity(plan.requests());
    for request in plan.in_order() {
        let prompt = request.step.input_tokens;
        let cached = cache.insert(&request.step.blocks, prompt, plan.block_size).min(prompt.saturating_sub(1));
        let on = |replica| rtt_ms(request.session, replica) + prefill_ms(replica, prompt, cached);
        ttft_ms.push((0..replicas).map(on).fold(f64::INFINITY, f64::min));
    }
    Bound { ttft_ms, reuse: cache.reuse() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection, prop_assert, proptest};

    use super::lower_bound;
    use crate::workload::plan::{Plan, Session, Step};

    fn session(start_ms: f64, prompts: &[(u32, &[u64])]) -> Session {
        let steps = prompts.iter().map(|&(input_tokens, blocks)| Step {
            think_ms: 100.0,
            input_tokens,
            output_tokens: 1,
            blocks: blocks.into(),
            text: None,
        });
        Session { id: Arc::from("s"), start_ms, steps: steps.collect() }
    }

    fn plan(sessions: Vec<Session>) -> Plan {
        Plan { block_size: 10, sessions, concurrency: None }
    }

    #[test]
    fn each_request_takes_its_best_replica_and_all_that_was_seen() {
        let plan = plan(vec![
            session(0.0, &[(20, &[1, 2]), (30, &[1, 2, 3])]),
            session(150.0, &[(20, &[1, 2]), (300, &[1, 2, 7])]),
        ]);
        // Replica 0 is near and slow (1 ms per token), replica 1 far and fast (0.1 ms per token).
        let rtt = |_session, replica: usize| [2.0, 50.0][replica];
        let prefill = |replica: usize, prompt: u32, cached: u32| [1.0, 0.1][replica] * f64::from(prompt - cached);
        let bound = lower_bound(&plan, 2, rtt, prefill);
        // In order of the earliest time: 100 (first), 200 (its next), 250 (the other), 350 (its next).
        assert_eq!(bound.ttft_ms, [22.0, 12.0, 3.0, 78.0]);
        assert_eq!((bound.reuse.tokens, bound.reuse.cached_tokens), (370, 60));
    }

    #[test]
    fn a_closed_loop_is_taken_session_by_session() {
        let mut plan = plan(vec![session(0.0, &[(10, &[1]), (10, &[2])]), session(0.0, &[(10, &[2])])]);
        plan.concurrency = Some(2);
        let bound = lower_bound(&plan, 1, |_, _| 0.0, |_, prompt, cached| f64::from(prompt - cached));
        assert_eq!(bound.ttft_ms, [10.0, 10.0, 1.0]);
    }

    proptest! {
        #[test]
        fn no_split_of_the_cache_beats_it(
            prompts in collection::vec(collection::vec(0_u64..3, 1..5), 1..30), place in collection::vec(0_usize..2, 30),
        ) {
            // Ids that depend on the whole prefix, as in a trace.
            let ids = |path: &[u64]| (1..=path.len()).map(|n| path[..n].iter().fold(1, |id, step| id * 4 + step)).collect::<Vec<_>>();
            let sessions = prompts.iter().zip(0_u32..).map(|(path, k)| {
                session(f64::from(k), &[(path.len() as u32 * 10, &ids(path))])
            });
            let plan = plan(sessions.collect());
            let one = lower_bound(&plan, 1, |_, _| 5.0, |_, prompt, cached| f64::from(prompt - cached));
            let mut caches = [super::InfiniteCache::default(), super::InfiniteCache::default()];
            for ((request, bound), &replica) in plan.in_order().iter().zip(&one.ttft_ms).zip(&place) {
                let tokens = request.step.input_tokens;
                let cached = caches[replica].insert(&request.step.blocks, tokens, 10).min(tokens - 1);
                prop_assert!(*bound <= 5.0 + f64::from(tokens - cached));
            }
            let found = caches.iter().map(|cache| cache.reuse().cached_tokens).sum::<u64>();
            prop_assert!(found <= one.reuse.cached_tokens);
        }
    }
}
