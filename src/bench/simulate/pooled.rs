//! What one engine would do that has all replicas' speed, bandwidth and KV together and stands as near to every router as its nearest
//! replica: a limit for whole answers, as the no-queue bound is for first tokens.
//!
//! Unlike that bound it queues and batches, so it says what is left to gain at a load. It is no proof: a schedule over several engines
//! could in theory beat first come, first served on one.

use super::scene::Scene;
use crate::model::Region;
use crate::sim::engine::EngineSpec;
use crate::sim::timing::StepTiming;
use crate::workload::Fleet;
use crate::workload::fleet::{Form, Replica};

/// Where the pooled engine stands, near everybody.
const NEARBY: &str = "nearby";

/// The scene with the pooled engine for a fleet; nothing goes wrong there.
#[must_use]
pub(super) fn pooled(scene: &Scene) -> Scene {
    let one = Region::new(NEARBY);
    let fleet = &scene.fleet;
    let mut rtt = fleet.rtt.clone();
    for router in &fleet.routers {
        let ways = fleet.replicas.iter().filter_map(|replica| fleet.rtt.rtt_ms(&router.region, &replica.region));
        rtt.set(&router.region, &one, ways.fold(f64::INFINITY, f64::min));
    }
    let replicas = fleet.replicas.first().map(|first| Replica { region: one, ..first.clone() });
    Scene {
        fleet: Fleet { form: Form::Direct, replicas: replicas.into_iter().collect(), rtt, ..fleet.clone() },
        specs: engine(&scene.specs).into_iter().collect(),
        faults: Vec::new(),
        ..scene.clone()
    }
}

/// All engines as one; `None` without any.
fn engine(specs: &[EngineSpec]) -> Option<EngineSpec> {
    let first = specs.first()?;
    let together = |of: fn(&StepTiming) -> f64| 1.0 / specs.iter().map(|spec| 1.0 / of(&spec.timing)).sum::<f64>();
    let timing = StepTiming {
        fixed_ms: specs.iter().map(|spec| spec.timing.fixed_ms).fold(f64::INFINITY, f64::min),
        weights_ms: together(|timing| timing.weights_ms),
        linear_ms: together(|timing| timing.linear_ms),
        quadratic_ms: together(|timing| timing.quadratic_ms),
        context_ms: together(|timing| timing.context_ms),
        request_ms: together(|timing| timing.request_ms),
        decoding_ms: together(|timing| timing.decoding_ms),
        allreduce_ms: 0.0,
        allreduce_token_ms: 0.0,
    };
    Some(EngineSpec {
        timing,
        chunk: specs.iter().fold(0, |sum, spec| sum.saturating_add(spec.chunk)),
        max_running: specs.iter().fold(0, |sum, spec| sum.saturating_add(spec.max_running)),
        kv_tokens: specs.iter().map(|spec| spec.kv_tokens).sum(),
        ..first.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::{engine, pooled};
    use crate::bench::simulate::stage::tests::{scene, strategy};
    use crate::bench::simulate::{Draw, Scene, evaluate};
    use crate::workload::Arrivals;

    #[test]
    fn two_equal_engines_are_one_of_twice_the_speed_and_size() {
        let spec = scene().specs[0].clone();
        let both = engine(&[spec.clone(), spec.clone()]).unwrap();
        assert!((both.timing.linear_ms - spec.timing.linear_ms / 2.0).abs() < 1e-12);
        assert_eq!((both.timing.decoding_ms, both.timing.fixed_ms), (0.0, spec.timing.fixed_ms));
        assert_eq!((both.kv_tokens, both.chunk), (2 * spec.kv_tokens, 2 * spec.chunk));
        assert!(engine(&[]).is_none());
    }

    #[test]
    fn whole_answers_of_a_fleet_take_longer_than_those_of_the_pooled_engine() {
        let scene = scene();
        let draws = [Draw { seed: 1, window: None }];
        let load = Arrivals::Poisson { per_s: 3.0 };
        let e2e_ms = |scene: &Scene, name| evaluate(scene, &strategy(name), load, &draws).unwrap()[0].e2e_ms;
        let limit = e2e_ms(&pooled(&scene), "round-robin");
        for name in ["gorgo", "least-load"] {
            let found = e2e_ms(&scene, name);
            assert!(found.p50 > limit.p50 && found.p95 > limit.p95, "{name}: {found:?}, pooled {limit:?}");
        }
    }
}
