//! What was decided and why: every candidate with every term, so that nothing is computed again for display.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::admission::Deadline;
use crate::model::{ReplicaId, RequestId, Time};

/// Most terms any policy's score has.
pub const MAX_TERMS: usize = 8;

/// Unit of a term and of the score it adds to. Policies that predict a cost use milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Tokens (also "weighted uncached tokens" of `gorgo-v3`).
    Tokens,
    /// KV blocks of the engine.
    Blocks,
    /// Requests.
    Requests,
    /// Kilometres.
    Km,
    /// A rank without unit: ring position, hash weight, turn.
    Rank,
}

impl Unit {
    /// Its short name: `ms`, `tokens`, `blocks`, `requests`, `km`, `rank`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::Tokens => "tokens",
            Self::Blocks => "blocks",
            Self::Requests => "requests",
            Self::Km => "km",
            Self::Rank => "rank",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The summands of one score, in the order of the policy's formula.
pub type Terms = ArrayVec<Term, MAX_TERMS>;

/// One summand of a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// Name as in the policy's formula, e.g. `network`, `prefill`, `queue`.
    pub name: &'static str,
    /// Its value in the policy's unit, weight included.
    pub value: f64,
}

/// A replica that passed the filters, with what the policy thinks of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The replica.
    pub replica: ReplicaId,
    /// Its name at the time of the decision.
    pub name: Arc<str>,
    /// Prompt tokens that the router believes cached there.
    pub cached_tokens: u32,
    /// Prompt tokens that it would have to compute.
    pub uncached_tokens: u32,
    /// Sum of the terms; the smallest score wins.
    pub score: f64,
    /// Time to first token foreseen there, ms: of the one that was chosen, or will be when it has room, by a rule that scores more than
    /// that.
    pub ttft_ms: Option<f64>,
    /// The terms in the order of the formula.
    pub terms: Terms,
}

/// Why a replica was not a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// Out of rotation because its health checks or requests fail.
    Unhealthy,
    /// Taken out by an operator.
    Draining,
    /// A peer, and the request came from one: a second hop is never made.
    Hop,
    /// Does not serve the model.
    Model,
    /// The residency class forbids its region.
    Residency,
    /// At its limit of running requests or KV use.
    Capacity,
    /// Already tried for this request.
    Tried,
}

impl Excluded {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Unhealthy, Self::Draining, Self::Hop, Self::Model, Self::Residency, Self::Capacity, Self::Tried];

    /// Lower-case name, stable: `unhealthy`, `draining`, `hop`, `model`, `residency`, `capacity`, `tried`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Hop => "hop",
            Self::Model => "model",
            Self::Residency => "residency",
            Self::Capacity => "capacity",
            Self::Tried => "tried",
        }
    }

    /// The same in words, for people.
    #[must_use]
    pub const fn explained(self) -> &'static str {
        match self {
            Self::Unhealthy => "not known to be healthy",
            Self::Draining => "draining",
            Self::Hop => "a peer, and the request came from one",
            Self::Model => "does not serve the model",
            Self::Residency => "region not allowed for the residency class",
            Self::Capacity => "at its limit of running requests or KV use",
            Self::Tried => "already tried for this request",
        }
    }
}

/// Why a request was refused. The gateway turns it into a status and an error `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No replica is registered.
    NoReplica,
    /// Replicas could serve it, none of them is in rotation: unhealthy or draining.
    NoneHealthy,
    /// No replica serves the model, healthy or not.
    UnknownModel,
    /// The residency class leaves no replica.
    Residency,
    /// The router's queue is full.
    QueueFull,
    /// Waited in the router's queue for as long as allowed.
    QueueTimeout,
    /// Every replica that could serve it was tried and failed before its first byte.
    AllTried,
    /// Its first token cannot come within the limit of its class: [`Decision::deadline`] has the figures.
    Deadline,
}

impl Refusal {
    /// Lower-case name, stable: `no_replica`, `none_healthy`, `unknown_model`, `residency`, `queue_full`, `queue_timeout`,
    /// `all_tried`, `deadline`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReplica => "no_replica",
            Self::NoneHealthy => "none_healthy",
            Self::UnknownModel => "unknown_model",
            Self::Residency => "residency",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::AllTried => "all_tried",
            Self::Deadline => "deadline",
        }
    }

    /// The same in words, for people.
    #[must_use]
    pub const fn explained(self) -> &'static str {
        match self {
            Self::NoReplica => "no replica is registered",
            Self::NoneHealthy => "no replica that could serve it is in rotation",
            Self::UnknownModel => "no replica serves the model",
            Self::Residency => "the residency class leaves no replica",
            Self::QueueFull => "the router's queue is full",
            Self::QueueTimeout => "it waited in the router's queue for as long as allowed",
            Self::AllTried => "every replica that could serve it was tried and failed",
            Self::Deadline => "its first token cannot come within the limit of its class",
        }
    }
}

