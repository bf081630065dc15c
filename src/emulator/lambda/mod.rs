//! A stand-in for Lambda's API: the same calls, errors and life of machines, without a bill and with faults on demand.
//!
//! `world` is the account, a pure core: a request and the time go in, an answer comes out. `server` carries it over HTTP. Its shapes are
//! those of the vendor's OpenAPI document 1.8.3; where that is silent (429, 5xx, wrong methods) the answers are guesses, and the faults
//! offer several. Times pass on a clock that runs `speed` times as fast as ours, limits of calls included.
//!
//! Limits: machines are addresses and words, nothing boots; key pairs that it "generates" open nothing; the same seed and the same calls
//! at the same times give the same answers.

mod audit;
mod catalogue;
mod fault;
mod firewall;
mod launch;
mod life;
mod limit;
mod machine;
mod refusal;
mod route;
mod rules;
mod server;
mod storage;
#[cfg(test)]
mod tests;
mod world;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::fault::{Fault, list as list_faults};
use self::server::Face;
pub use self::world::LambdaCounts;
use self::world::World;
use super::clock::{Clock, unix_seconds};
use crate::model::Secret;

/// What a stand-in is.
#[derive(Clone, Debug)]
pub struct LambdaOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seed of ids, addresses and durations.
    pub seed: u64,
    /// How many of its seconds pass in one of ours; positive.
    pub speed: f64,
    /// The API key that it accepts; `None` = any.
    pub key: Option<Secret>,
    /// Keeps to one call per second and one launch per 12 s (of its seconds), as the service does.
    pub limits: bool,
    /// Addresses for machines, in order; when all are in use there is no capacity. Empty = made up, from the blocks for documentation.
    pub addresses: Vec<Ipv4Addr>,
    /// What goes wrong. Of two with one name the later counts.
    pub faults: Vec<Fault>,
}

impl LambdaOptions {
    /// A stand-in on a free port of this machine without faults and limits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed,
            speed: 1.0,
            key: None,
            limits: false,
            addresses: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// A running stand-in. Dropping it cuts its connections.
#[derive(Debug)]
pub struct LambdaHandle {
    address: SocketAddr,
    face: Arc<Face>,
    task: JoinHandle<()>,
}

/// Starts a stand-in on the current runtime.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(options: LambdaOptions) -> io::Result<LambdaHandle> {
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let (clock, speed) = (Clock::start(), options.speed);
    let world = Mutex::new(World::new(options, unix_seconds()));
    let face = Arc::new(Face { world, clock, speed });
    let task = tokio::spawn(server::serve(listener, Arc::clone(&face)));
    Ok(LambdaHandle { address, face, task })
}

impl LambdaHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked and what it did.
    #[must_use]
    pub fn counts(&self) -> LambdaCounts {
        self.face.world.lock().unwrap_or_else(PoisonError::into_inner).counts()
    }

    /// From now on these faults and no others; machines that there are keep the dates of their lives.
    pub fn suffer(&self, faults: Vec<Fault>) {
        self.face.world.lock().unwrap_or_else(PoisonError::into_inner).suffer(faults);
    }

    /// All machines that are not gone, as `GET /emulator/machines` shows them.
    #[must_use]
    pub fn machines(&self) -> Value {
        self.face.machines()
    }
}

impl Drop for LambdaHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
