//! GPU × model presets: the engine that a GPU and a model give, SGLang-like.
//!
//! End-to-end efficiencies (bench.md 4.4b), one GPU per engine. Fleet files override single values or bring constants of their own.

use super::engine::{EngineSpec, Scheduler};
use super::hardware::{GPUS, Gpu, MODELS, Model, Weights};
use super::timing::{Efficiency, StepTiming, TensorParallel};

/// Share of the GPU's memory that the engine takes (bench.md 4.4).
const MEMORY_SHARE: f64 = 0.9;
/// Memory for activations, CUDA graphs and the runtime, bytes: 1.9 GiB (bench.md 4.4).
const OVERHEAD_BYTES: f64 = 1.9 * GIB;
const GIB: f64 = 1_073_741_824.0;
/// KV block, tokens. SGLang's own default page is 1; with KV events it is run at 16 to 64. 16 costs at most 15 tokens of reuse
/// per prompt, makes hashing and index sixteen times smaller and is the block of vLLM and of the bundled trace.
const BLOCK: u32 = 16;
/// Running requests. SGLang's automatic limit is in the thousands, so that KV alone decides; 64 is what the authors of the
/// paper set for their runs (policy.md 4.1) and keeps decode steps in the range that the timing model was checked in.
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
    let gpu = find_gpu(gpu)?;
    let model = find_model(model)?;
    let timing = StepTiming::from_hardware(gpu, model, Efficiency::END_TO_END, TensorParallel::NONE)
        .ok_or_else(|| no_fp8(gpu, model))?;
    let kv_tokens = kv_tokens(gpu, model).ok_or_else(|| does_not_fit(gpu, model))?;
    Ok(EngineSpec {
        timing,
        chunk: chunk(gpu),
        max_running: MAX_RUNNING,
        kv_tokens,
        block: BLOCK,
        scheduler: Scheduler::PrefillFirst,
        usd_per_hour: gpu.usd_per_hour,
    })
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

/// SGLang's `chunked_prefill_size` by GPU memory (bench.md 4.6), tokens.
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
    let weights: Weights = model.weights;
    GPUS.iter().filter(move |gpu| gpu.flops(weights).is_some() && kv_tokens(gpu, model).is_some()).map(|gpu| gpu.id)
}

fn list(ids: impl Iterator<Item = &'static str>) -> String {
    ids.map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
}