/// The answer to "where does it go?".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Send it to this replica now.
    Dispatch(ReplicaId),
    /// Keep it in the router's queue; an [`super::Effect`] will release it.
    Hold,
    /// Refuse it.
    Reject {
        /// The reason.
        reason: Refusal,
        /// When to come back, if a time can be named.
        retry_after_ms: Option<f64>,
    },
}

/// One decision with everything that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The request.
    pub request: RequestId,
    /// When it was made.
    pub at: Time,
    /// Name of the strategy that made it.
    pub strategy: &'static str,
    /// 1 for the first attempt; more after failures before the first byte.
    pub attempt: u32,
    /// Unit of scores and terms.
    pub unit: Unit,
    /// Prompt length used, tokens.
    pub prompt_tokens: u32,
    /// Time spent in the router's queue before this decision, ms.
    pub held_ms: f64,
    /// What to do.
    pub verdict: Verdict,
    /// The target is the agent's own engine and was taken because it had room, whatever the scores say (`gorgo-v1`).
    pub kept_local: bool,
    /// Weights in force that nobody set by hand: those of a rule that moves its own, and those on trial or found by the tuner.
    pub weights: Vec<Term>,
    /// How many more could have had it, in a large fleet, but cost more at the least than the chosen one does: they were not scored.
    pub pruned: usize,
    /// How it stands against the limit of its class, if that has one.
    pub deadline: Option<Deadline>,
    /// Who was scored, in fleet order.
    pub candidates: Vec<Candidate>,
    /// Who was filtered, in fleet order, and why.
    pub excluded: Vec<(ReplicaId, Arc<str>, Excluded)>,
}

impl Decision {
    /// The candidate that the request was given to.
    #[must_use]
    pub fn chosen(&self) -> Option<&Candidate> {
        let Verdict::Dispatch(target) = self.verdict else { return None };
        self.candidates.iter().find(|candidate| candidate.replica == target)
    }

    /// Time from this decision to the first token as foreseen, ms; `None` if it sends nobody, or its strategy foresees none.
    #[must_use]
    pub fn predicted_ttft_ms(&self) -> Option<f64> {
        self.foreseen_ms(self.chosen()?)
    }

    /// The candidate that it was given to, or that it would be given to if that one had room.
    #[must_use]
    pub fn best(&self) -> Option<&Candidate> {
        let foreseen = || self.candidates.iter().find(|candidate| candidate.ttft_ms.is_some());
        let least = || self.candidates.iter().min_by(|a, b| a.score.total_cmp(&b.score));
        self.chosen().or_else(foreseen).or_else(least)
    }

    /// Time from this decision to the first token at a candidate as foreseen, ms; of those that were not chosen the score has to do.
    pub(super) fn foreseen_ms(&self, candidate: &Candidate) -> Option<f64> {
        let score = (self.unit == Unit::Ms).then_some(candidate.score);
        candidate.ttft_ms.or(score).filter(|ms| ms.is_finite())
    }
}

/// One line of `key=value` pairs for logs. Everything is in it except who else was considered: that is in [`Decision::explain`].
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request={} attempt={} strategy={} verdict=", self.request, self.attempt, self.strategy)?;
        match self.verdict {
            Verdict::Dispatch(_) => f.write_str("dispatch")?,
            Verdict::Hold => f.write_str("hold")?,
            Verdict::Reject { reason, retry_after_ms } => {
                write!(f, "reject reason={}", reason.as_str())?;
                if let Some(ms) = retry_after_ms {
                    write!(f, " retry_after_ms={ms:.0}")?;
                }
            }
        }
        if let Some(chosen) = self.chosen() {
            if self.kept_local {
                f.write_str(" kept_local=true")?;
            }
            write!(
                f,
                " replica={} score={:.3} unit={} cached={}",
                chosen.name, chosen.score, self.unit, chosen.cached_tokens
            )?;
        }
        let (candidates, excluded) = (self.candidates.len(), self.excluded.len());
        write!(
            f,
            " prompt={} candidates={candidates} excluded={excluded} held_ms={:.1}",
            self.prompt_tokens, self.held_ms
        )?;
        let Some(deadline) = &self.deadline else { return Ok(()) };
        if let Some(class) = &deadline.class {
            write!(f, " class={class}")?;
        }
        write!(f, " limit_ms={:.0} late_by_ms={:.0}", deadline.limit_ms, deadline.late_by_ms())
    }
}
