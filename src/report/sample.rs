//! What is known of one request after it ended: the raw material of every figure.

use std::sync::Arc;

use crate::model::Time;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Complete reply.
    Ok,
    /// Any error but a refusal; the kind is short and stable, such as `connect`, `500 internal_error`, `cut stream`.
    Failed(Arc<str>),
    /// 429 or 503; the kind as above, such as `503 none_healthy`.
    Refused(Arc<str>),
    /// The client gave up.
    Cancelled,
}

/// One request as its client saw it. Times count from the start of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// It counts: its session started inside the window, or in a closed loop it was itself sent there.
    pub measured: bool,
    /// When the plan wanted it sent.
    pub intended: Time,
    /// When it was sent: just before the request was handed to the connection.
    pub sent: Time,
    /// First event with content; `None` if none came.
    pub first: Option<Time>,
    /// Last event with content.
    pub last: Option<Time>,
    /// End of the reply, or the moment of failure.
    pub end: Time,
    /// Gaps between content events, ms.
    pub gaps_ms: Vec<f32>,
    /// Prompt length as the engine counted it, else as the plan wanted it, tokens.
    pub prompt_tokens: u32,
    /// Of these cached, as the engine reported; `None` if it did not.
    pub cached_tokens: Option<u32>,
    /// Output length as the engine counted it, else the number of content events.
    pub output_tokens: u32,
    /// Replica that served, if the router says.
    pub replica: Option<Arc<str>>,
    /// Its region, if the router says.
    pub region: Option<Arc<str>>,
    /// Region of the router that took the request, where that differs between samples; else [`super::Rules::home`] tells.
    pub home: Option<Arc<str>>,
    /// Name of the entry that took the request, where there were several to choose from.
    pub entry: Option<Arc<str>>,
    /// It took more than one attempt.
    pub retried: bool,
    /// How it ended.
    pub outcome: Outcome,
}

impl Sample {
    /// A request that was to be sent at `intended` and was sent at `sent`; nothing else is known yet.
    #[must_use]
    pub fn new(measured: bool, intended: Time, sent: Time, prompt_tokens: u32) -> Self {
        Self {
            measured,
            intended,
            sent,
            first: None,
            last: None,
            end: sent,
            gaps_ms: Vec::new(),
            prompt_tokens,
            cached_tokens: None,
            output_tokens: 0,
            replica: None,
            region: None,
            home: None,
            entry: None,
            retried: false,
            outcome: Outcome::Cancelled,
        }
    }

    /// TTFT from the real send time, ms.
    #[must_use]
    pub fn ttft_ms(&self) -> Option<f64> {
        Some(self.first?.since_ms(self.sent))
    }

    /// TTFT from the intended send time, ms.
    #[must_use]
    pub fn ttft_intended_ms(&self) -> Option<f64> {
        Some(self.first?.since_ms(self.intended))
    }

    /// Time to the last content event from the real send time, ms.
    #[must_use]
    pub fn e2e_ms(&self) -> Option<f64> {
        Some(self.last?.since_ms(self.sent))
    }

    /// Time per output token after the first, `(E2E − TTFT) / (output − 1)`, ms; `None` below two tokens.
    #[must_use]
    pub fn tpot_ms(&self) -> Option<f64> {
        let after_first = self.output_tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
        Some(self.last?.since_ms(self.first?) / f64::from(after_first))
    }

    /// True for a complete reply.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;
    use crate::model::Time;

    #[test]
    fn latencies_from_intended_and_real_send_time() {
        let mut sample = Sample::new(true, Time::from_ms(100.0), Time::from_ms(130.0), 10);
        assert_eq!((sample.ttft_ms(), sample.e2e_ms(), sample.tpot_ms()), (None, None, None));
        sample.first = Some(Time::from_ms(230.0));
        sample.last = Some(Time::from_ms(290.0));
        sample.output_tokens = 4;
        assert_eq!(sample.ttft_ms(), Some(100.0));
        assert_eq!(sample.ttft_intended_ms(), Some(130.0));
        assert_eq!(sample.e2e_ms(), Some(160.0));
        assert_eq!(sample.tpot_ms(), Some(20.0));
        sample.output_tokens = 1;
        assert_eq!(sample.tpot_ms(), None);
    }
}
