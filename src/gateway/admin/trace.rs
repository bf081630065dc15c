//! `trace/start` and `trace/stop`: spans of requests, collected in memory while somebody wants them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::{Admin, Answer, bad_request};
use crate::gateway::reject::Rejection;
use crate::gateway::trace::{DEFAULT_BYTES, Refused, Stopped, sample};
use crate::model::Time;
use crate::wire::span::{Line, NodeTrace, PeerClock, SCHEMA, StartTrace, TraceStarted};

/// JSON lines.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

impl Admin {
    pub(super) fn start_trace(&self, change: StartTrace) -> Result<TraceStarted, Rejection> {
        let shared = &self.shared;
        let now = shared.brain.clock().now();
        let buffer_bytes = change.buffer_bytes.unwrap_or(DEFAULT_BYTES);
        let over = shared.tracer.start(now, buffer_bytes).map_err(|refused| self.refused(&refused))?;
        tokio::spawn(sample(shared.tracer.clone(), shared.brain.clone(), over, shared.stopped.clone()));
        tracing::info!(buffer_bytes, "tracing started");
        Ok(TraceStarted { node: self.name(), started_us: now.micros(), buffer_bytes })
    }

    pub(super) fn stop_trace(&self) -> Answer {
        let now = self.shared.brain.clock().now();
        let stopped = self.shared.tracer.stop(now).map_err(|refused| self.refused(&refused))?;
        let (dropped, unfinished) = (stopped.dropped, stopped.unfinished);
        tracing::info!(lines = stopped.lines, dropped, unfinished, "tracing stopped");
        let head = Line::Node(self.about(&stopped));
        let mut text = serde_json::to_vec(&head).expect("names and finite numbers");
        text.push(b'\n');
        text.extend_from_slice(&stopped.text);
        let mut response = Response::new(Bytes::from(text));
        response.headers_mut().insert(CONTENT_TYPE, LINES);
        Ok(response)
    }

    fn about(&self, stopped: &Stopped) -> NodeTrace {
        let shared = &self.shared;
        let replicas: Vec<_> = shared.brain.lock().replicas.values().cloned().collect();
        let clock = |replica: &std::sync::Arc<crate::gateway::replica::Replica>| {
            let (low_us, high_us) = replica.figures().clocks.best()?;
            Some(PeerClock { name: replica.name.to_string(), low_us, high_us })
        };
        NodeTrace {
            schema: SCHEMA.to_owned(),
            node: self.name(),
            region: shared.agent.as_ref().map(|agent| agent.config().region.to_string()),
            started_us: stopped.started.micros(),
            stopped_us: stopped.stopped.micros(),
            // As late as can be: whoever asked takes it for a moment between asking and being answered.
            now_us: shared.brain.clock().now().micros(),
            buffer_bytes: stopped.buffer_bytes,
            dropped: stopped.dropped,
            lines: stopped.lines,
            unfinished: stopped.unfinished,
            peers: replicas.iter().filter_map(clock).collect(),
        }
    }

    /// Of an agent its node's name.
    fn name(&self) -> String {
        self.shared.agent.as_ref().map_or_else(|| "proxy".to_owned(), |agent| agent.config().name.clone())
    }

    fn refused(&self, refused: &Refused) -> Rejection {
        let conflict = |code, message: String| Rejection::new(StatusCode::CONFLICT, code, message);
        match refused {
            Refused::Runs(since) => {
                let seconds = age_s(self.shared.brain.clock().now(), *since);
                let message = format!("a trace runs here since {seconds:.0} s; stop it first, which hands it out");
                conflict("already_tracing", message)
            }
            Refused::NeverRan => {
                conflict("not_tracing", "no trace runs here, and none is kept; start one first".to_owned())
            }
            Refused::Bytes => bad_request("`buffer_bytes` must be from 4096 to 50331648 (48 MiB)".to_owned()),
        }
    }
}

fn age_s(now: Time, since: Time) -> f64 {
    now.since_ms(since).max(0.0) / 1000.0
}
