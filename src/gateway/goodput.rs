//! Which requests were within the objectives of their class, for the metric that counts them.
//!
//! Only streams are judged, since nobody sees the first token of an answer that comes whole; of the others refusals and failures count.
//! What its client left is not judged.

use std::sync::Arc;

use super::journal::Ended;
use crate::routing::Slo;
use crate::wire::OutcomeKind;

/// How requests without a class are called.
pub(super) const NO_CLASS: &str = "none";

/// What became of a request that had an objective.
#[must_use]
pub(super) fn result(slo: &Slo, class: Option<&Arc<str>>, kind: OutcomeKind, ended: &Ended) -> Option<&'static str> {
    let of = match class {
        None => Some(&slo.default),
        Some(name) => slo.classes.get(&**name),
    };
    let ttft_limit = of?.ttft_ms;
    if ttft_limit.is_none() && slo.itl_ms.is_none() {
        return None;
    }
    match kind {
        OutcomeKind::Refused => Some("refused"),
        OutcomeKind::Failed => Some("failed"),
        OutcomeKind::Cancelled => None,
        OutcomeKind::Ok => {
            let ttft_ms = ended.ttft_ms?;
            let in_time = ttft_limit.is_none_or(|limit| ttft_ms <= limit);
            let steady = slo.itl_ms.zip(gap_ms(ended, ttft_ms)).is_none_or(|(limit, gap_ms)| gap_ms <= limit);
            Some(if in_time && steady { "good" } else { "late" })
        }
    }
}

/// Mean gap between the tokens of an answer, ms; unknown where the engine does not tell how many there were, or where there are none.
fn gap_ms(ended: &Ended, ttft_ms: f64) -> Option<f64> {
    let gaps = ended.usage.completion_tokens?.checked_sub(1).filter(|gaps| *gaps > 0)?;
    Some((ended.e2e_ms - ttft_ms) / f64::from(gaps))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::result;
    use crate::gateway::journal::Ended;
    use crate::routing::{Class, Slo, Usage};
    use crate::wire::OutcomeKind;

    #[test]
    fn good_is_what_was_answered_within_all_objectives() {
        let class = |ttft_ms| Class { ttft_ms: Some(ttft_ms), ..Class::default() };
        let slo = Slo {
            default: class(1000.0),
            classes: [("batch".to_owned(), class(60_000.0)), ("any".to_owned(), Class::default())].into(),
            itl_ms: Some(50.0),
        };
        let ended = |ttft_ms: f64, gap_ms: f64| Ended {
            ttft_ms: Some(ttft_ms),
            e2e_ms: ttft_ms + 10.0 * gap_ms,
            usage: Usage { completion_tokens: Some(11), ..Usage::default() },
            ..Ended::default()
        };
        let (batch, any): (Arc<str>, Arc<str>) = ("batch".into(), "any".into());
        let unknown_gaps = Ended { usage: Usage::default(), ..ended(900.0, 900.0) };
        let cases = [
            (None, OutcomeKind::Ok, ended(1000.0, 50.0), Some("good")),
            (None, OutcomeKind::Ok, ended(1000.5, 50.0), Some("late")),
            (None, OutcomeKind::Ok, ended(900.0, 50.5), Some("late")),
            (None, OutcomeKind::Ok, unknown_gaps, Some("good")),
            (None, OutcomeKind::Ok, Ended { ttft_ms: None, ..ended(900.0, 9.0) }, None),
            (Some(&batch), OutcomeKind::Ok, ended(50_000.0, 9.0), Some("good")),
            (Some(&any), OutcomeKind::Ok, ended(50_000.0, 51.0), Some("late")),
            (Some(&batch), OutcomeKind::Refused, Ended::default(), Some("refused")),
            (None, OutcomeKind::Failed, ended(900.0, 9.0), Some("failed")),
            (None, OutcomeKind::Cancelled, ended(900.0, 9.0), None),
        ];
        for (class, kind, ended, expected) in cases {
            assert_eq!(result(&slo, class, kind, &ended), expected, "{class:?} {kind:?} {ended:?}");
        }
        assert_eq!(
            result(&Slo::default(), None, OutcomeKind::Refused, &Ended::default()),
            None,
            "nothing was promised"
        );
    }
}
