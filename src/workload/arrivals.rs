//! When sessions start: load profiles, their gaps, and the rates of a sweep.
//!
//! A schedule is drawn once, by one generator, before anything is sent. However many connections or tasks then play it, the
//! gaps stay what was asked for (a load tool whose workers each draw their own gaps from equal seeds sends bursts instead).

use std::fmt;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::Exp1;

/// What starts a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// The trace's own timestamps.
    Replay {
        /// Factor on all times; 2 is half as fast.
        time_scale: f64,
        /// Only the requests that arrive in this part of the trace, its begin becoming time 0.
        window: Option<Window>,
    },
    /// Exponential gaps.
    Poisson {
        /// Mean rate, sessions/s.
        per_s: f64,
    },
    /// Equal gaps; the k-th session starts at k / rate.
    Constant {
        /// Rate, sessions/s.
        per_s: f64,
    },
    /// A constant number of sessions, each followed at once by the next one.
    Concurrent {
        /// How many.
        sessions: u32,
    },
    /// Everything as soon as possible, with a limit on what is under way at once.
    Throughput {
        /// The limit, sessions.
        at_most: u32,
    },
    /// One session after the other.
    Synchronous,
}

impl Arrivals {
    /// Sessions at once, for the closed loops.
    #[must_use]
    pub fn concurrency(self) -> Option<u32> {
        match self {
            Self::Concurrent { sessions: count } | Self::Throughput { at_most: count } => Some(count),
            Self::Synchronous => Some(1),
            Self::Replay { .. } | Self::Poisson { .. } | Self::Constant { .. } => None,
        }
    }
}

/// A part of a trace's time, from the trace's first request on: `from_ms <= t < to_ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Begin, ms.
    pub from_ms: f64,
    /// End, ms; infinite for an open one.
    pub to_ms: f64,
}

impl Window {
    /// Whether the instant lies inside.
    #[must_use]
    pub fn contains(self, at_ms: f64) -> bool {
        (self.from_ms..self.to_ms).contains(&at_ms)
    }
}

impl fmt::Display for Window {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.from_ms / 1000.0)?;
        if self.to_ms.is_finite() { write!(f, "{}", self.to_ms / 1000.0) } else { Ok(()) }
    }
}

impl std::str::FromStr for Window {
    type Err = String;

    /// Reads `FROM..TO` in seconds; either may be left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = || format!("found `{text}`; wanted FROM..TO in seconds, such as `60..300` or `60..`");
        let (from, to) = text.split_once("..").ok_or_else(wanted)?;
        let seconds = |part: &str, open: f64| match part.trim() {
            "" => Ok(open),
            part => part.parse::<f64>().ok().filter(|s| *s >= 0.0 && s.is_finite()).ok_or_else(wanted),
        };
        let (from, to) = (seconds(from, 0.0)?, seconds(to, f64::INFINITY)?);
        if from < to { Ok(Self { from_ms: from * 1000.0, to_ms: to * 1000.0 }) } else { Err(wanted()) }
    }
}

/// Independent streams of random numbers under one seed, so that drawing more of one leaves the others as they were.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Starts = 1,
    Order = 2,
    Pauses = 3,
    Spread = 4,
    Homes = 5,
}

pub(super) fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream as u64);
    rng
}

/// Start times of a Poisson process, ms: the first gap stands before the first start. Endless.
pub(super) fn poisson_starts(per_s: f64, seed: u64) -> impl Iterator<Item = f64> {
    let mut rng = generator(seed, Stream::Starts);
    let mut at_ms = 0.0;
    std::iter::repeat_with(move || {
        at_ms += exponential(&mut rng) * 1000.0 / per_s;
        at_ms
    })
}

/// Start times of equal gaps, ms. Endless.
pub(super) fn constant_starts(per_s: f64) -> impl Iterator<Item = f64> {
    (0_u32..).map(move |k| f64::from(k) * 1000.0 / per_s)
}

/// An exponential with mean 1.
pub(super) fn exponential(rng: &mut impl Rng) -> f64 {
    rng.sample(Exp1)
}

/// Constant rates between the two measured ends of a sweep (one request at a time, and everything at once): `runs` counts the
/// ends in, so `runs − 2` rates come back, evenly spaced. None if the ends are no rising pair of rates.
#[must_use]
pub fn sweep_rates(synchronous_per_s: f64, throughput_per_s: f64, runs: u32) -> Vec<f64> {
    let rising = synchronous_per_s > 0.0 && throughput_per_s > synchronous_per_s && throughput_per_s.is_finite();
    if !rising || runs < 3 {
        return Vec::new();
    }
    let gap = (throughput_per_s - synchronous_per_s) / f64::from(runs - 1);
    (1..runs - 1).map(|k| synchronous_per_s + gap * f64::from(k)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Window, constant_starts, poisson_starts, sweep_rates};

    /// Gaps between starts, the first one counted from 0.
    fn gaps(starts: &[f64]) -> Vec<f64> {
        std::iter::once(starts[0]).chain(starts.windows(2).map(|pair| pair[1] - pair[0])).collect()
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_spread_of_an_exponential() {
        let starts: Vec<f64> = poisson_starts(20.0, 11).take(40_000).collect();
        let gaps = gaps(&starts);
        let n = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / n;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n).sqrt();
        // The standard error of the mean is 0.25 ms, that of the coefficient of variation 0.005.
        assert!((mean - 50.0).abs() < 1.0, "mean gap {mean} ms");
        assert!((deviation / mean - 1.0).abs() < 0.02, "coefficient of variation {}", deviation / mean);
        let short = gaps.iter().filter(|gap| **gap < 1.0).count() as f64 / n;
        assert!((short - 0.0198).abs() < 0.003, "1 - exp(-1/50) of the gaps are under 1 ms, found {short}");
    }

    #[test]
    fn constant_starts_are_multiples_of_the_gap() {
        assert_eq!(constant_starts(4.0).take(4).collect::<Vec<_>>(), [0.0, 250.0, 500.0, 750.0]);
    }

    #[test]
    fn a_sweep_fills_the_room_between_its_ends() {
        assert_eq!(sweep_rates(1.0, 10.0, 10), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        for (low, high, runs) in
            [(1.0, 10.0, 2), (5.0, 5.0, 10), (0.0, 5.0, 10), (f64::NAN, 5.0, 10), (1.0, f64::INFINITY, 5)]
        {
            assert!(sweep_rates(low, high, runs).is_empty(), "{low} {high} {runs}");
        }
    }

    #[test]
    fn windows_are_read_in_seconds() {
        let cases = [
            ("60..300", Some((60_000.0, 300_000.0))),
            ("0.5..", Some((500.0, f64::INFINITY))),
            ("..10", Some((0.0, 10_000.0))),
            ("..", Some((0.0, f64::INFINITY))),
            ("10..10", None),
            ("20..10", None),
            ("-1..10", None),
            ("1-10", None),
            ("a..b", None),
            ("nan..3", None),
            ("..inf", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            let read = text.parse::<Window>().ok().map(|window| (window.from_ms, window.to_ms));
            assert_eq!(read, wanted, "{text}");
        }
        let window: Window = "1..2".parse().unwrap();
        assert_eq!([999.9, 1000.0, 1999.9, 2000.0].map(|at| window.contains(at)), [false, true, true, false]);
    }
}
