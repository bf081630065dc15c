//! Whether a call may be made again, and when. Pure: the answer, the attempt and the jitter are arguments.
//!
//! | what came back | reads and changes that can be repeated | calls that create something |
//! |---|---|---|
//! | not sent (no connection) | again | again: nothing has happened |
//! | 429 | again | again: it was turned away |
//! | 5xx, 408, a `provider/` code, a lost or cut answer | again | **unknown**: it may have happened, never again blindly |
//! | any other refusal | stop | stop |

use std::time::Duration;

/// What happens if a call is made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The same as if it was made once.
    Repeatable,
    /// A second machine, key, file system, ruleset or reboot.
    Once,
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No connection came about: the service knows nothing of it.
    NotSent,
    /// It was sent, but no whole answer came back.
    Lost,
    /// An answer came back.
    Answered {
        /// HTTP status.
        status: u16,
        /// The error code has the prefix `provider/`: the fault is behind the service.
        upstream: bool,
        /// How long the service asks to wait.
        retry_after: Option<Duration>,
    },
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It worked.
    Accept,
    /// Make the call again after this long.
    Repeat(Duration),
    /// It did not work, and nothing has happened.
    Refused,
    /// It may have happened.
    Unknown,
}

/// Bounds of repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Pause after the first failure; doubles with each further one.
    pub first_pause: Duration,
    /// Longest pause of our own.
    pub longest_pause: Duration,
    /// Longest pause that the service may ask for; with more, the call fails and says so.
    pub longest_asked: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts over about half a minute. SkyPilot, the one public tool that repeats calls to this service, makes six as well.
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(15),
            longest_asked: Duration::from_secs(60),
        }
    }
}

/// Judges attempt number `attempt` (0 = first). `jitter` is a random number in 0..1.
pub(super) fn judge(effect: Effect, outcome: Outcome, attempt: u32, policy: &RetryPolicy, jitter: f64) -> Verdict {
    let (asked, certain) = match outcome {
        Outcome::NotSent => (None, true),
        Outcome::Lost => (None, false),
        Outcome::Answered { status: 200..=299, .. } => return Verdict::Accept,
        Outcome::Answered { status: 429, retry_after, .. } => (retry_after, true),
        Outcome::Answered { status: 408 | 500..=599, retry_after, .. } => (retry_after, false),
        Outcome::Answered { upstream: true, retry_after, .. } => (retry_after, false),
        Outcome::Answered { .. } => return Verdict::Refused,
    };
    if effect == Effect::Once && !certain {
        return Verdict::Unknown;
    }
    if attempt + 1 >= policy.attempts || asked.is_some_and(|asked| asked > policy.longest_asked) {
        return Verdict::Refused;
    }
    Verdict::Repeat(pause(attempt, policy, jitter).max(asked.unwrap_or_default()))
}

/// Between half of the step and the whole of it, so that processes which failed together do not come back together.
fn pause(attempt: u32, policy: &RetryPolicy, jitter: f64) -> Duration {
    let step = policy.first_pause.saturating_mul(1 << attempt.min(20)).min(policy.longest_pause);
    step.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Reads a `Retry-After` header: seconds, or a date (compared with `now_s`, seconds since 1970).
pub(super) fn retry_after(header: &str, now_s: u64) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    let date_s = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(date_s.saturating_sub(now_s)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{prop_assert, proptest};

    use super::{Effect, Outcome, RetryPolicy, Verdict, judge, pause, retry_after};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn policy() -> RetryPolicy {
        RetryPolicy { attempts: 4, first_pause: MS(100), longest_pause: MS(300), longest_asked: MS(5000) }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, upstream: false, retry_after: None }
    }

    fn asks(status: u16, ms: u64) -> Outcome {
        Outcome::Answered { status, upstream: false, retry_after: Some(MS(ms)) }
    }

    #[test]
    fn the_table_of_the_head_holds() {
        use Effect::{Once, Repeatable};
        use Verdict::{Accept, Refused, Repeat, Unknown};
        let upstream = Outcome::Answered { status: 400, upstream: true, retry_after: None };
        let cases = [
            (answered(200), Accept, Accept),
            (answered(204), Accept, Accept),
            (Outcome::NotSent, Repeat(MS(100)), Repeat(MS(100))),
            (Outcome::Lost, Repeat(MS(100)), Unknown),
            (answered(429), Repeat(MS(100)), Repeat(MS(100))),
            (asks(429, 2000), Repeat(MS(2000)), Repeat(MS(2000))),
            (asks(429, 10), Repeat(MS(100)), Repeat(MS(100))),
            (asks(429, 5001), Refused, Refused),
            (answered(500), Repeat(MS(100)), Unknown),
            (asks(503, 700), Repeat(MS(700)), Unknown),
            (answered(408), Repeat(MS(100)), Unknown),
            (upstream, Repeat(MS(100)), Unknown),
            (answered(301), Refused, Refused),
            (answered(400), Refused, Refused),
            (answered(401), Refused, Refused),
            (answered(403), Refused, Refused),
            (answered(404), Refused, Refused),
            (answered(409), Refused, Refused),
        ];
        for (outcome, repeatable, once) in cases {
            assert_eq!(judge(Repeatable, outcome, 0, &policy(), 1.0), repeatable, "{outcome:?}");
            assert_eq!(judge(Once, outcome, 0, &policy(), 1.0), once, "{outcome:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_end() {
        let verdicts: Vec<_> =
            (0..5).map(|attempt| judge(Effect::Repeatable, Outcome::Lost, attempt, &policy(), 1.0)).collect();
        let expected = [
            Verdict::Repeat(MS(100)),
            Verdict::Repeat(MS(200)),
            Verdict::Repeat(MS(300)),
            Verdict::Refused,
            Verdict::Refused,
        ];
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn both_forms_of_the_header_are_read() {
        let cases = [
            ("12", Some(12)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 1970 00:01:40 GMT", Some(40)),
            ("Thu, 01 Jan 1970 00:00:10 GMT", Some(0)),
            ("-3", None),
            ("soon", None),
            ("", None),
        ];
        for (header, seconds) in cases {
            assert_eq!(retry_after(header, 60), seconds.map(Duration::from_secs), "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_creating_call_is_never_repeated_unless_it_certainly_did_nothing(status in 100u16..600, upstream: bool, attempt in 0u32..9, jitter in 0.0f64..1.0) {
            let outcome = Outcome::Answered { status, upstream, retry_after: None };
            let verdict = judge(Effect::Once, outcome, attempt, &policy(), jitter);
            prop_assert!(status == 429 || !matches!(verdict, Verdict::Repeat(_)));
        }

        #[test]
        fn pauses_stay_in_their_bounds(attempt: u32, jitter in 0.0f64..1.0) {
            let found = pause(attempt, &policy(), jitter);
            prop_assert!(found >= MS(50) && found <= MS(300));
        }
    }
}
