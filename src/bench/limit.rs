//! The no-queue lower bound of the requests that count in a demo or a simulation.

use crate::report::schema::Bound;
use crate::report::summary::bound;
use crate::sim::engine::EngineSpec;
use crate::workload::Plan;
use crate::workload::bounds::lower_bound;
use crate::workload::reuse::InfiniteCache;

/// What no routing can beat on the requests that count.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// TTFT of each request on its best replica, nothing queued, one infinite shared cache.
    pub(super) bound: Bound,
    /// Share of the prompt tokens that this cache has; `None` without requests.
    pub(super) infinite_cache_ratio: Option<f64>,
    /// Distinct prompt tokens of the whole plan: the size of that cache.
    pub(super) distinct_tokens: u64,
}

/// The limit for the sessions of `plan` that start at `from_ms` or later. Those before fill the cache, as they do in the run.
/// `rtt_ms(session, replica)` is the round trip between the session's clients and the replica.
#[must_use]
pub(super) fn limit(plan: &Plan, specs: &[EngineSpec], rtt_ms: impl Fn(usize, usize) -> f64, from_ms: f64) -> Limit {
    let all = lower_bound(plan, specs.len(), rtt_ms, |replica, prompt, cached| {
        specs[replica].lone_prefill_ms(cached, prompt)
    });
    let mut cache = InfiniteCache::default();
    let (mut prompt_tokens, mut cached_tokens) = (0_u64, 0_u64);
    let mut ttft_ms = Vec::new();
    for (request, ms) in plan.in_order().into_iter().zip(all.ttft_ms) {
        let cached = cache.insert(&request.step.blocks, request.step.input_tokens, plan.block_size);
        if plan.sessions[request.session].start_ms >= from_ms {
            prompt_tokens += u64::from(request.step.input_tokens);
            cached_tokens += u64::from(cached);
            ttft_ms.push(ms);
        }
    }
    Limit {
        bound: bound(ttft_ms),
        distinct_tokens: cache.reuse().tokens - cache.reuse().cached_tokens,
        infinite_cache_ratio: crate::report::percentile::ratio(cached_tokens as f64, prompt_tokens as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::limit;
    use crate::bench::demo::fleet::{default_fleet, specs};
    use crate::workload::{Plan, Session, Step};

    fn session(id: &str, start_ms: f64, blocks: &[u64]) -> Session {
        let input_tokens = blocks.len() as u32 * 16;
        let step = Step { think_ms: 0.0, input_tokens, output_tokens: 1, blocks: blocks.into(), text: None };
        Session { id: id.into(), start_ms, steps: vec![step] }
    }

    #[test]
    fn only_measured_sessions_count_and_earlier_ones_fill_the_cache() {
        let fleet = default_fleet().unwrap();
        let specs = specs(&fleet).unwrap();
        let blocks: Vec<u64> = (0..256).collect();
        let plan = Plan {
            block_size: 16,
            sessions: vec![
                session("warm", 0.0, &blocks),
                session("a", 1000.0, &blocks),
                session("b", 2000.0, &[999; 1]),
            ],
            concurrency: None,
        };
        let rtt_ms = [2.0, 73.0, 97.0];
        let found = limit(&plan, &specs, |_, replica| rtt_ms[replica], 500.0);
        assert_eq!(found.bound.ttft_quantiles_ms.len(), 201);
        assert_eq!(
            found.infinite_cache_ratio,
            Some(0.996_109),
            "4096 of 4112 tokens, none of them computed by these two"
        );
        // Both are best served next to the router: 2 ms and a step over at most 16 tokens.
        let near = 2.0 + specs[0].lone_prefill_ms(4095, 4096);
        assert!((found.bound.ttft_ms.max.unwrap() - near).abs() < 1.0, "{:?} and {near}", found.bound.ttft_ms);
    }
}
