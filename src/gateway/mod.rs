//! The data plane: an HTTP proxy in front of the engines, with `routing` as its brain.
//! An [`agent`] is the same beside one node's engine, with other agents among its replicas.
//!
//! A request is collected ([`collect`]), read ([`extract`]), decided ([`brain`]), sent ([`forward`], [`pool`]) and its answer passed on
//! and observed ([`relay`], [`observe`]). Body bytes pass through untouched. [`probe`] watches the engines meanwhile, and agents tell each
//! other how they are ([`peers`]).

mod access;
mod admin;
mod agent;
mod audit;
mod brain;
mod budget;
pub mod clock;
mod collect;
mod connection;
pub mod endpoint;
mod explain;
mod extract;
pub mod fleet;
mod forward;
mod goodput;
pub mod handle;
pub mod headers;
mod hearing;
mod inject;
mod journal;
pub mod keys;
mod location;
mod metrics;
mod models;
pub mod mutual;
mod observe;
mod origin;
mod peers;
pub mod pool;
pub mod private_file;
mod probe;
mod recalls;
mod reject;
mod relay;
mod replica;
mod serve;
pub mod settings;
mod tls;
mod trace;
mod tuning;
mod window;

pub use audit::AuditTarget;
pub use handle::{Gateway, GatewayHandle};
pub use settings::{AgentConfig, GatewayConfig, Limits, MutualConfig, PeerSettings, ProbeSettings, ReplicaConfig};
pub use tls::{TlsFiles, check as check_tls};
