//! `predictive`: the least predicted cost in milliseconds, with rates learned online per replica.
//!
//! ```text
//! J = T + decode + stall + later + home          T = network + wait + prefill, the predicted time to first token
//! ```
//!
//! No weights are searched for: what is learned are physical rates ([`mod@line`], [`floor`]), what is predicted can be checked against
//! what came ([`trust`]), and the three weights price what a dispatch does to others ([`price`]) in ms of time to first token.

mod busy;
mod clock;
mod floor;
mod kv;
mod learning;
mod line;
mod price;
mod quantile;
mod site;
#[cfg(test)]
mod tests;
mod tide;
mod trust;
mod turns;
mod waits;
mod way;

use std::collections::BTreeMap;

use line::{PRIOR, service_ms};
use price::{decode_ms, home_ms, later_ms, stall_ms, tail_ms};
use quantile::Quantile;
use site::{Asks, Forecast, Site};
use trust::Trust;
use turns::Turns;

pub(in crate::routing) use way::ramp_ms;

use super::observation::{Event, Observation};
use super::parameters::{Parameter, Parameters};
use super::registry::Entry;
use super::{Choice, Policy, Query, View, terms};
use crate::model::{ReplicaId, RequestId, Time};
use crate::routing::decision::{Candidate, Terms, Unit};
use crate::routing::features::Features;
use crate::routing::fleet::Replica;
use crate::routing::peer::Speed;

pub(super) const ENTRY: Entry = Entry {
    name: "predictive",
    help: "least predicted cost in ms by rates learned online, the delay that it causes others included",
    unit: Unit::Ms,
    parameters: &[
        Parameter {
            key: "gamma",
            default: 0.125,
            min: 0.0,
            max: 10.0,
            help: "ms of TTFT that one ms of decoding is worth; 0 leans to TTFT, 0.3 to whole answers",
        },
        Parameter {
            key: "kappa",
            default: 0.5,
            min: 0.0,
            max: 10.0,
            help: "weight of the delay of later arrivals; 1 is the textbook value of an M/G/1 queue",
        },
        Parameter {
            key: "phi",
            default: 0.7,
            min: 0.0,
            max: 10.0,
            help: "discount of a conversation's expected next turns",
        },
        Parameter {
            key: "tail",
            default: 0.7,
            min: 0.0,
            max: 10.0,
            help: "extra price per ms of TTFT beyond that of nine in ten recent requests",
        },
        Parameter {
            key: "hold_ms",
            default: 500.0,
            min: 50.0,
            max: 86_400_000.0,
            help: "without peers, keep a request in the router while its best replica makes it wait longer than this, ms",
        },
        Parameter {
            key: "max_running",
            default: 0.0,
            min: 0.0,
            max: 1_000_000.0,
            help: "requests that each engine runs at most, so that a wait for a place is foreseen; 0 = it is not, which served better where places ran out in simulations",
        },
        Parameter {
            key: "guard",
            default: 1.0,
            min: 0.0,
            max: 1.0,
            help: "1 = a late request that its engine has certainly not begun is called back and sent elsewhere; 0 = never",
        },
    ],
    build: |parameters, _| Box::new(Predictive::new(parameters)),
};

/// A request is late this many times its predicted time to first token after its dispatch, and so many ms: errors of prediction of a factor of two
/// are common where it is short, and calling back is for what is out of the ordinary.
const LATE_FACTOR: f64 = 4.0;
const LATE_MS: f64 = 1500.0;

/// Output length expected before any answer ended, tokens, and weight of the newest: a memory of about fifty answers.
const OUTPUT_START: f64 = 200.0;
const OUTPUT_WEIGHT: f64 = 0.02;

/// The slowest tenth begins here before any first token came, ms; how fast it follows what comes, and what makes no sense.
const SLOW_START_MS: f64 = 1000.0;
const SLOW_SHARE: f64 = 0.9;
const SLOW_STEP: f64 = 0.05;
const SLOW_BOUNDS_MS: (f64, f64) = (1.0, 3_600_000.0);

/// Name of the term that says how long the engine keeps a request waiting.
const WAIT: &str = "wait";

struct Weights {
    gamma: f64,
    kappa: f64,
    phi: f64,
    tail: f64,
    hold_ms: f64,
    max_running: f64,
    guard: bool,
}

/// A request that this rule sent, until it ends.
struct Flight {
    replica: ReplicaId,
    dispatched: Time,
    arrival_ms: f64,
    rtt_ms: f64,
    ramp_ms: f64,
    uncached_tokens: f64,
    ttft_ms: Option<f64>,
    /// All places of its engine's batch were taken when it was sent.
    crowded: bool,
    first_token: Option<Time>,
}

