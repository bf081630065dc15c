//! A list of strategies as typed.

use anyhow::anyhow;

use crate::bench::demo::DEFAULT_STRATEGIES;
use crate::cli::exit::Failure;
use crate::routing::policy;

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
