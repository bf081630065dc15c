//! When something is recorded, and how much of it.

use std::sync::Arc;

use http::StatusCode;

use super::{Refused, Tracer};
use crate::gateway::clock::Clock;
use crate::gateway::journal::Ended;
use crate::gateway::reject::Rejection;
use crate::model::{RequestId, Time};
use crate::wire::OutcomeKind;
use crate::wire::span::{Line, RequestSpan};

const BYTES: u64 = 1 << 20;

fn at(us: u64) -> Time {
    Time::from_micros(us)
}

fn finish(tracer: &Arc<Tracer>, id: u64) {
    if let Some(recording) = tracer.begin(RequestId(id), at(id)) {
        recording.finish(at(id + 1), OutcomeKind::Ok, &Ended::default());
    }
}

fn kept(lines: &[u8]) -> Vec<RequestSpan> {
    let read = |line| match serde_json::from_str(line).unwrap() {
        Line::Request(span) => *span,
        other => panic!("{other:?}"),
    };
    std::str::from_utf8(lines).unwrap().lines().map(read).collect()
}

fn requests(lines: &[u8]) -> Vec<String> {
    kept(lines).into_iter().map(|span| span.request).collect()
}

#[test]
fn only_what_begins_and_ends_within_a_run_is_kept() {
    let tracer = Arc::new(Tracer::default());
    assert!(tracer.begin(RequestId(1), at(1)).is_none());
    assert!(matches!(tracer.stop(at(1)), Err(Refused::NeverRan)));

    let over = tracer.start(at(10), BYTES).unwrap();
    assert_eq!(tracer.start(at(11), BYTES).unwrap_err(), Refused::Runs(at(10)));
    finish(&tracer, 2);
    let early = tracer.begin(RequestId(3), at(3)).unwrap();
    drop(tracer.begin(RequestId(4), at(4)).unwrap());
    assert!(!over.is_cancelled());
    let stopped = tracer.stop(at(20)).unwrap();
    assert!(over.is_cancelled());
    assert_eq!((stopped.started, stopped.stopped, stopped.unfinished, stopped.dropped), (at(10), at(20), 1, 0));
    assert_eq!(requests(&stopped.text), ["0000000000000002"]);

    early.finish(at(30), OutcomeKind::Ok, &Ended::default());
    finish(&tracer, 5);
    let again = tracer.stop(at(40)).unwrap();
    assert_eq!((again.stopped, again.unfinished), (at(20), 1), "the same until the next start");
    assert_eq!(again.text, stopped.text);

    let stray = {
        tracer.start(at(50), BYTES).unwrap();
        let stray = tracer.begin(RequestId(6), at(51)).unwrap();
        tracer.stop(at(52)).unwrap();
        stray
    };
    tracer.start(at(60), BYTES).unwrap();
    stray.finish(at(61), OutcomeKind::Ok, &Ended::default());
    let last = tracer.stop(at(70)).unwrap();
    assert_eq!((requests(&last.text).len(), last.unfinished), (0, 0), "of an earlier run");
}

#[test]
fn the_buffer_has_bounds_and_what_does_not_fit_is_counted() {
    let tracer = Arc::new(Tracer::default());
    for bytes in [0, 4095, (48 << 20) + 1, u64::MAX] {
        assert_eq!(tracer.start(at(0), bytes).unwrap_err(), Refused::Bytes, "{bytes}");
    }
    tracer.start(at(0), 4096).unwrap();
    for id in 0..100 {
        finish(&tracer, id);
    }
    let stopped = tracer.stop(at(200)).unwrap();
    let requests = requests(&stopped.text);
    assert!(stopped.text.len() <= 4096);
    assert_eq!(requests.len() as u64 + stopped.dropped, 100);
    assert_eq!(requests.last().unwrap(), "0000000000000063", "the newest stay");
}

#[test]
fn an_early_refusal_is_a_span_of_its_own() {
    let tracer = Arc::new(Tracer::default());
    let rejection = Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "too large");
    let clock = Clock::start();
    tracer.refused(RequestId(1), at(0), clock, &rejection);
    tracer.start(at(0), BYTES).unwrap();
    tracer.refused(RequestId(2), at(0), clock, &rejection);
    let spans = kept(&tracer.stop(at(9)).unwrap().text);
    let told: Vec<_> =
        spans.iter().map(|span| (&*span.request, span.outcome, span.status, span.refusal.as_deref())).collect();
    assert_eq!(told, [("0000000000000002", OutcomeKind::Refused, Some(413), Some("body_too_large"))]);
}
