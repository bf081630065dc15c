//! How well `predictive` foresees times to first token where it knows nothing but what comes back.

use super::{Case, Edge};
use crate::sim::fleet::spec_of;
use crate::workload::arrivals::{Arrivals, Window};
use crate::workload::build::{PlanOptions, build};
use crate::workload::fleet::FleetFile;
use crate::workload::generate::Generator;
use crate::workload::{Fleet, Plan};

/// Three unlike GPUs, 37 to 279 ms away.
fn unlike() -> Fleet {
    let text = include_str!("../../../../examples/fleets/a10-a100-h100.toml");
    let file = FleetFile::parse("a10-a100-h100", text).unwrap();
    file.resolve(None, &|gpu, model| spec_of(gpu, model).map(drop).map_err(|error| error.to_string())).unwrap()
}

fn traffic(generator: Generator, time_scale: f64, seconds: f64) -> Plan {
    let window = Some(Window { from_ms: 0.0, to_ms: seconds * 1000.0 });
    build(&generator.trace(1), &PlanOptions::new(Arrivals::Replay { time_scale, window }, 1)).unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Over what the routers remember, their first requests among it: the whole, then each replica that got a hundred requests.
fn errors(case: &Case<'_>) -> (f64, Vec<f64>) {
    case.after(|world| {
        let replicas = world.nodes[0].router.replicas();
        let each: Vec<Vec<f64>> =
            replicas.map(|replica| replica.ttft_ms.iter().map(|sample| sample.relative().abs()).collect()).collect();
        let whole = median(each.concat());
        (whole, each.into_iter().filter(|errors| errors.len() >= 100).map(median).collect())
    })
}

/// Untaught, with and without slow start on its lines, at ease and beyond what the fleet can do.
#[test]
fn half_of_all_predictions_are_within_a_tenth() {
    let fleet = unlike();
    let cases = [
        (Generator::ArtLike, 1.0, 300.0),
        (Generator::ArtLike, 0.6, 200.0),
        (Generator::WildLike, 2.0, 90.0),
        (Generator::WildLike, 0.5, 30.0),
    ];
    for (generator, time_scale, seconds) in cases {
        let plan = traffic(generator, time_scale, seconds);
        assert!(plan.requests() > 300, "{}", plan.requests());
        for slow_start in [false, true] {
            let edge = Edge { rates: false, slow_start, ..Edge::default() };
            let (whole, each) = errors(&Case { edge, ..Case::new(&fleet, &plan, "predictive") });
            let named = format!("{generator} x{time_scale}, slow start {slow_start}: {whole:.3}, {each:.3?}");
            assert!(whole <= 0.1 && each.len() >= 2 && each.iter().all(|error| *error <= 0.1), "{named}");
        }
    }
}
