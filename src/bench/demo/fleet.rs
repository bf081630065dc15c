//! Which engines a demo runs.

use anyhow::{Result, ensure};

use crate::sim::engine::EngineSpec;
use crate::sim::fleet::{engine_spec, spec_of};
use crate::sim::preset::PresetError;
use crate::workload::Fleet;
use crate::workload::fleet::{FleetError, FleetFile, Gpu, Replica};
use crate::workload::network::RttMatrix;

/// The fleet that `gorgo demo` uses when none is given.
pub const DEFAULT_FLEET: &str = include_str!("fleet.toml");

/// Reads [`DEFAULT_FLEET`].
///
/// # Errors
/// Only if the program was built from a damaged file; a test reads it.
pub fn default_fleet() -> Result<Fleet, FleetError> {
    FleetFile::parse("the built-in fleet", DEFAULT_FLEET)?.resolve(None, &check)
}

/// Resolves a parsed file with `matrix`, the table that it names.
///
/// # Errors
/// All problems of the file, GPUs and models included.
pub fn resolve(file: &FleetFile, matrix: Option<RttMatrix>) -> Result<Fleet, FleetError> {
    file.resolve(matrix, &check)
}

fn check(gpu: &Gpu, model: &str) -> Result<(), String> {
    spec_of(gpu, model).map(drop).map_err(|error| error.to_string())
}

/// The engines of all replicas, in order.
///
/// # Errors
/// None for a fleet that was resolved here.
pub fn specs(fleet: &Fleet) -> Result<Vec<EngineSpec>, PresetError> {
    fleet.replicas.iter().map(engine_spec).collect()
}

/// Round trips between the first router and every replica, ms.
#[must_use]
pub fn rtts_ms(fleet: &Fleet) -> Vec<f64> {
    let home = fleet.routers.first().map(|router| &router.region);
    // A checked fleet knows every pair.
    let rtt = |replica: &Replica| home.and_then(|home| fleet.rtt.rtt_ms(home, &replica.region)).unwrap_or(0.0);
    fleet.replicas.iter().map(rtt).collect()
}

/// The replicas' one model.
///
/// # Errors
/// Several.
pub fn ensure_one_model(fleet: &Fleet) -> Result<()> {
    let mut models: Vec<&str> = fleet.replicas.iter().map(|replica| replica.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    ensure!(
        models.len() == 1,
        "the fleet's replicas serve several models ({}); the plan's requests name one",
        models.join(", ")
    );
    Ok(())
}

/// A demo has one central router with its clients beside it, and its requests name one model.
///
/// # Errors
/// Other fleets, with what to change.
pub fn ensure_central(fleet: &Fleet) -> Result<()> {
    ensure!(
        fleet.routers.len() == 1,
        "the fleet has {} routers; `gorgo demo` compares central proxies: give it one `[[router]]`",
        fleet.routers.len()
    );
    ensure!(
        fleet.clients.iter().all(|clients| clients.region == fleet.routers[0].region),
        "the fleet has clients away from its router; `gorgo demo` sends from beside it: leave `[[clients]]` out"
    );
    ensure_one_model(fleet)
}

/// Longest prompt that is kept by default, tokens: nine tenths of the smallest KV cache, so that one fits beside what is cached.
#[must_use]
pub fn default_max_input(specs: &[EngineSpec]) -> u32 {
    let smallest = specs.iter().map(|spec| spec.kv_tokens).min().unwrap_or(u64::MAX);
    u32::try_from(smallest / 10 * 9).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_FLEET, default_fleet, default_max_input, ensure_central, resolve, specs};
    use crate::workload::fleet::FleetFile;

    #[test]
    fn the_default_fleet_has_three_regions_and_one_slower_gpu() {
        let fleet = default_fleet().unwrap();
        ensure_central(&fleet).unwrap();
        let specs = specs(&fleet).unwrap();
        let regions: std::collections::BTreeSet<_> =
            fleet.replicas.iter().map(|replica| replica.region.as_str()).collect();
        assert_eq!((specs.len(), regions.len()), (3, 3));
        let times: Vec<f64> = specs.iter().map(|spec| spec.lone_prefill_ms(0, 4096)).collect();
        let slowest = times.iter().copied().fold(0.0, f64::max);
        assert_eq!(times.iter().filter(|ms| **ms > slowest / 2.0).count(), 1, "{times:?}");
        assert_eq!(default_max_input(&specs), 36_000);
    }

    #[test]
    fn the_example_for_long_prompts_is_a_fleet_with_large_caches() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fleets/mooncake.toml");
        let fleet = resolve(&FleetFile::parse(path, &std::fs::read_to_string(path).unwrap()).unwrap(), None).unwrap();
        ensure_central(&fleet).unwrap();
        assert!(specs(&fleet).unwrap().iter().all(|spec| spec.kv_tokens >= 2_000_000));
    }

    #[test]
    fn several_routers_or_models_are_refused() {
        let two_routers = format!("{DEFAULT_FLEET}\n[[router]]\nregion = \"europe-central-1\"\n");
        let two_models = DEFAULT_FLEET.replacen("mistral-7b", "llama-3.1-8b", 1);
        let far_clients = format!("{DEFAULT_FLEET}\n[[clients]]\nregion = \"europe-central-1\"\nshare = 1\n");
        let cases = [(two_routers, "2 routers"), (two_models, "several models"), (far_clients, "clients away")];
        for (text, word) in cases {
            let fleet = resolve(&FleetFile::parse("f", &text).unwrap(), None).unwrap();
            let error = ensure_central(&fleet).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_model_that_does_not_fit_is_told_with_its_place() {
        let text = DEFAULT_FLEET.replacen("mistral-7b", "llama-3.3-70b", 1);
        let error = resolve(&FleetFile::parse("f", &text).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("f: replica[0].gpu"), "{error}");
    }
}
