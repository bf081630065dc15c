//! A tuner that cannot hurt: for any strategy's parameters, on live requests.
//!
//! One candidate at a time gets a part of the traffic ([`super::trial`]) and is accepted only if its cost is lower by more than noise
//! ([`super::noise`]). It is gone at once when it is clearly worse. An acceptance is watched: the weights before get a part of the traffic in
//! turn, and come back if they do better, or if the whole fleet gets slower. Steps are bounded, values stay in their box, and it ends by
//! itself once steps have shrunk.
//!
//! The tuner decides; the router does: whom a request belongs to is asked with [`Tuner::is_rivals`], what has to be done with its two
//! strategies is in [`Tuner::act`].

use std::collections::{BTreeMap, VecDeque};

use super::axes::{Axis, TuneError, axes};
use super::fit::{Calibration, NEEDED, Observed};
use super::log::{Entry, Log, What};
use super::progress::{Act, Command, Progress};
use super::proposal::Search;
use super::settings::{Method, TuneSettings};
use super::trial::{Design, End, Measured, Trial};
use super::verdict::{judged, watched};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::policy::{Entry as Strategy, Parameters};
use crate::routing::router::Usage;

/// Rates that differ by less than this from the fitted ones are right, natural logarithm.
const NEAR: f64 = 0.1;
/// Failures in a row after which fitted rates are given up.
const VAIN: u32 = 2;

#[derive(Clone, Debug)]
enum Phase {
    /// For the next request, or for enough samples.
    Waiting,
    Trial {
        trial: Trial,
        candidate: Vec<f64>,
    },
    /// The rival is the incumbent before, whose cost was this.
    Watch {
        trial: Trial,
        cost_before: Option<f64>,
    },
    Over(&'static str),
}

/// A request at a replica, for calibration.
#[derive(Clone, Copy, Debug)]
struct Flight {
    at: Time,
    replica: ReplicaId,
    uncached: f64,
    queued: f64,
    ttft_ms: Option<f64>,
}

/// The tuner.
#[derive(Clone, Debug)]
pub struct Tuner {
    settings: TuneSettings,
    search: Search,
    phase: Phase,
    frozen: bool,
    /// Somebody set the strategy anew: what is in force is not the tuner's.
    replaced: bool,
    incumbent: Vec<f64>,
    /// The incumbents before it, the newest last.
    before: Vec<Vec<f64>>,
    trials: u64,
    acts: VecDeque<Act>,
    log: Log,
    calibration: Calibration,
    flights: BTreeMap<RequestId, Flight>,
}

/// What happens to it.
impl Tuner {
    /// A tuner of a strategy with these parameters. The first proposal comes with the first request.
    ///
    /// # Errors
    /// What cannot be tuned, and figures out of range.
    pub fn new(
        now: Time,
        strategy: &Strategy,
        parameters: &Parameters,
        settings: TuneSettings,
    ) -> Result<Self, TuneError> {
        settings.check()?;
        let (axes, incumbent) = axes(strategy, parameters, &settings)?;
        let mut tuner = Self {
            search: Search::new(axes, &settings),
            settings,
            phase: Phase::Waiting,
            frozen: false,
            replaced: false,
            incumbent,
            before: Vec::new(),
            trials: 0,
            acts: VecDeque::new(),
            log: Log::default(),
            calibration: Calibration::default(),
            flights: BTreeMap::new(),
        };
        let values = tuner.incumbent.clone();
        tuner.note(now, What::Started, "", &values, Measured::default());
        Ok(tuner)
    }

    /// A request arrives.
    pub fn arrive(&mut self, now: Time, request: RequestId) {
        if matches!(self.phase, Phase::Waiting) && !self.frozen {
            self.propose(now);
        }
        if let Some(trial) = self.trial_mut() {
            trial.arrive(now, request);
        }
        self.settle(now);
    }

    /// It goes to a replica, where this router had so many prompt tokens before.
    pub fn dispatched(&mut self, now: Time, request: RequestId, (replica, uncached, queued): (ReplicaId, u32, u64)) {
        if self.settings.method == Method::Calibrated && !self.is_over() {
            let (uncached, queued) = (f64::from(uncached), queued as f64);
            self.flights.insert(request, Flight { at: now, replica, uncached, queued, ttft_ms: None });
        }
    }

    /// Its first token came.
    pub fn first_token(&mut self, now: Time, request: RequestId) {
        if let Some(trial) = self.trial_mut() {
            trial.first_token(now, request);
        }
        if let Some(flight) = self.flights.get_mut(&request) {
            flight.ttft_ms = Some(now.since_ms(flight.at));
        }
    }

