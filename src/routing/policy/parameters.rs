//! Weights and rates of a strategy: what there is, and the values in force.

use crate::model::spelling;
use crate::routing::settings::{SettingsError, in_range};

/// One documented parameter of a strategy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its key, e.g. `w_rtt`.
    pub key: &'static str,
    /// Value when none is given.
    pub default: f64,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
    /// One line with unit and meaning.
    pub help: &'static str,
}

/// The values in force of all parameters of one strategy.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    values: Vec<(Parameter, f64)>,
}

impl Parameters {
    /// The defaults of `known` with what is `given` in their place. A key given twice takes the last value.
    pub fn resolve(
        strategy: &'static str,
        known: &[Parameter],
        given: &[(String, f64)],
    ) -> Result<Self, SettingsError> {
        let mut values: Vec<(Parameter, f64)> = known.iter().map(|parameter| (*parameter, parameter.default)).collect();
        for (key, value) in given {
            let Some((parameter, slot)) = values.iter_mut().find(|(parameter, _)| parameter.key == *key) else {
                return Err(unknown(strategy, known, key));
            };
            in_range(key, *value, parameter.min, parameter.max)?;
            *slot = *value;
        }
        Ok(Self { values })
    }

    /// The value of a parameter that the strategy declares.
    #[must_use]
    pub fn get(&self, key: &str) -> f64 {
        let found = self.values.iter().find(|(parameter, _)| parameter.key == key);
        found
            .map(|(_, value)| *value)
            .expect("a strategy reads only parameters that it declares; a test builds every one")
    }

    /// All parameters with their values, in the order of the documentation.
    pub fn iter(&self) -> std::slice::Iter<'_, (Parameter, f64)> {
        self.values.iter()
    }
}

fn unknown(strategy: &'static str, known: &[Parameter], key: &str) -> SettingsError {
    let keys: Vec<&str> = known.iter().map(|parameter| parameter.key).collect();
    let hint = spelling::hint(key, keys.iter().copied());
    let known = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    SettingsError::UnknownParameter { strategy, key: key.to_owned(), hint, known }
}
