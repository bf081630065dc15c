//! The learned service line of one replica: how long its engine computes a prompt, and beside it how much of slow start shows on the way,
//!
//! ```text
//! S(x) = s + a · x          x = uncached tokens, s in ms, a in ms per token
//! y = S(x) + u · r          r = the way's ramp (see `way`), 0 for what arrived while the engine was busy; u = 0 to 2
//! ```
//!
//! Weighted least squares with a ridge towards a prior. Older samples fade, the ridge does not: the system stays positive definite
//! whatever comes, which recursive least squares with forgetting does not (with equal prompts, intercept and slope cannot be told apart,
//! and its covariance grows without bound). Residuals are relative and damped after Huber (Robust Estimation of a Location Parameter, 1964):
//! on absolute ones, a wrong prior would make every sample an outlier and never be left. No quadratic term: attention's share shows only at
//! prompts so long that they hardly ever come alone.

use crate::routing::peer::Speed;

/// What a prefill is believed to take before anything was measured: the order of a 7B model on an A100.
pub(super) const PRIOR: Speed = Speed { service_ms: 15.0, ms_per_token: 0.1 };

/// Slow start is expected as it stands in the book.
const RAMP_PRIOR: f64 = 1.0;

/// How far the truth may be from the prior: ± 20 ms, ± 0.2 ms per token and ± half of slow start, at a noise of 20 % of a prediction.
const RIDGE: [f64; 3] = [0.04 / (20.0 * 20.0), 0.04 / (200.0 * 200.0), 0.04 / (0.5 * 0.5)];
/// What an older sample counts against the next one: a memory of about 67 samples.
const FADE: f64 = 0.985;
/// Predictions below this are counted as this, ms: a relative error of next to nothing is nothing.
const LEAST_MS: f64 = 20.0;
/// Samples that count in full whatever they say.
const TRUSTED: u32 = 6;
/// Errors up to this many times the usual one count in full, and up to [`LEAST_BOUND`] in any case.
const BOUND: f64 = 2.5;
const LEAST_BOUND: f64 = 0.15;
/// The usual relative error: at the start, weight of the newest, most that one error counts.
const SIGMA_START: f64 = 0.3;
const SIGMA_WEIGHT: f64 = 0.03;
const SIGMA_MOST: f64 = 1.5;
/// Slopes are learned per thousand tokens, so that both parameters are of like size.
const SCALE: f64 = 1000.0;
/// Fixed parts that are believed, ms.
const SERVICE_MS: (f64, f64) = (0.0, 300.0);
/// Slopes that the solution may have, ms per thousand tokens; what is used is at least [`LEAST_SLOPE`].
const SLOPE: (f64, f64) = (1.0, 3000.0);
const LEAST_SLOPE: f64 = 2.0;
/// Shares of slow start that are believed.
const RAMP: (f64, f64) = (0.0, 2.0);

/// `S(x)`, ms.
pub(super) fn service_ms(speed: Speed, uncached_tokens: f64) -> f64 {
    speed.service_ms + speed.ms_per_token * uncached_tokens
}

/// Within what is believed of any engine.
pub(super) fn clamped(speed: Speed) -> Speed {
    Speed {
        service_ms: speed.service_ms.clamp(SERVICE_MS.0, SERVICE_MS.1),
        ms_per_token: speed.ms_per_token.clamp(LEAST_SLOPE / SCALE, SLOPE.1 / SCALE),
    }
}

/// The line and what it was learned from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    prior: Speed,
    speed: Speed,
    ramp: f64,
    /// The normal equations without the ridge: their symmetric matrix (11, 12, 22, 13, 23, 33) and right side.
    matrix: [f64; 6],
    right: [f64; 3],
    sigma: f64,
    samples: u32,
}

impl Line {
    /// Nothing measured yet.
    pub(super) fn new(prior: Speed) -> Self {
        let prior = clamped(prior);
        Self {
            prior,
            speed: prior,
            ramp: RAMP_PRIOR,
            matrix: [0.0; 6],
            right: [0.0; 3],
            sigma: SIGMA_START,
            samples: 0,
        }
    }

    /// Another prior, with what was learned kept.
    pub(super) fn expect(&mut self, prior: Speed) {
        let prior = clamped(prior);
        if prior != self.prior {
            self.prior = prior;
            self.solve();
        }
    }

    /// As learned so far.
    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    /// u, the share of slow start that shows.
    pub(super) fn ramp(&self) -> f64 {
        self.ramp
    }

