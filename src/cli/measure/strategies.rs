//! A list of strategies as typed.

use anyhow::anyhow;

use crate::bench::demo::DEFAULT_STRATEGIES;
use crate::cli::exit::Failure;
use crate::routing::policy::{self, on_agent};
use crate::workload::Fleet;

/// The named strategies, or those of the demo when none is named. `option` is the option that they were given to.
///
/// # Errors
/// Unknown names, all at once; names given twice; nothing but commas.
pub(crate) fn strategies(typed: &[String], option: &str) -> Result<Vec<String>, Failure> {
    if typed.is_empty() {
        return Ok(DEFAULT_STRATEGIES.map(str::to_owned).to_vec());
    }
    let names: Vec<&str> = typed.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    let mut unknown: Vec<_> = names.iter().filter_map(|name| policy::find(name).err()).collect();
    if unknown.len() == 1 {
        return Err(Failure::usage(unknown.remove(0)));
    }
    if !unknown.is_empty() || names.is_empty() {
        let found: Vec<String> = unknown.iter().map(|error| format!("`{}`", error.name)).collect();
        let found = if found.is_empty() { "no name".to_owned() } else { format!("unknown {}", found.join(", ")) };
        let known: Vec<&str> = policy::names().collect();
        return Err(Failure::usage(anyhow!("`{option}`: {found}; known strategies: {}", known.join(", "))));
    }
    if let Some((_, name)) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return Err(Failure::usage(anyhow!("`{option}` names `{name}` twice")));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The strategies that names mean in this fleet: several routers are agents.
pub(crate) fn meant_there(typed: Vec<String>, fleet: &Fleet, option: &str) -> Result<Vec<String>, Failure> {
    if !fleet.has_agents() {
        return Ok(typed);
    }
    let meant: Vec<String> = typed.iter().map(|name| on_agent(name).to_owned()).collect();
    match meant.iter().enumerate().find(|(index, name)| meant[..*index].contains(name)) {
        Some((_, name)) => Err(Failure::usage(anyhow!(
            "`{option}` names `{name}` twice: `gorgo` means it on agents, where the score of a central `gorgo` is `gorgo-score`"
        ))),
        None => Ok(meant),
    }
}
