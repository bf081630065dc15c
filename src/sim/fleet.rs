//! From a fleet file's replica to the engine that stands for it.

use super::engine::{EngineSpec, Order, Scheduler};
use super::hardware::Gpu as GpuFigures;
use super::preset::{self, PresetError};
use super::timing::{Efficiency, StepTiming};
use crate::workload::fleet::{Gpu, Hardware, OrderKind, Overrides, Replica, SchedulerKind, Speed, StepConstants};

/// Prefill tokens per step of a GPU that is given by constants: SGLang's value for 60 to 160 GB of memory (docs/models.md 2).
const DEFAULT_CHUNK: u32 = 8192;

/// The engine of one replica.
///
/// # Errors
/// Unknown ids of presets, and models that do not fit.
pub fn engine_spec(replica: &Replica) -> Result<EngineSpec, PresetError> {
    spec_of(&replica.gpu, &replica.model).map(|spec| with_overrides(spec, &replica.overrides))
}

/// The engine of a GPU and a model before any override: also the check that reading a fleet file asks for.
///
/// # Errors
/// As [`engine_spec`].
pub fn spec_of(gpu: &Gpu, model: &str) -> Result<EngineSpec, PresetError> {
    match gpu {
        Gpu::Preset(id) => preset::engine(id, model),
        Gpu::Own(own) => {
            let mut spec = match &own.speed {
                Speed::Steps(constants) => from_constants(constants),
                Speed::Hardware(figures) => from_figures(figures, model)?,
            };
            spec.usd_per_hour = own.usd_per_hour;
            Ok(spec)
        }
    }
}

fn from_constants(constants: &StepConstants) -> EngineSpec {
    let timing = StepTiming {
        fixed_ms: constants.fixed_ms,
        weights_ms: constants.weights_ms,
        linear_ms: constants.linear_ms,
        quadratic_ms: constants.quadratic_ms,
        context_ms: constants.context_ms,
        request_ms: constants.request_ms,
        decoding_ms: constants.decoding_ms,
        ..StepTiming::default()
    };
    EngineSpec { kv_tokens: constants.kv_tokens, ..preset::sglang_like(timing, DEFAULT_CHUNK) }
}

fn from_figures(figures: &Hardware, model: &str) -> Result<EngineSpec, PresetError> {
    let gpu = GpuFigures {
        id: "own",
        bf16_flops: figures.tflops * 1e12,
        fp8_flops: figures.fp8_tflops.map(|tflops| tflops * 1e12),
        bytes_per_s: figures.bandwidth_gb_s * 1e9,
        memory_mib: (figures.memory_gib * 1024.0) as u32,
        usd_per_hour: None,
    };
    let efficiency = Efficiency {
        compute: figures.compute_efficiency,
        memory: figures.bandwidth_efficiency,
        ..Efficiency::END_TO_END
    };
    preset::engine_on(&gpu, preset::find_model(model)?, efficiency)
}

fn with_overrides(spec: EngineSpec, overrides: &Overrides) -> EngineSpec {
    let scheduler = overrides.scheduler.map(|kind| match kind {
        SchedulerKind::PrefillFirst => Scheduler::PrefillFirst,
        SchedulerKind::Mixed => Scheduler::Mixed,
    });
    let order = overrides.order.map(|kind| match kind {
        OrderKind::Arrival => Order::Arrival,
        OrderKind::LongestPrefix => Order::LongestPrefix,
    });
    EngineSpec {
        kv_tokens: overrides.kv_tokens.unwrap_or(spec.kv_tokens),
        max_running: overrides.max_running.unwrap_or(spec.max_running),
        chunk: overrides.chunk.unwrap_or(spec.chunk),
        block: overrides.block.unwrap_or(spec.block),
        scheduler: scheduler.unwrap_or(spec.scheduler),
        order: order.unwrap_or(spec.order),
        ..spec
    }
}

#[cfg(test)]
mod tests {
    use super::{engine_spec, spec_of};
    use crate::sim::engine::{Order, Scheduler};
    use crate::sim::preset;
    use crate::workload::fleet::FleetFile;

    const FLEET: &str = r#"
        router = [{ region = "us-east-1" }]
        [[replica]]
        name = "plain"
        region = "us-east-1"
        gpu = "a100-80"
        model = "mistral-7b"
        [[replica]]
        name = "changed"
        region = "us-east-1"
        gpu = "a100-80"
        model = "mistral-7b"
        kv_tokens = 40000
        chunk = 512
        scheduler = "mixed"
        order = "longest-prefix"
        [[replica]]
        name = "constants"
        region = "us-east-1"
        gpu = "mine"
        model = "whatever"
        [[replica]]
        name = "figures"
        region = "us-east-1"
        gpu = "sheet"
        model = "mistral-7b"
        [[gpu]]
        name = "mine"
        linear_ms = 0.085
        weights_ms = 8.5
        quadratic_ms = 3.4e-6
        context_ms = 8.2e-5
        fixed_ms = 3
        kv_tokens = 430000
        usd_per_hour = 1.5
        [[gpu]]
        name = "sheet"
        tflops = 312
        bandwidth_gb_s = 2039
        memory_gib = 80
    "#;

    #[test]
    fn presets_constants_and_figures_become_engines() {
        let file = FleetFile::parse("fleet.toml", FLEET).unwrap();
        let fleet = file.resolve(None, &|gpu, model| spec_of(gpu, model).map(drop).map_err(|e| e.to_string())).unwrap();
        let specs: Vec<_> = fleet.replicas.iter().map(|replica| engine_spec(replica).unwrap()).collect();
        let preset = preset::engine("a100-80", "mistral-7b").unwrap();
        assert_eq!(specs[0], preset);
        assert_eq!((specs[1].kv_tokens, specs[1].chunk, specs[1].scheduler), (40_000, 512, Scheduler::Mixed));
        assert_eq!(specs[1].timing, preset.timing);
        assert_eq!((specs[1].order, preset.order), (Order::LongestPrefix, Order::Arrival));
        assert_eq!((specs[2].kv_tokens, specs[2].usd_per_hour, specs[2].chunk), (430_000, Some(1.5), 8192));
        // 3 ms + 0.085 ms * 100 tokens + 3.4e-6 ms * 100 * 50 pairs.
        assert!((specs[2].lone_prefill_ms(0, 100) - 11.517).abs() < 1e-3);
        assert_eq!(specs[3].timing, preset.timing, "an A100-80 by its data sheet");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let file = FleetFile::parse(
            "fleet.toml",
            &FLEET.replace("model = \"mistral-7b\"\n        [[gpu]]", "model = \"llama-3.3-70b\"\n        [[gpu]]"),
        );
        let checked =
            file.unwrap().resolve(None, &|gpu, model| spec_of(gpu, model).map(drop).map_err(|e| e.to_string()));
        let problems = checked.unwrap_err().to_string();
        assert!(problems.contains("replica") && problems.contains("llama-3.3-70b"), "{problems}");
    }
}
