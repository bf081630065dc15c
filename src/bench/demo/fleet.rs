//! Which engines a demo runs.

use anyhow::{Result, bail, ensure};

use crate::model::Region;
use crate::sim::engine::EngineSpec;
use crate::sim::fleet::{engine_spec, spec_of};
use crate::sim::preset::PresetError;
use crate::workload::fleet::{FleetError, FleetFile, Gpu};
use crate::workload::network::RttMatrix;
use crate::workload::{Fleet, Home};

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

/// Round trip between a session's clients and a replica by way of their router, ms. A checked fleet knows every pair.
#[must_use]
pub fn rtt_ms(fleet: &Fleet, home: Home, replica: usize) -> f64 {
    let clients = &fleet.clients[home.0];
    let router = &fleet.routers[clients.router].region;
    let near = if clients.region == *router { Some(0.0) } else { fleet.rtt.rtt_ms(&clients.region, router) };
    near.unwrap_or(0.0) + fleet.rtt.rtt_ms(router, &fleet.replicas[replica].region).unwrap_or(0.0)
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

/// What a demo can start: one central router, or agents with one engine each. Requests name one model.
///
/// # Errors
/// Other fleets, with what to change.
pub fn ensure_playable(fleet: &Fleet) -> Result<()> {
    ensure_one_model(fleet)?;
    if fleet.routers.len() > 1 && !fleet.has_agents() {
        bail!("routers that reach every engine are simulated only; several routers are agents in `gorgo demo`");
    }
    let beside = |region: &Region| fleet.replicas.iter().filter(|replica| replica.region == *region).count();
    let lonely = fleet.routers.iter().find(|router| fleet.routers.len() > 1 && beside(&router.region) != 1);
    if let Some(router) = lonely {
        bail!(
            "the router in {} has {} replicas in its region; several routers are agents, each beside one engine in `gorgo demo`",
            router.region,
            beside(&router.region)
        );
    }
    let far = fleet.replicas.iter().find(|replica| !fleet.routers.iter().any(|router| router.region == replica.region));
    match far.filter(|_| fleet.routers.len() > 1) {
        Some(replica) => bail!(
            "replica `{}` stands in {}, which has no `[[router]]`; of several routers each reaches the engines of its own region",
            replica.name,
            replica.region
        ),
        None => Ok(()),
    }
}

/// Longest prompt that is kept by default, tokens: nine tenths of the smallest KV cache, so that one fits beside what is cached.
#[must_use]
pub fn default_max_input(specs: &[EngineSpec]) -> u32 {
    let smallest = specs.iter().map(|spec| spec.kv_tokens).min().unwrap_or(u64::MAX);
    u32::try_from(smallest / 10 * 9).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_FLEET, default_fleet, default_max_input, ensure_playable, resolve, rtt_ms, specs};
    use crate::workload::Home;
    use crate::workload::fleet::FleetFile;

    #[test]
    fn the_default_fleet_has_three_regions_and_one_slower_gpu() {
        let fleet = default_fleet().unwrap();
        ensure_playable(&fleet).unwrap();
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
        ensure_playable(&fleet).unwrap();
        assert!(specs(&fleet).unwrap().iter().all(|spec| spec.kv_tokens >= 2_000_000));
    }

    #[test]
    fn agents_have_one_engine_each_and_all_serve_one_model() {
        let agents =
            format!("{DEFAULT_FLEET}\n[[router]]\nregion = \"us-west-1\"\n[[router]]\nregion = \"europe-central-1\"\n");
        let fleet = |text: &str| resolve(&FleetFile::parse("f", text).unwrap(), None).unwrap();
        ensure_playable(&fleet(&agents)).unwrap();
        let two_routers = format!("{DEFAULT_FLEET}\n[[router]]\nregion = \"europe-central-1\"\n");
        let idle_router = format!("{agents}\n[[router]]\nregion = \"us-south-1\"\n");
        let two_models = DEFAULT_FLEET.replacen("mistral-7b", "llama-3.1-8b", 1);
        let cases = [
            (two_routers, "`us-west` stands in us-west-1"),
            (idle_router, "us-south-1 has 0 replicas"),
            (two_models, "several models"),
        ];
        for (text, word) in cases {
            let error = ensure_playable(&fleet(&text)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_round_trip_goes_by_way_of_the_router() {
        let text = format!("{DEFAULT_FLEET}\n[[clients]]\nregion = \"europe-central-1\"\nshare = 1\n");
        let far = resolve(&FleetFile::parse("f", &text).unwrap(), None).unwrap();
        ensure_playable(&far).unwrap();
        let near = default_fleet().unwrap();
        let rtts = |fleet| [0, 1, 2].map(|replica| rtt_ms(fleet, Home(0), replica));
        assert_eq!((rtts(&near), rtts(&far)), ([2.0, 73.0, 97.0], [99.0, 170.0, 194.0]));
    }

    #[test]
    fn a_model_that_does_not_fit_is_told_with_its_place() {
        let text = DEFAULT_FLEET.replacen("mistral-7b", "llama-3.3-70b", 1);
        let error = resolve(&FleetFile::parse("f", &text).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("f: replica[0].gpu"), "{error}");
    }
}
