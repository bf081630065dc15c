//! How long one engine step takes.
//!
//! A step is one pass of a batch through the model: chunks of prompts (prefill), one token for each decoding request, or both.
//! The model knows averages only: no jitter, no kernel launch effects at odd batch sizes, no speculative decoding.
//!
//! The formula was fitted to measured vLLM runs (casys-kaist/LLMServingSim, see `tests/engine_validation.rs`); its fixed costs come
//! from BLIS (inference-sim/inference-sim@f90a1e3a), its efficiencies from kernel profiles of Vidur (microsoft/vidur@7d47513).

use super::hardware::{Gpu, Model};

/// What a step always costs, ms: a constant and a part per layer (docs/models.md 1, from BLIS).
const FIXED_MS: f64 = 0.13;
/// See [`FIXED_MS`].
const FIXED_PER_LAYER_MS: f64 = 0.032;
/// Handling of one request in one step (scheduling, sampling, detokenising), ms (docs/models.md 1).
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
    /// End-to-end engines on data-centre GPUs: .50, .72 and .5 (docs/models.md 1). Kernels alone reach .65 of compute.
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
    /// The model of docs/models.md 1 for `model` on `gpu`.
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

#[cfg(test)]
mod tests {
    use super::{Efficiency, StepLoad, StepTiming, TensorParallel};
    use crate::sim::preset::{find_gpu, find_model};

    /// Kernels alone, as the reference values of docs/models.md 2.
    const KERNELS: Efficiency = Efficiency { compute: 0.65, ..Efficiency::END_TO_END };

    fn timing(gpu: &str, model: &str, efficiency: Efficiency) -> StepTiming {
        let (gpu, model) = (find_gpu(gpu).unwrap(), find_model(model).unwrap());
        StepTiming::from_hardware(gpu, model, efficiency, TensorParallel::NONE).unwrap()
    }

    fn assert_close(what: &str, ours: f64, printed: f64, relative: f64) {
        assert!((ours / printed - 1.0).abs() <= relative, "{what}: {ours:.4}, printed {printed}");
    }

    #[test]
    fn reference_table_comes_out() {
        // Prefill (1000 tok/s, linear layers alone), TTFT of 4k and 16k (ms, with attention), decode floor (ms, weights alone),
        // ms per 1000 context tokens: Mistral-7B; then the floor of Llama-3.1-8B.
        let rows = [
            ("a10", 5.8, 774.0, 3941.0, 32.9, 0.303, 34.7),
            ("a100-40", 14.5, 310.0, 1579.0, 12.7, 0.117, 13.4),
            ("a100-80", 14.5, 310.0, 1579.0, 9.7, 0.089, 10.2),
            ("l40s", 16.9, 267.0, 1361.0, 22.9, 0.211, 24.1),
            ("h100-pcie", 35.0, 128.0, 652.0, 9.9, 0.091, 10.4),
            ("h100", 46.0, 98.0, 498.0, 5.9, 0.054, 6.2),
            ("gh200", 46.0, 98.0, 498.0, 4.9, 0.046, 5.2),
            ("h200", 46.0, 98.0, 498.0, 4.1, 0.038, 4.3),
            ("b200", 105.0, 43.0, 219.0, 2.5, 0.023, 2.6),
        ];
        for (gpu, rate, ttft_4k, ttft_16k, floor, context, llama_floor) in rows {
            let mistral = timing(gpu, "mistral-7b", KERNELS);
            let ttft = |tokens: f64| tokens * mistral.linear_ms + tokens * tokens / 2.0 * mistral.quadratic_ms;
            assert_close(&format!("{gpu} rate"), 1.0 / mistral.linear_ms, rate, 0.01);
            assert_close(&format!("{gpu} 4k"), ttft(4096.0), ttft_4k, 0.01);
            assert_close(&format!("{gpu} 16k"), ttft(16384.0), ttft_16k, 0.01);
            assert_close(&format!("{gpu} floor"), mistral.weights_ms, floor, 0.02);
            assert_close(&format!("{gpu} context"), 1e3 * mistral.context_ms, context, 0.02);
            let llama = timing(gpu, "llama-3.1-8b", KERNELS);
            assert_close(&format!("{gpu} floor, Llama-8B"), llama.weights_ms, llama_floor, 0.02);
        }
    }

