//! Samples of a replica's speed from the first tokens that come back, by the gaps between them.
//!
//! While an engine has work, the time from one first token to the next is what the next prompt took, wherever it waited before:
//!
//! ```text
//! y = first token − max(arrival, first token before)        x = uncached tokens
//! ```
//!
//! What came to an idle engine is under way for longer the longer it is, so there y runs from when its first bytes arrived and the ramp of
//! its way is part of the sample.
//!
//! First tokens within 6 ms of each other come from one engine step and make one sample. y and who belongs to a sample stand as soon as the next one
//! begins; x waits for the engine's own count of cached tokens, which comes with the end of the answer, and for no longer than
//! [`PATIENCE`] further samples: then the prediction has to do. Samples are learned from in the order in which they closed.

use std::collections::VecDeque;

use super::line::Line;
use crate::model::RequestId;

/// First tokens this close, ms, end one step.
const ONE_STEP_MS: f64 = 6.0;

/// Closed samples that wait for their counts. With answers much longer than the gaps between them, nothing would be learned for the first half
/// minute if the first had to be complete.
const PATIENCE: usize = 16;

/// One prompt of a sample.
#[derive(Clone, Copy, Debug)]
struct Part {
    request: RequestId,
    /// As predicted until it is known.
    uncached_tokens: f64,
    settled: bool,
}

/// One engine step as far as it showed.
#[derive(Clone, Debug)]
struct Sample {
    ms: f64,
    /// Of its way, ms; 0 while the engine was busy.
    ramp_ms: f64,
    parts: Vec<Part>,
}

impl Sample {
    fn is_settled(&self) -> bool {
        self.parts.iter().all(|part| part.settled)
    }

    fn uncached_tokens(&self) -> f64 {
        self.parts.iter().map(|part| part.uncached_tokens).sum()
    }
}

/// A first token on its engine's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) request: RequestId,
    /// When its request began to come to the engine, ms.
    pub(super) arrival_ms: f64,
    /// The ramp of its way, ms.
    pub(super) ramp_ms: f64,
    /// When it left, ms.
    pub(super) token_ms: f64,
    /// Uncached tokens of its prompt, as predicted.
    pub(super) uncached_tokens: f64,
}

/// The busy periods of one replica.
#[derive(Clone, Debug)]
pub(super) struct Busy {
    last_token_ms: f64,
    open: Option<Sample>,
    closed: VecDeque<Sample>,
}

impl Default for Busy {
    fn default() -> Self {
        Self { last_token_ms: f64::NEG_INFINITY, open: None, closed: VecDeque::new() }
    }
}

impl Busy {
    /// Engine time of the latest first token, ms; −∞ before the first.
    pub(super) fn last_token_ms(&self) -> f64 {
        self.last_token_ms
    }

    /// A first token came.
    pub(super) fn show(&mut self, shown: Shown, line: &mut Line) {
        let part = Part { request: shown.request, uncached_tokens: shown.uncached_tokens, settled: false };
        let whole_ms = shown.arrival_ms + line.ramp() * shown.ramp_ms;
        let busy = whole_ms < self.last_token_ms;
        let same = shown.token_ms - self.last_token_ms < ONE_STEP_MS && busy;
        match &mut self.open {
            Some(open) if same => open.parts.push(part),
            open => {
                let (from_ms, ramp_ms) =
                    if busy { (self.last_token_ms, 0.0) } else { (shown.arrival_ms, shown.ramp_ms) };
                let sample = Sample { ms: shown.token_ms - from_ms, ramp_ms, parts: vec![part] };
                let closed = open.replace(sample);
                self.closed.extend(closed.filter(|closed| closed.ms > 0.0));
            }
        }
        self.last_token_ms = self.last_token_ms.max(shown.token_ms);
        self.feed(line);
    }

    /// A request ended, with the engine's count of what it computed if that is known.
    pub(super) fn settle(&mut self, request: RequestId, uncached_tokens: Option<f64>, line: &mut Line) {
        let samples = self.closed.iter_mut().chain(&mut self.open);
        for part in samples.flat_map(|sample| &mut sample.parts).filter(|part| part.request == request) {
            part.settled = true;
            part.uncached_tokens = uncached_tokens.unwrap_or(part.uncached_tokens);
        }
        self.feed(line);
    }

    /// The replica was lost: what it does from now on has nothing to do with what it did.
    pub(super) fn lose(&mut self, now_ms: f64) {
        self.open = None;
        self.last_token_ms = self.last_token_ms.max(now_ms);
    }

    /// Nothing may be learned from what showed just now.
    pub(super) fn skip(&mut self, token_ms: f64) {
        self.open = None;
        self.last_token_ms = self.last_token_ms.max(token_ms);
    }

