//! Waits for want of room in the engine: a place in its batch, and KV cache.
//!
//! ```text
//! slot wait = (n + 1 − M) · R / max(d, 1)                 if n + 1 > M
//! KV wait   = (k + need − C) · R / min(k, C)              if positive
//! ```
//!
//! n requests in flight of which d decode, M the most that run, k KV tokens taken, C the KV capacity, R the time from first token to end. Both are
//! shorter from here by what the request is under way anyway. What is not known costs nothing.

/// What an engine has in flight, whoever sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Occupancy {
    /// Requests.
    pub(super) requests: f64,
    /// Of these past their first token.
    pub(super) decoding: f64,
    /// KV tokens taken.
    pub(super) kv_tokens: f64,
}

/// Wait for a place in the batch, at the engine, ms.
pub(super) fn slot_wait_ms(at: Occupancy, max_running: Option<f64>, decode_ms: f64) -> f64 {
    let over = max_running.map_or(0.0, |most| at.requests + 1.0 - most);
    if over > 0.0 { over * decode_ms / at.decoding.max(1.0) } else { 0.0 }
}

/// Wait for KV cache for `need` tokens, at the engine, ms. An engine that holds nothing frees nothing: there is no wait to speak of, it takes
/// the request or refuses it.
pub(super) fn kv_wait_ms(at: Occupancy, need: f64, capacity: Option<f64>, decode_ms: f64) -> f64 {
    let Some(capacity) = capacity.filter(|capacity| *capacity > 0.0) else { return 0.0 };
    let missing = at.kv_tokens + need - capacity;
    if missing <= 0.0 || at.kv_tokens <= 0.0 {
        return 0.0;
    }
    missing * decode_ms / at.kv_tokens.min(capacity)
}

/// The longer of both for a request that is under way for `there_ms`, ms.
pub(super) fn room_wait_ms(slot_ms: f64, kv_ms: f64, there_ms: f64) -> f64 {
    (slot_ms.max(kv_ms) - there_ms).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{Occupancy, kv_wait_ms, room_wait_ms, slot_wait_ms};

    fn occupied(requests: f64, decoding: f64, kv_tokens: f64) -> Occupancy {
        Occupancy { requests, decoding, kv_tokens }
    }

    #[test]
    fn slots() {
        let cases = [
            (occupied(63.0, 40.0, 0.0), Some(64.0), 0.0),
            (occupied(64.0, 40.0, 0.0), Some(64.0), 100.0),
            (occupied(73.0, 50.0, 0.0), Some(64.0), 800.0),
            (occupied(64.0, 0.0, 0.0), Some(64.0), 4000.0),
            (occupied(1e6, 1.0, 0.0), None, 0.0),
        ];
        for (at, most, expected) in cases {
            assert_eq!(slot_wait_ms(at, most, 4000.0), expected, "{at:?} {most:?}");
        }
    }

    #[test]
    fn kv_cache() {
        // Ten requests that share most of their prompts: 6840 tokens taken, 400 needed.
        let cases = [
            (6840.0, 400.0, Some(40_000.0), 0.0),
            (6840.0, 400.0, Some(7000.0), 2.6),
            // Counted in full they would seem to fill the cache.
            (41_400.0, 4240.0, Some(40_000.0), 161.5),
            (0.0, 9000.0, Some(7000.0), 0.0),
            (6840.0, 400.0, None, 0.0),
            (6840.0, 400.0, Some(0.0), 0.0),
        ];
        for (taken, need, capacity, expected) in cases {
            let wait = room_wait_ms(0.0, kv_wait_ms(occupied(0.0, 0.0, taken), need, capacity, 1500.0), 50.0);
            assert!((wait - expected).abs() < 0.05, "{taken} {need} {capacity:?}: {wait}");
        }
    }
}
