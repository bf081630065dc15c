//! The settings of a simulation's edge by name, for command lines.

use super::scenario::{Edge, News};

/// One setting.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is, with its default.
    pub help: &'static str,
    /// Sets it from text; `None` = the text is none of its values.
    set: fn(&mut Edge, &str) -> Option<()>,
}

/// All of them, in the order in which they are listed.
pub const KEYS: &[Key] = &[
    Key {
        name: "rtt_every_ms",
        help: "time between two round-trip probes, which are the health checks as well (1000)",
        set: |edge, text| put(&mut edge.rtt_every_ms, interval(text)),
    },
    Key {
        name: "gauges_every_ms",
        help: "time between two readings of an engine's gauges (500)",
        set: |edge, text| put(&mut edge.gauges_every_ms, interval(text)),
    },
    Key {
        name: "peers_every_ms",
        help: "time between two states of a router that the others are told (200)",
        set: |edge, text| put(&mut edge.peers_every_ms, interval(text)),
    },
    Key {
        name: "peers_silence_ms",
        help: "a peer that has said nothing for so long is given up (3000)",
        set: |edge, text| put(&mut edge.peers_silence_ms, interval(text)),
    },
    Key {
        name: "probe_timeout_ms",
        help: "longest wait for the answer to a probe (5000)",
        set: |edge, text| put(&mut edge.probe_timeout_ms, interval(text)),
    },
    Key {
        name: "upstream_timeout_ms",
        help: "longest silence of an engine (600000)",
        set: |edge, text| put(&mut edge.upstream_timeout_ms, interval(text)),
    },
    Key {
        name: "clocks_apart_ms",
        help: "each router's clock is so much ahead of that of the one before it (0)",
        set: |edge, text| put(&mut edge.clocks_apart_ms, text.parse().ok().filter(|ms| (0.0..=1e9).contains(ms))),
    },
    Key {
        name: "usage",
        help: "share of the answers that carry usage, 0 to 1 (1)",
        set: |edge, text| put(&mut edge.usage, text.parse().ok().filter(|share| (0.0..=1.0).contains(share))),
    },
    Key {
        name: "come_back_ms",
        help: "clients that are refused because they would be late send the request again after so long; their TTFT counts from the first time (never)",
        set: |edge, text| put(&mut edge.come_back_ms, interval(text)),
    },
    Key {
        name: "rates",
        help: "on = routers are told each replica's prefill rate, as by an operator who knows the GPUs (on)",
        set: |edge, text| put(&mut edge.rates, switch(text)),
    },
    Key {
        name: "news",
        help: "told = routers know of each other what they tell each other; oracle = the same at once, always; own = nothing, with `form = \"direct\"` only (told)",
        set: |edge, text| put(&mut edge.news, news(text)),
    },
    Key {
        name: "slow_start",
        help: "on = TCP's window of idle connections begins anew (on)",
        set: |edge, text| put(&mut edge.slow_start, switch(text)),
    },
    Key {
        name: "rtt_spells",
        help: "on = every link between regions has spells of 1.3 to 3 times longer delays (off)",
        set: |edge, text| put(&mut edge.rtt_spells, switch(text)),
    },
];

/// Sets a key; `None` if there is no such key.
///
/// # Errors
/// Text that is none of the key's values, with what it is for.
pub fn set(edge: &mut Edge, name: &str, text: &str) -> Option<Result<(), String>> {
    let key = KEYS.iter().find(|key| key.name == name)?;
    let wrong = || format!("`{name}={text}` makes no sense; `{name}`: {}", key.help);
    Some((key.set)(edge, text).ok_or_else(wrong))
}

fn put<T>(setting: &mut T, value: Option<T>) -> Option<()> {
    *setting = value?;
    Some(())
}

fn news(text: &str) -> Option<News> {
    match text {
        "told" => Some(News::Told),
        "oracle" => Some(News::Oracle),
        "own" => Some(News::Own),
        _ => None,
    }
}

/// An interval in ms: a microsecond to a day.
fn interval(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ms| (0.001..=86_400_000.0).contains(ms))
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS, set};
    use crate::sim::world::{Edge, News};

    #[test]
    fn keys_change_what_they_name_and_nothing_else() {
        let mut edge = Edge::default();
        for (name, text) in [("rtt_every_ms", "250"), ("news", "oracle"), ("rates", "off"), ("usage", "0.5")] {
            assert_eq!(set(&mut edge, name, text), Some(Ok(())), "{name}");
        }
        let wanted = Edge { rtt_every_ms: 250.0, news: News::Oracle, rates: false, usage: 0.5, ..Edge::default() };
        assert_eq!(edge, wanted);
    }

    #[test]
    fn every_key_refuses_nonsense_and_says_what_it_is_for() {
        for key in KEYS {
            let error = set(&mut Edge::default(), key.name, "-1").unwrap().unwrap_err();
            assert!(error.contains(key.help), "{error}");
        }
        assert_eq!(set(&mut Edge::default(), "w_rtt", "1"), None);
    }
}
