//! When replicas are out of balance, as SGLang's router has it (`cache_aware` policy) and SkyWalker after it:
//!
//! ```text
//! most − fewest > balance_abs   and   most > balance_rel · fewest          requests in flight
//! ```

use super::parameters::{Parameter, Parameters};

/// The difference; the default is that of SGLang's router.
pub(super) const ABSOLUTE: Parameter = Parameter {
    key: "balance_abs",
    default: 32.0,
    min: 0.0,
    max: 1_000_000.0,
    help: "difference in requests above which replicas may be out of balance",
};
/// The ratio; the default is that of SGLang's router.
pub(super) const RELATIVE: Parameter = Parameter {
    key: "balance_rel",
    default: 1.0001,
    min: 0.0,
    max: 1000.0,
    help: "ratio of the most to the fewest requests above which they are",
};

/// The rule with its limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Balance {
    absolute: f64,
    relative: f64,
}

impl Balance {
    /// With the limits in force of a strategy that declares [`ABSOLUTE`] and [`RELATIVE`].
    pub(super) fn new(parameters: &Parameters) -> Self {
        Self { absolute: parameters.get(ABSOLUTE.key), relative: parameters.get(RELATIVE.key) }
    }

    /// Is it lost among replicas with these requests in flight? Among none it is not.
    pub(super) fn is_lost(&self, in_flight: impl Iterator<Item = f64> + Clone) -> bool {
        let (most, fewest) = (in_flight.clone().fold(0.0, f64::max), in_flight.fold(f64::INFINITY, f64::min));
        most - fewest > self.absolute && most > self.relative * fewest
    }
}

#[cfg(test)]
mod tests {
    use super::Balance;

    #[test]
    fn both_limits_have_to_be_passed() {
        let balance = Balance { absolute: 4.0, relative: 2.0 };
        let cases: [(&[f64], bool); 6] = [
            (&[], false),
            (&[9.0], false),
            (&[4.0, 0.0], false),
            (&[5.0, 0.0, 3.0], true),
            (&[12.0, 6.0], false),
            (&[13.0, 6.0], true),
        ];
        for (in_flight, expected) in cases {
            assert_eq!(balance.is_lost(in_flight.iter().copied()), expected, "{in_flight:?}");
        }
    }
}
