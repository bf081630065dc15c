//! Admission by predicted deadline: who cannot have its first token in time is told so at once, or goes behind those who can.
//!
//! ```text
//! late    waited + T > limit          T = predicted time to first token at the replica that the strategy would take
//! limit   D        more than half of the prompt has to be computed: new work
//!         2 · D    otherwise: a conversation whose beginning is paid for already
//! ```
//!
//! Beyond capacity no routing helps: all that is taken waits, and the few long prompts that will be late anyway are what the others wait
//! for. Looked at when a request arrives and whenever the router looks at its queue, until it is sent for the first time: who was
//! at a replica that failed, or was called back from one, is not refused for the time that took. Where nothing is predicted (every replica is at its gate, the
//! body cannot be read, the strategy has lost trust in its predictions) only a wait that is too long by itself makes a request late.
//!
//! Each router judges what clients send to it. What a peer has forwarded was judged there, with the way here in the prediction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decision::{Decision, Unit};
use super::features::Features;
use super::policy::{Entry, strategies};
use super::settings::{SettingsError, in_range};

/// How much more time a prompt has that is cached for the most part.
pub(super) const PATIENCE_WITH_CACHED: f64 = 2.0;

/// Shares of one class to another, the least and the most.
const WEIGHTS: (f64, f64) = (0.001, 1000.0);

/// Longest limit that can be set, ms: a day.
const LIMIT_MAX_MS: f64 = 86_400_000.0;

/// What is promised to requests. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo {
    /// Of requests without a class.
    pub default: Class,
    /// By name.
    pub classes: BTreeMap<String, Class>,
    /// Longest mean gap between tokens of an answer, ms, for those who count what was good: no strategy predicts it.
    pub itl_ms: Option<f64>,
}

/// A class of service.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// D, the longest time to first token, ms; `None` = nobody is late.
    pub ttft_ms: Option<f64>,
    /// Its share of the service to those of others while requests wait in the router.
    pub weight: f64,
    /// What becomes of those who cannot make it.
    pub late: Late,
}

impl Default for Class {
    fn default() -> Self {
        Self { ttft_ms: None, weight: 1.0, late: Late::Refuse }
    }
}

/// What becomes of a request that cannot have its first token in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// It is refused, so that its client may go elsewhere.
    #[default]
    Refuse,
    /// It waits in the router behind all that can still be in time, until its prediction fits or nobody else waits.
    Defer,
}

impl Late {
    /// What may be written, in the order of the variants.
    pub const WORDS: [&'static str; 2] = ["refuse", "defer"];

    /// From one of [`Self::WORDS`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Refuse, Self::Defer].into_iter().zip(Self::WORDS).find(|(_, known)| *known == word).map(|(late, _)| late)
    }
}

/// How a request stood against the limit of its class when it was decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct Deadline {
    /// Its class.
    pub class: Option<Arc<str>>,
    /// Longest time to first token that it may have, ms: D or twice that.
    pub limit_ms: f64,
    /// How long it had waited in the router, ms.
    pub waited_ms: f64,
    /// Time to first token from then on, as predicted, ms; `None` = nothing was predicted.
    pub ttft_ms: Option<f64>,
}

impl Deadline {
    /// How much too late its first token would be, ms; below 0 it is in time. When that time has passed, the same request would just make
    /// it, if no others came in between: work that waits is done at one ms per ms.
    #[must_use]
    pub fn late_by_ms(&self) -> f64 {
        self.waited_ms + self.ttft_ms.unwrap_or(0.0) - self.limit_ms
    }

    /// Is it too late?
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late_by_ms() > 0.0
    }
}

impl Slo {
    /// Does anything depend on predictions?
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.default.ttft_ms.is_some() || self.classes.values().any(|class| class.ttft_ms.is_some())
    }

    /// The class of a request. One that is not configured has no limit and the weight 1: who takes requests from clients refuses it before.
    #[must_use]
    pub fn class_of(&self, features: &Features) -> &Class {
        const NONE: &Class = &Class { ttft_ms: None, weight: 1.0, late: Late::Refuse };
        match features.class.as_deref() {
            None => &self.default,
            Some(name) => self.classes.get(name).unwrap_or(NONE),
        }
    }

    /// What is to be held against the limit of the request's class, if it has one here.
    pub(super) fn judge(&self, features: &Features, decision: &Decision, foresees: bool) -> Option<Deadline> {
        let ttft_ms = self.class_of(features).ttft_ms.filter(|_| !features.forwarded)?;
        let best = decision.best();
        let new = best.is_some_and(|best| 2 * u64::from(best.uncached_tokens) > u64::from(decision.prompt_tokens));
        Some(Deadline {
            class: features.class.clone(),
            limit_ms: if new { ttft_ms } else { PATIENCE_WITH_CACHED * ttft_ms },
            waited_ms: decision.held_ms,
            ttft_ms: best.and_then(|best| decision.foreseen_ms(best)).filter(|_| foresees),
        })
    }

    /// Figures out of range.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        for class in std::iter::once(&self.default).chain(self.classes.values()) {
            in_range("weight", class.weight, WEIGHTS.0, WEIGHTS.1)?;
            in_range("ttft_ms", class.ttft_ms.unwrap_or(1.0), f64::MIN_POSITIVE, LIMIT_MAX_MS)?;
        }
        in_range("itl_ms", self.itl_ms.unwrap_or(1.0), f64::MIN_POSITIVE, LIMIT_MAX_MS)
    }
}

