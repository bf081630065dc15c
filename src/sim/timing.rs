//! How long one engine step takes.
//!
//! A step is one pass of a batch through the model: chunks of prompts (prefill), one token for each decoding request, or both.
//! The model knows averages only: no jitter, no kernel launch effects at odd batch sizes, no speculative decoding.

use super::hardware::{Gpu, Model};

/// Share of its running time that one engine step always costs, ms: a constant plus a part per layer (bench.md 4.2, from BLIS).
const FIXED_MS: f64 = 0.13;
/// See [`FIXED_MS`].
const FIXED_PER_LAYER_MS: f64 = 0.032;
/// Handling of one request in one step (scheduling, sampling, detokenising), ms (bench.md 4.2).
const REQUEST_MS: f64 = 0.0044;
/// Bytes of one activation value: activations travel between GPUs at 16 bits.
const ACTIVATION_BYTES: f64 = 2.0;

/// Coefficients of the step-time model, already reduced from hardware and model figures.
///
/// ```text
/// step = fixed + max(weights, linear · (P + B)) + quadratic · A + context · C + request · n + decoding · B
///        + allreduce + allreduce_token · (P + B)
/// ```
/// with the symbols of [`StepLoad`]. [`StepTiming::from_hardware`] gives the coefficients of a known GPU and model; a preset of
/// bare constants fills the fields itself: `lin` is `linear_ms`, `quad` `quadratic_ms`, `wread` `weights_ms`, `kvread`
/// `context_ms`, `seq` `decoding_ms`, `ovh` `fixed_ms`, the others stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTiming {
    /// Fixed overhead of a step, ms.
    pub fixed_ms: f64,
    /// Reading the weights once, ms.
    pub weights_ms: f64,
    /// Linear layers, ms per token in the step.
    pub linear_ms: f64,
    /// Attention of prefill, ms per token pair.
    pub quadratic_ms: f64,
    /// Reading KV while decoding, ms per context token.
    pub context_ms: f64,
    /// Overhead per request in the step, ms.
    pub request_ms: f64,
    /// Overhead per decoding request in the step, ms; 0 in the model reduced from hardware.
    pub decoding_ms: f64,
    /// All-reduce under tensor parallelism: fixed part per step, ms.
    pub allreduce_ms: f64,
    /// All-reduce under tensor parallelism: per token in the step, ms.
    pub allreduce_token_ms: f64,
}

/// Share of the hardware's peak figures that an engine reaches, each 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Efficiency {
    /// Linear layers against peak FLOP/s (e_c).
    pub compute: f64,
    /// Weights and KV against peak memory bandwidth (e_b).
    pub memory: f64,
    /// Attention of prefill against peak FLOP/s (e_a).
    pub attention: f64,
}

impl Efficiency {
    /// End-to-end engines on data-centre GPUs: .50, .72 and .5 (bench.md 4.4b, 4.2). Kernels alone reach .65 of compute.
    pub const END_TO_END: Self = Self { compute: 0.50, memory: 0.72, attention: 0.5 };
}

/// How a model is spread over GPUs, layer by layer (tensor parallelism).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorParallel {
    /// GPUs that share each layer, at least 1.
    pub gpus: u32,
    /// Latency of one all-reduce, ms. There are two per layer.
    pub allreduce_ms: f64,
    /// Bandwidth of an all-reduce, bytes per second.
    pub allreduce_bytes_per_s: f64,
}

impl TensorParallel {
    /// The whole model on one GPU: no all-reduce.
    pub const NONE: Self = Self { gpus: 1, allreduce_ms: 0.0, allreduce_bytes_per_s: f64::INFINITY };
}

/// What one step works on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLoad {
    /// P: prompt tokens computed in the step.
    pub prefill_tokens: u64,
    /// B: requests that decode one token in the step.
    pub decoding: u32,
    /// A: token pairs of prefill attention, Σ chunk · (context before + chunk / 2).
    pub pairs: f64,
    /// C: context tokens of the decoding requests.
    pub context_tokens: u64,
    /// n: requests in the step, prefilling or decoding.
    pub requests: u32,
}

impl StepLoad {
    /// Adds a chunk of `tokens` prompt tokens that follow `before` tokens already computed or cached.
    pub fn prefill(&mut self, before: u32, tokens: u32) {
        self.prefill_tokens += u64::from(tokens);
        self.pairs += f64::from(tokens) * (f64::from(before) + f64::from(tokens) / 2.0);
        self.requests += 1;
    }

    /// Adds a request that decodes one token with `context` tokens to attend to.
    pub fn decode(&mut self, context: u32) {
        self.decoding += 1;
        self.context_tokens += u64::from(context);
        self.requests += 1;
    }

    /// Nothing to do: no step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }
}

impl StepTiming {
    /// The model of bench.md 4.2 for `model` on `gpu`.
    ///
    /// Linear layers run at the peak of the weights' format; attention always at the bf16 peak, since KV stays in bf16 (our
    /// choice for FP8 weights: the source gives no attention figure for them). `None` when the weights are FP8 and the GPU has
    /// no arithmetic for it.
    #[must_use]
    pub fn from_hardware(gpu: &Gpu, model: &Model, efficiency: Efficiency, parallel: TensorParallel) -> Option<Self> {
        let gpus = f64::from(parallel.gpus.max(1));
        let linear_flops = gpus * efficiency.compute * gpu.flops(model.weights)?;
        let attention_flops = gpus * efficiency.attention * gpu.bf16_flops;
        let bandwidth = gpus * efficiency.memory * gpu.bytes_per_s;
        let allreduces = 2.0 * f64::from(model.layers);
        let activation_bytes = f64::from(model.hidden) * ACTIVATION_BYTES;
        Some(Self {
            fixed_ms: FIXED_MS + FIXED_PER_LAYER_MS * f64::from(model.layers),
            weights_ms: 1e3 * model.step_weight_bytes() / bandwidth,
            linear_ms: 1e3 * model.linear_flops_per_token() / linear_flops,
            quadratic_ms: 1e3 * model.attention_flops_per_pair() / attention_flops,
            context_ms: 1e3 * model.kv_bytes_per_token() as f64 / bandwidth,
            request_ms: REQUEST_MS,
            decoding_ms: 0.0,
            allreduce_ms: allreduces * parallel.allreduce_ms,
            allreduce_token_ms: 1e3 * allreduces * activation_bytes / parallel.allreduce_bytes_per_s,
        })
    }

    /// Duration of a step, ms; the formula stands at [`StepTiming`].
    #[must_use]
    pub fn step_ms(&self, load: &StepLoad) -> f64 {
        let tokens = (load.prefill_tokens + u64::from(load.decoding)) as f64;
        self.fixed_ms
            + self.weights_ms.max(self.linear_ms * tokens)
            + self.quadratic_ms * load.pairs
            + self.context_ms * load.context_tokens as f64
            + self.request_ms * f64::from(load.requests)
            + self.decoding_ms * f64::from(load.decoding)
            + self.allreduce_ms
            + self.allreduce_token_ms * tokens
    }
}