struct Predictive {
    weights: Weights,
    /// By ascending id.
    sites: Vec<Site>,
    flights: BTreeMap<RequestId, Flight>,
    turns: Turns,
    trust: Trust,
    output_tokens: f64,
    /// TTFT of nine in ten, ms.
    slow_ms: Quantile,
    /// Smallest decode floor known, for replicas without one: as good as the best, so that they are tried. Of the decision at hand.
    least_floor_ms: f64,
}

impl Predictive {
    fn new(parameters: &Parameters) -> Self {
        Self {
            weights: Weights {
                gamma: parameters.get("gamma"),
                kappa: parameters.get("kappa"),
                phi: parameters.get("phi"),
                tail: parameters.get("tail"),
                hold_ms: parameters.get("hold_ms"),
                max_running: parameters.get("max_running"),
                guard: parameters.get("guard") > 0.0,
            },
            sites: Vec::new(),
            flights: BTreeMap::new(),
            turns: Turns::default(),
            trust: Trust::default(),
            output_tokens: OUTPUT_START,
            slow_ms: Quantile::new(SLOW_START_MS, SLOW_SHARE, SLOW_BOUNDS_MS),
            least_floor_ms: 0.0,
        }
    }

    /// Where a replica's site stands. Ids are given out in order and seldom taken back, so mostly it is at its number.
    fn position(&self, id: ReplicaId) -> Result<usize, usize> {
        let guess = id.0 as usize;
        if self.sites.get(guess).is_some_and(|site| site.id == id) {
            return Ok(guess);
        }
        self.sites.binary_search_by_key(&id, |site| site.id)
    }

    fn site(&self, id: ReplicaId) -> Option<&Site> {
        self.position(id).ok().map(|at| &self.sites[at])
    }

    /// The site of a replica, a new one if it is not known.
    fn site_of(&mut self, replica: &Replica) -> &mut Site {
        let at = self.position(replica.id).unwrap_or_else(|at| {
            self.sites.insert(at, Site::new(replica));
            at
        });
        &mut self.sites[at]
    }

    /// M, where it is to be foreseen. What engines say of it is not taken unasked: at nine tenths of what fleets of 64 places could do, p95 was
    /// several times as long with it as without, since who is kept back for want of a place is overtaken by all that is shorter.
    fn max_running(&self) -> Option<f64> {
        Some(self.weights.max_running).filter(|most| *most > 0.0)
    }

    /// E\[out\] of a request.
    fn output_of(&self, features: &Features) -> f64 {
        features.max_tokens.map_or(self.output_tokens, |limit| self.output_tokens.min(f64::from(limit)))
    }

    fn forecast(&self, query: &Query<'_>, view: &View<'_>, site: &Site) -> Forecast {
        let asks = Asks {
            prompt_bytes: query.features.prompt_bytes,
            output_tokens: self.output_of(query.features),
            max_running: self.max_running(),
        };
        site.forecast(query.now, view, asks)
    }

    /// The terms that do not depend on what is in flight: J is never less.
    fn certain(&self, query: &Query<'_>, view: &View<'_>, site: &Site) -> f64 {
        let speed = site.speed(view.replica);
        let way_ms = site.way_ms(view.rtt_ms, query.features.prompt_bytes);
        let floor = site.floor.ms().unwrap_or(self.least_floor_ms);
        let next = service_ms(speed, self.turns.uncached_tokens());
        way_ms
            + service_ms(speed, f64::from(view.uncached_tokens))
            + decode_ms(self.weights.gamma, self.output_of(query.features), floor)
            + home_ms(self.weights.phi, self.turns.expected(), uncached_share(query, view), way_ms, next)
    }

    /// J, term by term.
    fn predicted(&self, query: &Query<'_>, view: &View<'_>, site: &Site) -> Terms {
        let Weights { gamma, kappa, phi, tail, .. } = self.weights;
        let forecast = self.forecast(query, view, site);
        let Forecast { way_ms, wait_ms, service_ms: service, decoding } = forecast;
        let speed = site.speed(view.replica);
        let usual = service_ms(speed, self.turns.any_uncached_tokens());
        let pressure = site.pressure(query.now, view.others.decoding, usual);
        let floor = site.floor.ms().unwrap_or(self.least_floor_ms);
        let next = service_ms(speed, self.turns.uncached_tokens());
        terms([
            ("network", way_ms),
            (WAIT, wait_ms),
            ("prefill", service),
            ("decode", decode_ms(gamma, self.output_of(query.features), floor)),
            ("stall", stall_ms(gamma, service, decoding, pressure)),
            ("later", later_ms(kappa, service, wait_ms, pressure)),
            ("home", home_ms(phi, self.turns.expected(), uncached_share(query, view), way_ms, next)),
            ("tail", tail_ms(tail, forecast.ttft_ms(), self.slow_ms.value())),
        ])
    }
}

