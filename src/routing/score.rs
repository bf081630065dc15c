//! Scores the replicas that passed the filters and chooses the smallest.

use std::cmp::Ordering;
use std::sync::Arc;

use super::decision::{Candidate, Terms};
use super::features::{BLOCK_BYTES, Features};
use super::policy::{Choice, Policy, Query, View};

/// Prompt tokens in the first `matched` blocks of a prompt of `prompt_tokens` tokens; never the whole prompt, since an engine
/// always computes at least the end of it.
pub(super) fn cached_tokens(features: &Features, prompt_tokens: u32, matched: usize) -> u32 {
    if features.prompt_bytes == 0 {
        return 0;
    }
    let share = matched as f64 * BLOCK_BYTES as f64 / features.prompt_bytes as f64;
    let tokens = (f64::from(prompt_tokens) * share) as u32;
    tokens.min(prompt_tokens.saturating_sub(1))
}

/// From so many replicas on, those that cannot win are not scored.
const PRUNED_FROM: usize = 64;

/// Room for rounding between a score and the bound below it, as a share.
const ROUNDING: f64 = 1e-9;

/// What became of the replicas that passed the filters.
pub(super) struct Ranking {
    /// Those that were scored, in the order of the views.
    pub(super) candidates: Vec<Candidate>,
    /// Their positions among the views.
    pub(super) positions: Vec<usize>,
    /// What the policy makes of them, by their positions among the candidates; nothing, if there is none.
    pub(super) choice: Option<Choice>,
}

/// Scores the views, all of them or, where there are many, those that may win.
///
/// Smallest score wins, unless the policy chooses otherwise; ties go to the replica with the fewest requests without a first token, then to the smallest id.
pub(super) fn rank(policy: &mut dyn Policy, query: &Query<'_>, views: &[View<'_>]) -> Ranking {
    if views.is_empty() {
        return Ranking { candidates: Vec::new(), positions: Vec::new(), choice: None };
    }
    policy.prepare(query, views);
    let (positions, mut candidates) = contenders(policy, query, views);
    let views: Vec<View<'_>> = positions.iter().map(|at| views[*at]).collect();
    let best = smallest(&candidates, &views, 0..views.len());
    let choice = best.map(|best| policy.choose(query, &views, &candidates, best));
    let foreseen = match choice {
        Some(Choice::Best(chosen) | Choice::Local(chosen)) => Some(chosen),
        Some(Choice::Hold) => best,
        None => None,
    };
    if let Some(at) = foreseen {
        candidates[at].ttft_ms = policy.ttft_ms(query, &views[at]);
    }
    Ranking { candidates, positions, choice }
}

/// Every view scored; of many, where the policy gives bounds, only those whose bound is not above the best score so far. The first one
/// scored is the one with the smallest bound. Who has the smallest score, or the same, is always among them.
fn contenders(policy: &dyn Policy, query: &Query<'_>, views: &[View<'_>]) -> (Vec<usize>, Vec<Candidate>) {
    let bounds = || views.iter().map(|view| policy.at_least(query, view)).collect::<Option<Vec<f64>>>();
    let Some(bounds) = (views.len() >= PRUNED_FROM).then(bounds).flatten() else {
        return views.iter().enumerate().map(|(at, view)| (at, candidate(policy, query, view))).unzip();
    };
    let first = (0..views.len()).min_by(|&a, &b| bounds[a].total_cmp(&bounds[b])).unwrap_or(0);
    let mut best = score(&policy.terms(query, &views[first]));
    let mut contenders = (Vec::new(), Vec::new());
    for (at, view) in views.iter().enumerate() {
        // A bound that is no number bounds nothing.
        if bounds[at] > best + ROUNDING * best.abs() {
            continue;
        }
        let candidate = candidate(policy, query, view);
        best = best.min(candidate.score);
        contenders.0.push(at);
        contenders.1.push(candidate);
    }
    contenders
}

