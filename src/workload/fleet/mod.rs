//! Fleet files: which replicas and routers stand where, and what the network between them is like.
//!
//! Reading has two steps, since a fleet file may name a matrix that the caller has to read: [`FleetFile::parse`], then
//! [`FleetFile::resolve`], which lists every problem of the file at once by key path. Which GPUs and models exist is not known
//! here; the caller gives a check.

mod entry;
mod file;
mod keys;

use std::sync::Arc;

use super::network::RttMatrix;
use crate::model::Region;
use crate::model::geo::Atlas;

pub use entry::{Doors, Entry, NoRouter};
pub use file::FleetFile;

/// A checked fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// At least one. One is a central proxy; what several are is their form.
    pub routers: Vec<Router>,
    /// What several routers do.
    pub form: Form,
    /// At least one, names unique; `count = n` has become n of them.
    pub replicas: Vec<Replica>,
    /// Who sends requests: at least one group, shares adding up to 1. Where the file names none they stand beside the routers.
    pub clients: Vec<Clients>,
    /// How clients find their routers.
    pub entry: Entry,
    /// Where regions are on the globe.
    pub places: Arc<Atlas>,
    /// Knows every pair of a router's and a replica's region.
    pub rtt: RttMatrix,
    /// How delays vary.
    pub jitter: Jitter,
}

/// What several routers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `agents`: each reaches the engines of its own region, and the other agents, which have the last word on what they are sent.
    #[default]
    Agents,
    /// `direct`: each sends to every engine itself.
    Direct,
}

/// A router and the clients near it.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// Where it stands; unique among routers.
    pub region: Region,
    /// Its share of the clients, 0 to 1; all shares add up to 1.
    pub share: f64,
}

impl Fleet {
    /// Whether routers have peers that they forward requests to.
    #[must_use]
    pub fn has_agents(&self) -> bool {
        self.routers.len() > 1 && self.form == Form::Agents
    }
}

/// A group of clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// Where they stand.
    pub region: Region,
    /// Their share of the sessions, 0 to 1.
    pub share: f64,
    /// The router that they speak to: the one nearest by [`Fleet::entry`], as an index into [`Fleet::routers`].
    pub router: usize,
}

/// One engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// Unique in the fleet.
    pub name: String,
    /// Where it stands.
    pub region: Region,
    /// What it runs on.
    pub gpu: Gpu,
    /// Id of the model.
    pub model: String,
    /// What the file changes of the preset.
    pub overrides: Overrides,
}

/// A GPU: an id that the caller knows, or constants of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Gpu {
    /// Id of a built-in preset.
    Preset(String),
    /// A `[[gpu]]` of the file.
    Own(Arc<OwnGpu>),
}

/// A `[[gpu]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnGpu {
    /// Its id; stands before a built-in preset of the same id.
    pub name: String,
    /// How fast it is.
    pub speed: Speed,
    /// Price, USD per hour.
    pub usd_per_hour: Option<f64>,
}

/// The constants of a GPU, in one of two forms.
#[derive(Clone, Debug, PartialEq)]
pub enum Speed {
    /// Coefficients of the step time, measured or estimated for this GPU with the replica's model.
    Steps(StepConstants),
    /// Figures of the hardware, from which the step time of any model follows.
    Hardware(Hardware),
}

/// `step = fixed + max(weights, linear · tokens) + quadratic · Σ chunk·(context before + chunk/2) + context · Σ context
/// + decoding · (decoding requests) + request · (requests)`, all in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepConstants {
    /// Overhead per step, ms (`fixed_ms`).
    pub fixed_ms: f64,
    /// Reading the weights, ms (`weights_ms`).
    pub weights_ms: f64,
    /// Linear layers, ms per token (`linear_ms`).
    pub linear_ms: f64,
    /// Attention of prefill, ms per pair of tokens (`quadratic_ms`).
    pub quadratic_ms: f64,
    /// Reading KV, ms per context token of a decoding request (`context_ms`).
    pub context_ms: f64,
    /// Overhead per decoding request, ms (`decoding_ms`).
    pub decoding_ms: f64,
    /// Overhead per request in the step, ms (`request_ms`).
    pub request_ms: f64,
    /// KV capacity, tokens (`kv_tokens`).
    pub kv_tokens: u64,
}

/// Figures of a GPU as its data sheet gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hardware {
    /// Peak of dense bf16, TFLOP/s (`tflops`).
    pub tflops: f64,
    /// Peak of dense fp8, TFLOP/s, if it can (`fp8_tflops`).
    pub fp8_tflops: Option<f64>,
    /// Memory bandwidth, GB/s (`bandwidth_gb_s`).
    pub bandwidth_gb_s: f64,
    /// Memory, GiB (`memory_gib`).
    pub memory_gib: f64,
    /// Reached share of the peak in linear layers (`compute_efficiency`).
    pub compute_efficiency: f64,
    /// Reached share of the bandwidth (`bandwidth_efficiency`).
    pub bandwidth_efficiency: f64,
}

/// What a replica changes of its preset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// KV capacity, tokens.
    pub kv_tokens: Option<u64>,
    /// Most requests running.
    pub max_running: Option<u32>,
    /// Prefill tokens per step.
    pub chunk: Option<u32>,
    /// KV block, tokens.
    pub block: Option<u32>,
    /// Batch composition.
    pub scheduler: Option<SchedulerKind>,
    /// Order of admission.
    pub order: Option<OrderKind>,
}

/// Who of an engine's waiting requests is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// `arrival`
    Arrival,
    /// `longest-prefix`: whose prompt has the longest prefix in the cache.
    LongestPrefix,
}

/// Which requests share a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerKind {
    /// `prefill-first`
    PrefillFirst,
    /// `mixed`
    Mixed,
}

/// How delays vary around the RTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// `none`: not at all.
    None,
    /// `backbone`: by a few per cent.
    #[default]
    Backbone,
    /// `internet`: the same with rare spikes.
    Internet,
}

/// A fleet file that cannot be used, with all that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(|problem| format!("{name}: {problem}")).collect::<Vec<_>>().join("\n"))]
pub struct FleetError {
    /// Name of the file.
    pub name: String,
    /// One line each, beginning with the key path.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests;
