//! Fleet files from disk, and a fleet as a report shows it.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use crate::bench::demo::fleet;
use crate::bench::fleets;
use crate::cli::exit::Failure;
use crate::model::geo::Atlas;
use crate::model::spelling;
use crate::sim::fleet::engine_spec;
use crate::workload::Fleet;
use crate::workload::fleet::{FleetFile, Gpu};
use crate::workload::network::RttMatrix;

/// The fleet of a file or of a built-in name, or the demo's. A matrix that the file names is read beside it.
///
/// # Errors
/// Files that cannot be read, and all problems of the fleet at once.
pub(crate) fn read_fleet(path: Option<&Path>) -> Result<Fleet, Failure> {
    let Some(path) = path else { return fleet::default_fleet().map_err(Failure::usage) };
    let name = path.display().to_string();
    let text = match fleets::find(&name) {
        Some(built_in) => built_in.text.to_owned(),
        None => read(path, "fleet file").map_err(|failure| with_names(failure, path))?,
    };
    let file = FleetFile::parse(&name, &text).map_err(Failure::usage)?;
    let matrix = match file.matrix() {
        None => None,
        Some(matrix) => Some(read_matrix(&path.parent().unwrap_or(Path::new(".")).join(matrix))?),
    };
    fleet::resolve(&file, matrix).map_err(Failure::usage)
}

/// A table of round trips between regions.
///
/// # Errors
/// A file that cannot be read, and everything in it that makes no sense.
pub(crate) fn read_matrix(path: &Path) -> Result<RttMatrix, Failure> {
    let table = RttMatrix::from_csv(&path.display().to_string(), &read(path, "RTT matrix")?);
    table.map_err(|problems| Failure::usage(anyhow!(problems.join("\n"))))
}

/// A map of places and clients.
///
/// # Errors
/// A file that cannot be read, and everything in it that makes no sense.
pub(crate) fn read_places(path: &Path) -> Result<Atlas, Failure> {
    let read = Atlas::parse(&read(path, "map")?);
    read.map_err(|error| Failure::usage(anyhow!("{}: {}", path.display(), error)))
}

/// Who gives a bare word may have meant a built-in fleet.
fn with_names(failure: Failure, path: &Path) -> Failure {
    if path.components().count() > 1 || path.extension().is_some() {
        return failure;
    }
    let names: Vec<&str> = fleets::BUILT_IN.iter().map(|fleet| fleet.name).collect();
    let hint = spelling::hint(&path.display().to_string(), names.iter().copied());
    Failure::usage(anyhow!("{failure}; built-in fleets: {}{hint}", names.join(", ")))
}

fn read(path: &Path, what: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the {what} `{}`", path.display()))
        .map_err(Failure::usage)
}

/// A fleet as the report shows it: a line per replica. Several routers are agents, which have no round trip to all replicas in common.
pub(crate) fn describe_fleet(fleet: &Fleet, file: Option<&Path>) -> Value {
    let routers: Vec<&str> = fleet.routers.iter().map(|router| router.region.as_str()).collect();
    let home = fleet.routers.first().filter(|_| routers.len() == 1).map(|router| &router.region);
    let replicas: Vec<Value> = fleet
        .replicas
        .iter()
        .map(|replica| {
            let gpu = match &replica.gpu {
                Gpu::Preset(id) => id.clone(),
                Gpu::Own(own) => own.name.clone(),
            };
            json!({
                "name": replica.name,
                "region": replica.region,
                "gpu": gpu,
                "model": replica.model,
                "kv_tokens": engine_spec(replica).map(|spec| spec.kv_tokens).ok(),
                "rtt_ms": home.and_then(|home| fleet.rtt.rtt_ms(home, &replica.region)),
            })
        })
        .collect();
    let mut described = json!({
        "file": file.map_or_else(|| "built in".to_owned(), |file| file.display().to_string()),
        "replicas": replicas,
        "jitter": format!("{:?}", fleet.jitter).to_lowercase(),
    });
    if routers.len() > 1 {
        described["entry"] = json!(fleet.entry.to_string());
    }
    match home {
        Some(home) => described["router"] = json!(home),
        None => described["routers"] = json!(routers),
    }
    described
}