    /// It is over, whoever had it.
    pub fn end(&mut self, now: Time, request: RequestId, end: End, usage: Usage) {
        if let Some(flight) = self.flights.remove(&request)
            && let (End::Done, Some(ttft_ms)) = (end, flight.ttft_ms)
        {
            let computed = usage.prompt_tokens.zip(usage.cached_tokens);
            let computed = computed.map(|(prompt, cached)| f64::from(prompt.saturating_sub(cached)));
            let uncached = computed.unwrap_or(flight.uncached);
            self.calibration.push(Observed { replica: flight.replica, uncached, queued: flight.queued, ttft_ms });
        }
        if let Some(trial) = self.trial_mut() {
            trial.end(now, request, end);
        }
        self.settle(now);
    }

    /// What people ask.
    ///
    /// # Errors
    /// It has ended already.
    pub fn command(&mut self, now: Time, command: Command) -> Result<(), TuneError> {
        if let Phase::Over(why) = self.phase {
            return Err(TuneError::Over { why });
        }
        match command {
            Command::Freeze => self.freeze(now),
            Command::Resume => {
                self.frozen = false;
                self.note_incumbent(now, What::Resumed, "");
            }
            Command::Rollback => self.roll_back(now),
            Command::Stop => {
                self.drop_trial(now, "stopped by hand");
                if matches!(self.phase, Phase::Watch { .. }) {
                    self.revert(now, "stopped by hand before it was confirmed");
                }
                self.finish(now, "stopped by hand");
            }
        }
        Ok(())
    }

    /// Somebody has replaced the strategy or its parameters: there is nothing left to tune.
    pub fn replaced(&mut self, now: Time) {
        self.acts.clear();
        self.replaced = true;
        if !self.is_over() {
            self.finish(now, "the strategy was set by hand");
        }
    }
}

/// What it shows.
impl Tuner {
    /// The same with the numbers of its log going on after those of the tuner before.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        self.log.number_after(before.map_or(0, |before| before.log.last()));
        self
    }

    /// Are the rival's weights to decide on this request?
    #[must_use]
    pub fn is_rivals(&self, request: RequestId) -> bool {
        self.trial().is_some_and(|trial| trial.is_rivals(request))
    }

    /// What has to be done next, if anything; to be asked after every event until nothing is left.
    pub fn act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &TuneSettings {
        &self.settings
    }

    /// What may move.
    #[must_use]
    pub fn axes(&self) -> &[Axis] {
        self.search.axes()
    }

    /// Is it over?
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over(_))
    }

    /// Are the values in force its own, on trial or found, and not set by hand since?
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        !self.replaced
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (state, why) = match &self.phase {
            Phase::Over(why) => ("ended", *why),
            Phase::Watch { .. } => ("watch", ""),
            Phase::Trial { .. } => ("trial", ""),
            Phase::Waiting => (if self.frozen { "frozen" } else { "waiting" }, ""),
        };
        let rival = match &self.phase {
            Phase::Trial { candidate, .. } => Some(candidate),
            Phase::Watch { .. } => self.before.last(),
            Phase::Waiting | Phase::Over(_) => None,
        };
        Progress {
            state,
            why,
            incumbent: self.named(&self.incumbent),
            rival: rival.map(|values| self.named(values)),
            result: self.trial().map(Trial::result).unwrap_or_default(),
            sigma: self.search.sigma(),
            tally: self.log.tally,
        }
    }

    /// The entries of the log after this number that are still kept.
    pub fn log_since(&self, number: u64) -> impl Iterator<Item = &Entry> {
        self.log.since(number)
    }

    /// Requests per block so far with the rival's weights among them, of the trial under way.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<(usize, usize)> {
        self.trial().map(Trial::shares).unwrap_or_default()
    }
}

impl Tuner {
    fn trial(&self) -> Option<&Trial> {
        match &self.phase {
            Phase::Trial { trial, .. } | Phase::Watch { trial, .. } => Some(trial),
            Phase::Waiting | Phase::Over(_) => None,
        }
    }

    fn trial_mut(&mut self) -> Option<&mut Trial> {
        match &mut self.phase {
            Phase::Trial { trial, .. } | Phase::Watch { trial, .. } => Some(trial),
            Phase::Waiting | Phase::Over(_) => None,
        }
    }

    fn next_trial(&mut self) -> Trial {
        let TuneSettings { block, periods, share, objective, seed, .. } = self.settings;
        self.trials += 1;
        // Odd, so that successive trials get seeds far apart.
        let seed = seed ^ self.trials.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Trial::new(Design { block, periods, share, objective, seed })
    }

    fn propose(&mut self, now: Time) {
        let candidate = match self.settings.method {
            Method::Evolution => self.search.next(&self.incumbent).ok_or("the box leaves nothing to try"),
            Method::Calibrated => {
                if self.calibration.len() < NEEDED {
                    return;
                }
                // Later samples may tell them apart.
                let Some(rates) = self.calibration.rates() else { return };
                let towards = self.search.towards(&self.incumbent, &rates, NEAR);
                towards.ok_or("the rates are those measured, as near as they may be")
            }
        };
        match candidate {
            Err(why) => self.finish(now, why),
            Ok(candidate) => {
                self.note(now, What::Proposed, "", &candidate, Measured::default());
                self.acts.push_back(Act::Try(self.named(&candidate)));
                self.phase = Phase::Trial { trial: self.next_trial(), candidate };
            }
        }
    }

