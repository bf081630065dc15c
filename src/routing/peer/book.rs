//! What is known of one peer.
//!
//! A figure that was told is worth less the older it is: it may have been a moment's. So it is drawn back to its own mean,
//!
//! ```text
//! estimate = mean + (last − mean) · exp(−age / memory)
//! ```
//!
//! with the mean over what came so far (each report counts a tenth). Without it everybody runs to the peer that looked idle a second ago. The
//! memory is 300 ms for what a prefill or two change, and 3 s for what lasts as long as answers do. After [`UNKNOWN_AFTER_MS`] of silence
//! nothing is known: that is not the same as idle, and the router assumes the most loaded replica's load.

use super::clocks::Clocks;
use super::{Report, Totals};
use crate::model::Time;
use crate::routing::index::{Digest, DigestPart};

/// How fast news of a backlog lose their worth, ms.
pub const BACKLOG_MEMORY_MS: f64 = 300.0;

/// How fast news of counts and of tokens held do, ms.
pub const COUNT_MEMORY_MS: f64 = 3_000.0;

/// Weight of the newest report in a mean.
const MEAN_WEIGHT: f64 = 0.1;

/// After so long without a report the load of a peer is unknown, ms: ten reports missed.
pub const UNKNOWN_AFTER_MS: f64 = 2_000.0;

/// The last report.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Heard {
    report: Report,
    /// When it was true, by our clock.
    at: Time,
    mean: Totals,
    mean_pending_ms: Option<f64>,
}

/// A peer as far as it told.
#[derive(Clone, Debug, Default)]
pub struct PeerBook {
    epoch: Option<u64>,
    heard: Option<Heard>,
    clocks: Clocks,
    /// What it holds in its cache.
    pub digest: Digest,
}

impl PeerBook {
    /// It introduces itself. True if it is another start of it than was known: then nothing holds any more.
    pub fn greet(&mut self, epoch: u64) -> bool {
        let known = self.epoch.replace(epoch);
        let other = known.is_some_and(|known| known != epoch);
        if other {
            *self = Self { epoch: Some(epoch), ..Self::default() };
        }
        other
    }

    /// Takes a report that was sent at `sent` by the peer's clock. True if its engine has lost its cache since the one before: then what
    /// it told of it is forgotten here, too.
    pub fn hear(&mut self, now: Time, sent: Time, rtt_ms: f64, report: Report) -> bool {
        let report = Report { others: report.others.plausible(), ..report };
        let age_ms = self.clocks.age_ms(now, sent, rtt_ms);
        let lost = self.heard.is_some_and(|heard| heard.report.cache_generation != report.cache_generation);
        if lost {
            self.digest.clear();
        }
        let towards = |mean: f64, last: f64| mean + MEAN_WEIGHT * (last - mean);
        let mean = self.heard.map_or(report.others, |heard| heard.mean.zip(report.others, towards));
        let before = self.heard.and_then(|heard| heard.mean_pending_ms);
        let mean_pending_ms = report.pending_ms.map(|last| before.map_or(last, |mean| towards(mean, last)));
        self.heard = Some(Heard { report, at: Time::from_ms(now.ms() - age_ms), mean, mean_pending_ms });
        lost
    }

    /// Takes news of its cache.
    pub fn learn(&mut self, part: &DigestPart) {
        self.digest.apply(part);
    }

    /// Age of what it told last, ms.
    #[must_use]
    pub fn age_ms(&self, now: Time) -> Option<f64> {
        self.heard.map(|heard| now.since_ms(heard.at).max(0.0))
    }

    /// What it has of others' requests, estimated; `None` = unknown.
    #[must_use]
    pub fn others(&self, now: Time) -> Option<Totals> {
        let (heard, age_ms) = self.recent(now)?;
        let short = |mean: f64, last: f64| shrunk(mean, last, age_ms, BACKLOG_MEMORY_MS);
        let long = |mean: f64, last: f64| shrunk(mean, last, age_ms, COUNT_MEMORY_MS);
        let (mean, last) = (heard.mean, heard.report.others);
        let backlog = mean.zip(last, short);
        let counts = mean.zip(last, long);
        Some(Totals {
            decoding: counts.decoding,
            prompt_tokens: counts.prompt_tokens,
            held_tokens: counts.held_tokens,
            ..backlog
        })
    }

    /// The mean of what it told, however long ago; `None` = it never told anything.
    #[must_use]
    pub fn mean(&self) -> Option<Totals> {
        self.heard.map(|heard| heard.mean)
    }

    /// Predicted service time of others' requests without a first token, ms, estimated; `None` = unknown.
    #[must_use]
    pub fn pending_ms(&self, now: Time) -> Option<f64> {
        let (heard, age_ms) = self.recent(now)?;
        let last = heard.report.pending_ms?;
        Some(shrunk(heard.mean_pending_ms.unwrap_or(last), last, age_ms, BACKLOG_MEMORY_MS))
    }

