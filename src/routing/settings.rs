//! What a router is told at its start, and what is wrong with it.

use std::sync::Arc;

use super::admission::Slo;
use super::health::HealthThresholds;
use super::policy::UnknownStrategy;
use super::residency::Residency;
use crate::model::geo::Atlas;

/// What a router is told at its start and may be told anew at run time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registered strategy name.
    pub strategy: String,
    /// Weights and rates of the strategy by their documented keys (`w_rtt`, `w_queue`, …); unknown keys are an error.
    pub parameters: Vec<(String, f64)>,
    /// Hold requests in the router while every replica has this many running; `None` = the strategy's own rule. At least 1.
    pub max_concurrent: Option<u32>,
    /// Most requests in the router's queue. Default 10,000, as in the paper's proxy.
    pub queue_limit: usize,
    /// Longest wait in the router's queue, ms, above 0. Default 60,000, as in the paper's proxy.
    pub queue_timeout_ms: f64,
    /// Most replicas that one request is tried at, at least 1. A request that makes engines fail must not take the whole fleet down.
    pub max_attempts: u32,
    /// Seed of the random strategies.
    pub seed: u64,
    /// What other routers tell of engines that they use as well counts as load. Default true.
    pub heeds_others: bool,
    /// What is promised to requests, by class.
    pub slo: Slo,
    /// Which regions each residency class allows.
    pub residency: Residency,
    /// Where regions are, for strategies that go by distance.
    pub places: Arc<Atlas>,
    /// How many results in a row take a replica out of rotation and back in.
    pub health: HealthThresholds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: "predictive".into(),
            parameters: Vec::new(),
            max_concurrent: None,
            queue_limit: 10_000,
            queue_timeout_ms: 60_000.0,
            max_attempts: 3,
            seed: 0,
            heeds_others: true,
            slo: Slo::default(),
            residency: Residency::default(),
            places: Arc::default(),
            health: HealthThresholds::default(),
        }
    }
}

/// Longest queue timeout accepted, ms: a day.
const QUEUE_TIMEOUT_MAX_MS: f64 = 86_400_000.0;

impl Settings {
    /// Checks what does not belong to the strategy.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        in_range("queue_timeout_ms", self.queue_timeout_ms, f64::MIN_POSITIVE, QUEUE_TIMEOUT_MAX_MS)?;
        if let Some(limit) = self.max_concurrent {
            in_range("max_concurrent", f64::from(limit), 1.0, f64::from(u32::MAX))?;
        }
        self.slo.check()?;
        in_range("max_attempts", f64::from(self.max_attempts), 1.0, f64::from(u32::MAX))?;
        in_range("failures_out", f64::from(self.health.failures_out), 1.0, f64::from(u32::MAX))?;
        in_range("successes_in", f64::from(self.health.successes_in), 1.0, f64::from(u32::MAX))
    }
}

/// An error unless `min <= value <= max`; what is not a number is out of every range.
pub(super) fn in_range(key: &str, value: f64, min: f64, max: f64) -> Result<(), SettingsError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(SettingsError::OutOfRange { key: key.to_owned(), value, min, max })
}

/// What is wrong with the settings of a router or a strategy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// No strategy of this name.
    #[error(transparent)]
    UnknownStrategy(#[from] UnknownStrategy),
    /// The strategy has no parameter of this name.
    #[error("strategy `{strategy}` has no parameter `{key}`; it has: {known}{hint}")]
    UnknownParameter {
        /// The strategy.
        strategy: &'static str,
        /// As asked for.
        key: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
        /// Its parameters, separated by commas.
        known: String,
    },
    /// A figure outside its range.
    #[error("`{key}` is {value}, wanted {min} to {max}")]
    OutOfRange {
        /// Which setting.
        key: String,
        /// As given.
        value: f64,
        /// Smallest allowed.
        min: f64,
        /// Largest allowed.
        max: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::{Settings, SettingsError};
    use crate::routing::HealthThresholds;

    #[test]
    fn figures_out_of_range_name_their_key() {
        let health = |failures_out, successes_in| HealthThresholds { failures_out, successes_in };
        let cases = [
            (Settings::default(), None),
            (Settings { max_concurrent: Some(1), queue_limit: 0, ..Settings::default() }, None),
            (Settings { max_concurrent: Some(0), ..Settings::default() }, Some("max_concurrent")),
            (Settings { max_attempts: 0, ..Settings::default() }, Some("max_attempts")),
            (Settings { queue_timeout_ms: 0.0, ..Settings::default() }, Some("queue_timeout_ms")),
            (Settings { queue_timeout_ms: f64::NAN, ..Settings::default() }, Some("queue_timeout_ms")),
            (Settings { queue_timeout_ms: f64::INFINITY, ..Settings::default() }, Some("queue_timeout_ms")),
            (Settings { health: health(0, 1), ..Settings::default() }, Some("failures_out")),
            (Settings { health: health(1, 0), ..Settings::default() }, Some("successes_in")),
        ];
        for (settings, expected) in cases {
            let found = match settings.check() {
                Err(SettingsError::OutOfRange { key, .. }) => Some(key),
                other => other.err().map(|error| error.to_string()),
            };
            assert_eq!(found.as_deref(), expected, "{settings:?}");
        }
    }
}
