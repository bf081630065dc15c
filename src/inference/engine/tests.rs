//! Metrics pages of real engines, cut down to what we read, and the traps in them.

use super::{EMULATOR, Engine, Flushed, Gauges, SGLANG, VLLM};

const SGLANG_PAGE: &str = r#"
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 7.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 12.0
sglang:num_waiting_reqs{model_name="m"} 99.0
sglang:num_grammar_queue_reqs{model_name="m",tp_rank="0"} 1.0
sglang:token_usage{model_name="m",pp_rank="0",tp_rank="0"} 0.0
sglang:full_token_usage{model_name="m",pp_rank="0",tp_rank="0"} 0.25
sglang:num_used_tokens{model_name="m",tp_rank="0"} 1000.0
sglang:max_total_num_tokens{model_name="m",tp_rank="0"} 4000.0
sglang:prompt_tokens_total{model_name="m"} 8.128902e+06
sglang:cached_tokens_total{cache_source="device",model_name="m"} 100.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 20.0
sglang:generation_tokens_total{model_name="m"} 5.0
"#;

#[test]
fn sglang_metrics() {
    let expected = Gauges {
        running: Some(7.0),
        waiting: Some(12.0),
        kv_usage: Some(0.25),
        used_tokens: Some(1000.0),
        kv_tokens: Some(4000.0),
    };
    assert_eq!(SGLANG.parse_gauges(SGLANG_PAGE), expected);
    assert_eq!(EMULATOR.parse_gauges(SGLANG_PAGE), expected, "the emulator speaks SGLang's names");
    assert_eq!(VLLM.parse_gauges(SGLANG_PAGE), Gauges::default());
}

#[test]
fn sglang_without_the_gauge_tells_its_size_in_labels() {
    let page = "sglang:cache_config_info{page_size=\"16\",num_pages=\"100\",dp_rank=\"0\"} 1.0\n\
                sglang:cache_config_info{page_size=\"16\",num_pages=\"100\",dp_rank=\"1\"} 1.0\n";
    assert_eq!(SGLANG.parse_gauges(page), Gauges { kv_tokens: Some(3200.0), ..Gauges::default() });
}

#[test]
fn vllm_metrics_of_two_engines() {
    let page = r#"
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.8
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.4
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 10.0
vllm:prompt_tokens_cached_total{engine="0",model_name="tiny"} 4.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="96",engine="0"} 1.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="96",kv_cache_size_tokens="1500",engine="1"} 1.0
"#;
    let gauges = VLLM.parse_gauges(page);
    let expected = Gauges {
        running: Some(5.0),
        waiting: Some(5.0),
        kv_usage: gauges.kv_usage,
        used_tokens: None,
        kv_tokens: Some(96.0 * 16.0 + 1500.0),
    };
    assert_eq!(gauges, expected);
    assert!((gauges.kv_usage.unwrap() - 0.6).abs() < 1e-12);
    let old = "vllm:gpu_cache_usage_perc{model_name=\"tiny\"} 0.5\n";
    assert_eq!(VLLM.parse_gauges(old).kv_usage, Some(0.5));
}

#[test]
fn pages_without_anything_are_empty_not_wrong() {
    for page in ["", "<html>404</html>", "sglang:num_running_reqs NaN", "sglang:num_queue_reqs{"] {
        for engine in Engine::ALL {
            assert_eq!(engine.parse_gauges(page), Gauges::default(), "{engine} {page}");
        }
    }
}

#[test]
fn flush_answers() {
    let cases: [(&Engine, u16, &str, Flushed); 10] = [
        (&SGLANG, 200, "Cache flushed.", Flushed::Done),
        (&SGLANG, 400, "pending requests", Flushed::Busy),
        (&SGLANG, 404, "", Flushed::Unsupported),
        (&SGLANG, 401, "", Flushed::Failed),
        (&VLLM, 200, r#"{"success":true}"#, Flushed::Done),
        (&VLLM, 200, r#"{"success": false}"#, Flushed::Busy),
        (&VLLM, 200, "", Flushed::Done),
        (&VLLM, 200, "what?", Flushed::Failed),
        (&VLLM, 404, r#"{"detail":"Not Found"}"#, Flushed::Unsupported),
        (&VLLM, 500, "", Flushed::Failed),
    ];
    for (engine, status, body, expected) in cases {
        assert_eq!(engine.flush.outcome(status, body.as_bytes()), expected, "{engine} {status} {body}");
    }
}

#[test]
fn names_are_found_and_unknown_ones_are_told() {
    for engine in Engine::ALL {
        assert_eq!(Engine::by_name(engine.name), Ok(engine));
    }
    let message = Engine::by_name("tgi").unwrap_err().to_string();
    assert_eq!(message, "unknown engine `tgi`; known engines: sglang, vllm, emulator");
    assert!(Engine::ALL.iter().all(|engine| message.contains(engine.name)));
}

#[test]
fn nothing_times_the_network_through_a_slow_health_check() {
    for engine in Engine::ALL {
        assert_ne!(engine.probe, engine.health.path, "{engine}");
    }
}