    /// Enough was measured to tell others.
    pub(super) fn is_learned(&self) -> bool {
        self.samples >= TRUSTED
    }

    /// Takes a sample: `x` uncached tokens took `y` ms behind a ramp of `r` ms. Returns the weight it was given; `None` if it makes no sense.
    pub(super) fn learn(&mut self, x: f64, r: f64, y: f64) -> Option<f64> {
        if !([x, r, y].into_iter().all(f64::is_finite) && x >= 0.0 && r >= 0.0 && y > 0.0) {
            return None;
        }
        let predicted = service_ms(self.speed, x) + self.ramp * r;
        let scale = predicted.max(LEAST_MS);
        let error = ((y - predicted) / scale).abs();
        let bound = (BOUND * self.sigma).max(LEAST_BOUND);
        let weight = if self.samples < TRUSTED || error <= bound { 1.0 } else { bound / error };
        self.sigma += SIGMA_WEIGHT * (error.min(SIGMA_MOST) - self.sigma);
        self.samples = self.samples.saturating_add(1);
        let (z, w) = (x / SCALE, weight / (scale * scale));
        self.matrix = add(self.matrix, [w, w * z, w * z * z, w * r, w * z * r, w * r * r]);
        self.right = add(self.right, [w * y, w * y * z, w * y * r]);
        self.solve();
        Some(weight)
    }

    /// (A + ridge) θ = b + ridge · prior, inside the box: first the ramp with the line as it may, then the line.
    fn solve(&mut self) {
        let [d1, d2, d3] = RIDGE;
        let [m11, m12, m22, m13, m23, m33] = add_once(self.matrix, [d1, 0.0, d2, 0.0, 0.0, d3]);
        let prior = [self.prior.service_ms * d1, self.prior.ms_per_token * SCALE * d2, RAMP_PRIOR * d3];
        let [r1, r2, r3] = add_once(self.right, prior);
        // The line eliminated from the third row.
        let determinant = m11 * m22 - m12 * m12;
        let (e1, e2) = ((m22 * m13 - m12 * m23) / determinant, (m11 * m23 - m12 * m13) / determinant);
        let ramp = (r3 - e1 * r1 - e2 * r2) / (m33 - e1 * m13 - e2 * m23);
        self.ramp = ramp.clamp(RAMP.0, RAMP.1);
        let (service, slope) = solve_line([m11, m12, m22], [r1 - m13 * self.ramp, r2 - m23 * self.ramp]);
        self.speed = Speed { service_ms: service, ms_per_token: slope.max(LEAST_SLOPE) / SCALE };
    }
}

/// Two equations in a box: what lies outside is clamped, and the other solved from its own row.
fn solve_line([m11, m12, m22]: [f64; 3], [r1, r2]: [f64; 2]) -> (f64, f64) {
    let determinant = m11 * m22 - m12 * m12;
    let mut service = (m22 * r1 - m12 * r2) / determinant;
    let mut slope = (m11 * r2 - m12 * r1) / determinant;
    if !within(service, SERVICE_MS) {
        service = service.clamp(SERVICE_MS.0, SERVICE_MS.1);
        slope = ((r2 - m12 * service) / m22).clamp(SLOPE.0, SLOPE.1);
    } else if !within(slope, SLOPE) {
        slope = slope.clamp(SLOPE.0, SLOPE.1);
        service = ((r1 - m12 * slope) / m11).clamp(SERVICE_MS.0, SERVICE_MS.1);
    }
    (service, slope)
}

/// What is known faded, and the new beside it.
fn add<const N: usize>(known: [f64; N], new: [f64; N]) -> [f64; N] {
    std::array::from_fn(|i| FADE * known[i] + new[i])
}

fn add_once<const N: usize>(a: [f64; N], b: [f64; N]) -> [f64; N] {
    std::array::from_fn(|i| a[i] + b[i])
}

