//! Fleets that come with the program: the files of `examples/fleets`, by their names without ending.

/// A fleet file inside the program.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Name to give to `--fleet`.
    pub name: &'static str,
    /// What it is, in a line.
    pub help: &'static str,
    /// The text of its file.
    pub text: &'static str,
}

/// A line of [`BUILT_IN`].
macro_rules! fleet {
    ($name:literal, $help:literal) => {
        BuiltIn { name: $name, help: $help, text: include_str!(concat!("../../examples/fleets/", $name, ".toml")) }
    };
}

/// All of them, in the order in which help texts list them.
pub const BUILT_IN: &[BuiltIn] = &[
    fleet!("three-a100", "A100s at 37, 279 and 456 ms"),
    fleet!("three-l40s", "pairs of L40S at 32, 110 and 300 ms"),
    fleet!("three-h100", "H100s at 55, 151 and 244 ms"),
    fleet!("a10-a100-h100", "unlike GPUs at 37, 110 and 279 ms, the slowest nearest"),
    fleet!("h100-a100-a10", "the same with the fastest nearest"),
    fleet!("three-a100-40", "A100s with small caches at 2, 97 and 165 ms"),
    fleet!("a10-a100-40-h100", "unlike GPUs with small caches at 2, 97 and 165 ms"),
    fleet!("six-direct", "six regions, a router in each that reaches all engines: A100, H100, L40S, twice"),
    fleet!("six-a100-direct", "the same with an A100 in each region"),
    fleet!("six-a100-40-direct", "the same with small caches: A100, H100, A100, twice"),
    fleet!("six-regions", "six regions with an agent beside each engine: A100, H100, L40S, twice"),
    fleet!("mooncake", "one router, large caches, for the public Mooncake traces"),
];

/// The fleet of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|fleet| fleet.name == name)
}

#[cfg(test)]
mod tests {
    use super::{BUILT_IN, find};
    use crate::bench::demo::fleet::{resolve, specs};
    use crate::bench::simulate::ensure_reachable;
    use crate::model::Region;
    use crate::sim::engine::{EngineSpec, Scheduler};
    use crate::workload::fleet::{FleetFile, Form};
    use crate::workload::{Fleet, Home};

    fn fleet(name: &str) -> Fleet {
        resolve(&FleetFile::parse(name, find(name).unwrap().text).unwrap(), None).unwrap()
    }

