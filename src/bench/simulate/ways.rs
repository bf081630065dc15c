//! The engines of a fleet as its lower bound sees them: which differ at all, and how far they are from whom.
//!
//! A bound looks at every engine for every request. In a fleet of a thousand most of them are equal engines in one place, of which one
//! stands for all, and there are a few groups of clients; looking regions up by name each time takes longer than the bound itself.

use super::scene::Scene;
use crate::bench::demo::fleet;
use crate::sim::engine::EngineSpec;
use crate::workload::Home;

/// Engines no two of which are equal and in one region.
#[derive(Debug)]
pub(super) struct Ways {
    /// The engines.
    pub(super) specs: Vec<EngineSpec>,
    /// Round trips by group of clients, then by engine, ms.
    rtt_ms: Vec<Vec<f64>>,
}

impl Ways {
    pub(super) fn new(scene: &Scene) -> Self {
        let replicas = &scene.fleet.replicas;
        let same = |one: usize, other: usize| {
            replicas[one].region == replicas[other].region && scene.specs[one] == scene.specs[other]
        };
        let mut kinds: Vec<usize> = Vec::new();
        for replica in 0..replicas.len() {
            if !kinds.iter().any(|kind| same(*kind, replica)) {
                kinds.push(replica);
            }
        }
        let from = |home: usize| kinds.iter().map(|kind| fleet::rtt_ms(&scene.fleet, Home(home), *kind)).collect();
        Self {
            rtt_ms: (0..scene.fleet.clients.len()).map(from).collect(),
            specs: kinds.iter().map(|kind| scene.specs[*kind].clone()).collect(),
        }
    }

    /// Round trip between clients and an engine of [`Self::specs`], ms.
    pub(super) fn rtt_ms(&self, home: Home, kind: usize) -> f64 {
        self.rtt_ms[home.0][kind]
    }
}

#[cfg(test)]
mod tests {
    use super::Ways;
    use crate::bench::demo::fleet::{resolve, rtt_ms, specs};
    use crate::bench::limit::limit;
    use crate::bench::simulate::Draw;
    use crate::bench::simulate::stage::tests::scene;
    use crate::workload::fleet::FleetFile;
    use crate::workload::{Arrivals, homes};

    #[test]
    fn equal_engines_in_one_place_count_once_and_the_bound_is_the_same() {
        let engine = |name: &str, region: &str, gpu: &str, count: u32| {
            format!(
                "[[replica]]\nname = \"{name}\"\nregion = \"{region}\"\ngpu = \"{gpu}\"\nmodel = \"mistral-7b\"\ncount = {count}\n"
            )
        };
        let text = [
            "[[router]]\nregion = \"a\"\n".to_owned(),
            "[[clients]]\nregion = \"a\"\nshare = 1\n[[clients]]\nregion = \"b\"\nshare = 2\n".to_owned(),
            engine("one", "a", "a10", 2),
            engine("two", "b", "h100", 3),
            engine("three", "b", "a10", 1),
            engine("four", "a", "a10", 1),
            "[network.rtt_ms]\n\"a/b\" = 40\n".to_owned(),
        ];
        let mut scene = scene();
        scene.fleet = resolve(&FleetFile::parse("t", &text.concat()).unwrap(), None).unwrap();
        scene.specs = specs(&scene.fleet).unwrap();
        let ways = Ways::new(&scene);
        assert_eq!((scene.specs.len(), ways.specs.len()), (7, 3));
        let plan = scene.plan(Arrivals::Poisson { per_s: 4.0 }, Draw { seed: 1, window: None }).unwrap();
        let homes = homes(&scene.fleet.clients, &plan, 1, 0.0);
        assert!(homes.iter().any(|home| *home != homes[0]));
        let few = limit(&plan, &ways.specs, |session, kind| ways.rtt_ms(homes[session], kind), 0.0);
        let all = limit(&plan, &scene.specs, |session, replica| rtt_ms(&scene.fleet, homes[session], replica), 0.0);
        assert_eq!((few.bound, few.infinite_cache_ratio), (all.bound, all.infinite_cache_ratio));
    }
}
