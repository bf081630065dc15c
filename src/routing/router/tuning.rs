//! The router's side of the tuner: two strategies at once, and who decides on whose request.
//!
//! Both see every event; each request stays with the one that it was given to when it arrived, over all of its attempts, unless that one is
//! gone. Gates, the order of the queue and what peers are told follow the incumbent.

use super::{Router, Strategy, Usage};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::Term;
use crate::routing::features::Features;
use crate::routing::tune::{Act, Axis, Command, End, TuneError, TuneSettings, Tuner};

/// Who decides on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decider {
    /// The strategy in force.
    Incumbent,
    /// The same rule with the weights on trial.
    Rival,
    /// The one for requests that nothing is known of.
    Opaque,
}

impl Router {
    /// Starts a tuner for the strategy in force. Whatever one that has ended left is forgotten, but for the weights in force.
    ///
    /// # Errors
    /// One runs already; what cannot be tuned; figures out of range.
    pub fn start_tuning(&mut self, now: Time, settings: TuneSettings) -> Result<(), TuneError> {
        if self.tuner.as_ref().is_some_and(|tuner| !tuner.is_over()) {
            return Err(TuneError::Runs);
        }
        let tuner = Tuner::new(now, self.strategy.entry, &self.strategy.parameters, settings)?;
        self.tuner = Some(Box::new(tuner.after(self.tuner())));
        Ok(())
    }

    /// Tells the tuner what people want of it. It is complete when this returns.
    ///
    /// # Errors
    /// None was started, or it has ended.
    pub fn command_tuner(&mut self, now: Time, command: Command) -> Result<(), TuneError> {
        let tuner = self.tuner.as_mut().ok_or(TuneError::NeverRan)?;
        tuner.command(now, command)?;
        self.act_on_tuner();
        Ok(())
    }

    /// The tuner, from its start on, after its end too.
    #[must_use]
    pub fn tuner(&self) -> Option<&Tuner> {
        self.tuner.as_deref()
    }

    /// Somebody set the strategy: a tuner of the one before ends.
    pub(super) fn forget_rival(&mut self, now: Time) {
        self.rival = None;
        if let Some(tuner) = &mut self.tuner {
            tuner.replaced(now);
        }
    }

    /// Who decides on this request.
    pub(super) fn decider(&self, request: RequestId, features: &Features) -> Decider {
        // What nothing is known of goes where the load is least, but a rule that keeps its own engine busy first keeps that, too.
        if features.opaque && !self.strategy.policy.keeps_local() {
            return Decider::Opaque;
        }
        let rivals = || self.tuner.as_ref().is_some_and(|tuner| tuner.is_rivals(request));
        if self.rival.is_some() && rivals() { Decider::Rival } else { Decider::Incumbent }
    }

    /// Its strategy.
    pub(super) fn strategy_of(&self, decider: Decider) -> &Strategy {
        match (decider, &self.rival) {
            (Decider::Opaque, _) => &self.opaque,
            (Decider::Rival, Some(rival)) => rival,
            (Decider::Rival, None) | (Decider::Incumbent, _) => &self.strategy,
        }
    }

    /// The weights of a strategy that nobody set by hand: those that its rule moves, and those that a tuner does.
    pub(super) fn weights(&self, strategy: &Strategy) -> Vec<Term> {
        let mut weights = strategy.policy.moved().to_vec();
        let same = strategy.entry.name == self.strategy.entry.name;
        if let Some(tuner) = self.tuner.as_ref().filter(|tuner| same && tuner.is_in_force()) {
            let value = |axis: &Axis| Term { name: axis.key, value: strategy.parameters.get(axis.key) };
            weights.extend(tuner.axes().iter().map(value));
        }
        weights
    }

    /// A request arrives.
    pub(super) fn tuner_arrives(&mut self, now: Time, request: RequestId, features: &Features) {
        let Some(tuner) = self.tuner.as_mut().filter(|tuner| !tuner.is_over() && !features.opaque) else { return };
        tuner.arrive(now, request);
        self.act_on_tuner();
    }

    /// It goes to a replica, with so many tokens to compute.
    pub(super) fn tuner_dispatched(&mut self, now: Time, request: RequestId, replica: ReplicaId, uncached: u32) {
        if let Some(tuner) = &mut self.tuner {
            let queued = self.ledger.load(replica).prompt_tokens;
            tuner.dispatched(now, request, (replica, uncached, queued));
        }
    }

    /// Its first token came.
    pub(super) fn tuner_first_token(&mut self, now: Time, request: RequestId) {
        if let Some(tuner) = &mut self.tuner {
            tuner.first_token(now, request);
        }
    }

    /// It is over.
    pub(super) fn tuner_ends(&mut self, now: Time, request: RequestId, end: End, usage: Usage) {
        let Some(tuner) = self.tuner.as_mut().filter(|tuner| !tuner.is_over()) else { return };
        tuner.end(now, request, end, usage);
        self.act_on_tuner();
    }

    /// Does what the tuner wants done.
    fn act_on_tuner(&mut self) {
        while let Some(act) = self.tuner.as_mut().and_then(|tuner| tuner.act()) {
            match act {
                Act::Try(values) => self.rival = Some(self.reweighed(&values)),
                Act::Retire => self.rival = None,
                Act::Promote => {
                    if let Some(rival) = &mut self.rival {
                        std::mem::swap(&mut self.strategy, rival);
                    }
                }
                Act::Demote => {
                    if let Some(rival) = self.rival.take() {
                        self.strategy = rival;
                    }
                }
                Act::Set(values) => self.strategy = self.reweighed(&values),
            }
            self.settings.parameters = self.strategy.given();
        }
    }

    /// The strategy in force, built anew with other values.
    fn reweighed(&self, values: &[(&'static str, f64)]) -> Strategy {
        let mut given = self.strategy.given();
        given.extend(values.iter().map(|(key, value)| ((*key).to_owned(), *value)));
        let strategy = Strategy::new(self.strategy.entry.name, &given, self.settings.seed);
        strategy.expect("the tuner's boxes lie inside the ranges of the strategy's own parameters")
    }
}

impl Strategy {
    /// Its parameters as they could be given.
    fn given(&self) -> Vec<(String, f64)> {
        self.parameters.iter().map(|(parameter, value)| (parameter.key.to_owned(), *value)).collect()
    }
}
