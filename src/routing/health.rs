//! Health of a replica, with hysteresis, so that one lost packet does not move a region's traffic.

/// Health of a replica, with hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not checked yet: eligible only while no healthy replica could serve the request.
    #[default]
    Unknown,
    /// In rotation.
    Healthy,
    /// Out of rotation.
    Unhealthy,
}

impl Health {
    /// Lower-case name, stable: `unknown`, `healthy`, `unhealthy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How many results in a row change the state. Checks and requests count alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthThresholds {
    /// Failures in a row that take a replica out (default 3, as in the paper's proxies).
    pub failures_out: u32,
    /// Successes in a row that bring one back (default 2). A replica never checked needs one.
    pub successes_in: u32,
}

impl Default for HealthThresholds {
    fn default() -> Self {
        Self { failures_out: 3, successes_in: 2 }
    }
}

/// The state and what it takes to leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthTracker {
    state: Health,
    /// Results in a row of the kind that is now coming in.
    streak: u32,
    /// Which kind that is.
    streak_ok: bool,
    /// Times that it left rotation or came back.
    changes: u32,
}

impl HealthTracker {
    /// The state now.
    #[must_use]
    pub const fn state(&self) -> Health {
        self.state
    }

    /// How often the state has changed since it was first known: what flaps shows here.
    #[must_use]
    pub const fn changes(&self) -> u32 {
        self.changes
    }

    /// Takes it out of rotation without further results: whoever says so has waited for long enough. True if the state changed.
    pub fn condemn(&mut self) -> bool {
        self.streak = 0;
        self.turn(Health::Unhealthy)
    }

    /// Takes one result. True if the state changed.
    pub fn observe(&mut self, ok: bool, thresholds: HealthThresholds) -> bool {
        self.streak = if ok == self.streak_ok { self.streak.saturating_add(1) } else { 1 };
        self.streak_ok = ok;
        self.turn(match (self.state, ok) {
            (Health::Unknown, true) => Health::Healthy,
            (Health::Unhealthy, true) if self.streak >= thresholds.successes_in => Health::Healthy,
            (_, false) if self.streak >= thresholds.failures_out => Health::Unhealthy,
            (state, _) => state,
        })
    }

    /// True if that is another state.
    fn turn(&mut self, state: Health) -> bool {
        let before = std::mem::replace(&mut self.state, state);
        if before != state && before != Health::Unknown {
            self.changes += 1;
        }
        before != state
    }
}

#[cfg(test)]
mod tests {
    use super::{HealthThresholds, HealthTracker};

    #[test]
    fn a_condemned_replica_comes_back_like_any_other() {
        for before in ["", "+", "---", "---+"] {
            let mut tracker = HealthTracker::default();
            let mut take = |results: &str| {
                for result in results.chars() {
                    tracker.observe(result == '+', HealthThresholds::default());
                }
                tracker.state().as_str()
            };
            take(before);
            tracker.condemn();
            assert_eq!(tracker.state().as_str(), "unhealthy", "after {before}");
            assert!(!tracker.condemn());
            let mut take = |results: &str| {
                for result in results.chars() {
                    tracker.observe(result == '+', HealthThresholds::default());
                }
                tracker.state().as_str()
            };
            assert_eq!((take("+"), take("+")), ("unhealthy", "healthy"), "after {before}");
        }
    }

    #[test]
    fn states_change_only_after_enough_results_in_a_row() {
        // Results (+ success, - failure) and the state after the last of them.
        let cases = [
            ("", "unknown"),
            ("+", "healthy"),
            ("--", "unknown"),
            ("---", "unhealthy"),
            ("+--", "healthy"),
            ("+--+--", "healthy"),
            ("+---", "unhealthy"),
            ("+---+", "unhealthy"),
            ("+---+-+", "unhealthy"),
            ("+---++", "healthy"),
            ("+---++--", "healthy"),
        ];
        for (results, expected) in cases {
            let mut tracker = HealthTracker::default();
            for result in results.chars() {
                tracker.observe(result == '+', HealthThresholds::default());
            }
            assert_eq!(tracker.state().as_str(), expected, "after {results}");
        }
    }
}
