//! The virtual clock of one replica: when its engine will have done what it was sent.
//!
//! ```text
//! v = end of the latest first token
//! for each request without a first token, in order of arrival:
//!     v = max(v, arrival) + S(uncached tokens)
//!     if v < h:  the first → v = h + (h − v) / 2;   any other → v = h
//! W = max(0, v − arrival of the request at hand)
//! ```
//!
//! h = now − rtt/2 is the newest moment at the engine that the router could know of. A first request that should have shown its token before is
//! late, and is expected to stay late for half as long again (Lindy's rule: what has lasted lasts on); that covers engines that hang.

/// How much longer a late request is expected to be late, as a share of how late it is.
const LINDY: f64 = 0.5;

/// A request without a first token, on its engine's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// When it came to the engine, ms.
    pub(super) arrival_ms: f64,
    /// How long its prompt takes, ms.
    pub(super) service_ms: f64,
    /// Its first token will be seen. One whose answer is not streamed is taken for done when it should be.
    pub(super) shows: bool,
}

/// What the clock shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    /// When the engine is free, ms; −∞ if it never did anything.
    pub(super) free_ms: f64,
    /// Requests that show nothing and are past their prompt by the clock.
    pub(super) unseen: u32,
}

/// Walks the requests without a first token in order of arrival. `horizon_ms` is h.
pub(super) fn read(last_token_ms: f64, horizon_ms: f64, waiting: impl Iterator<Item = Waiting>) -> Reading {
    let (mut free, mut unseen) = (last_token_ms, 0);
    let mut first = true;
    for request in waiting {
        free = free.max(request.arrival_ms) + request.service_ms;
        if !request.shows {
            unseen += u32::from(free < horizon_ms);
            continue;
        }
        if free < horizon_ms {
            free = if first { horizon_ms + LINDY * (horizon_ms - free) } else { horizon_ms };
        }
        first = false;
    }
    Reading { free_ms: free, unseen }
}

/// W without others' work, ms, for a request that will be there at `arrival_ms`.
pub(super) fn wait_ms(free_ms: f64, arrival_ms: f64) -> f64 {
    (free_ms - arrival_ms).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{Waiting, read, wait_ms};

    /// Arrival, tokens, shows.
    type Request = (f64, f64, bool);

    /// When the engine is free, and the wait.
    type Clock = (f64, f64);

    /// Now is 10,000 ms, the round trip 100 ms, a prompt of x tokens takes 15 + 0.1 · x ms.
    fn clock(last: f64, waiting: &[Request]) -> Clock {
        let waiting = waiting.iter().map(|&(arrival_ms, tokens, shows)| Waiting {
            arrival_ms,
            service_ms: 15.0 + 0.1 * tokens,
            shows,
        });
        let reading = read(last, 10_000.0 - 50.0, waiting);
        (reading.free_ms, wait_ms(reading.free_ms, 10_050.0))
    }

    #[test]
    fn cases() {
        let cases: [(&str, f64, &[Request], Clock); 8] = [
            ("nothing was ever sent", f64::NEG_INFINITY, &[], (f64::NEG_INFINITY, 0.0)),
            ("idle since", 9800.0, &[], (9800.0, 0.0)),
            ("one is served when it comes", f64::NEG_INFINITY, &[(10_040.0, 1000.0, true)], (10_155.0, 105.0)),
            ("two in a row", 9800.0, &[(9850.0, 3000.0, true), (9990.0, 1000.0, true)], (10_280.0, 230.0)),
            ("a late head", 9000.0, &[(9050.0, 3000.0, true), (9990.0, 1000.0, true)], (10_357.5, 307.5)),
            // 9050 + 315 = 9365 → 9950 + 292.5; the second is not late by itself
            ("a late head alone", 9000.0, &[(9050.0, 3000.0, true)], (10_242.5, 192.5)),
            // unseen, at 9365 done; 9990 + 115 = 10,105
            (
                "a late one that shows nothing",
                9000.0,
                &[(9050.0, 3000.0, false), (9990.0, 1000.0, true)],
                (10_105.0, 55.0),
            ),
            ("one after it is the head", 9000.0, &[(9050.0, 10.0, false), (9060.0, 3000.0, true)], (10_234.5, 184.5)),
        ];
        for (name, last, waiting, expected) in cases {
            let found = clock(last, waiting);
            let close = |a: f64, b: f64| a == b || (a - b).abs() < 1e-6;
            assert!(close(found.0, expected.0) && close(found.1, expected.1), "{name}: {found:?}");
        }
    }
}
