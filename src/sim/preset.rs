//! GPU × model presets.

use super::engine::EngineSpec;

/// An unknown GPU or model, or a model that does not fit; the message lists what there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PresetError(pub String);

/// The engine that `gpu` × `model` gives (ids of design 5.6, e.g. `a100-80`, `mistral-7b`), SGLang-like.
///
/// # Errors
/// Unknown ids and models that do not fit the GPU.
pub fn engine(gpu: &str, model: &str) -> Result<EngineSpec, PresetError> {
    let _ = (gpu, model);
    unimplemented!()
}