/// Of the prompt.
fn uncached_share(query: &Query<'_>, view: &View<'_>) -> f64 {
    f64::from(view.uncached_tokens) / f64::from(query.prompt_tokens.max(1))
}

/// The least uncached work, at the same nominal rate everywhere: what remains when predictions do not hold.
fn fallback(view: &View<'_>) -> Terms {
    let pending = view.load.uncached_tokens as f64 + view.others.uncached_tokens;
    terms([
        ("pending", PRIOR.ms_per_token * pending),
        ("prefill", PRIOR.ms_per_token * f64::from(view.uncached_tokens)),
    ])
}

impl Policy for Predictive {
    fn prepare(&mut self, _query: &Query<'_>, candidates: &[View<'_>]) {
        let mut least = f64::INFINITY;
        for view in candidates {
            let site = self.site_of(view.replica);
            site.refresh(view.replica);
            least = site.floor.ms().unwrap_or(f64::INFINITY).min(least);
        }
        self.least_floor_ms = if least.is_finite() { least } else { 0.0 };
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        match self.site(candidate.replica.id) {
            Some(site) if !self.trust.is_lost() => self.predicted(query, candidate, site),
            _ => fallback(candidate),
        }
    }

    fn at_least(&self, query: &Query<'_>, candidate: &View<'_>) -> Option<f64> {
        let site = self.site(candidate.replica.id).filter(|_| !self.trust.is_lost())?;
        Some(self.certain(query, candidate, site))
    }

    fn ttft_ms(&self, query: &Query<'_>, candidate: &View<'_>) -> Option<f64> {
        let site = self.site(candidate.replica.id)?;
        Some(self.forecast(query, candidate, site).ttft_ms())
    }

    fn foresees(&self) -> bool {
        // Who is late by a prediction that is too low is late all the more.
        !self.trust.is_lost() || !self.trust.is_too_high()
    }

    fn choose(&self, query: &Query<'_>, _views: &[View<'_>], candidates: &[Candidate], best: usize) -> Choice {
        let full = query.central && self.room_in_ms(&candidates[best]).is_some_and(|ms| ms > 0.0);
        if full { Choice::Hold } else { Choice::Best(best) }
    }

    fn reconsiders(&self) -> bool {
        true
    }

    fn shortest_first(&self) -> bool {
        true
    }

    fn room_in_ms(&self, candidate: &Candidate) -> Option<f64> {
        let wait = candidate.terms.iter().find(|term| term.name == WAIT)?;
        Some((wait.value - self.weights.hold_ms).max(0.0))
    }

    fn patience_ms(&self, predicted_ttft_ms: f64) -> Option<f64> {
        self.weights.guard.then_some(LATE_FACTOR * predicted_ttft_ms.max(0.0) + LATE_MS)
    }

    fn cold_ttft_ms(&self, query: &Query<'_>, candidate: &View<'_>) -> Option<f64> {
        let cold = View { cached_tokens: 0, uncached_tokens: query.prompt_tokens, ..*candidate };
        self.ttft_ms(query, &cold)
    }

    fn speed(&self, replica: ReplicaId) -> Option<Speed> {
        self.site(replica).filter(|site| site.line.is_learned()).map(|site| site.line.speed())
    }

    fn kv_tokens(&self, replica: ReplicaId) -> Option<f64> {
        self.site(replica).map(|site| site.taken.tokens())
    }

    fn observe(&mut self, now: Time, observation: &Observation<'_>) {
        match &observation.event {
            Event::Dispatched(sent) => self.dispatched(now, observation.replica, sent),
            Event::FirstToken { request } => self.first_token(now, observation.replica, *request),
            Event::Finished { request, usage } => self.finished(now, *request, usage),
            Event::Left { request } => drop(self.ended(*request, None)),
            Event::Lost { request } => {
                self.ended(*request, None);
                self.site_of(observation.replica).busy.lose(now.ms());
            }
            Event::Emptied => self.site_of(observation.replica).busy.lose(now.ms()),
            Event::Removed => {
                if let Ok(at) = self.position(observation.replica.id) {
                    self.sites.remove(at);
                }
            }
        }
    }
}
