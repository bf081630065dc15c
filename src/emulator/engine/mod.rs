//! An HTTP server with SGLang's face, behind which the simulated engine computes nothing in real time.
//!
//! What is SGLang's: endpoints and their forms (docs/models.md 3), usage with cached tokens, metric names and their
//! staleness, a flush that is refused while busy. What is not: `/health` answers at once (SGLang's takes at least a second),
//! a client that goes away is noticed at once (there after two to four seconds), and cached tokens are reported even if they are 0 (SGLang
//! leaves the field out). Output is seeded nonsense. One token is 4 bytes of the canonical prompt (`inference::prompt`), chat
//! template tokens are not counted.
//!
//! One task (`driver`) owns the engine and sleeps until its next event; each connection's task turns tokens into events of
//! its stream, all that are due in one write. The server measures how late its first tokens leave (`emulator::lateness`).

mod driver;
mod face;
mod pages;
mod reply;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod ticket;
mod tokens;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::driver::Driver;
use self::face::Face;
use self::server::Phase;
use super::clock::Clock;
use crate::model::Region;
use crate::sim::engine::EngineSpec;

/// What an emulated engine is.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The engine behind the face.
    pub spec: EngineSpec,
    /// Name of the model that it serves. Like SGLang it answers to any other name too.
    pub model: String,
    /// Where it pretends to stand; shown on `/server_info`.
    pub region: Region,
    /// Seed of output texts and lengths. The same prompt gets the same output from every engine with this seed.
    pub seed: u64,
}

/// Counts since the engine's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounts {
    /// Prompts accepted.
    pub requests: u64,
    /// Of these ended early because their client went away or asked for it.
    pub aborted: u64,
}

/// A running emulated engine. Dropping it ends the engine at once and cuts its connections.
#[derive(Debug)]
pub struct EngineHandle {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    server: JoinHandle<()>,
    face: Arc<Face>,
}

/// Starts an engine on the current runtime.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(options: EngineOptions) -> io::Result<EngineHandle> {
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let (phase, phases) = watch::channel(Phase::Serving);
    let clock = Clock::start();
    let (driver, commands) = Driver::new(options.spec.clone(), clock);
    let face = Arc::new(Face::new(options, clock, commands, phases.clone()));
    tokio::spawn(driver.run());
    let server = tokio::spawn(server::serve(listener, Arc::clone(&face), phases));
    Ok(EngineHandle { address, phase, server, face })
}

impl EngineHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How late first tokens of streams were handed to their connections, ms after the time that the model asked for; the last
    /// 65,536 of them.
    #[must_use]
    pub fn timing_error_ms(&self) -> Vec<f64> {
        self.face.lateness.samples_ms()
    }

    /// What it has served so far.
    #[must_use]
    pub fn counts(&self) -> EngineCounts {
        self.face.counts()
    }

    /// Stops accepting, lets running requests finish for up to `grace`, then cuts what is left.
    pub async fn shutdown(mut self, grace: Duration) {
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(grace, &mut self.server).await.is_err() {
            self.phase.send_replace(Phase::Killed);
            let _ = (&mut self.server).await;
        }
    }

    /// Dies at once, as a crashed engine does: connections are cut in the middle of what they carry.
    pub async fn kill(mut self) {
        self.phase.send_replace(Phase::Killed);
        let _ = (&mut self.server).await;
    }
}