    /// Its last report, however old.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.heard.as_ref().map(|heard| &heard.report)
    }

    /// Does it take no new requests, by its own word?
    #[must_use]
    pub fn draining(&self) -> bool {
        self.heard.is_some_and(|heard| heard.report.draining)
    }

    fn recent(&self, now: Time) -> Option<(&Heard, f64)> {
        let heard = self.heard.as_ref()?;
        let age_ms = now.since_ms(heard.at).max(0.0);
        (age_ms <= UNKNOWN_AFTER_MS).then_some((heard, age_ms))
    }
}

fn shrunk(mean: f64, last: f64, age_ms: f64, memory_ms: f64) -> f64 {
    mean + (last - mean) * (-age_ms / memory_ms).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::{PeerBook, Report, Totals};
    use crate::model::Time;
    use crate::routing::index::DigestPart;

    fn busy(requests: f64) -> Report {
        let others = Totals {
            pending: requests,
            uncached_tokens: 1000.0 * requests,
            decoding: requests,
            prompt_tokens: 5000.0 * requests,
            ..Totals::NONE
        };
        Report { serving: true, others, pending_ms: Some(100.0 * requests), ..Report::default() }
    }

    /// Hears a report that was under way for 10 ms.
    fn hear(book: &mut PeerBook, at_ms: f64, report: Report) -> bool {
        book.hear(Time::from_ms(at_ms + 10.0), Time::from_ms(at_ms), 20.0, report)
    }

    fn estimate(book: &PeerBook, at_ms: f64) -> Option<[f64; 4]> {
        let now = Time::from_ms(at_ms);
        let others = book.others(now)?;
        let figures = [others.pending, others.uncached_tokens, others.decoding, book.pending_ms(now)?];
        Some(figures.map(|figure| (figure * 100.0).round() / 100.0))
    }

    #[test]
    fn news_draw_back_to_their_mean_as_they_age() {
        let mut book = PeerBook::default();
        assert_eq!((estimate(&book, 0.0), book.age_ms(Time::ZERO), book.mean()), (None, None, None));
        hear(&mut book, 1000.0, busy(0.0));
        hear(&mut book, 1200.0, busy(10.0));
        // mean = 0 + 0.1 · 10 = 1; after 300 ms: 1 + 9 / e, for what lasts longer 1 + 9 / e^0.1
        let cases = [
            (1200.0, Some([10.0, 10_000.0, 10.0, 1000.0])),
            (1500.0, Some([4.31, 4310.91, 9.14, 431.09])),
            (3200.0, Some([1.01, 1011.45, 5.62, 101.15])),
            (3200.1, None),
        ];
        for (at_ms, expected) in cases {
            assert_eq!(estimate(&book, at_ms), expected, "at {at_ms}");
        }
        assert_eq!(book.age_ms(Time::from_ms(9200.0)), Some(8000.0));
        assert_eq!(book.mean().map(|mean| mean.pending), Some(1.0), "what it had at other times");
        hear(&mut book, 9200.0, busy(2.0));
        assert_eq!(estimate(&book, 9200.0), Some([2.0, 2000.0, 2.0, 200.0]), "it is heard again");
    }

    #[test]
    fn another_start_and_a_lost_cache_clear_what_was_believed() {
        let mut book = PeerBook::default();
        let held = DigestPart { held: vec![7], ..DigestPart::default() };
        assert!(!book.greet(1), "the first word");
        hear(&mut book, 0.0, busy(3.0));
        book.learn(&held);
        assert!(!book.greet(1), "the same again, on a new connection");
        assert_eq!((book.digest.blocks(), estimate(&book, 10.0).is_some()), (4, true));
        assert!(!hear(&mut book, 200.0, busy(3.0)));
        assert!(hear(&mut book, 400.0, Report { cache_generation: 1, ..busy(3.0) }));
        assert_eq!(book.digest.blocks(), 0);
        book.learn(&held);
        assert!(book.greet(2), "another start");
        assert_eq!((book.digest.blocks(), book.report(), book.draining()), (0, None, false));
        // Its clock begins anew, too.
        hear(&mut book, 5.0, busy(1.0));
        assert_eq!(book.age_ms(Time::from_ms(15.0)), Some(10.0));
    }

    #[test]
    fn figures_that_make_no_sense_count_as_nothing() {
        let mut book = PeerBook::default();
        let others = Totals { pending: f64::NAN, decoding: -3.0, prompt_tokens: f64::INFINITY, ..Totals::NONE };
        hear(&mut book, 0.0, Report { others, ..Report::default() });
        assert_eq!(book.others(Time::from_ms(10.0)), Some(Totals::NONE));
    }

    proptest! {
        /// Between the smallest and the largest that was ever told, at any age.
        #[test]
        fn estimates_stay_within_what_was_told(told in prop::collection::vec(0.0..1e6_f64, 1..20), age in 0.0..3000.0_f64) {
            let mut book = PeerBook::default();
            for (i, requests) in told.iter().enumerate() {
                hear(&mut book, i as f64 * 200.0, busy(*requests));
            }
            let (least, most) = told.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), &x| (a.min(x), b.max(x)));
            if let Some(others) = book.others(Time::from_ms((told.len() - 1) as f64 * 200.0 + age)) {
                for figure in [others.pending, others.decoding] {
                    prop_assert!((least - 1e-6..=most + 1e-6).contains(&figure), "{figure}");
                }
            }
        }
    }
}
