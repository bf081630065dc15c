//! The shapes of load that `gorgo bench` knows, and what a run of each needs.

use std::fmt;
use std::str::FromStr;

use crate::workload::arrivals::{Arrivals, Window};

/// A load profile by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One session at a time.
    Synchronous,
    /// Poisson starts at `--rate`.
    Poisson,
    /// Evenly spaced starts at `--rate`.
    Constant,
    /// `--concurrency` sessions at once.
    Concurrent,
    /// As many as `--concurrency` allows at once, by default many.
    Throughput,
    /// Synchronous, then throughput, then constant rates between the two.
    Sweep,
    /// The trace's own timestamps.
    Replay,
}

/// Sessions at once of `throughput` and of the sweep's upper end when `--concurrency` is not given (as guidellm's sweep).
pub const THROUGHPUT_SESSIONS: u32 = 512;

/// A profile without the number that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile `{profile}` needs `{option}`")]
pub struct Missing {
    /// The profile.
    pub profile: Profile,
    /// The option.
    pub option: &'static str,
}

impl Profile {
    /// All of them, for help texts and errors.
    pub const ALL: [Self; 7] = [
        Self::Synchronous,
        Self::Poisson,
        Self::Constant,
        Self::Concurrent,
        Self::Throughput,
        Self::Sweep,
        Self::Replay,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Poisson => "poisson",
            Self::Constant => "constant",
            Self::Concurrent => "concurrent",
            Self::Throughput => "throughput",
            Self::Sweep => "sweep",
            Self::Replay => "replay",
        }
    }

    /// The profile that is meant when none is named: what the given numbers are for, else the trace's clock, else one at a time.
    #[must_use]
    pub fn implied(rate: Option<f64>, concurrency: Option<u32>, timed_trace: bool) -> Self {
        match (rate, concurrency) {
            (Some(_), _) => Self::Poisson,
            (None, Some(_)) => Self::Concurrent,
            (None, None) if timed_trace => Self::Replay,
            (None, None) => Self::Synchronous,
        }
    }

    /// The arrivals of its first (or only) run. The sweep's first run is synchronous.
    ///
    /// # Errors
    /// If a number is missing that the profile cannot do without.
    pub fn arrivals(self, numbers: &Numbers) -> Result<Arrivals, Missing> {
        let missing = |option| Missing { profile: self, option };
        Ok(match self {
            Self::Synchronous | Self::Sweep => Arrivals::Synchronous,
            Self::Poisson => Arrivals::Poisson { per_s: numbers.rate.ok_or(missing("--rate"))? },
            Self::Constant => Arrivals::Constant { per_s: numbers.rate.ok_or(missing("--rate"))? },
            Self::Concurrent => Arrivals::Concurrent { sessions: numbers.concurrency.ok_or(missing("--concurrency"))? },
            Self::Throughput => Arrivals::Throughput { at_most: numbers.at_most() },
            Self::Replay => Arrivals::Replay { time_scale: numbers.time_scale, window: numbers.window },
        })
    }
}

/// The numbers that profiles take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    /// Session starts per second.
    pub rate: Option<f64>,
    /// Sessions at once.
    pub concurrency: Option<u32>,
    /// Factor on the trace's times.
    pub time_scale: f64,
    /// Part of the trace.
    pub window: Option<Window>,
}

impl Numbers {
    /// Sessions at once where everything shall run at once.
    #[must_use]
    pub fn at_most(&self) -> u32 {
        self.concurrency.unwrap_or(THROUGHPUT_SESSIONS)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|profile| profile.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("unknown profile `{text}`; known: {}", known.join(", "))
        })
    }
}

/// How a run's load reads in a label: `poisson 3/s`, `concurrent 8`.
#[must_use]
pub fn label(arrivals: Arrivals) -> String {
    match arrivals {
        Arrivals::Replay { time_scale, .. } => format!("replay x{time_scale}"),
        Arrivals::Poisson { per_s } => format!("poisson {}/s", short(per_s)),
        Arrivals::Constant { per_s } => format!("constant {}/s", short(per_s)),
        Arrivals::Concurrent { sessions } => format!("concurrent {sessions}"),
        Arrivals::Throughput { at_most } => format!("throughput {at_most}"),
        Arrivals::Synchronous => "synchronous".to_owned(),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Numbers, Profile, label};
    use crate::workload::arrivals::Arrivals;

    const NONE: Numbers = Numbers { rate: None, concurrency: None, time_scale: 1.0, window: None };

    #[test]
    fn names_are_read_back_and_unknown_ones_list_the_known() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        let error = "burst".parse::<Profile>().unwrap_err();
        assert!(error.contains("`burst`") && error.contains("synchronous, poisson"), "{error}");
    }

    #[test]
    fn what_is_meant_when_nothing_is_said() {
        let cases = [
            (Some(2.0), Some(3), true, Profile::Poisson),
            (None, Some(3), true, Profile::Concurrent),
            (None, None, true, Profile::Replay),
            (None, None, false, Profile::Synchronous),
        ];
        for (rate, concurrency, timed, expected) in cases {
            assert_eq!(Profile::implied(rate, concurrency, timed), expected);
        }
    }

    #[test]
    fn a_profile_says_which_number_it_misses() {
        for (profile, option) in [(Profile::Poisson, "--rate"), (Profile::Concurrent, "--concurrency")] {
            assert_eq!(profile.arrivals(&NONE).unwrap_err().option, option);
        }
        let all = Numbers { rate: Some(2.5), concurrency: Some(4), ..NONE };
        let labels: Vec<String> = Profile::ALL.iter().map(|profile| label(profile.arrivals(&all).unwrap())).collect();
        assert_eq!(
            labels,
            [
                "synchronous",
                "poisson 2.5/s",
                "constant 2.5/s",
                "concurrent 4",
                "throughput 4",
                "synchronous",
                "replay x1"
            ]
        );
        assert_eq!(Profile::Throughput.arrivals(&NONE), Ok(Arrivals::Throughput { at_most: 512 }));
    }
}
