//! Requests at a steady pace through several agents, whatever becomes of the ones before; each has a client of its own, which notes when
//! it got its first token, from whom, and how it ended.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::load::MODEL;

/// Port of agents.
const AGENT: u16 = 8000;

/// Longest silence of an agent: a stream that was cut may go on once TCP tries again, up to twice the length of the cut after it began.
const SILENCE: Duration = Duration::from_secs(90);

/// Words of a prompt, of about a token each.
const WORDS: usize = 400;

/// Tokens of an answer.
const TOKENS: usize = 16;

/// What the client of one request has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Since the traffic began.
    pub(crate) sent: Duration,
    /// From sending to the first event, if one came.
    pub(crate) ttft: Option<Duration>,
    /// Who served it, as the agent says.
    pub(crate) replica: Option<String>,
    pub(crate) end: End,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the whole answer.
    Done,
    /// After a part of it.
    Broken(String),
    /// Without a byte of it.
    Lost(String),
}

/// Requests that go out one after the other until they are told to stop.
pub(crate) struct Traffic {
    begun: Instant,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<JoinHandle<Seen>>>,
}

#[expect(clippy::disallowed_methods, reason = "what clients of real hosts see is wall time")]
fn now() -> Instant {
    Instant::now()
}

impl Traffic {
    /// So many a second, dealt out to the agents.
    pub(crate) fn start(addresses: &[&str], per_second: f64) -> Self {
        let addresses: Vec<String> = addresses.iter().map(|&address| address.to_owned()).collect();
        let (begun, stop) = (now(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut clients = Vec::new();
            for number in 0_usize.. {
                let due = Duration::from_secs_f64(number as f64 / per_second);
                thread::sleep(due.saturating_sub(begun.elapsed()));
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let address = addresses[number % addresses.len()].clone();
                clients.push(thread::spawn(move || ask(&address, number, begun)));
            }
            clients
        });
        Self { begun, stop, sender }
    }

    /// Since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Sends nothing more, and waits for what is under way.
    pub(crate) fn end(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.sender.join().expect("no panic");
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    }
}

/// One request.
fn ask(address: &str, number: usize, begun: Instant) -> Seen {
    let sent = begun.elapsed();
    let mut answer = String::new();
    let mut first = None;
    let ended = exchange(address, number, &mut answer, || {
        first.get_or_insert_with(|| begun.elapsed());
    });
    let replica = answer.lines().find_map(|line| line.strip_prefix("x-gorgo-replica: ")).map(str::to_owned);
    let whole = answer.starts_with("HTTP/1.1 200") && answer.contains("data: [DONE]");
    let end = match (whole, first) {
        (true, _) => End::Done,
        (false, Some(_)) => End::Broken(format!("{address}: {ended:?}: {answer:?}")),
        (false, None) => End::Lost(format!("{address}: {ended:?}: {answer:?}")),
    };
    Seen { sent, ttft: first.map(|at| at.saturating_sub(sent)), replica, end }
}

/// Sends a request and reads its answer to the end; `event` is called whenever there is an event among what has come.
fn exchange(address: &str, number: usize, answer: &mut String, mut event: impl FnMut()) -> io::Result<()> {
    let prompt = format!("request {number} {}", "word ".repeat(WORDS));
    let body =
        format!(r#"{{"model":"{MODEL}","prompt":"{prompt}","max_tokens":{TOKENS},"ignore_eos":true,"stream":true}}"#);
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: gorgo\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect((address, AGENT))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.write_all((head + &body).as_bytes())?;
    let mut piece = [0; 16 * 1024];
    loop {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        answer.push_str(&String::from_utf8_lossy(&piece[..read]));
        if answer.starts_with("HTTP/1.1 200") && answer.contains("data: ") {
            event();
        }
    }
}

/// What became of all of them: how many there were, and what those tell that were lost without a byte, and those that broke later.
pub(crate) fn toll(all: &[Seen]) -> (usize, Vec<&str>, Vec<&str>) {
    let (mut lost, mut broken) = (Vec::new(), Vec::new());
    for seen in all {
        match &seen.end {
            End::Done => {}
            End::Lost(why) => lost.push(why.as_str()),
            End::Broken(why) => broken.push(why.as_str()),
        }
    }
    (all.len(), lost, broken)
}

/// Time to first token of those sent from `from` to `to`: the 95th percentile of so many, ms.
pub(crate) fn p95_ms(all: &[Seen], from: Duration, to: Duration) -> (f64, usize) {
    let sent = all.iter().filter(|seen| (from..to).contains(&seen.sent));
    let mut ttft: Vec<f64> = sent.filter_map(|seen| seen.ttft).map(|ttft| ttft.as_secs_f64() * 1000.0).collect();
    ttft.sort_by(f64::total_cmp);
    let rank = (ttft.len() * 95).div_ceil(100);
    (rank.checked_sub(1).map_or(f64::NAN, |index| ttft[index]), ttft.len())
}
