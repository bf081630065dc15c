//! The emulator's only reader of the operating system's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Time;

/// A monotonic clock that counts from its start. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that shows [`Time::ZERO`] now.
    #[expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present.
    #[expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]
    pub(super) fn now(self) -> Time {
        let since = Instant::now().saturating_duration_since(self.origin);
        Time::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant `at` as the timers of the runtime want it.
    pub(super) fn instant(self, at: Time) -> tokio::time::Instant {
        (self.origin + Duration::from_micros(at.micros())).into()
    }
}

/// Seconds since 1970, for the `created` field of replies. 0 if the system clock stands before.
#[expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