    #[test]
    fn larger_models_come_out() {
        // Prefill (1000 tok/s) where printed, decode floor (ms).
        let rows = [
            ("a100-80", "qwen3-32b", Some(3.25), 43.6),
            ("h100", "qwen3-32b", Some(10.3), 26.5),
            ("gh200", "qwen3-32b", None, 22.2),
            ("h200", "qwen3-32b", None, 18.5),
            ("b200", "qwen3-32b", Some(23.4), 11.1),
            ("h100", "llama-3.3-70b", Some(9.4), 28.8),
            ("gh200", "llama-3.3-70b", None, 24.1),
            ("h200", "llama-3.3-70b", None, 20.1),
            ("b200", "llama-3.3-70b", Some(21.4), 12.1),
        ];
        for (gpu, model, rate, floor) in rows {
            let timing = timing(gpu, model, KERNELS);
            assert_close(&format!("{gpu} {model} floor"), timing.weights_ms, floor, 0.01);
            if let Some(rate) = rate {
                assert_close(&format!("{gpu} {model} rate"), 1.0 / timing.linear_ms, rate, 0.01);
            }
        }
    }

    #[test]
    fn step_adds_up_as_documented() {
        let timing = StepTiming {
            fixed_ms: 1.0,
            weights_ms: 5.0,
            linear_ms: 0.01,
            quadratic_ms: 1e-5,
            context_ms: 1e-3,
            request_ms: 0.1,
            decoding_ms: 0.2,
            allreduce_ms: 0.5,
            allreduce_token_ms: 0.001,
        };
        // (prompt chunks as (before, tokens), contexts of decoding requests, ms)
        let cases = [
            // 1 + weights 5 > 0.01 · 1 + context 0.5 + requests 0.1 + decoding 0.2 + all-reduce 0.5 + 0.001
            (vec![], vec![500], 7.301),
            // 1 + linear 10 > 5 + pairs 1000 · (0 + 500) · 1e-5 = 5 + 0.1 + 0.5 + 1.0
            (vec![(0, 1000)], vec![], 17.6),
            // the same chunk after 2000 tokens: pairs 1000 · (2000 + 500) · 1e-5 = 25
            (vec![(2000, 1000)], vec![], 37.6),
            // both kinds: 1 + 0.01 · 1002 + 5 + 0.001 · 1100 + 3 · 0.1 + 2 · 0.2 + 0.5 + 0.001 · 1002
            (vec![(0, 1000)], vec![500, 600], 19.322),
        ];
        for (chunks, contexts, expected) in cases {
            let mut load = StepLoad::default();
            for (before, tokens) in chunks {
                load.prefill(before, tokens);
            }
            for context in contexts {
                load.decode(context);
            }
            assert!((timing.step_ms(&load) - expected).abs() < 1e-9, "{load:?}: {} ms", timing.step_ms(&load));
        }
    }

    #[test]
    fn presets_of_bare_constants_are_expressible() {
        // "A100-80, Mistral-7B" of docs/models.md 1: ovh + max(wread, lin · tokens) + quad · pairs + kvread · context + seq · decoding.
        let timing = StepTiming {
            fixed_ms: 3.0,
            weights_ms: 8.5,
            linear_ms: 0.085,
            quadratic_ms: 3.4e-6,
            context_ms: 8.2e-5,
            decoding_ms: 0.05,
            ..StepTiming::default()
        };
        let mut prefill = StepLoad::default();
        prefill.prefill(1000, 4000);
        assert_eq!(timing.step_ms(&prefill), 3.0 + 0.085 * 4000.0 + 3.4e-6 * (4000.0 * 3000.0));
        let mut decode = StepLoad::default();
        decode.decode(4000);
        decode.decode(6000);
        assert_eq!(timing.step_ms(&decode), 3.0 + 8.5 + 8.2e-5 * 10_000.0 + 0.05 * 2.0);
    }

    #[test]
    fn tensor_parallelism_divides_the_work_and_adds_all_reduces() {
        let (gpu, model) = (find_gpu("h100").unwrap(), find_model("qwen3-32b").unwrap());
        let pair = TensorParallel { gpus: 2, allreduce_ms: 0.02, allreduce_bytes_per_s: 100e9 };
        let both = StepTiming::from_hardware(gpu, model, Efficiency::END_TO_END, pair).unwrap();
        let one = timing("h100", "qwen3-32b", Efficiency::END_TO_END);
        assert_eq!(both.linear_ms, one.linear_ms / 2.0);
        assert_eq!(both.weights_ms, one.weights_ms / 2.0);
        assert_eq!(both.fixed_ms, one.fixed_ms);
        // Two per layer, 64 layers; 5120 · 2 bytes per token over 100 GB/s.
        assert_eq!(both.allreduce_ms, 2.56);
        assert!((both.allreduce_token_ms - 128.0 * 10_240.0 / 100e9 * 1e3).abs() < 1e-12);
        assert_eq!((one.allreduce_ms, one.allreduce_token_ms), (0.0, 0.0));
    }
}
