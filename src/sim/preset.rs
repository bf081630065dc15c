//! GPU × model presets: the engine that a GPU and a model give, SGLang-like.
//!
//! End-to-end efficiencies (docs/models.md 1), one GPU per engine. Fleet files override single values or bring constants of their own.

use super::engine::{EngineSpec, Order, Scheduler};
use super::hardware::{GPUS, Gpu, MODELS, Model};
use super::timing::{Efficiency, StepTiming, TensorParallel};

/// Share of the GPU's memory that the engine takes (docs/models.md 2).
const MEMORY_SHARE: f64 = 0.9;
/// Memory for activations, CUDA graphs and the runtime, bytes: 1.9 GiB (docs/models.md 2).
const OVERHEAD_BYTES: f64 = 1.9 * GIB;
const GIB: f64 = 1_073_741_824.0;
/// KV block, tokens. SGLang's own default page is 1; with KV events it is run at 16 to 64. 16 costs at most 15 tokens of reuse
/// per prompt, makes hashing and index sixteen times smaller and is the block of vLLM and of the bundled trace.
const BLOCK: u32 = 16;
/// Running requests. SGLang's automatic limit is in the thousands, so that KV alone decides; 64 is what the authors of the
/// paper set for their runs (docs/models.md 2) and keeps decode steps in the range that the timing model was checked in.
const MAX_RUNNING: u32 = 64;

/// An unknown GPU or model, or a model that does not fit; the message lists what there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PresetError(pub String);

/// The engine that `gpu` × `model` gives (ids of [`GPUS`] and [`MODELS`], e.g. `a100-80`, `mistral-7b`), SGLang-like.
///
/// # Errors
/// Unknown ids and models that do not fit the GPU.
pub fn engine(gpu: &str, model: &str) -> Result<EngineSpec, PresetError> {
    engine_on(find_gpu(gpu)?, find_model(model)?, Efficiency::END_TO_END)
}

/// The engine that any GPU and a model give at some efficiency.
///
/// # Errors
/// A model that does not fit the GPU, or that it cannot compute with.
pub fn engine_on(gpu: &Gpu, model: &Model, efficiency: Efficiency) -> Result<EngineSpec, PresetError> {
    let timing =
        StepTiming::from_hardware(gpu, model, efficiency, TensorParallel::NONE).ok_or_else(|| no_fp8(gpu, model))?;
    let kv_tokens = kv_tokens(gpu, model).ok_or_else(|| does_not_fit(gpu, model))?;
    Ok(EngineSpec { kv_tokens, usd_per_hour: gpu.usd_per_hour, ..sglang_like(timing, chunk(gpu)) })
}

/// An engine with SGLang's scheduler and our limits, of unknown price and (still) without KV.
#[must_use]
pub fn sglang_like(timing: StepTiming, chunk: u32) -> EngineSpec {
    EngineSpec {
        timing,
        chunk,
        max_running: MAX_RUNNING,
        kv_tokens: 0,
        block: BLOCK,
        scheduler: Scheduler::PrefillFirst,
        order: Order::Arrival,
        usd_per_hour: None,
    }
}

/// The GPU with this id.
///
/// # Errors
/// Lists the known ids.
pub fn find_gpu(id: &str) -> Result<&'static Gpu, PresetError> {
    GPUS.iter().find(|gpu| gpu.id == id).ok_or_else(|| unknown("gpu", id, GPUS.iter().map(|gpu| gpu.id)))
}

/// The model with this id.
///
/// # Errors
/// Lists the known ids.
pub fn find_model(id: &str) -> Result<&'static Model, PresetError> {
    MODELS.iter().find(|model| model.id == id).ok_or_else(|| unknown("model", id, MODELS.iter().map(|model| model.id)))
}

/// KV room of `model` on one `gpu`, tokens (whole blocks); `None` if not even one block is left beside the weights.
#[must_use]
pub fn kv_tokens(gpu: &Gpu, model: &Model) -> Option<u64> {
    let bytes = MEMORY_SHARE * gpu.memory_bytes() - model.weight_bytes() - OVERHEAD_BYTES;
    let blocks = bytes / (model.kv_bytes_per_token() * u64::from(BLOCK)) as f64;
    // A float-to-integer cast rounds down and maps negative values to 0.
    Some(blocks as u64 * u64::from(BLOCK)).filter(|tokens| *tokens > 0)
}

