//! The life of a machine as a function of time.
//!
//! launch → booting (address after 22–31 s) → active after 110–330 s → terminating for 20–60 s → terminated for a minute → gone. The times
//! are what users of the service have published; one boot of theirs took 857 s.

use rand::{Rng, RngExt as _};

use super::fault::{Faults, Name};
use crate::model::Time;

/// One boot in so many is slow, unless a fault says otherwise.
const SLOW_ONE_IN: u64 = 12;
const SLOW_BOOT_S: u64 = 857;
/// How long a restart takes.
const RESTART_S: u64 = 90;
/// How long a terminated machine is still shown.
const SHOWN_S: u64 = 60;
/// Unhealthy for the last part of every period.
const FLAP_PERIOD_MS: f64 = 120_000.0;
const FLAP_WELL_MS: f64 = 90_000.0;

/// What a machine is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Booting,
    Active,
    Unhealthy,
    Preempted,
    Terminating,
    Terminated,
    /// 404.
    Gone,
}

/// The dates of one machine.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// When it was launched.
    pub(super) born: Time,
    /// When it has an address.
    pub(super) addressed: Time,
    up: Time,
    sick: bool,
    flaps: bool,
    preempted: Option<Time>,
    /// When ending it was asked for.
    ended: Option<Time>,
    ending_s: u64,
}

/// So many seconds later.
pub(super) fn after(at: Time, seconds: u64) -> Time {
    at.plus_ms(seconds as f64 * 1000.0)
}

impl Life {
    /// A launch now.
    pub(super) fn begin(now: Time, rng: &mut impl Rng, faults: &mut Faults) -> Self {
        let one_in = faults.number(Name::SlowBoot).unwrap_or(SLOW_ONE_IN).max(1);
        let slow = rng.random_range(0..one_in) == 0;
        // Drawn in any case, so that a fault changes nothing but what it is about.
        let (address_s, boot_s, ending_s) =
            (rng.random_range(22..=31), rng.random_range(110..=330), rng.random_range(20..=60));
        let up = after(now, if slow { SLOW_BOOT_S } else { boot_s });
        Self {
            born: now,
            addressed: after(now, faults.number(Name::LateIp).unwrap_or(address_s)),
            up,
            sick: faults.strikes(Name::Unhealthy),
            flaps: faults.has(Name::Flapping),
            preempted: faults.number(Name::Preempted).map(|seconds| after(up, seconds)),
            ended: None,
            ending_s: faults.number(Name::SlowTerminate).unwrap_or(ending_s),
        }
    }

    pub(super) fn phase(&self, now: Time) -> Phase {
        if let Some(ended) = self.ended {
            return if now < self.ended_for_good(ended) {
                Phase::Terminating
            } else if now < after(self.ended_for_good(ended), SHOWN_S) {
                Phase::Terminated
            } else {
                Phase::Gone
            };
        }
        if self.preempted.is_some_and(|at| now >= at) {
            Phase::Preempted
        } else if now < self.up {
            Phase::Booting
        } else if self.sick || (self.flaps && now.since_ms(self.up) % FLAP_PERIOD_MS >= FLAP_WELL_MS) {
            Phase::Unhealthy
        } else {
            Phase::Active
        }
    }

    /// It holds its place, its address and its file systems, or did so less than `lag_s` ago.
    pub(super) fn holds(&self, now: Time, lag_s: u64) -> bool {
        self.ended.is_none_or(|ended| now < after(self.ended_for_good(ended), lag_s))
    }

    /// Ending twice is ending once.
    pub(super) fn end(&mut self, now: Time) {
        self.ended.get_or_insert(now);
    }

    /// Boots again, unless it is on its way out or has not come up yet.
    pub(super) fn restart(&mut self, now: Time) {
        if matches!(self.phase(now), Phase::Active | Phase::Unhealthy) {
            self.up = after(now, RESTART_S);
        }
    }

    fn ended_for_good(&self, ended: Time) -> Time {
        after(ended, self.ending_s)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::{Faults, Life, Phase, Time, after};

    fn life(faults: &[&str]) -> Life {
        let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
        Life::begin(Time::ZERO, &mut ChaCha8Rng::seed_from_u64(1), &mut Faults::new(faults))
    }

    fn at(seconds: u64) -> Time {
        after(Time::ZERO, seconds)
    }

    #[test]
    fn a_life_goes_through_its_phases_once() {
        let mut life = life(&["slow-boot=1", "slow-terminate=100"]);
        assert!(life.addressed >= at(22) && life.addressed <= at(31));
        assert_eq!([0, 856, 857].map(|s| life.phase(at(s))), [Phase::Booting, Phase::Booting, Phase::Active]);
        life.restart(at(900));
        assert_eq!([900, 989, 990].map(|s| life.phase(at(s))), [Phase::Booting, Phase::Booting, Phase::Active]);
        life.end(at(1000));
        life.end(at(1050));
        life.restart(at(1050));
        let phases = [1099, 1100, 1159, 1160].map(|s| life.phase(at(s)));
        assert_eq!(phases, [Phase::Terminating, Phase::Terminated, Phase::Terminated, Phase::Gone]);
        assert_eq!(
            [(1099, 0), (1100, 0), (1149, 50), (1150, 50)].map(|(s, lag)| life.holds(at(s), lag)),
            [true, false, true, false]
        );
    }

    #[test]
    fn faults_bend_it() {
        let late = life(&["late-ip=500", "unhealthy"]);
        assert_eq!((late.addressed, late.phase(at(900))), (at(500), Phase::Unhealthy));
        let flapping = life(&["slow-boot=1", "flapping", "preempted=600"]);
        let phases = [857, 946, 947, 976, 977, 1457].map(|s| flapping.phase(at(s)));
        let expected =
            [Phase::Active, Phase::Active, Phase::Unhealthy, Phase::Unhealthy, Phase::Active, Phase::Preempted];
        assert_eq!(phases, expected);
    }

    #[test]
    fn boots_are_as_long_as_published() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let lives: Vec<Life> = (0..600).map(|_| Life::begin(Time::ZERO, &mut rng, &mut Faults::default())).collect();
        let slow = lives.iter().filter(|life| life.phase(at(331)) == Phase::Booting).count();
        assert!((25..=80).contains(&slow), "one in 12 of 600, found {slow}");
        assert!(lives.iter().all(|life| life.phase(at(109)) == Phase::Booting && life.phase(at(857)) == Phase::Active));
    }
}
