//! Names of configuration keys for readers who do not write configurations.

/// Keys that deserve better words than their own, with the unit of their value.
const KNOWN: [(&str, &str, &str); 21] = [
    ("arrivals", "session starts", ""),
    ("concurrency", "sessions at once", ""),
    ("drain_s", "longest drain", "s"),
    ("e2e_ms", "E2E", "ms"),
    ("gpu", "GPU", ""),
    ("ignore_eos", "outputs of full length (`ignore_eos`)", ""),
    ("itl_ms", "ITL", "ms"),
    ("kv_tokens", "KV cache", "tokens"),
    ("max_input", "longest prompt kept", "tokens"),
    ("max_output", "outputs cut to", "tokens"),
    ("output_tokens", "output where none is named", "tokens"),
    ("rate", "session starts", "per s"),
    ("rtt_ms", "round trip", "ms"),
    ("runs", "runs of the sweep", ""),
    ("seconds", "sessions start for", "s"),
    ("slo", "objectives for goodput: at most", ""),
    ("time_scale", "times stretched by", ""),
    ("timeout_s", "longest silence", "s"),
    ("ttft_ms", "TTFT", "ms"),
    ("warmup_s", "warm-up", "s"),
    ("windows_s", "parts of the trace", "s"),
];

/// Name and unit of a key; an unknown one is shown with blanks for its underscores.
pub(super) fn of(key: &str) -> (String, &'static str) {
    match KNOWN.iter().find(|(known, ..)| *known == key) {
        Some((_, name, unit)) => ((*name).to_owned(), unit),
        None => (key.replace('_', " "), ""),
    }
}

/// `round trip 2 ms`: key, value and unit in one.
pub(super) fn pair(key: &str, value: &str) -> String {
    let (name, unit) = of(key);
    format!("{name} {value} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{KNOWN, of, pair};

    #[test]
    fn keys_become_words_with_units() {
        for (key, value, text) in [
            ("kv_tokens", "40000", "KV cache 40000 tokens"),
            ("name", "us-east", "name us-east"),
            ("from_the_future", "1", "from the future 1"),
        ] {
            assert_eq!(pair(key, value), text);
        }
        assert_eq!(of("drain_s"), ("longest drain".to_owned(), "s"));
    }

    #[test]
    fn the_list_is_sorted_and_has_no_key_twice() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
