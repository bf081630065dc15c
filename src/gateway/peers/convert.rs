//! Between what routing says and what travels: floats with their units here, whole numbers with theirs there.

use crate::routing::index::DigestPart;
use crate::routing::peer::{Report, Speed, Totals};
use crate::wire::peer::{Digest, Figure, Figures};

const US_PER_MS: f64 = 1e3;
const NS_PER_MS: f64 = 1e6;
const PPM: f64 = 1e6;

/// A report as figures.
#[must_use]
pub(super) fn figures(report: &Report) -> Figures {
    let mut figures = Figures::default();
    let whole = |value: f64| Some(value.round() as u64);
    let others = &report.others;
    for (figure, value) in [
        (Figure::Serving, Some(u64::from(report.serving))),
        (Figure::Draining, Some(u64::from(report.draining))),
        (Figure::Running, whole(report.running)),
        (Figure::Queued, whole(report.queued)),
        (Figure::Pending, whole(others.pending)),
        (Figure::Decoding, whole(others.decoding)),
        (Figure::UncachedTokens, whole(others.uncached_tokens)),
        (Figure::Unanswered, whole(others.unanswered)),
        (Figure::UnansweredTokens, whole(others.unanswered_tokens)),
        (Figure::PromptTokens, whole(others.prompt_tokens)),
        (Figure::HeldTokens, whole(others.held_tokens)),
        (Figure::PendingUs, report.pending_ms.and_then(|ms| whole(ms * US_PER_MS))),
        (Figure::KvUsagePpm, report.kv_usage.and_then(|share| whole(share * PPM))),
        (Figure::KvUsedTokens, report.kv_used_tokens.and_then(whole)),
        (Figure::KvTokens, report.kv_tokens.and_then(whole)),
        (Figure::CacheGeneration, Some(report.cache_generation)),
        (Figure::ServiceUs, report.speed.and_then(|speed| whole(speed.service_ms * US_PER_MS))),
        (Figure::PrefillNsPerToken, report.speed.and_then(|speed| whole(speed.ms_per_token * NS_PER_MS))),
    ] {
        figures.set(figure, value);
    }
    figures
}

/// Figures as a report. What was not told of others' requests counts as nothing.
#[must_use]
pub(super) fn report(figures: &Figures) -> Report {
    let known = |figure| figures.get(figure).map(|value| value as f64);
    let count = |figure| known(figure).unwrap_or(0.0);
    let speed = known(Figure::ServiceUs).zip(known(Figure::PrefillNsPerToken));
    Report {
        serving: figures.get(Figure::Serving) == Some(1),
        draining: figures.get(Figure::Draining) == Some(1),
        running: count(Figure::Running),
        queued: count(Figure::Queued),
        others: Totals {
            pending: count(Figure::Pending),
            uncached_tokens: count(Figure::UncachedTokens),
            unanswered: count(Figure::Unanswered),
            unanswered_tokens: count(Figure::UnansweredTokens),
            decoding: count(Figure::Decoding),
            prompt_tokens: count(Figure::PromptTokens),
            held_tokens: count(Figure::HeldTokens),
        },
        pending_ms: known(Figure::PendingUs).map(|us| us / US_PER_MS),
        kv_usage: known(Figure::KvUsagePpm).map(|ppm| ppm / PPM),
        kv_used_tokens: known(Figure::KvUsedTokens),
        kv_tokens: known(Figure::KvTokens),
        cache_generation: figures.get(Figure::CacheGeneration).unwrap_or(0),
        speed: speed.map(|(us, ns)| Speed { service_ms: us / US_PER_MS, ms_per_token: ns / NS_PER_MS }),
    }
}

/// News of a cache as they travel.
#[must_use]
pub(super) fn digest(part: DigestPart) -> Digest {
    Digest { begins: part.begins, ends: part.ends, held: part.held, gone: part.gone }
}

/// The same as they came.
#[must_use]
pub(super) fn digest_part(digest: Digest) -> DigestPart {
    DigestPart { begins: digest.begins, ends: digest.ends, held: digest.held, gone: digest.gone }
}

#[cfg(test)]
mod tests {
    use super::{Report, Speed, Totals, figures, report};

    #[test]
    fn a_report_arrives_as_it_was_made() {
        let others = Totals {
            pending: 1.0,
            uncached_tokens: 2.0,
            unanswered: 3.0,
            unanswered_tokens: 4.0,
            decoding: 5.0,
            prompt_tokens: 6.0,
            held_tokens: 7.0,
        };
        let full = Report {
            serving: true,
            draining: true,
            running: 8.0,
            queued: 9.0,
            others,
            pending_ms: Some(10.5),
            kv_usage: Some(0.25),
            kv_used_tokens: Some(11.0),
            kv_tokens: Some(12.0),
            cache_generation: 13,
            speed: Some(Speed { service_ms: 14.5, ms_per_token: 0.094 }),
        };
        for sent in [full, Report::default()] {
            assert_eq!(report(&figures(&sent)), sent);
        }
    }
}