    #[test]
    fn every_example_is_built_in_and_can_be_simulated() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fleets");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<String> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        let mut names: Vec<&str> = BUILT_IN.iter().map(|fleet| fleet.name).collect();
        files.sort();
        names.sort_unstable();
        assert_eq!(files, names);
        for name in names {
            ensure_reachable(&fleet(name)).unwrap();
        }
        assert!(find("no-such").is_none());
    }

    /// Step constants of a GPU: linear, quadratic, weights, context, decoding, fixed, then KV tokens and chunk.
    type Constants = [f64; 8];

    const A10: Constants = [0.22, 1.0e-5, 28.0, 2.7e-4, 0.06, 3.0, 50e3, 2048.0];
    const A10_40K: Constants = [0.22, 1.0e-5, 28.0, 2.7e-4, 0.06, 3.0, 40e3, 2048.0];
    const A100: Constants = [0.085, 3.4e-6, 8.5, 8.2e-5, 0.05, 3.0, 430e3, 8192.0];
    const A100_40: Constants = [0.085, 3.4e-6, 10.9, 1.06e-4, 0.05, 3.0, 165e3, 8192.0];
    const H100: Constants = [0.036, 1.3e-6, 5.2, 4.9e-5, 0.04, 2.5, 430e3, 8192.0];
    const L40S_PAIR: Constants = [0.16, 1e-6, 6.5, 2e-5, 0.12, 2.5, 980e3, 4096.0];
    const H100_MOE: Constants = [0.070, 4e-7, 6.0, 1e-5, 0.10, 2.5, 600e3, 8192.0];

    fn constants(spec: &EngineSpec) -> Constants {
        let timing = &spec.timing;
        assert_eq!((spec.max_running, spec.block, spec.scheduler), (64, 128, Scheduler::PrefillFirst));
        assert_eq!((timing.request_ms, timing.allreduce_ms, timing.allreduce_token_ms), (0.0, 0.0, 0.0));
        let of = [timing.linear_ms, timing.quadratic_ms, timing.weights_ms, timing.context_ms, timing.decoding_ms];
        let [linear, quadratic, weights, context, decoding] = of;
        let (kv_tokens, chunk) = (spec.kv_tokens as f64, f64::from(spec.chunk));
        [linear, quadratic, weights, context, decoding, timing.fixed_ms, kv_tokens, chunk]
    }

    #[test]
    fn research_fleets_have_their_constants() {
        let cases: [(&str, [f64; 3], [Constants; 3]); 7] = [
            ("three-l40s", [32.0, 110.0, 300.0], [L40S_PAIR; 3]),
            ("three-a100", [37.0, 279.0, 456.0], [A100; 3]),
            ("a10-a100-h100", [37.0, 110.0, 279.0], [A10, A100, H100]),
            ("h100-a100-a10", [37.0, 110.0, 279.0], [H100, A100, A10]),
            ("three-h100", [55.0, 151.0, 244.0], [H100_MOE; 3]),
            ("three-a100-40", [2.0, 97.0, 165.0], [A100_40; 3]),
            ("a10-a100-40-h100", [2.0, 97.0, 165.0], [A10_40K, A100_40, H100]),
        ];
        for (name, rtts_ms, engines) in cases {
            let fleet = fleet(name);
            assert_eq!(fleet.routers.len(), 1, "{name}");
            let found: Vec<Constants> = specs(&fleet).unwrap().iter().map(constants).collect();
            assert_eq!(found, engines, "{name}");
            let found: Vec<f64> = (0..fleet.replicas.len())
                .map(|replica| crate::bench::demo::fleet::rtt_ms(&fleet, Home(0), replica))
                .collect();
            assert_eq!(found, rtts_ms, "{name}");
        }
    }

    #[test]
    fn in_six_regions_every_router_reaches_every_engine() {
        const RTTS_MS: [[f64; 6]; 6] = [
            [2.0, 60.0, 75.0, 130.0, 190.0, 160.0],
            [60.0, 2.0, 30.0, 90.0, 230.0, 180.0],
            [75.0, 30.0, 2.0, 80.0, 240.0, 200.0],
            [130.0, 90.0, 80.0, 2.0, 150.0, 220.0],
            [190.0, 230.0, 240.0, 150.0, 2.0, 70.0],
            [160.0, 180.0, 200.0, 220.0, 70.0, 2.0],
        ];
        let cases = [
            ("six-direct", [A100, H100, L40S_PAIR, A100, H100, L40S_PAIR]),
            ("six-a100-direct", [A100; 6]),
            ("six-a100-40-direct", [A100_40, H100, A100_40, A100_40, H100, A100_40]),
        ];
        for (name, engines) in cases {
            let fleet = fleet(name);
            assert_eq!((fleet.form, fleet.has_agents()), (Form::Direct, false), "{name}");
            let shares: Vec<f64> = fleet.routers.iter().map(|router| (router.share * 100.0).round()).collect();
            assert_eq!(shares, [34.0, 24.0, 16.0, 12.0, 8.0, 6.0], "{name}");
            assert_eq!(specs(&fleet).unwrap().iter().map(constants).collect::<Vec<_>>(), engines, "{name}");
            let rtt = |from: &Region, to: &Region| fleet.rtt.rtt_ms(from, to).unwrap();
            for (router, row) in fleet.routers.iter().zip(RTTS_MS) {
                let found: Vec<f64> = fleet.replicas.iter().map(|at| rtt(&router.region, &at.region)).collect();
                assert_eq!(found, row, "{name} {}", router.region);
            }
        }
    }
}
