//! What a dispatch costs beside its own time to first token, each term in ms of it.
//!
//! ```text
//! decode = gamma · E[out] · q                              what this hardware costs this request after its first token
//! stall  = gamma · S · D / (1 − rho)                       decodes that stand still while this prompt is computed
//! later  = kappa · lam · S · (W + S/2) / (1 − rho)         delay of those who come after
//! home   = phi · F · uncached/L · (way + S(hbar))          a cold request chooses where its next turns will be served
//! tail   = tail · max(0, T − T90)                          T90: the slowest tenth of what came lately begins there
//! ```
//!
//! `later` is one step of policy iteration on the value function of an M/G/1 queue, lam · w² / (2 (1 − rho)) for a backlog of w: what the
//! backlog costs future arrivals after this dispatch less what it cost before. gamma says how many ms of TTFT one ms of decoding is worth.
//! lam and rho are of all who send there: this router counts its own dispatches, and knows of the others' by Little's law,
//!
//! ```text
//! lam = own + decoding / R           rho = own + decoding / R · S(x)
//! ```
//!
//! decoding: others' requests past their first token there; R: time from a first token to the end; x: mean uncached tokens of a dispatch.
//!
//! Without `tail`, a long prompt goes to whoever has the fewest decodes to stop, however far: right for the mean, wrong for those who are
//! slowest already.

/// Largest share of a replica's time that is believed to be filled: above, the terms that divide by what is left would know no bounds.
const MOST_SHARE: f64 = 0.9;

/// Dispatch rate to a replica, and the share of the replica's time that it fills.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pressure {
    /// Dispatches per ms.
    pub(super) per_ms: f64,
    /// 0 to [`MOST_SHARE`].
    pub(super) share: f64,
}

impl Pressure {
    /// A share of any size is taken for one that can be.
    pub(super) fn new(per_ms: f64, share: f64) -> Self {
        Self { per_ms, share: share.clamp(0.0, MOST_SHARE) }
    }

    /// With that of others, of whose requests so many decode there for `decode_ms` each; `service_ms`: what one of them takes before.
    pub(super) fn with_others(self, decoding: f64, decode_ms: f64, service_ms: f64) -> Self {
        let per_ms = decoding / decode_ms.max(1.0);
        Self::new(self.per_ms + per_ms, self.share + per_ms * service_ms)
    }
}

/// What the request itself waits for after its first token, weighted.
pub(super) fn decode_ms(gamma: f64, output_tokens: f64, floor_ms: f64) -> f64 {
    gamma * output_tokens * floor_ms
}

/// What those who decode there wait for.
pub(super) fn stall_ms(gamma: f64, service_ms: f64, decoding: f64, pressure: Pressure) -> f64 {
    gamma * service_ms * decoding / (1.0 - pressure.share)
}

/// What those who come later wait for.
pub(super) fn later_ms(kappa: f64, service_ms: f64, wait_ms: f64, pressure: Pressure) -> f64 {
    kappa * pressure.per_ms * service_ms * (wait_ms + service_ms / 2.0) / (1.0 - pressure.share)
}

/// What the next turns cost at this place: each is sent as a whole. `uncached`: the share of the prompt that has to be computed; `next_ms`:
/// S(hbar).
pub(super) fn home_ms(phi: f64, turns: f64, uncached: f64, way_ms: f64, next_ms: f64) -> f64 {
    phi * turns * uncached * (way_ms + next_ms)
}

/// An extra price on what is slower than most, beyond `slow_ms`.
pub(super) fn tail_ms(tail: f64, ttft_ms: f64, slow_ms: f64) -> f64 {
    tail * (ttft_ms - slow_ms).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::{Pressure, decode_ms, home_ms, later_ms, stall_ms, tail_ms};

    /// L = 6000, E[out] = 120, q = 12, F = 3, hbar = 300, S(x) = 15 + 0.1 · x: a near, cold replica and a far, warm one.
    #[test]
    fn terms() {
        let near = Pressure { per_ms: 0.0008, share: 0.35 };
        let far = Pressure { per_ms: 0.0005, share: 0.2 };
        let cases = [
            ("decode", decode_ms(0.2, 120.0, 12.0), 288.0),
            ("stall, near", stall_ms(0.2, 615.0, 6.0, near), 1135.4),
            ("stall, far", stall_ms(0.2, 77.4, 3.0, far), 58.1),
            ("later, near", later_ms(0.5, 615.0, 120.0, near), 161.8),
            ("later, far", later_ms(0.5, 77.4, 0.0, far), 0.9),
            ("home, near", home_ms(0.7, 3.0, 1.0, 40.0, 45.0), 178.5),
            ("home, far", home_ms(0.7, 3.0, 624.0 / 6000.0, 110.0, 45.0), 33.9),
            ("tail, quick", tail_ms(0.3, 775.0, 1000.0), 0.0),
            ("tail, slow", tail_ms(0.3, 3000.0, 1000.0), 600.0),
        ];
        for (name, found, expected) in cases {
            assert!((found - expected).abs() < 0.06, "{name}: {found} instead of {expected}");
        }
    }

    #[test]
    fn others_press_as_their_decodes_say() {
        let own = Pressure { per_ms: 0.001, share: 0.1 };
        // 8 decodes of 4 s each: two requests per second; each takes 200 ms: another 0.4 of the time.
        let all = own.with_others(8.0, 4000.0, 200.0);
        assert!((all.per_ms - 0.003).abs() < 1e-12 && (all.share - 0.5).abs() < 1e-12, "{all:?}");
        assert_eq!(own.with_others(0.0, 4000.0, 200.0), own);
        assert_eq!(own.with_others(1000.0, 0.0, 200.0).share, 0.9, "never full");
    }
}
