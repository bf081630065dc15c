//! All strategies by name.

use super::parameters::{Parameter, Parameters};
use super::{
    Policy, gorgo, gorgo_proxy, gorgo_v3, least_load, least_request, power_of_two, prefix_tree, random, round_robin,
    session_affinity,
};
use crate::model::spelling;
use crate::routing::decision::Unit;

/// One strategy: what a person needs to choose it and what the router needs to build it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// One line: the rule.
    pub help: &'static str,
    /// Unit of its scores.
    pub unit: Unit,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Builds the rule from its parameters and a seed.
    pub build: fn(&Parameters, u64) -> Box<dyn Policy>,
}

const REGISTRY: &[Entry] = &[
    gorgo::ENTRY,
    gorgo_v3::ENTRY,
    gorgo_proxy::ENTRY,
    prefix_tree::ENTRY,
    least_load::ENTRY,
    least_request::ENTRY,
    session_affinity::ENTRY,
    power_of_two::ENTRY,
    round_robin::ENTRY,
    random::ENTRY,
];

/// All strategies, in the order in which they are listed to people.
#[must_use]
pub fn strategies() -> &'static [Entry] {
    REGISTRY
}

/// The names of all strategies, in the same order.
pub fn names() -> impl Iterator<Item = &'static str> {
    REGISTRY.iter().map(|entry| entry.name)
}

/// A strategy by its name.
pub fn find(name: &str) -> Result<&'static Entry, UnknownStrategy> {
    REGISTRY.iter().find(|entry| entry.name == name).ok_or_else(|| UnknownStrategy {
        name: name.to_owned(),
        hint: spelling::hint(name, names()),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// An unknown strategy name; the message lists the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy `{name}`{hint}; known strategies: {known}")]
pub struct UnknownStrategy {
    /// As asked for.
    pub name: String,
    /// `; did you mean …?`, or nothing.
    pub hint: String,
    /// The known ones, separated by commas.
    pub known: String,
}