fn within(value: f64, (least, most): (f64, f64)) -> bool {
    (least..=most).contains(&value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert, prop_oneof, proptest};

    use super::super::way::ramp_ms;
    use super::{Line, PRIOR, clamped, service_ms};
    use crate::routing::peer::Speed;

    /// x, y, and what they make of the line: weight, s, a.
    const CASES: [(f64, f64, f64, f64, f64); 8] = [
        (4000.0, 330.0, 1.0, 14.95, 0.07899),
        (500.0, 60.0, 1.0, 18.59, 0.08034),
        (8000.0, 680.0, 1.0, 18.00, 0.08179),
        (1000.0, 105.0, 1.0, 18.43, 0.08273),
        (200.0, 30.0, 1.0, 14.69, 0.08481),
        (6000.0, 510.0, 1.0, 14.91, 0.08411),
        // an outlier, damped
        (3000.0, 900.0, 0.280, 11.05, 0.09976),
        (2000.0, 180.0, 1.0, 11.46, 0.09740),
    ];

    #[test]
    fn samples_move_the_line_as_computed_by_hand() {
        let mut line = Line::new(PRIOR);
        for (x, y, weight, s, a) in CASES {
            let found = line.learn(x, 0.0, y).unwrap();
            assert!((found - weight).abs() < 0.0005, "{x} {y}: weight {found}");
            let speed = line.speed();
            assert!((speed.service_ms - s).abs() < 0.005, "{x} {y}: s {}", speed.service_ms);
            assert!((speed.ms_per_token - a).abs() < 0.000_005, "{x} {y}: a {}", speed.ms_per_token);
        }
    }

    #[test]
    fn it_finds_the_truth_from_far_off_and_after_a_change() {
        let mut line = Line::new(PRIOR);
        for truth in [Speed { service_ms: 30.0, ms_per_token: 0.5 }, Speed { service_ms: 6.0, ms_per_token: 0.03 }] {
            for i in 0..300 {
                let x = f64::from(i * 37 % 8000);
                line.learn(x, 0.0, service_ms(truth, x));
            }
            for x in [500.0, 8000.0] {
                let (found, wanted) = (service_ms(line.speed(), x), service_ms(truth, x));
                assert!((found / wanted - 1.0).abs() < 0.1, "{x}: {found} instead of {wanted}");
            }
        }
    }

    #[test]
    fn nonsense_is_ignored_and_the_box_holds() {
        let mut line = Line::new(PRIOR);
        for (x, y) in [(f64::NAN, 1.0), (1.0, f64::NAN), (-1.0, 5.0), (10.0, 0.0), (f64::INFINITY, 1.0)] {
            assert_eq!(line.learn(x, 0.0, y), None, "{x} {y}");
            assert_eq!(line.learn(10.0, -x.abs(), 5.0), None, "{x}");
        }
        assert_eq!((line.speed(), line.is_learned()), (PRIOR, false));
        let wild = clamped(Speed { service_ms: -4.0, ms_per_token: 99.0 });
        assert_eq!(wild, Speed { service_ms: 0.0, ms_per_token: 3.0 });
    }

    #[test]
    fn slow_start_is_told_from_computing() {
        let truth = Speed { service_ms: 12.0, ms_per_token: 0.08 };
        for (share, busy) in [(0.0, 5), (0.5, 5), (1.0, 5), (0.0, 2)] {
            let mut line = Line::new(PRIOR);
            for i in 0..400_u64 {
                let x = (i * 7919 % 24_000) as f64;
                // One of so many comes while the engine is busy.
                let r = if i % busy == 0 { 0.0 } else { ramp_ms(4 * x as u64, 300.0) };
                line.learn(x, r, service_ms(truth, x) + share * r);
            }
            assert!((line.ramp() - share).abs() < 0.05, "{share}: {}", line.ramp());
            assert!((line.speed().ms_per_token - 0.08).abs() < 0.004, "{share}: {:?}", line.speed());
        }
    }

    fn sample() -> impl Strategy<Value = (f64, f64, f64)> {
        // Also many equal prompts, where intercept and slope cannot be told apart.
        let x = prop_oneof![2 => 0.0..30_000.0_f64, 1 => 4096.0..4097.0_f64, 1 => 0.0..1.0_f64];
        let r = prop_oneof![1 => 0.0..1.0_f64, 1 => 0.0..2000.0_f64];
        (x, r, prop_oneof![3 => 0.1..5000.0_f64, 1 => 1e-6..1e9_f64])
    }

    proptest! {
        #[test]
        fn whatever_comes_the_line_stays_within_reason(samples in prop::collection::vec(sample(), 0..400)) {
            let mut line = Line::new(PRIOR);
            for (x, r, y) in samples {
                line.learn(x, r, y);
                let speed = line.speed();
                prop_assert!((0.0..=2.0).contains(&line.ramp()), "{}", line.ramp());
                prop_assert!((0.0..=300.0).contains(&speed.service_ms), "{speed:?}");
                prop_assert!((0.002..=3.0).contains(&speed.ms_per_token), "{speed:?}");
            }
        }
    }
}
