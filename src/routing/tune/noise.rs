//! Is a difference more than noise? The exact sign-flip test of Fisher (The Design of Experiments, 1935, section 21).
//!
//! In each period a fair coin decides whether the incumbent or the candidate goes first. If the candidate makes no difference, the
//! difference between both blocks of a period could as well have come with the other sign. So every assignment of signs to the
//! differences was equally likely, and the share of assignments with a mean at least as low as the one seen is the probability of seeing
//! it by luck. Nothing is assumed of how the differences are spread, which with percentiles of a few dozen requests could not be told.
//! Judging an experiment on the order in which it was drawn, period by period, is what Bojinov, Simchi-Levi and Zhao recommend for
//! switchbacks ("Design and Analysis of Switchback Experiments", Management Science 2023).

/// Largest probability of luck with which a candidate is accepted. Several proposals are judged one after another, so it is below the usual
/// 5 %; what slips through changes nothing that can be measured, and is watched.
pub const LEVEL: f64 = 0.01;

/// The same for going back to the weights before: that is the safe side.
pub const LEVEL_BACK: f64 = 0.2;

/// Most differences: 32,768 assignments of signs.
const MOST: usize = 15;

/// Probability of a mean so low or lower by luck. `differences` below 0 speak for the candidate. 1 of none, and of more than fifteen only
/// the last fifteen count.
#[must_use]
pub fn luck(differences: &[f64]) -> f64 {
    let differences = &differences[differences.len().saturating_sub(MOST)..];
    let seen: f64 = differences.iter().sum();
    // Sums in another order differ in their last digits.
    let bound = seen + 1e-9 * (1.0 + seen.abs());
    let all = 1_u32 << differences.len();
    let sum = |signs: u32| -> f64 {
        let signed = |(i, value): (usize, &f64)| if signs >> i & 1 == 1 { -value.abs() } else { value.abs() };
        differences.iter().enumerate().map(signed).sum()
    };
    let as_low = (0..all).filter(|signs| sum(*signs) <= bound).count();
    as_low as f64 / f64::from(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::{LEVEL, luck};

    const DARWIN: [f64; 15] =
        [-49.0, 67.0, -8.0, -16.0, -6.0, -23.0, -28.0, -41.0, -14.0, -29.0, -56.0, -24.0, -75.0, -60.0, 48.0];

    #[test]
    fn known_cases() {
        let cases: [(&[f64], f64); 6] = [
            (&[], 1.0),
            (&[-1.0, -1.0, -1.0, -1.0, -1.0, -1.0], 1.0 / 64.0),
            (&[1.0, 1.0, 1.0], 1.0),
            (&[0.0, 0.0, 0.0, 0.0], 1.0),
            // One loss that is smaller than every win: as low are all wins, and the one seen.
            (&[-3.0, -3.0, -3.0, -3.0, 1.0], 2.0 / 32.0),
            // Darwin's fifteen pairs of maize, crossed against self-fertilized, in eighths of an inch: 863 of 32768, as Fisher counted.
            (&DARWIN, 863.0 / 32768.0),
        ];
        for (differences, wanted) in cases {
            assert_eq!(luck(differences), wanted, "{differences:?}");
        }
    }

    /// Where there is no difference, as many candidates are taken for better as the level says.
    #[test]
    fn noise_is_taken_for_a_gain_as_rarely_as_promised() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        // Skewed, as times are.
        let mut draw =
            || (0..10).map(|_| random.random::<f64>().ln() - random.random::<f64>().ln()).collect::<Vec<_>>();
        let taken = (0..2000).filter(|_| luck(&draw()) <= LEVEL).count();
        assert!((8..34).contains(&taken), "{taken} of 2000");
    }

    proptest! {
        #[test]
        fn a_probability_that_falls_with_the_differences(
            differences in prop::collection::vec(-2.0..2.0_f64, 1..11),
            more in 0.0..1.0_f64,
        ) {
            let p = luck(&differences);
            prop_assert!(p > 0.0 && p <= 1.0);
            let all_wins: Vec<f64> = differences.iter().map(|it| -it.abs() - more).collect();
            prop_assert!(luck(&all_wins) <= p + 1e-12);
        }
    }
}
