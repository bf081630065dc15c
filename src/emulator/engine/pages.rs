//! The pages that describe the engine and its load, in SGLang's forms (docs/models.md 3).
//!
//! Only what the model behind the face knows is shown. Absent are therefore its histograms, `gen_throughput` and everything
//! about grammars, LoRA, speculation and disaggregation.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::driver::Load;
use super::{EngineCounts, EngineOptions};
use crate::emulator::lateness::Summary;
use crate::sim::engine::{EngineGauges, Order, Scheduler};

/// `/v1/models`. vLLM's load tool wants `root` beside `id` (docs/models.md 3).
pub(super) fn models(options: &EngineOptions) -> Value {
    let model = &options.model;
    json!({"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "sglang", "root": model,
        "parent": null, "max_model_len": options.spec.kv_tokens}]})
}

/// `/model_info`.
pub(super) fn model_info(options: &EngineOptions) -> Value {
    json!({"model_path": options.model, "tokenizer_path": options.model, "is_generation": true})
}

/// `/server_info`: settings and load.
pub(super) fn server_info(options: &EngineOptions, load: &Load) -> Value {
    let spec = &options.spec;
    let schedule = match spec.scheduler {
        Scheduler::PrefillFirst => "prefill-first",
        Scheduler::Mixed => "mixed",
    };
    json!({
        "engine": "emulator",
        "version": concat!("gorgo-", env!("CARGO_PKG_VERSION")),
        "status": "ready",
        "model_path": options.model,
        "served_model_name": options.model,
        "schedule_policy": match spec.order {
            Order::Arrival => "fcfs",
            Order::LongestPrefix => "lpm",
        },
        "scheduler": schedule,
        "page_size": spec.block,
        "chunked_prefill_size": spec.chunk,
        "max_prefill_tokens": spec.chunk,
        "dp_size": 1,
        "max_running_requests": spec.max_running,
        "max_total_num_tokens": spec.kv_tokens,
        "random_seed": options.seed,
        "region": options.region,
        "internal_states": [internal_state(options, load)],
    })
}

/// The one share's state: SGLang resolves the limit of running requests only here.
fn internal_state(options: &EngineOptions, load: &Load) -> Value {
    let mut state = load_json(options, &load.fresh);
    state["effective_max_running_requests_per_dp"] = options.spec.max_running.into();
    state
}

/// `/v1/loads`: as fresh as can be.
pub(super) fn loads(options: &EngineOptions, load: &Load) -> Value {
    json!({"dp_rank_count": 1, "loads": [load_json(options, &load.fresh)]})
}

fn load_json(options: &EngineOptions, gauges: &EngineGauges) -> Value {
    json!({
        "dp_rank": 0,
        "num_running_reqs": gauges.running,
        "num_waiting_reqs": gauges.waiting,
        "num_used_tokens": gauges.used_tokens,
        "max_total_num_tokens": options.spec.kv_tokens,
        "token_usage": usage(options, gauges),
        "max_running_requests": options.spec.max_running,
        "cache_hit_rate": hit_rate(gauges),
    })
}

/// `/emulator/timing`: how late the emulator is, and what it has served.
pub(super) fn timing(lateness: Summary, counts: EngineCounts) -> Value {
    json!({"first_token_lateness": lateness, "requests": counts.requests, "aborted": counts.aborted})
}

