//! Latencies that nobody can better by losing requests: what has no whole answer counts as an hour.
//!
//! The figures of a report are those of the requests that were served, with the lost counted beside them; a reader sees both. A search
//! of weights has one number to go by, and with the served alone it would learn to lose whatever is slow.

use serde::{Deserialize, Serialize};

use super::percentile::latency;
use super::sample::Sample;
use super::schema::Latency;

/// What a request without a whole answer counts, ms: an hour, longer than any answer that a simulation waits for by default.
pub const NEVER_MS: f64 = 3_600_000.0;

/// Latencies of all requests that count, however they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Strict {
    /// Time to first token, ms.
    pub ttft_ms: Latency,
    /// Time to the last token, ms.
    pub e2e_ms: Latency,
}

/// The latencies of the measured samples and of `unsent` requests that were never sent because their session broke off before.
#[must_use]
pub fn strict(samples: &[Sample], unsent: u64) -> Strict {
    let of = |figure: fn(&Sample) -> Option<f64>| {
        let measured = samples.iter().filter(|sample| sample.measured);
        let sent = measured.map(|sample| figure(sample).filter(|_| sample.ok()).unwrap_or(NEVER_MS));
        latency(sent.chain((0..unsent).map(|_| NEVER_MS)).collect())
    };
    Strict { ttft_ms: of(Sample::ttft_ms), e2e_ms: of(Sample::e2e_ms) }
}

#[cfg(test)]
mod tests {
    use super::{NEVER_MS, strict};
    use crate::model::Time;
    use crate::report::{Outcome, Sample};

    fn sample(ttft_ms: f64, outcome: Outcome) -> Sample {
        let mut sample = Sample::new(true, Time::ZERO, Time::ZERO, 100);
        sample.first = Some(Time::from_ms(ttft_ms));
        sample.last = Some(Time::from_ms(ttft_ms + 5.0));
        sample.outcome = outcome;
        sample
    }

    #[test]
    fn whatever_was_not_answered_in_full_took_an_hour() {
        let served = || sample(10.0, Outcome::Ok);
        let all = strict(&[served(), served(), served(), served()], 0);
        assert_eq!((all.ttft_ms.max, all.e2e_ms.p50), (Some(10.0), Some(15.0)));
        for lost in [Outcome::Cancelled, Outcome::Refused("503 none".into()), Outcome::Failed("cut".into())] {
            let found = strict(&[served(), served(), served(), sample(1.0, lost.clone())], 0);
            assert_eq!((found.ttft_ms.p50, found.ttft_ms.max), (Some(10.0), Some(NEVER_MS)), "{lost:?}");
            assert_eq!(found.e2e_ms.max, Some(NEVER_MS), "{lost:?}");
        }
        assert_eq!(strict(&[served()], 1).ttft_ms.p95, Some(NEVER_MS));
        let mut early = served();
        early.measured = false;
        assert_eq!(strict(&[early], 0).ttft_ms.p50, None, "the warm-up does not count");
    }
}
