//! `--set` of `gorgo simulate`: parameters of strategies, limits of routers, and what routers learn; and the lists under `--help`.

use crate::bench::fleets;
use crate::routing::{Settings, policy};
use crate::sim::world::Edge;
use crate::sim::world::keys::{self, KEYS};
use crate::workload::Fleet;

/// Limits of the routers that `--set` takes as well.
const LIMITS: [(&str, &str); 4] = [
    ("max_concurrent", "most requests in flight per replica; more wait in the router (the strategy's own rule)"),
    ("queue_limit", "most requests in a router's queue (10000)"),
    ("queue_timeout_ms", "longest wait there (60000)"),
    ("heeds_others", "on = what other routers tell of engines that they share counts as load there (on)"),
];

pub(in crate::cli) fn after_help() -> String {
    let mut text = "Settings of the simulation for --set (default in brackets):\n".to_owned();
    for key in KEYS {
        text.push_str(&format!("  {}: {}\n", key.name, key.help));
    }
    for (name, help) in LIMITS {
        text.push_str(&format!("  {name}: {help}\n"));
    }
    text.push_str("\nBuilt-in fleets (the files of examples/fleets):\n");
    for fleet in fleets::BUILT_IN {
        text.push_str(&format!("  {:<20}{}\n", fleet.name, fleet.help));
    }
    text.push_str(
        "\nFaults, times in seconds from the start of the run:\n  \
         down:NAME@60..120      the engine's process dies; another one comes with an empty cache\n  \
         restart:NAME@60        the same, with the new one there at once\n  \
         hang:NAME@60..80       the engine stands still and answers nothing\n  \
         slow:NAME@60..300x3    its steps take three times as long; `slow:*@0..x1.3`: those of all engines, always\n  \
         rtt:A/B@60..90x3       delays between two regions, or between A and all others, are three times as long\n  \
         cut:A/B@60..90         nothing gets through between them until the end\n  \
         cut:A>B@60..90         the same from A to B only; what B sends stops soon after, for want of acknowledgements",
    );
    text
}

/// Applies one `--set`.
pub(super) fn set(text: &str, settings: &mut [Settings], edge: &mut Edge) -> Result<(), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("found `{text}`; wanted KEY=VALUE"))?;
    let (key, value) = (key.trim(), value.trim());
    if let Some(result) = keys::set(edge, key, value) {
        return result;
    }
    let (only, name) = match key.split_once('.') {
        Some((strategy, name)) => (Some(strategy), name),
        None => (None, key),
    };
    let mut found = false;
    for settings in settings.iter_mut().filter(|settings| only.is_none_or(|only| settings.strategy == only)) {
        found |= set_one(settings, name, value).map_err(|wanted| format!("`{key}` is `{value}`; wanted {wanted}"))?;
    }
    if found { Ok(()) } else { Err(unknown(key, only, settings)) }
}

/// Sets what one router is told. False if it knows no such key.
///
/// # Errors
/// What kind of value is wanted.
fn set_one(settings: &mut Settings, name: &str, value: &str) -> Result<bool, &'static str> {
    let number = || value.parse::<f64>().map_err(|_| "a number");
    match name {
        "max_concurrent" => settings.max_concurrent = Some(number()? as u32),
        "queue_limit" => settings.queue_limit = number()? as usize,
        "queue_timeout_ms" => settings.queue_timeout_ms = number()?,
        "heeds_others" => {
            settings.heeds_others = match value {
                "on" => true,
                "off" => false,
                _ => return Err("on or off"),
            }
        }
        parameter => {
            let entry = policy::find(&settings.strategy);
            if !entry.is_ok_and(|entry| entry.parameters.iter().any(|known| known.key == parameter)) {
                return Ok(false);
            }
            settings.parameters.push((parameter.to_owned(), number()?));
        }
    }
    Ok(true)
}

/// Applies one `--engine` to all replicas.
pub(super) fn engine(text: &str, fleet: &mut Fleet) -> Result<(), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "wanted KEY=VALUE".to_owned())?;
    let number = value.trim().parse::<f64>().is_ok();
    let value = if number { value.trim().to_owned() } else { format!("\"{}\"", value.trim().escape_default()) };
    fleet.change_engines(&format!("{} = {value}", key.trim())).map_err(|error| error.problems.join("; "))
}

fn unknown(key: &str, only: Option<&str>, settings: &[Settings]) -> String {
    if let Some(only) = only.filter(|only| settings.iter().all(|settings| settings.strategy != **only)) {
        return format!("`{key}`: `{only}` is not among the strategies");
    }
    let mut known: Vec<&str> = settings
        .iter()
        .filter_map(|settings| policy::find(&settings.strategy).ok())
        .flat_map(|entry| entry.parameters.iter().map(|parameter| parameter.key))
        .collect();
    known.sort_unstable();
    known.dedup();
    known.extend(KEYS.iter().map(|key| key.name));
    known.extend(LIMITS.iter().map(|(name, _)| *name));
    let hint = crate::model::spelling::hint(key, known.iter().copied());
    format!(
        "`{key}`: no strategy here has it, and it is no setting of the simulation; known: {}{hint}",
        known.join(", ")
    )
}
