//! Rates of `gorgo` from measured times to first token: robust least squares with one intercept per replica.
//!
//! ```text
//! TTFT = b_replica  +  P · uncached  +  Q · queued        ms
//! ```
//!
//! uncached: prompt tokens that the engine computed, as it says, else as believed. queued: raw prompt tokens of this router's requests at
//! the replica at dispatch. The intercepts take round trips and fixed costs, so that a far replica does not look slow. Huber's weights
//! (Robust Estimation of a Location Parameter, 1964) by iteration, with the scale from the median of the residuals, keep a few stalls from
//! bending the line. The normal equations stand on their own samples, nothing is forgotten step by step: recursive forms can wind up.

use std::collections::{BTreeMap, VecDeque};

use crate::model::ReplicaId;

/// Newest samples that are kept.
const KEPT: usize = 1024;
/// Fewest samples of which rates are believed.
pub(super) const NEEDED: usize = 128;
/// Huber's bound in standard deviations: 95 % as efficient as plain least squares where there are no outliers.
const HUBER: f64 = 1.345;
/// A median of absolute residuals as a standard deviation.
const MAD: f64 = 1.4826;
/// Rounds of reweighing; it settles within a few.
const ROUNDS: usize = 12;
/// Smallest rate that is believed, ms per token: a score needs it above 0.
const SMALLEST: f64 = 1e-5;

/// One answered request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Observed {
    pub(super) replica: ReplicaId,
    pub(super) uncached: f64,
    pub(super) queued: f64,
    pub(super) ttft_ms: f64,
}

/// The newest answered requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration {
    samples: VecDeque<Observed>,
}

impl Calibration {
    pub(super) fn push(&mut self, observed: Observed) {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(observed);
    }

    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// P and Q, ms per token. `None` with too few samples, or where uncached and queued tokens do not vary enough to be told apart.
    pub(super) fn rates(&self) -> Option<[f64; 2]> {
        if self.samples.len() < NEEDED {
            return None;
        }
        let samples: Vec<Observed> = self.samples.iter().copied().collect();
        let mut weights = vec![1.0; samples.len()];
        let mut rates = None;
        for _ in 0..ROUNDS {
            let (found, residuals) = weighted(&samples, &weights)?;
            rates = Some(found.map(|rate| rate.max(SMALLEST)));
            let scale = MAD * median(residuals.iter().map(|it| it.abs()).collect());
            if scale <= f64::EPSILON {
                break;
            }
            for (weight, residual) in weights.iter_mut().zip(&residuals) {
                *weight = (HUBER * scale / residual.abs().max(f64::MIN_POSITIVE)).min(1.0);
            }
        }
        rates
    }
}

/// Weighted sums of a replica: weight, uncached, queued, TTFT.
type Sums = (f64, f64, f64, f64);

/// Both rates and every residual.
fn weighted(samples: &[Observed], weights: &[f64]) -> Option<([f64; 2], Vec<f64>)> {
    let mut sums: BTreeMap<ReplicaId, Sums> = BTreeMap::new();
    for (it, weight) in samples.iter().zip(weights) {
        let sum = sums.entry(it.replica).or_default();
        *sum = (sum.0 + weight, sum.1 + weight * it.uncached, sum.2 + weight * it.queued, sum.3 + weight * it.ttft_ms);
    }
    // Differences from the replica's own means leave its intercept out.
    let centred = |it: &Observed| {
        let (weight, uncached, queued, ttft) = sums[&it.replica];
        (it.uncached - uncached / weight, it.queued - queued / weight, it.ttft_ms - ttft / weight)
    };
    let (mut xx, mut xy, mut yy, mut xt, mut yt) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (it, weight) in samples.iter().zip(weights) {
        let (x, y, t) = centred(it);
        xx += weight * x * x;
        xy += weight * x * y;
        yy += weight * y * y;
        xt += weight * x * t;
        yt += weight * y * t;
    }
    let determinant = xx * yy - xy * xy;
    // As good as collinear: nothing can be said of either.
    if determinant <= 1e-6 * xx * yy || xx <= 0.0 || yy <= 0.0 {
        return None;
    }
    let rates = [(xt * yy - yt * xy) / determinant, (yt * xx - xt * xy) / determinant];
    let residual = |it: &Observed| {
        let (x, y, t) = centred(it);
        t - rates[0] * x - rates[1] * y
    };
    Some((rates, samples.iter().map(residual).collect()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::{Calibration, NEEDED, Observed};
    use crate::model::ReplicaId;

    /// 0.2 ms per uncached and 0.05 per queued token; replicas 30 and 400 ms away; the far one is used for long prompts.
    fn calibration(count: usize, stalls: f64) -> Calibration {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut calibration = Calibration::default();
        for _ in 0..count {
            let far = random.random_bool(0.3);
            let uncached = random.random_range(10.0..2000.0) + if far { 2000.0 } else { 0.0 };
            let queued = random.random_range(0.0..9000.0_f64);
            let noise = random.random_range(-20.0..20.0);
            let stall = if random.random_bool(stalls) { 8000.0 } else { 0.0 };
            let ttft_ms = if far { 400.0 } else { 30.0 } + 0.2 * uncached + 0.05 * queued + noise + stall;
            calibration.push(Observed { replica: ReplicaId(u32::from(far)), uncached, queued, ttft_ms });
        }
        calibration
    }

    #[test]
    fn rates_are_found_beside_intercepts_and_stalls() {
        for stalls in [0.0, 0.1] {
            let [prefill, queue] = calibration(600, stalls).rates().unwrap();
            assert!((prefill - 0.2).abs() < 0.01 && (queue - 0.05).abs() < 0.002, "{stalls}: {prefill} {queue}");
        }
    }

    #[test]
    fn nothing_is_said_of_what_cannot_be_known() {
        assert_eq!(calibration(NEEDED - 1, 0.0).rates(), None);
        let mut flat = Calibration::default();
        for i in 0..NEEDED {
            let uncached = i as f64;
            flat.push(Observed { replica: ReplicaId(0), uncached, queued: 2.0 * uncached, ttft_ms: uncached });
        }
        assert_eq!(flat.rates(), None, "the two cannot be told apart");
        // Where a queue shortens the wait, which it cannot, the rate is as good as nothing, not below.
        let mut odd = Calibration::default();
        for i in 0..200 {
            let (uncached, queued) = (f64::from(i), f64::from(i * 7 % 31));
            odd.push(Observed { replica: ReplicaId(0), uncached, queued, ttft_ms: 500.0 + uncached - queued });
        }
        let [prefill, queue] = odd.rates().unwrap();
        assert!((prefill - 1.0).abs() < 1e-6 && queue == 1e-5, "{prefill} {queue}");
        assert_eq!(calibration(5000, 0.0).len(), 1024);
    }
}
