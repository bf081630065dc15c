//! Counts of a run while it goes on, for progress lines.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::report::Sample;
use crate::report::percentile::{nearest_rank, ratio, sorted};

/// Replies that the live figures look back on: recent enough to show a change, enough for a p95.
const RECENT: usize = 400;

/// Shared by all requests of a run.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: u64,
    ended: u64,
    lost: u64,
    recent: VecDeque<Recent>,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    ttft_ms: f64,
    prompt_tokens: u32,
    cached_tokens: Option<u32>,
    /// `None` where the router's region or the server's is unknown.
    crossed: Option<bool>,
}

/// What a progress line shows. Latency, hits and crossings are those of the latest 400 complete replies, warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Requests sent so far.
    pub sent: u64,
    /// Of these ended, well or not.
    pub ended: u64,
    /// Of these not ended well.
    pub lost: u64,
    /// TTFT median, ms.
    pub ttft_p50_ms: Option<f64>,
    /// TTFT 95th percentile, ms.
    pub ttft_p95_ms: Option<f64>,
    /// Share of prompt tokens found in caches, 0..=1.
    pub hit_ratio: Option<f64>,
    /// Share served outside of the router's region, 0..=1; `None` where that is unknown.
    pub cross_region_share: Option<f64>,
}

impl Tally {
    /// A request goes out.
    pub fn sent(&self) {
        self.lock().sent += 1;
    }

    /// A request ended; `home` is the router's region.
    pub fn ended(&self, sample: &Sample, home: Option<&str>) {
        let mut counts = self.lock();
        counts.ended += 1;
        let Some(ttft_ms) = sample.ttft_ms().filter(|_| sample.ok()) else {
            counts.lost += 1;
            return;
        };
        if counts.recent.len() == RECENT {
            counts.recent.pop_front();
        }
        let crossed = home.zip(sample.region.as_deref()).map(|(home, region)| home != region);
        let (prompt_tokens, cached_tokens) = (sample.prompt_tokens, sample.cached_tokens);
        counts.recent.push_back(Recent { ttft_ms, prompt_tokens, cached_tokens, crossed });
    }

    /// The present state.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let counts = self.lock();
        let recent = || counts.recent.iter();
        let ttft = sorted(recent().map(|reply| reply.ttft_ms).collect());
        let told = || recent().filter_map(|reply| Some((reply.cached_tokens?, reply.prompt_tokens)));
        let cached: u64 = told().map(|(cached, _)| u64::from(cached)).sum();
        let prompt: u64 = told().map(|(_, prompt)| u64::from(prompt)).sum();
        Progress {
            sent: counts.sent,
            ended: counts.ended,
            lost: counts.lost,
            ttft_p50_ms: nearest_rank(&ttft, 500),
            ttft_p95_ms: nearest_rank(&ttft, 950),
            hit_ratio: ratio(cached as f64, prompt as f64),
            cross_region_share: ratio(
                recent().filter(|reply| reply.crossed == Some(true)).count() as f64,
                recent().filter(|reply| reply.crossed.is_some()).count() as f64,
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{RECENT, Tally};
    use crate::model::Time;
    use crate::report::{Outcome, Sample};

    fn reply(ttft: f64, region: &str, cached: u32) -> Sample {
        let mut sample = Sample::new(true, Time::ZERO, Time::ZERO, 100);
        sample.first = Some(Time::from_ms(ttft));
        sample.region = Some(region.into());
        sample.cached_tokens = Some(cached);
        sample.outcome = Outcome::Ok;
        sample
    }

    #[test]
    fn progress_shows_the_latest_replies_and_counts_all() {
        let tally = Tally::default();
        assert_eq!(tally.progress(), super::Progress::default());
        for _ in 0..RECENT {
            tally.sent();
            tally.ended(&reply(900.0, "here", 0), Some("here"));
        }
        for index in 0..RECENT {
            tally.sent();
            let region = if index % 4 == 0 { "there" } else { "here" };
            tally.ended(&reply(10.0, region, 80), Some("here"));
        }
        tally.sent();
        tally.ended(&Sample { outcome: Outcome::Refused("503".into()), ..reply(1.0, "here", 0) }, Some("here"));
        tally.sent();
        let progress = tally.progress();
        assert_eq!((progress.sent, progress.ended, progress.lost), (802, 801, 1));
        assert_eq!((progress.ttft_p50_ms, progress.ttft_p95_ms), (Some(10.0), Some(10.0)));
        assert_eq!((progress.hit_ratio, progress.cross_region_share), (Some(0.8), Some(0.25)));
    }
}