    fn feed(&mut self, line: &mut Line) {
        while self.closed.len() > PATIENCE || self.closed.front().is_some_and(Sample::is_settled) {
            let Some(sample) = self.closed.pop_front() else { break };
            line.learn(sample.uncached_tokens(), sample.ramp_ms, sample.ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Busy, Line, PATIENCE, Shown};
    use crate::model::RequestId;
    use crate::routing::policy::predictive::line::PRIOR;

    struct Replica {
        busy: Busy,
        line: Line,
    }

    impl Replica {
        fn new() -> Self {
            Self { busy: Busy::default(), line: Line::new(PRIOR) }
        }

        fn show(&mut self, request: u64, arrival_ms: f64, token_ms: f64, uncached_tokens: f64) {
            let request = RequestId(request);
            let shown = Shown { request, arrival_ms, ramp_ms: 0.0, token_ms, uncached_tokens };
            self.busy.show(shown, &mut self.line);
        }

        fn settle(&mut self, request: u64, uncached_tokens: Option<f64>) {
            self.busy.settle(RequestId(request), uncached_tokens, &mut self.line);
        }
    }

    /// The line after these samples.
    fn learned(samples: &[(f64, f64)]) -> String {
        let mut line = Line::new(PRIOR);
        for (x, y) in samples {
            line.learn(*x, 0.0, *y);
        }
        format!("{:?}", line.speed())
    }

    #[test]
    fn gaps_between_first_tokens_are_samples() {
        let mut replica = Replica::new();
        // Alone: from its arrival. Behind another: from that one's first token. After a pause: from its arrival again.
        replica.show(1, 100.0, 430.0, 4000.0);
        replica.show(2, 110.0, 490.0, 500.0);
        replica.show(3, 1000.0, 1680.0, 8000.0);
        replica.show(4, 5000.0, 5001.0, 0.0);
        assert_eq!(replica.busy.last_token_ms(), 5001.0);
        for request in 1..=3 {
            replica.settle(request, None);
        }
        let speed = format!("{:?}", replica.line.speed());
        assert_eq!(speed, learned(&[(4000.0, 330.0), (500.0, 60.0), (8000.0, 680.0)]));
    }

    #[test]
    fn on_its_way_is_what_comes_to_an_idle_engine_only() {
        let mut replica = Replica::new();
        let mut show = |request: u64, arrival_ms: f64, token_ms: f64| {
            let shown =
                Shown { request: RequestId(request), arrival_ms, ramp_ms: 300.0, token_ms, uncached_tokens: 1000.0 };
            replica.busy.show(shown, &mut replica.line);
            replica.busy.settle(RequestId(request), None, &mut replica.line);
        };
        show(1, 100.0, 520.0);
        // All of it was there before the first token of the other.
        show(2, 150.0, 640.0);
        // Half of it was under way then.
        show(3, 500.0, 920.0);
        show(4, 9000.0, 9400.0);
        let mut line = Line::new(PRIOR);
        for (r, y) in [(300.0, 420.0), (0.0, 120.0), (300.0, 420.0)] {
            line.learn(1000.0, r, y);
        }
        assert_eq!(format!("{:?}", replica.line.speed()), format!("{:?}", line.speed()));
    }

    #[test]
    fn one_step_is_one_sample_with_what_the_engine_counted() {
        let mut replica = Replica::new();
        replica.show(1, 100.0, 400.0, 1000.0);
        replica.show(2, 110.0, 405.9, 2000.0);
        // It came after the step had begun: a step of its own.
        replica.show(3, 406.5, 409.0, 10.0);
        replica.settle(2, Some(1500.0));
        assert_eq!(format!("{:?}", replica.line.speed()), learned(&[]), "the first has not ended");
        replica.settle(1, None);
        assert_eq!(format!("{:?}", replica.line.speed()), learned(&[(2500.0, 300.0)]));
    }

    #[test]
    fn patience_has_an_end() {
        let mut replica = Replica::new();
        for i in 0..=PATIENCE as u64 {
            replica.show(i, 1000.0 * i as f64, 1000.0 * i as f64 + 100.0, 800.0);
        }
        assert_eq!(format!("{:?}", replica.line.speed()), learned(&[]));
        replica.show(99, 90_000.0, 90_100.0, 800.0);
        assert_eq!(format!("{:?}", replica.line.speed()), learned(&[(800.0, 100.0)]));
        replica.settle(0, Some(7.0));
        assert_eq!(format!("{:?}", replica.line.speed()), learned(&[(800.0, 100.0)]), "too late");
    }

    #[test]
    fn a_loss_ends_the_busy_period() {
        let mut replica = Replica::new();
        replica.show(1, 100.0, 400.0, 1000.0);
        replica.busy.lose(900.0);
        replica.show(2, 300.0, 1000.0, 1000.0);
        replica.show(3, 2000.0, 2100.0, 1000.0);
        replica.settle(1, None);
        replica.settle(2, None);
        assert_eq!(format!("{:?}", replica.line.speed()), learned(&[(1000.0, 100.0)]));
    }
}