/// `/metrics`, with gauges as old as SGLang's are.
pub(super) fn metrics(options: &EngineOptions, load: &Load, counts: EngineCounts) -> String {
    let gauges = &load.shown;
    let kv = options.spec.kv_tokens;
    let model = options.model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let common = format!("model_name=\"{model}\",engine_type=\"unified\"");
    let rank = format!("{common},tp_rank=\"0\",pp_rank=\"0\",moe_ep_rank=\"0\"");
    let used = gauges.used_tokens;
    let mut page = Page::default();
    page.series("num_running_reqs", "gauge", "requests in the running batch", &rank, f64::from(gauges.running));
    page.series("num_queue_reqs", "gauge", "requests in the waiting queue", &rank, f64::from(gauges.waiting));
    page.series("num_used_tokens", "gauge", "KV tokens in use by requests", &rank, used as f64);
    page.series("token_usage", "gauge", "share of the KV cache in use by requests", &rank, usage(options, gauges));
    page.series("kv_used_tokens", "gauge", "KV tokens in use by requests", &rank, used as f64);
    page.series(
        "kv_evictable_tokens",
        "gauge",
        "KV tokens of the prefix cache only",
        &rank,
        gauges.cached_tokens as f64,
    );
    let free = kv.saturating_sub(used).saturating_sub(gauges.cached_tokens);
    page.series("kv_available_tokens", "gauge", "free KV tokens", &rank, free as f64);
    page.series("max_total_num_tokens", "gauge", "capacity of the KV cache in tokens", &rank, kv as f64);
    page.series("cache_hit_rate", "gauge", "share of prompt tokens found in the prefix cache", &rank, hit_rate(gauges));
    let total = gauges.prompt_tokens_total as f64;
    page.series("prompt_tokens_total", "counter", "prompt tokens processed", &common, total);
    let total = gauges.generation_tokens_total as f64;
    page.series("generation_tokens_total", "counter", "tokens generated", &common, total);
    if gauges.cached_tokens_total > 0 {
        // Absent until the first hit, as SGLang's.
        let labels = format!("{common},cache_source=\"device\"");
        let total = gauges.cached_tokens_total as f64;
        page.series("cached_tokens_total", "counter", "prompt tokens found in the prefix cache", &labels, total);
    }
    page.series("num_requests_total", "counter", "requests received", &common, counts.requests as f64);
    page.series("num_aborted_requests_total", "counter", "requests aborted", &common, counts.aborted as f64);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn series(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
        // Writing to a String cannot fail.
        let _ = write!(
            self.0,
            "# HELP sglang:{name} {help}\n# TYPE sglang:{name} {kind}\nsglang:{name}{{{labels}}} {value:?}\n"
        );
    }
}

fn usage(options: &EngineOptions, gauges: &EngineGauges) -> f64 {
    gauges.used_tokens as f64 / options.spec.kv_tokens.max(1) as f64
}

/// Over the engine's life; SGLang's is windowed in recent releases.
fn hit_rate(gauges: &EngineGauges) -> f64 {
    gauges.cached_tokens_total as f64 / gauges.prompt_tokens_total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::{EngineCounts, EngineGauges, EngineOptions, Load, Order, metrics, models, server_info};
    use crate::emulator::engine::tests::options;
    use crate::inference::engine::{EMULATOR, Gauges, SGLANG, Told};

    fn load() -> Load {
        let shown = EngineGauges {
            running: 3,
            waiting: 2,
            used_tokens: 1000,
            cached_tokens: 500,
            prompt_tokens_total: 4000,
            cached_tokens_total: 1000,
            generation_tokens_total: 77,
            ..EngineGauges::default()
        };
        Load { fresh: EngineGauges::default(), shown }
    }

    #[test]
    fn our_own_parser_reads_the_metrics_back() {
        let mut options = options();
        options.model = "odd \"name\"\\".to_owned();
        options.spec.kv_tokens = 4000;
        let page = metrics(&options, &load(), EngineCounts::default());
        let expected = Gauges {
            running: Some(3.0),
            waiting: Some(2.0),
            kv_usage: Some(0.25),
            used_tokens: Some(1000.0),
            kv_tokens: Some(4000.0),
        };
        assert_eq!(SGLANG.parse_gauges(&page), expected);
        assert_eq!(EMULATOR.parse_gauges(&page), expected);
        for (series, value) in [("prompt_tokens", 4000), ("cached_tokens", 1000), ("generation_tokens", 77)] {
            let line = page.lines().find(|line| line.starts_with(&format!("sglang:{series}_total{{")));
            let shown = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            assert_eq!(shown, Some(f64::from(value)), "{series}: {line:?}");
        }
    }

    #[test]
    fn our_own_parser_reads_the_settings_back() {
        let mut options = options();
        (options.spec.max_running, options.spec.chunk, options.spec.kv_tokens) = (7, 512, 4000);
        let told =
            |options: &EngineOptions| EMULATOR.parse_settings(server_info(options, &load()).to_string().as_bytes());
        let expected =
            Told { max_running: Some(7), kv_tokens: Some(4000), batch_tokens: Some(512), in_order: Some(true) };
        assert_eq!(told(&options), expected);
        options.spec.order = Order::LongestPrefix;
        assert_eq!(told(&options).in_order, Some(false));
    }

    #[test]
    fn cached_tokens_are_absent_until_the_first_hit() {
        let mut load = load();
        load.shown.cached_tokens_total = 0;
        assert!(!metrics(&options(), &load, EngineCounts::default()).contains("cached_tokens_total"));
    }

    #[test]
    fn load_tools_find_the_model() {
        let page = models(&options());
        assert_eq!(page["data"][0]["id"], options().model.as_str());
        assert_eq!(page["data"][0]["root"], options().model.as_str());
    }
}
