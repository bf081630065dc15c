//! The gateway's only reader of the operating system's clock. Everything behind it takes [`Time`] as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Time;

/// A monotonic clock that counts from the start of one gateway. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that shows [`Time::ZERO`] now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]
    pub fn now(self) -> Time {
        let since = Instant::now().saturating_duration_since(self.origin);
        Time::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// How long until `at`; zero if it has passed.
    #[must_use]
    pub fn until(self, at: Time) -> Duration {
        Duration::from_micros(at.micros().saturating_sub(self.now().micros()))
    }
}

/// Microseconds since 1970, for seeds and ids that shall differ from one start to the next. 0 if the system clock stands before.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]
pub fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
