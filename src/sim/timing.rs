//! How long one engine step takes.

/// Coefficients of the step-time model, already reduced from hardware and model figures.
///
/// `step = fixed + max(weights, linear · (P + B)) + quadratic · A + context · C + per_request · n [+ tp_fixed + tp_token · (P + B)]`
/// with P prefill tokens in the step, B decoding requests, A = Σ chunk·(context before + chunk/2), C context tokens of the
/// decoding requests, n requests in the step (facts of bench.md 4.2; policy.md 4.1 for presets given as bare constants).
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
    /// Overhead per DECODING request in the step, ms (`seq` of policy.md 4.1; 0 in the model of bench.md 4.2).
    pub decoding_ms: f64,
    /// All-reduce under tensor parallelism: fixed part per step, ms.
    pub allreduce_ms: f64,
    /// All-reduce under tensor parallelism: per token in the step, ms.
    pub allreduce_token_ms: f64,
}
