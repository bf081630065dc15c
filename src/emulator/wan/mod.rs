//! A TCP relay that makes two ends on one machine as far apart as two regions.
//!
//! Each direction of each connection has a [`Path`] of its own; connections are numbered in the order in which they come and
//! seeded by their number. Set-up costs one round trip. Ends of streams, resets and refused connections travel with the same
//! delay. Buffering is bounded ([`WINDOW_BYTES`]): who does not read holds the sender up, as TCP's receive window does.
//!
//! Precision: the runtime's timers fire on whole milliseconds, never early, so each direction takes 0 to 1 ms longer than
//! asked (0.5 ms on average), plus what a loaded machine adds.

mod relay;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::relay::WINDOW_BYTES;
use self::relay::{Connection, Line, Link};
use super::clock::Clock;
use super::lateness::Lateness;
pub use crate::sim::path::Path;
pub use crate::workload::fleet::Jitter;

/// Pause after a failed accept (out of file descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a relay is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WanOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where it relays to.
    pub to: SocketAddr,
    /// Round-trip time that it adds, ms.
    pub rtt_ms: f64,
    /// How that varies: not at all, by a few per cent, or also by rare spikes of 50 to 400 ms.
    pub jitter: Jitter,
    /// Seed of all variation.
    pub seed: u64,
}

/// A running relay. Dropping it cuts its connections.
#[derive(Debug)]
pub struct WanHandle {
    address: SocketAddr,
    link: watch::Sender<Link>,
    lateness: Arc<Lateness>,
    task: JoinHandle<()>,
}

/// Starts a relay on the current runtime.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(options: WanOptions) -> io::Result<WanHandle> {
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let (link, links) = watch::channel(Link::default());
    let lateness = Arc::<Lateness>::default();
    let line = Line { options, clock: Clock::start(), links, lateness: Arc::clone(&lateness) };
    let task = tokio::spawn(serve(listener, line));
    Ok(WanHandle { address, link, lateness, task })
}

impl WanHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How late bytes left the relay, ms after the time that the delay model asked for; the last 65,536 chunks. Counts what a reader
    /// did not take in time, and what a cut line held up, as well.
    #[must_use]
    pub fn timing_error_ms(&self) -> Vec<f64> {
        self.lateness.samples_ms()
    }

    /// Cuts the line: nothing gets through any more, nobody is told. Connections can still be made, and wait.
    pub fn cut(&self) {
        self.link.send_modify(|link| link.up = false);
    }

    /// Mends the line: what was held gets through.
    pub fn restore(&self) {
        self.link.send_modify(|link| link.up = true);
    }

    /// Resets all connections that stand now, as a router that loses its state does.
    pub fn reset_connections(&self) {
        self.link.send_modify(|link| link.resets += 1);
    }

    /// Stops accepting and cuts all connections.
    pub async fn shutdown(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for WanHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, line: Line) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(relay_one(client, line.clone(), number));
                    number += 1;
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn relay_one(client: TcpStream, line: Line, number: u64) {
    Connection::new(line, number).run(client).await;
}