/// Does a strategy predict times to first token? Those whose scores are times do.
#[must_use]
pub fn predicts(entry: &Entry) -> bool {
    entry.unit == Unit::Ms
}

/// The names of those that do, in the order of the registry.
pub fn predicting() -> impl Iterator<Item = &'static str> {
    strategies().iter().filter(|entry| predicts(entry)).map(|entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::{Class, Deadline, Late, Slo, predicting};
    use crate::model::{ReplicaId, RequestId, Time};
    use crate::routing::decision::Terms;
    use crate::routing::{Candidate, Decision, Features, Unit, Verdict};

    fn candidate(id: u32, score: f64, uncached_tokens: u32, ttft_ms: Option<f64>) -> Candidate {
        Candidate {
            replica: ReplicaId(id),
            name: id.to_string().into(),
            cached_tokens: 8000 - uncached_tokens,
            uncached_tokens,
            score,
            ttft_ms,
            terms: Terms::new(),
        }
    }

    fn decision(verdict: Verdict, held_ms: f64, candidates: Vec<Candidate>) -> Decision {
        Decision {
            request: RequestId(1),
            at: Time::ZERO,
            strategy: "predictive",
            attempt: 1,
            unit: Unit::Ms,
            prompt_tokens: 8000,
            held_ms,
            verdict,
            kept_local: false,
            weights: Vec::new(),
            pruned: 0,
            deadline: None,
            candidates,
            excluded: Vec::new(),
        }
    }

    fn slo() -> Slo {
        let batch = Class { ttft_ms: Some(60_000.0), weight: 0.5, late: Late::Defer };
        let default = Class { ttft_ms: Some(10_000.0), ..Class::default() };
        Slo { default, classes: [("batch".to_owned(), batch)].into(), itl_ms: None }
    }

    #[test]
    fn new_work_has_the_limit_and_what_is_cached_twice_that() {
        let to = Verdict::Dispatch(ReplicaId(1));
        let judged = |verdict, held_ms, candidates| {
            let decision = decision(verdict, held_ms, candidates);
            let deadline = slo().judge(&Features::default(), &decision, true).unwrap();
            (deadline.limit_ms, deadline.late_by_ms(), deadline.is_late())
        };
        let two = |uncached, ttft| vec![candidate(0, 20_000.0, 8000, None), candidate(1, 12_000.0, uncached, ttft)];
        // 8000 tokens, 1000 of them cached: new; 6000 cached: paid for.
        assert_eq!(judged(to, 1200.0, two(7000, Some(9100.0))), (10_000.0, 300.0, true));
        assert_eq!(judged(to, 1200.0, two(2000, Some(9100.0))), (20_000.0, -9700.0, false));
        assert_eq!(judged(to, 900.0, two(4001, Some(9100.0))), (10_000.0, 0.0, false), "in time to the ms");
        assert_eq!(judged(to, 900.0, two(4000, Some(9100.0))).0, 20_000.0, "half of it");
        // Without a forecast of its own the score is one; where it would wait it is the best one's that counts.
        assert_eq!(judged(to, 0.0, two(7000, None)).1, 2000.0);
        assert_eq!(judged(Verdict::Hold, 0.0, two(7000, Some(9100.0))).1, -900.0);
        // Nobody to predict for: only the wait counts.
        assert_eq!(judged(Verdict::Hold, 19_000.0, Vec::new()), (20_000.0, -1000.0, false));
        assert_eq!(judged(Verdict::Hold, 20_000.5, Vec::new()), (20_000.0, 0.5, true));
    }

    #[test]
    fn who_is_judged_and_by_what() {
        let decision = decision(Verdict::Dispatch(ReplicaId(0)), 0.0, vec![candidate(0, 1.0, 8000, Some(30_000.0))]);
        let late = |features: Features, foresees| {
            slo().judge(&features, &decision, foresees).map(|deadline: Deadline| deadline.late_by_ms())
        };
        let of = |class: &str| Features { class: Some(class.into()), ..Features::default() };
        assert_eq!(late(Features::default(), true), Some(20_000.0));
        assert_eq!(late(of("batch"), true), Some(-30_000.0));
        assert_eq!(late(of("nobody's"), true), None);
        assert_eq!(late(Features { forwarded: true, ..Features::default() }, true), None, "judged where it came in");
        assert_eq!(late(Features::default(), false), Some(-10_000.0), "what is not believed makes nobody late");
        assert_eq!(Slo::default().judge(&Features::default(), &decision, true), None);
        assert!(slo().has_limits() && !Slo::default().has_limits());
    }

    #[test]
    fn figures_have_ranges_and_words_are_read() {
        let class = |class: Class| Slo { default: class, ..Slo::default() }.check();
        assert_eq!(slo().check(), Ok(()));
        for weight in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(class(Class { weight, ..Class::default() }).is_err(), "{weight}");
        }
        for ttft_ms in [0.0, f64::INFINITY] {
            assert!(class(Class { ttft_ms: Some(ttft_ms), ..Class::default() }).is_err(), "{ttft_ms}");
        }
        assert!(Slo { itl_ms: Some(0.0), ..Slo::default() }.check().is_err());
        assert_eq!(Late::WORDS.map(Late::parse), [Some(Late::Refuse), Some(Late::Defer)]);
        assert_eq!(Late::parse("drop"), None);
    }

    #[test]
    fn strategies_whose_scores_are_times_predict() {
        let names: Vec<&str> = predicting().collect();
        assert_eq!(names, ["predictive", "gorgo", "gorgo-score", "gorgo-v1", "gorgo-proxy"]);
    }
}
