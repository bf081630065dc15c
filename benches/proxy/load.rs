//! The load client: raw HTTP/1.1 over kept connections, at a fixed rate or as fast as answers come.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use memchr::memmem;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// Openings that prompts share, where they share any; half of a prompt is its opening.
const OPENINGS: usize = 32;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON document.
    Json,
    /// A stream of events.
    Stream,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    /// Bytes of the prompt.
    pub(super) bytes: usize,
    /// Requests per second; `None` = the next one when an answer is complete.
    pub(super) rate: Option<f64>,
    pub(super) connections: usize,
    /// Requests that count.
    pub(super) requests: usize,
    /// Requests before them.
    pub(super) warm_up: usize,
    /// Number of the first prompt, so that runs have different ones.
    pub(super) first: usize,
    /// Prompts share openings; otherwise they differ from their first byte on.
    pub(super) shared: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Result {
    ttft_s: Vec<f64>,
    seconds: f64,
    /// Largest lateness of a send against its plan, ms.
    pub(super) late_ms: f64,
}

impl Result {
    /// A percentile of the time from just before the request is written to the first byte of the body, ms (nearest rank).
    pub(super) fn ttft_ms(&self, share: f64) -> f64 {
        let rank = ((share * self.ttft_s.len() as f64).ceil() as usize).clamp(1, self.ttft_s.len());
        self.ttft_s[rank - 1] * 1000.0
    }

    /// Both runs as one.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.ttft_s.extend(other.ttft_s);
        self.ttft_s.sort_by(f64::total_cmp);
        Self { ttft_s: self.ttft_s, seconds: self.seconds + other.seconds, late_ms: self.late_ms.max(other.late_ms) }
    }

    /// Requests per second.
    pub(super) fn per_s(&self) -> f64 {
        self.ttft_s.len() as f64 / self.seconds
    }
}

/// What the workers of a run share; they live on one thread.
struct Run {
    target: SocketAddr,
    plan: Plan,
    text: String,
    next: Cell<usize>,
    started: Instant,
    warm: Notify,
    begun: Cell<Option<Instant>>,
    result: RefCell<Result>,
}

/// Runs a plan; `warmed` is called when the last request of the warm-up has been handed out.
pub(super) async fn run(target: SocketAddr, plan: Plan, warmed: impl FnOnce()) -> anyhow::Result<Result> {
    let text = text();
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
    let started = Instant::now();
    let (next, begun) = (Cell::new(0), Cell::new(None));
    let run =
        Rc::new(Run { target, plan, text, next, started, warm: Notify::new(), begun, result: RefCell::default() });
    let local = LocalSet::new();
    let workers: Vec<_> = (0..plan.connections).map(|_| local.spawn_local(worker(run.clone()))).collect();
    local
        .run_until(async {
            run.warm.notified().await;
            warmed();
            for worker in workers {
                worker.await.context("a worker panicked")??;
            }
            anyhow::Ok(())
        })
        .await?;
    let mut result = run.result.take();
    result.ttft_s.sort_by(f64::total_cmp);
    result.seconds = run.begun.get().map_or(f64::NAN, |begun| begun.elapsed().as_secs_f64());
    ensure!(result.ttft_s.len() == plan.requests, "{} of {} requests counted", result.ttft_s.len(), plan.requests);
    Ok(result)
}

async fn worker(run: Rc<Run>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(run.target).await.context("failed to connect")?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        let number = run.next.replace(run.next.get() + 1);
        if number >= run.plan.warm_up + run.plan.requests {
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
        if number == run.plan.warm_up {
            run.begun.set(Some(Instant::now()));
            run.warm.notify_one();
        }
        let request = run.request(number);
        if let Some(rate) = run.plan.rate {
            let due = run.started + Duration::from_secs_f64(0.2 + number as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            let late = due.elapsed().as_secs_f64() * 1000.0;
            let mut result = run.result.borrow_mut();
            result.late_ms = result.late_ms.max(late);
        }
        let ttft = exchange(&mut stream, &request, &mut buffer).await?;
        if number >= run.plan.warm_up {
            run.result.borrow_mut().ttft_s.push(ttft.as_secs_f64());
        }
    }
}

/// Sends a request and reads its whole answer; the time to the first byte of its body.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> anyhow::Result<Duration> {
    buffer.clear();
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
    let sent = Instant::now();
    stream.write_all(request).await?;
    let mut first = None;
    let mut head = None;
    loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection closed: {}", String::from_utf8_lossy(buffer));
        head = head.or_else(|| memmem::find(buffer, b"\r\n\r\n").map(|end| end + 4));
        let Some(body) = head else { continue };
        if buffer.len() > body {
            first.get_or_insert_with(|| sent.elapsed());
        }
        let head = &buffer[..body];
        let complete = match content_length(head) {
            Some(length) => buffer.len() >= body + length,
            None => buffer.ends_with(b"\r\n0\r\n\r\n"),
        };
        if complete {
            ensure!(head.starts_with(b"HTTP/1.1 200"), "not answered: {}", String::from_utf8_lossy(buffer));
            return first.context("an answer without a body");
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let at = memmem::find(head, b"content-length: ")?;
    let digits = head[at + 16..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Run {
    fn request(&self, number: usize) -> Vec<u8> {
        let id = self.plan.first + number;
        let half = self.plan.bytes / 2;
        let opening = if self.plan.shared { (id % OPENINGS) * 97 } else { (id * 7919) % 100_000 };
        let end = (id * 104_729) % 100_000;
        let (unique, system, user) =
            (format!("{id:016}"), &self.text[opening..opening + half], &self.text[end..end + half]);
        let before = if self.plan.shared { "" } else { &unique };
        let stream = self.plan.shape == Shape::Stream;
        let body = format!(
            "{{\"model\":\"mock\",\"stream\":{stream},\"max_tokens\":64,\"temperature\":0,\"messages\":[{{\"role\":\"system\",\"content\":\"{before}{system}\"}},{{\"role\":\"user\",\"content\":\"{unique} {user}\"}}]}}"
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }
}

/// A long text of words of 2 to 8 letters, the same in every run.
fn text() -> String {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut text = String::with_capacity(200 << 10);
    while text.len() < 180 << 10 {
        for _ in 0..random.random_range(2..=8) {
            text.push(char::from(random.random_range(b'a'..=b'z')));
        }
        text.push(' ');
    }
    text
}
