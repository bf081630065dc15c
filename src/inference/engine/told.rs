//! What an engine says of its own settings, once asked: how much it runs at once, and in which order.
//!
//! SGLang tells it at `/server_info` (python/sglang/srt/entrypoints/http_server.py: the resolved arguments, the scheduler's own
//! figures, and a state per data-parallel share). vLLM tells the size of its KV cache in its metrics and nothing of the rest.

use serde_json::Value;

/// Settings of an engine; `None` = it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests that run at once at most, over all data-parallel shares.
    pub max_running: Option<u32>,
    /// KV capacity, tokens.
    pub kv_tokens: Option<u64>,
    /// Prompt tokens of one step at most.
    pub batch_tokens: Option<u32>,
    /// Is it one queue, first come first served?
    pub in_order: Option<bool>,
}

/// Reads the document of an engine that speaks as SGLang does. What is absent, null or nonsense is not told; nothing is an error.
pub(super) fn of_sglang(body: &[u8]) -> Told {
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return Told::default() };
    let positive = |value: &Value| value.as_u64().filter(|number| *number > 0);
    let count = |key: &str| positive(&document[key]);
    let small = |number: u64| u32::try_from(number).ok();
    Told {
        max_running: each_share(&document).or_else(|| count("max_running_requests")).and_then(small),
        kv_tokens: count("max_total_num_tokens"),
        // -1 = prompts are not cut; then a step takes as many as fit the other bound.
        batch_tokens: count("chunked_prefill_size").or_else(|| count("max_prefill_tokens")).and_then(small),
        in_order: document["schedule_policy"].as_str().map(|policy| {
            let urgent = document["enable_priority_scheduling"].as_bool().unwrap_or(false);
            policy == "fcfs" && !urgent && count("dp_size").unwrap_or(1) == 1
        }),
    }
}

/// The resolved limit of running requests, summed over the shares; the argument itself is null unless somebody has set it.
fn each_share(document: &Value) -> Option<u64> {
    let states = document["internal_states"].as_array()?;
    let limits = states.iter().map(|state| state["effective_max_running_requests_per_dp"].as_u64());
    limits.sum::<Option<u64>>().filter(|sum| *sum > 0)
}

#[cfg(test)]
mod tests {
    use super::{Told, of_sglang};

    #[test]
    fn a_page_of_sglang() {
        let page =
            br#"{"model_path":"m","schedule_policy":"fcfs","chunked_prefill_size":8192,"max_prefill_tokens":16384,
            "max_running_requests":null,"dp_size":1,"max_total_num_tokens":440000,"status":"ready","version":"0.5.23",
            "internal_states":[{"last_gen_throughput":0.0,"effective_max_running_requests_per_dp":48}]}"#;
        let told =
            Told { max_running: Some(48), kv_tokens: Some(440_000), batch_tokens: Some(8192), in_order: Some(true) };
        assert_eq!(of_sglang(page), told);
    }

    #[test]
    fn shares_add_up_and_are_queues_of_their_own() {
        let page = br#"{"schedule_policy":"fcfs","dp_size":2,"chunked_prefill_size":-1,"max_prefill_tokens":16384,
            "internal_states":[{"effective_max_running_requests_per_dp":24},{"effective_max_running_requests_per_dp":24}]}"#;
        let told = Told { max_running: Some(48), kv_tokens: None, batch_tokens: Some(16_384), in_order: Some(false) };
        assert_eq!(of_sglang(page), told);
    }

    #[test]
    fn older_pages_and_none_at_all() {
        let argument = br#"{"max_running_requests":10,"schedule_policy":"lpm","internal_states":[{}]}"#;
        let told = Told { max_running: Some(10), in_order: Some(false), ..Told::default() };
        assert_eq!(of_sglang(argument), told);
        for page in ["", "null", "[]", "{}", "<html>", r#"{"max_running_requests":"many","max_total_num_tokens":-4}"#] {
            assert_eq!(of_sglang(page.as_bytes()), Told::default(), "{page}");
        }
    }
}
