//! The engines that we know, each described once: where it answers what, and what its metrics are called.
//!
//! Facts and versions: docs/models.md 3. A new engine is one constant here and a row in the tests.

use std::fmt;

use serde::Deserialize;

use super::prom::{Across, Sample, combine, samples};

mod told;

pub use told::Told;

/// One kind of engine.
#[derive(Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its name in configuration.
    pub name: &'static str,
    /// Liveness: `GET`, 2xx while it lives.
    pub health: Health,
    /// Readiness, cheap: `GET`, 2xx when it can serve. The first path that does not answer 404 counts (older releases).
    pub ready: &'static [&'static str],
    /// A `GET` that costs the engine nothing, for round-trip times. Any status is an answer, 401 and 404 too.
    pub probe: &'static str,
    /// `GET`: the models it serves, OpenAI form.
    pub models: &'static str,
    /// How to empty its prefix cache.
    pub flush: Flush,
    /// `GET`: the metrics page.
    pub metrics: &'static str,
    /// `GET`: its settings, the first path that does not answer 404; none if it does not tell them.
    pub settings: &'static [&'static str],
    series: Series,
}

/// A liveness check and its traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Path.
    pub path: &'static str,
    /// Ask no more often than this, s.
    pub interval_s: u32,
    /// Wait no less than this, s.
    pub timeout_s: u32,
}

/// How to empty an engine's prefix cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// HTTP method.
    pub method: &'static str,
    /// Path.
    pub path: &'static str,
    /// Whether success stands in the body (`success`) instead of in the status.
    success_in_body: bool,
}

/// What came of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// The cache is empty.
    Done,
    /// Refused while requests run or wait.
    Busy,
    /// The engine has no such endpoint (vLLM outside of its development mode).
    Unsupported,
    /// Anything else.
    Failed,
}

impl Flush {
    /// Reads the answer.
    #[must_use]
    pub fn outcome(&self, status: u16, body: &[u8]) -> Flushed {
        #[derive(Deserialize)]
        struct Answer {
            success: bool,
        }
        match (status, self.success_in_body) {
            (404 | 405, _) => Flushed::Unsupported,
            (400, false) => Flushed::Busy,
            (200..=299, false) => Flushed::Done,
            (200..=299, true) => match serde_json::from_slice(body) {
                Ok(Answer { success: true }) => Flushed::Done,
                Ok(Answer { success: false }) => Flushed::Busy,
                // Before it told its success vLLM answered with an empty body.
                Err(_) if body.trim_ascii().is_empty() => Flushed::Done,
                Err(_) => Flushed::Failed,
            },
            _ => Flushed::Failed,
        }
    }
}

/// Names of series; of several names for one thing (old and new releases) the largest value counts.
#[derive(Debug, PartialEq, Eq)]
struct Series {
    running: &'static [&'static str],
    waiting: &'static [&'static str],
    kv_usage: &'static [&'static str],
    used_tokens: &'static [&'static str],
    kv_tokens: &'static [&'static str],
    /// A series whose labels tell the KV size, if no other does: its name, the label with the tokens, two labels to multiply.
    kv_labels: Option<(&'static str, &'static str, [&'static str; 2])>,
}

/// What a metrics page tells; `None` = nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Requests in the running batch.
    pub running: Option<f64>,
    /// Requests waiting in the engine.
    pub waiting: Option<f64>,
    /// Share of the KV cache in use by requests, 0..=1.
    pub kv_usage: Option<f64>,
    /// Tokens of KV in use by requests.
    pub used_tokens: Option<f64>,
    /// KV capacity, tokens.
    pub kv_tokens: Option<f64>,
}