/// SGLang's `chunked_prefill_size` by GPU memory (docs/models.md 2), tokens.
fn chunk(gpu: &Gpu) -> u32 {
    match gpu.memory_mib / 1024 {
        0..20 => 2048,
        20..60 => 4096,
        60..160 => 8192,
        _ => 16_384,
    }
}

fn unknown(what: &str, id: &str, known: impl Iterator<Item = &'static str>) -> PresetError {
    PresetError(format!("unknown {what} `{id}`; there is {}", list(known)))
}

fn no_fp8(gpu: &Gpu, model: &Model) -> PresetError {
    PresetError(format!(
        "`{}` has FP8 weights, which `{}` cannot compute with; try {}",
        model.id,
        gpu.id,
        list(fitting(model))
    ))
}

fn does_not_fit(gpu: &Gpu, model: &Model) -> PresetError {
    let needed = model.weight_bytes() + OVERHEAD_BYTES;
    PresetError(format!(
        "`{}` does not fit on one `{}`: {:.1} GiB for weights and runtime, of {:.1} GiB usable; try {}",
        model.id,
        gpu.id,
        needed / GIB,
        MEMORY_SHARE * gpu.memory_bytes() / GIB,
        list(fitting(model))
    ))
}

/// Ids of the GPUs that can run `model`.
fn fitting(model: &Model) -> impl Iterator<Item = &'static str> {
    GPUS.iter()
        .filter(move |gpu| gpu.flops(model.weights).is_some() && kv_tokens(gpu, model).is_some())
        .map(|gpu| gpu.id)
}