/// The position of the smallest score among `of`; ties as in [`rank`].
pub(super) fn smallest(candidates: &[Candidate], views: &[View<'_>], of: impl Iterator<Item = usize>) -> Option<usize> {
    of.min_by(|&a, &b| order(&candidates[a], &views[a], &candidates[b], &views[b]))
}

fn candidate(policy: &dyn Policy, query: &Query<'_>, view: &View<'_>) -> Candidate {
    let terms = policy.terms(query, view);
    Candidate {
        replica: view.replica.id,
        name: Arc::clone(&view.replica.spec.name),
        cached_tokens: view.cached_tokens,
        uncached_tokens: view.uncached_tokens,
        score: score(&terms),
        ttft_ms: None,
        terms,
    }
}

fn score(terms: &Terms) -> f64 {
    terms.iter().map(|term| term.value).sum()
}

/// `total_cmp`, so that a score that is not a number loses instead of breaking the order.
fn order(a: &Candidate, view_a: &View<'_>, b: &Candidate, view_b: &View<'_>) -> Ordering {
    let pending = view_a.pending().total_cmp(&view_b.pending());
    a.score.total_cmp(&b.score).then(pending).then(a.replica.cmp(&b.replica))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{Choice, Features, Query, Ranking, View, candidate, rank, smallest};
    use crate::model::{Region, RequestId, Time};
    use crate::routing::fleet::{Fleet, Replica};
    use crate::routing::ledger::{Demand, Ledger};
    use crate::routing::peer::Totals;
    use crate::routing::policy::{Event, Observation, Parameters, Policy, Sent, find};
    use crate::routing::{HealthThresholds, Limits, Rates, ReplicaKind, ReplicaSpec, Usage};

    /// Of one replica: round trip, time for a first token, prompt tokens in flight, cached tokens.
    type Drawn = (f64, Option<f64>, Vec<u32>, u32);

    /// When everything is decided.
    const NOW: Time = Time::from_micros(3_600_000_000);

    fn add(fleet: &mut Fleet, number: usize, rtt_ms: f64) -> Replica {
        let id = fleet.upsert(ReplicaSpec {
            name: format!("r{number}").into(),
            region: Region::new("r"),
            kind: ReplicaKind::Engine,
            models: Vec::new(),
            limits: Limits { kv_tokens: Some(60_000) },
            rates: Rates::default(),
        });
        let replica = fleet.get_mut(id).unwrap();
        replica.observe_rtt(Time::ZERO, rtt_ms);
        replica.observe_health(true, HealthThresholds::default());
        replica.clone()
    }

    /// A request of 2000 tokens went there in the past and showed its first token after so long.
    fn teach(policy: &mut dyn Policy, replica: &Replica, ttft_ms: f64) {
        let request = RequestId(1_000_000 + u64::from(replica.id.0));
        let features = Arc::new(Features::default());
        let sent =
            Sent { request, features: &features, prompt_tokens: 2000, cached_tokens: 0, rtt_ms: 10.0, ttft_ms: None };
        let usage = Usage { prompt_tokens: Some(2000), cached_tokens: Some(0), completion_tokens: Some(50) };
        let events = [
            (0.0, Event::Dispatched(sent)),
            (ttft_ms, Event::FirstToken { request }),
            (ttft_ms * 4.0, Event::Finished { request, usage }),
        ];
        for (after_ms, event) in events {
            policy.observe(Time::from_ms(3_590_000.0 + after_ms), &Observation { replica, event });
        }
    }

    /// Every replica scored, and what `rank` makes of them.
    fn play(drawn: &[Drawn], prompt_tokens: u32) -> (usize, Ranking) {
        let entry = find("predictive").unwrap();
        let mut policy = (entry.build)(&Parameters::resolve(entry.name, entry.parameters, &[]).unwrap(), 0);
        let (mut fleet, mut ledger) = (Fleet::default(), Ledger::default());
        for (number, (rtt_ms, ttft_ms, flying, _)) in drawn.iter().enumerate() {
            let replica = add(&mut fleet, number, *rtt_ms);
            if let Some(ttft_ms) = ttft_ms {
                teach(&mut *policy, &replica, *ttft_ms);
            }
            for tokens in flying {
                let demand = Demand { prompt_tokens: *tokens, uncached_tokens: *tokens, output_tokens: 100 };
                let request = RequestId(ledger.in_flight() as u64);
                ledger.dispatch(request, replica.id, demand, NOW);
                if tokens % 3 == 0 {
                    ledger.first_token(request);
                }
            }
        }
        let views: Vec<View<'_>> = fleet
            .iter()
            .zip(drawn)
            .map(|(replica, (rtt_ms, _, _, cached))| {
                let cached_tokens = prompt_tokens.saturating_sub(1).min(*cached);
                let (load, others) = (ledger.load(replica.id), Totals::NONE);
                View {
                    replica,
                    load,
                    others,
                    rtt_ms: *rtt_ms,
                    cached_tokens,
                    uncached_tokens: prompt_tokens - cached_tokens,
                }
            })
            .collect();
        let features = Features { prompt_bytes: 4 * u64::from(prompt_tokens), ..Features::default() };
        let query = Query {
            features: &features,
            prompt_tokens,
            attempt: 1,
            now: NOW,
            queued_tokens: 0,
            queued_requests: 0,
            max_concurrent: None,
            central: false,
        };
        policy.prepare(&query, &views);
        let all: Vec<_> = views.iter().map(|view| candidate(&*policy, &query, view)).collect();
        let best = smallest(&all, &views, 0..views.len()).unwrap();
        (best, rank(&mut *policy, &query, &views))
    }

    proptest! {
        /// Equal replicas are drawn, too, so that ties come up.
        #[test]
        fn who_is_pruned_would_not_have_won(
            drawn in prop::collection::vec(
                (0..4_u32, prop::option::of(50.0..900.0_f64), prop::collection::vec(1..9000_u32, 0..3), 0..8_u32),
                60..150,
            ),
            spread in 0.0..90.0_f64,
            prompt_tokens in 1..20_000_u32,
            taught in any::<bool>(),
        ) {
            let drawn: Vec<Drawn> = drawn
                .into_iter()
                .map(|(rtt, ttft, flying, cached)| {
                    (10.0 + f64::from(rtt) * spread, ttft.filter(|_| taught), flying, cached * 1000)
                })
                .collect();
            let (best, ranking) = play(&drawn, prompt_tokens);
            let Some(Choice::Best(chosen)) = ranking.choice else { panic!("{:?}", ranking.choice) };
            prop_assert_eq!(ranking.positions[chosen], best);
            prop_assert!(drawn.len() >= 64 || ranking.candidates.len() == drawn.len());
        }
    }

    #[test]
    fn far_replicas_are_not_even_scored() {
        let drawn: Vec<Drawn> = (0..1000).map(|i| (10.0 + f64::from(i / 50) * 15.0, None, vec![500], 0)).collect();
        let (best, ranking) = play(&drawn, 1000);
        assert_eq!(ranking.positions[0], best);
        assert!(ranking.candidates.len() <= 400, "{}", ranking.candidates.len());
    }
}