/// SGLang from 0.4.10 to 0.5.23.
///
/// `/health` submits a request of its own and looks once a second for a sign of life: at best 1 s, 503 after 20 s. So it
/// is asked rarely and patiently, and never timed. The waiting queue is `num_queue_reqs` (not `num_waiting_reqs`).
pub const SGLANG: Engine = Engine {
    name: "sglang",
    health: Health { path: "/health", interval_s: 10, timeout_s: 25 },
    ready: &["/ready", "/model_info", "/get_model_info"],
    probe: "/model_info",
    models: "/v1/models",
    flush: Flush { method: "POST", path: "/flush_cache", success_in_body: false },
    metrics: "/metrics",
    settings: &["/server_info", "/get_server_info"],
    series: Series {
        running: &["sglang:num_running_reqs"],
        waiting: &["sglang:num_queue_reqs"],
        // Hybrid models can show 0 in the first with the second well above.
        kv_usage: &["sglang:token_usage", "sglang:full_token_usage"],
        used_tokens: &["sglang:num_used_tokens", "sglang:kv_used_tokens"],
        kv_tokens: &["sglang:max_total_num_tokens"],
        kv_labels: Some(("sglang:cache_config_info", "max_total_num_tokens", ["page_size", "num_pages"])),
    },
};

/// vLLM 0.19 to 0.33. `/health` is immediate; `/reset_prefix_cache` exists only with `VLLM_SERVER_DEV_MODE=1` and always answers
/// 200.
pub const VLLM: Engine = Engine {
    name: "vllm",
    health: Health { path: "/health", interval_s: 1, timeout_s: 5 },
    ready: &["/health"],
    probe: "/version",
    models: "/v1/models",
    flush: Flush { method: "POST", path: "/reset_prefix_cache", success_in_body: true },
    metrics: "/metrics",
    settings: &[],
    series: Series {
        running: &["vllm:num_requests_running"],
        waiting: &["vllm:num_requests_waiting"],
        kv_usage: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        used_tokens: &[],
        kv_tokens: &[],
        kv_labels: Some(("vllm:cache_config_info", "kv_cache_size_tokens", ["block_size", "num_gpu_blocks"])),
    },
};

/// Our emulated engine: SGLang's face, but `/health` is immediate.
pub const EMULATOR: Engine = Engine {
    name: "emulator",
    health: Health { path: "/health", interval_s: 1, timeout_s: 5 },
    ready: &["/ready"],
    probe: "/ready",
    ..SGLANG
};

impl Engine {
    /// All of them.
    pub const ALL: [&'static Self; 3] = [&SGLANG, &VLLM, &EMULATOR];

    /// The engine of that name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn by_name(name: &str) -> Result<&'static Self, UnknownEngine> {
        Self::ALL.into_iter().find(|engine| engine.name == name).ok_or_else(|| UnknownEngine(name.to_owned()))
    }

    /// Reads a metrics page. Series that are absent or not finite are `None`; nothing is an error.
    #[must_use]
    pub fn parse_gauges(&self, page: &str) -> Gauges {
        let series = &self.series;
        let page: Vec<Sample<'_>> = samples(page).collect();
        let read = |names: &[&str], across: Across| {
            names.iter().filter_map(|name| combine(named(&page, name), across)).reduce(f64::max)
        };
        Gauges {
            running: read(series.running, Across::Sum),
            waiting: read(series.waiting, Across::Sum),
            kv_usage: read(series.kv_usage, Across::Mean),
            used_tokens: read(series.used_tokens, Across::Sum),
            kv_tokens: read(series.kv_tokens, Across::Sum).or_else(|| self.kv_tokens_of_labels(&page)),
        }
    }

    /// Reads what it tells of its settings.
    #[must_use]
    pub fn parse_settings(&self, body: &[u8]) -> Told {
        if self.settings.is_empty() { Told::default() } else { told::of_sglang(body) }
    }

    fn kv_tokens_of_labels(&self, page: &[Sample<'_>]) -> Option<f64> {
        let (name, tokens, [size, count]) = self.series.kv_labels?;
        let sized = named(page, name).filter_map(|sample| {
            let number = |label| sample.label(label)?.parse::<f64>().ok();
            let value = number(tokens).or_else(|| Some(number(size)? * number(count)?))?;
            Some(Sample { value, ..sample })
        });
        combine(sized, Across::Sum)
    }
}

fn named<'a>(page: &[Sample<'a>], name: &str) -> impl Iterator<Item = Sample<'a>> {
    page.iter().filter(move |sample| sample.name == name).copied()
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// An engine that we do not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine `{0}`; known engines: sglang, vllm, emulator")]
pub struct UnknownEngine(String);

#[cfg(test)]
mod tests;
