//! How much longer a long prompt is under way than a short one.
//!
//! A connection that has been idle sends 10 segments (RFC 6928) and, for each round trip that brings their acknowledgement, twice as many: TCP's slow
//! start, which Linux begins anew after every pause longer than a retransmission timeout. So n bytes take
//!
//! ```text
//! ceil(log2(1 + n / 14,600)) − 1        round trips more than their first
//! ```
//!
//! which at 300 ms from here is the larger part of the time to first token of a long prompt. What share of this really comes is learned
//! per replica ([`super::line`]): none at all where connections keep their window.

/// 10 segments of 1460 bytes.
const INITIAL_WINDOW: f64 = 14_600.0;
/// Bytes of a request beside its prompt: head and JSON.
const ENVELOPE_BYTES: f64 = 500.0;

/// Extra time of a prompt of so many bytes if slow start begins anew, ms.
pub(in crate::routing) fn ramp_ms(prompt_bytes: u64, rtt_ms: f64) -> f64 {
    let bytes = prompt_bytes as f64 + ENVELOPE_BYTES;
    ((1.0 + bytes / INITIAL_WINDOW).log2().ceil() - 1.0).max(0.0) * rtt_ms
}

#[cfg(test)]
mod tests {
    use super::ramp_ms;

    #[test]
    fn every_doubling_takes_another_round_trip() {
        // 14,600, 43,800 and 102,200 bytes are sent with the first one, two and three windows.
        let cases = [
            (0, 0.0),
            (14_000, 0.0),
            (14_200, 100.0),
            (43_000, 100.0),
            (43_400, 200.0),
            (96_000, 200.0),
            (101_800, 300.0),
        ];
        for (bytes, expected) in cases {
            assert_eq!(ramp_ms(bytes, 100.0), expected, "{bytes}");
        }
    }
}
