//! Time as an argument: an integer instant, so that decisions are exact and repeatable.

use std::fmt;

/// A point on the caller's monotonic clock, in whole microseconds since that clock began.
///
/// The gateway reads it from the operating system, the simulator from its event heap. Pure code never makes one from nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The moment at which the clock began.
    pub const ZERO: Self = Self(0);

    /// The instant `micros` microseconds after the clock began.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The instant `ms` milliseconds after the clock began; negative values and NaN count as 0.
    #[must_use]
    pub fn from_ms(ms: f64) -> Self {
        Self(to_micros(ms))
    }

    /// Microseconds since the clock began.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the clock began.
    #[must_use]
    pub fn ms(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Milliseconds from `earlier` to `self`; negative when `earlier` is in fact later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> f64 {
        (self.0 as f64 - earlier.0 as f64) / 1000.0
    }

    /// The instant `ms` milliseconds later; negative values and NaN count as 0.
    #[must_use]
    pub fn plus_ms(self, ms: f64) -> Self {
        Self(self.0.saturating_add(to_micros(ms)))
    }
}

/// Rounds half up; saturates at both ends (a float-to-integer `as` cast does, and maps NaN to 0).
fn to_micros(ms: f64) -> u64 {
    (ms * 1000.0).round() as u64
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.ms())
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn milliseconds_round_trip_and_saturate() {
        let cases = [(0.0, 0), (1.5, 1500), (-3.0, 0), (f64::NAN, 0), (0.0004, 0), (0.0005, 1)];
        for (ms, micros) in cases {
            assert_eq!(Time::from_ms(ms).micros(), micros, "{ms} ms");
        }
        assert_eq!(Time::from_ms(5.0).since_ms(Time::from_ms(8.0)), -3.0);
        assert_eq!(Time::from_micros(u64::MAX).plus_ms(1.0).micros(), u64::MAX);
    }
}
