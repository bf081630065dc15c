//! Figures of GPUs and models that the step time and the KV room are computed from.
//!
//! GPU peaks are those behind the reference values of docs/models.md 2 (dense, without sparsity). Memory is what the driver reports, which the
//! KV column of that table confirms. Prices are Lambda's of July 2026 and drift: for comparisons in simulation, not for bills.

const MIB: f64 = 1_048_576.0;

/// Number format of a model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Two bytes per parameter.
    Bf16,
    /// One byte per parameter; needs FP8 tensor cores (Ada, Hopper, Blackwell).
    Fp8,
}

impl Weights {
    /// Bytes per parameter.
    #[must_use]
    pub const fn bytes(self) -> f64 {
        match self {
            Self::Bf16 => 2.0,
            Self::Fp8 => 1.0,
        }
    }
}

/// One GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Preset id.
    pub id: &'static str,
    /// Peak dense bf16 rate, FLOP/s.
    pub bf16_flops: f64,
    /// Peak dense FP8 rate, FLOP/s; `None` without FP8 tensor cores.
    pub fp8_flops: Option<f64>,
    /// Peak memory bandwidth, bytes per second.
    pub bytes_per_s: f64,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Price of one GPU, USD per hour, where Lambda rents it.
    pub usd_per_hour: Option<f64>,
}

impl Gpu {
    /// Peak rate for weights of this format, FLOP/s; `None` where the GPU cannot compute with it.
    #[must_use]
    pub fn flops(&self, weights: Weights) -> Option<f64> {
        match weights {
            Weights::Bf16 => Some(self.bf16_flops),
            Weights::Fp8 => self.fp8_flops,
        }
    }

    /// Memory, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> f64 {
        f64::from(self.memory_mib) * MIB
    }
}

/// One model's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// Preset id.
    pub id: &'static str,
    /// Parameters in all.
    pub parameters: f64,
    /// Entries of the vocabulary.
    pub vocabulary: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Transformer layers.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Number format of the weights. KV is always bf16.
    pub weights: Weights,
}

impl Model {
    /// Weights in memory, bytes.
    #[must_use]
    pub fn weight_bytes(&self) -> f64 {
        self.weights.bytes() * self.parameters
    }

    /// Weights that one step reads, bytes: all but the input embedding, of which a step needs single rows.
    #[must_use]
    pub fn step_weight_bytes(&self) -> f64 {
        self.weights.bytes() * (self.parameters - self.embedding_parameters())
    }

    /// FLOP of the linear layers per token: neither the embedding nor the output layer, which prefill needs for one token only.
    #[must_use]
    pub fn linear_flops_per_token(&self) -> f64 {
        2.0 * (self.parameters - 2.0 * self.embedding_parameters())
    }

    /// FLOP of attention per pair of a token and one that it attends to, over all layers.
    #[must_use]
    pub fn attention_flops_per_pair(&self) -> f64 {
        4.0 * f64::from(self.layers) * f64::from(self.heads) * f64::from(self.head_dim)
    }

    /// KV of one token, bytes: keys and values of every layer in bf16.
    #[must_use]
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * 2 * u64::from(self.layers) * u64::from(self.kv_heads) * u64::from(self.head_dim)
    }

    fn embedding_parameters(&self) -> f64 {
        f64::from(self.vocabulary) * f64::from(self.hidden)
    }
}

/// The GPUs that presets know, smallest first. The price of `a100-80` is an eighth of the only type Lambda has (eight of them);
/// it rents no L40S and no H200. The FP8 peak of `h100-pcie` is twice its bf16 peak, as on the other Hopper cards.
pub const GPUS: [Gpu; 9] = [
    gpu("a10", 125.0, None, 600.0, 23_028, Some(1.29)),
    gpu("a100-40", 312.0, None, 1555.0, 40_960, Some(1.99)),
    gpu("a100-80", 312.0, None, 2039.0, 81_920, Some(2.79)),
    gpu("l40s", 362.0, Some(733.0), 864.0, 46_068, None),
    gpu("h100-pcie", 756.0, Some(1512.0), 2000.0, 81_559, Some(3.29)),
    gpu("h100", 989.0, Some(1979.0), 3350.0, 81_559, Some(4.29)),
    gpu("gh200", 989.0, Some(1979.0), 4000.0, 97_871, Some(2.29)),
    gpu("h200", 989.0, Some(1979.0), 4800.0, 143_771, None),
    gpu("b200", 2250.0, Some(4500.0), 8000.0, 183_359, Some(6.99)),
];

/// The models that presets know (docs/models.md 2).
pub const MODELS: [Model; 4] = [
    model("mistral-7b", 7.248e9, (32_768, 4096), (32, 32), Weights::Bf16),
    model("llama-3.1-8b", 8.030e9, (128_256, 4096), (32, 32), Weights::Bf16),
    model("qwen3-32b", 32.76e9, (151_936, 5120), (64, 64), Weights::Bf16),
    model("llama-3.3-70b", 70.55e9, (128_256, 8192), (80, 64), Weights::Fp8),
];

/// A row of [`GPUS`], in TFLOP/s, GB/s, MiB and USD.
const fn gpu(
    id: &'static str,
    bf16_tflops: f64,
    fp8_tflops: Option<f64>,
    gb_per_s: f64,
    memory_mib: u32,
    usd_per_hour: Option<f64>,
) -> Gpu {
    let fp8_flops = match fp8_tflops {
        Some(tflops) => Some(tflops * 1e12),
        None => None,
    };
    Gpu { id, bf16_flops: bf16_tflops * 1e12, fp8_flops, bytes_per_s: gb_per_s * 1e9, memory_mib, usd_per_hour }
}

/// A row of [`MODELS`]: (vocabulary, hidden), (layers, heads). All four have 8 KV heads of width 128.
const fn model(
    id: &'static str,
    parameters: f64,
    (vocabulary, hidden): (u32, u32),
    (layers, heads): (u32, u32),
    weights: Weights,
) -> Model {
    Model { id, parameters, vocabulary, hidden, layers, heads, kv_heads: 8, head_dim: 128, weights }
}
