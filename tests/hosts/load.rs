//! Clients of the agents: one completion, or many streams at once for as long as a test wants.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);

/// The model that the emulated engines serve.
pub(crate) const MODEL: &str = "mistral-7b";

/// Where agents listen.
const AGENT: u16 = 8000;

/// The whole answer of an agent to one completion over a connection of its own, or why there is none.
pub(crate) fn complete(address: &str, prompt: &str, tokens: usize, stream: bool) -> Result<String, String> {
    complete_at(address, AGENT, prompt, tokens, stream)
}

/// The same at any port.
pub(crate) fn complete_at(
    address: &str,
    port: u16,
    prompt: &str,
    tokens: usize,
    stream: bool,
) -> Result<String, String> {
    let body = format!(
        r#"{{"model":"{MODEL}","prompt":"{prompt}","max_tokens":{tokens},"ignore_eos":true,"stream":{stream}}}"#
    );
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: gorgo\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut answer = String::new();
    let exchange = || {
        let mut socket = TcpStream::connect((address, port))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.write_all((head + &body).as_bytes())?;
        socket.read_to_string(&mut answer)
    };
    let ended = exchange();
    let whole = if stream { "data: [DONE]" } else { r#""usage""# };
    match ended {
        Ok(_) if answer.starts_with("HTTP/1.1 200") && answer.contains(whole) && answer.contains(r#""length""#) => {
            Ok(answer)
        }
        ended => Err(format!("{address}: {ended:?}: {answer:?}")),
    }
}

/// Streams that go on side by side, each place with one after another.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    finished: Arc<AtomicUsize>,
    places: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// That many at once, dealt out to the addresses.
    pub(crate) fn start(addresses: &[&str], at_once: usize) -> Self {
        let (stop, finished) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let place = |number: usize| {
            let (stop, finished) = (Arc::clone(&stop), Arc::clone(&finished));
            let address = addresses[number % addresses.len()].to_owned();
            thread::spawn(move || {
                for turn in 0.. {
                    // from a fraction of a second to several
                    let tokens = 20 + 40 * ((number + turn) % 8);
                    complete(&address, &format!("place {number} turn {turn}"), tokens, true)?;
                    finished.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Ok(())
            })
        };
        let places = (0..at_once).map(place).collect();
        Self { stop, finished, places }
    }

    /// Streams that have ended well so far.
    pub(crate) fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }

    /// Lets every place finish its stream; how many there were, or the first of those that were lost.
    pub(crate) fn end(self) -> Result<usize, String> {
        self.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = self.places.into_iter().map(|place| place.join().expect("no panic")).collect();
        ended.into_iter().collect::<Result<Vec<()>, String>>()?;
        Ok(self.finished.load(Ordering::Relaxed))
    }
}
