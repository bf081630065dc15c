//! Scores the replicas that passed the filters and chooses the smallest.

use std::cmp::Ordering;
use std::sync::Arc;

use super::decision::Candidate;
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

/// Scores every view; the candidates in the same order, and what the policy makes of them (nothing, if there is none).
///
/// Smallest score wins, unless the policy chooses otherwise; ties go to the replica with the fewest requests without a first token, then to the smallest id.
pub(super) fn rank(policy: &mut dyn Policy, query: &Query<'_>, views: &[View<'_>]) -> (Vec<Candidate>, Option<Choice>) {
    if views.is_empty() {
        return (Vec::new(), None);
    }
    policy.prepare(query, views);
    let candidates: Vec<Candidate> = views.iter().map(|view| candidate(policy, query, view)).collect();
    let best = smallest(&candidates, views, 0..views.len());
    let choice = best.map(|best| policy.choose(query, views, &candidates, best));
    (candidates, choice)
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
        score: terms.iter().map(|term| term.value).sum(),
        terms,
    }
}

/// `total_cmp`, so that a score that is not a number loses instead of breaking the order.
fn order(a: &Candidate, view_a: &View<'_>, b: &Candidate, view_b: &View<'_>) -> Ordering {
    let pending = view_a.pending().total_cmp(&view_b.pending());
    a.score.total_cmp(&b.score).then(pending).then(a.replica.cmp(&b.replica))
}