fn list(ids: impl Iterator<Item = &'static str>) -> String {
    ids.map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{MODELS, PresetError, chunk, engine, find_gpu};
    use crate::sim::hardware::GPUS;

    #[test]
    fn kv_room_is_that_of_the_reference_table() {
        // Thousands of tokens as of the reference (docs/models.md 2 for Mistral-7B): Mistral-7B, Llama-3.1-8B, Qwen3-32B, Llama-3.3-70B; "" = not listed.
        let rows = [
            ("a10", ["39.6", "27.7", "-", "-"]),
            ("a100-40", ["169", "157", "-", "-"]),
            ("a100-80", ["464", "452", "37", "-"]),
            ("l40s", ["206", "194", "-", "-"]),
            ("h100-pcie", ["461", "449", "", ""]),
            ("h100", ["461", "449", "36", "13"]),
            ("gh200", ["579", "567", "95", "60"]),
            ("h200", ["909", "897", "260", "193"]),
            ("b200", ["1190", "1180", "402", "307"]),
        ];
        for (gpu, printed) in rows {
            for (model, printed) in MODELS.iter().zip(printed) {
                let found = engine(gpu, model.id);
                match printed {
                    "" => {}
                    "-" => assert!(found.is_err(), "{gpu} {}", model.id),
                    _ => {
                        let thousands = found.unwrap().kv_tokens as f64 / 1e3;
                        let number: f64 = printed.parse().unwrap();
                        // Half of the last printed digit and 1 %.
                        let slack = if printed.contains('.') { 0.05 } else { 0.5 } + 0.01 * number;
                        assert!((thousands - number).abs() <= slack, "{gpu} {}: {thousands}k, {number}k", model.id);
                    }
                }
            }
        }
    }

    #[test]
    fn cold_prompts_take_what_the_table_implies() {
        // docs/models.md 2 gives the TTFT of 4k and 16k prompts at e_c .65, without the fixed cost of a step. Its linear part is
        // tokens · 13.96 GFLOP / (.65 · peak), which e_c .50 makes longer by .65 / .50; attention, the rest, stays; each chunk
        // costs t0 = 0.13 + 0.032 · 32 ms and 4.4 µs more. A100-80, 4096 tokens: 282 ms · 1.3 + 28 + 1.2 = 396 ms.
        // (GPU, peak in TFLOP/s, TTFT 4k and 16k in ms)
        let rows = [
            ("a10", 125.0, 774.0, 3941.0),
            ("a100-40", 312.0, 310.0, 1579.0),
            ("a100-80", 312.0, 310.0, 1579.0),
            ("l40s", 362.0, 267.0, 1361.0),
            ("h100-pcie", 756.0, 128.0, 652.0),
            ("h100", 989.0, 98.0, 498.0),
            ("gh200", 989.0, 98.0, 498.0),
            ("h200", 989.0, 98.0, 498.0),
            ("b200", 2250.0, 43.0, 219.0),
        ];
        let per_step_ms = 0.13 + 0.032 * 32.0 + 0.0044;
        for (gpu, tflops, ttft_4k, ttft_16k) in rows {
            let spec = engine(gpu, "mistral-7b").unwrap();
            for (prompt, printed) in [(4096_u32, ttft_4k), (16_384, ttft_16k)] {
                let linear = f64::from(prompt) * 13.96 / (0.65 * tflops);
                let steps = f64::from(prompt.div_ceil(spec.chunk));
                let expected = linear * 0.65 / 0.50 + (printed - linear) + steps * per_step_ms;
                let ours = spec.lone_prefill_ms(0, prompt);
                assert!(
                    (ours / expected - 1.0).abs() < 0.01,
                    "{gpu} {prompt}: {ours:.1} ms, expected {expected:.1} ms"
                );
            }
        }
    }

    #[test]
    fn decode_step_is_the_weights_the_context_and_the_fixed_cost() {
        // (GPU, printed decode floor, printed ms per 1000 context tokens): at 4000 tokens of context, + t0 and 4.4 µs.
        let rows = [("a10", 32.9, 0.303), ("a100-80", 9.7, 0.089), ("h100", 5.9, 0.054), ("b200", 2.5, 0.023)];
        for (gpu, floor, context) in rows {
            let expected = floor + 4.0 * context + 0.13 + 0.032 * 32.0 + 0.0044;
            let ours = engine(gpu, "mistral-7b").unwrap().decode_step_ms(4000);
            assert!((ours - expected).abs() < 0.06, "{gpu}: {ours:.2} ms, expected {expected:.2} ms");
        }
    }

    #[test]
    fn chunks_follow_memory() {
        let chunks = GPUS.map(|gpu| (gpu.memory_mib / 1024, chunk(&gpu)));
        let expected = [
            (22, 4096),
            (40, 4096),
            (80, 8192),
            (44, 4096),
            (79, 8192),
            (79, 8192),
            (95, 8192),
            (140, 8192),
            (179, 16_384),
        ];
        assert_eq!(chunks, expected, "(GiB, tokens)");
    }

    #[test]
    fn whole_preset() {
        insta::assert_debug_snapshot!(engine("a100-80", "mistral-7b").unwrap(), @r"
        EngineSpec {
            timing: StepTiming {
                fixed_ms: 1.154,
                weights_ms: 9.691273325704321,
                linear_ms: 0.08948159671794872,
                quadratic_ms: 3.3608205128205127e-6,
                context_ms: 8.928123807966868e-5,
                request_ms: 0.0044,
                decoding_ms: 0.0,
                allreduce_ms: 0.0,
                allreduce_token_ms: 0.0,
            },
            chunk: 8192,
            max_running: 64,
            kv_tokens: 463648,
            block: 16,
            scheduler: PrefillFirst,
            order: Arrival,
            usd_per_hour: Some(
                2.79,
            ),
        }
        ");
    }

    #[test]
    fn errors_say_what_there_is() {
        let cases = [
            ("a100", "mistral-7b"),
            ("a10", "gpt-2"),
            ("a10", "qwen3-32b"),
            ("a100-80", "llama-3.3-70b"),
            ("l40s", "llama-3.3-70b"),
        ];
        let messages: Vec<String> = cases
            .into_iter()
            .map(|(gpu, model)| engine(gpu, model).map(|spec| spec.kv_tokens))
            .map(|result: Result<u64, PresetError>| result.unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        unknown gpu `a100`; there is `a10`, `a100-40`, `a100-80`, `l40s`, `h100-pcie`, `h100`, `gh200`, `h200`, `b200`
        unknown model `gpt-2`; there is `mistral-7b`, `llama-3.1-8b`, `qwen3-32b`, `llama-3.3-70b`
        `qwen3-32b` does not fit on one `a10`: 62.9 GiB for weights and runtime, of 20.2 GiB usable; try `a100-80`, `h100-pcie`, `h100`, `gh200`, `h200`, `b200`
        `llama-3.3-70b` has FP8 weights, which `a100-80` cannot compute with; try `h100-pcie`, `h100`, `gh200`, `h200`, `b200`
        `llama-3.3-70b` does not fit on one `l40s`: 67.6 GiB for weights and runtime, of 40.5 GiB usable; try `h100-pcie`, `h100`, `gh200`, `h200`, `b200`
        ");
    }

    #[test]
    fn prices_are_per_gpu() {
        assert_eq!(find_gpu("a100-80").unwrap().usd_per_hour, Some(22.32 / 8.0));
        assert_eq!(find_gpu("l40s").unwrap().usd_per_hour, None);
    }
}