    /// Draws the conclusion, if there is one.
    fn settle(&mut self, now: Time) {
        match &self.phase {
            Phase::Trial { trial, .. } => match judged(trial, now) {
                None => {}
                Some((What::Accepted, why)) => self.accept(now, why),
                Some((what, why)) => self.reject(now, what, why),
            },
            Phase::Watch { trial, cost_before } => match watched(trial, *cost_before, now) {
                None => {}
                Some((What::Confirmed, why)) => self.confirm(now, why),
                Some((_, why)) => {
                    self.revert(now, why);
                    self.go_on(now);
                }
            },
            Phase::Waiting | Phase::Over(_) => {}
        }
    }

    fn accept(&mut self, now: Time, why: &'static str) {
        let watch = self.next_trial();
        let Phase::Trial { trial, candidate } = std::mem::replace(&mut self.phase, Phase::Waiting) else { return };
        let result = trial.result();
        self.before.push(std::mem::replace(&mut self.incumbent, candidate.clone()));
        self.acts.push_back(Act::Promote);
        let cost_before = result.incumbent.map(|figures| figures.cost(self.settings.objective));
        self.phase = Phase::Watch { trial: watch, cost_before };
        self.note(now, What::Accepted, why, &candidate, result);
    }

    fn reject(&mut self, now: Time, what: What, why: &'static str) {
        let Phase::Trial { trial, candidate } = std::mem::replace(&mut self.phase, Phase::Waiting) else { return };
        self.acts.push_back(Act::Retire);
        self.search.judged(false);
        self.note(now, what, why, &candidate, trial.result());
        self.go_on(now);
    }

    fn confirm(&mut self, now: Time, why: &'static str) {
        let result = self.trial().map(Trial::result).unwrap_or_default();
        self.phase = Phase::Waiting;
        self.acts.push_back(Act::Retire);
        self.search.judged(true);
        let values = self.incumbent.clone();
        self.note(now, What::Confirmed, why, &values, result);
    }

    /// Back to the incumbent before, which is the rival of the watch.
    fn revert(&mut self, now: Time, why: &'static str) {
        let result = self.trial().map(Trial::result).unwrap_or_default();
        let Some(before) = self.before.pop() else { return };
        self.incumbent = before;
        self.phase = Phase::Waiting;
        self.acts.push_back(Act::Demote);
        self.search.judged(false);
        let values = self.incumbent.clone();
        self.note(now, What::Reverted, why, &values, result);
    }

    /// After a failure: is it worth going on?
    fn go_on(&mut self, now: Time) {
        if self.search.sigma() < self.settings.stop {
            self.finish(now, "steps have shrunk to their end");
        } else if self.settings.method == Method::Calibrated && self.search.failures() >= VAIN {
            self.finish(now, "the rates measured do not serve better");
        }
    }

    fn freeze(&mut self, now: Time) {
        self.drop_trial(now, "frozen by hand");
        self.frozen = true;
        self.note_incumbent(now, What::Frozen, "");
    }

    fn roll_back(&mut self, now: Time) {
        self.drop_trial(now, "rolled back by hand");
        if matches!(self.phase, Phase::Watch { .. }) {
            self.revert(now, "rolled back by hand");
        } else if let Some(before) = self.before.pop() {
            self.incumbent = before;
            self.acts.push_back(Act::Set(self.named(&self.incumbent)));
            self.note_incumbent(now, What::Reverted, "rolled back by hand");
        }
        self.frozen = true;
        self.note_incumbent(now, What::Frozen, "");
    }

    /// A candidate that is on trial is gone; nothing is learned of it.
    fn drop_trial(&mut self, now: Time, why: &'static str) {
        if let Phase::Trial { trial, candidate } = &self.phase {
            let (candidate, result) = (candidate.clone(), trial.result());
            self.phase = Phase::Waiting;
            self.acts.push_back(Act::Retire);
            self.note(now, What::Rejected, why, &candidate, result);
        }
    }

    fn finish(&mut self, now: Time, why: &'static str) {
        self.phase = Phase::Over(why);
        self.flights.clear();
        self.note_incumbent(now, What::Ended, why);
    }

    fn note_incumbent(&mut self, now: Time, what: What, why: &'static str) {
        let values = self.incumbent.clone();
        self.note(now, what, why, &values, Measured::default());
    }

    fn note(&mut self, at: Time, what: What, why: &'static str, values: &[f64], result: Measured) {
        let (values, sigma) = (self.named(values), self.search.sigma());
        self.log.write(Entry { number: 0, at, what, why, values, result, sigma });
    }

    fn named(&self, values: &[f64]) -> Vec<(&'static str, f64)> {
        self.search.axes().iter().map(|axis| axis.key).zip(values.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests;
