//! The gateway over real sockets, with scripted engines behind it.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod admin;
mod admin_token;
mod agents;
mod client;
mod client_tls;
mod failure;
mod forward;
mod geo;
mod health;
mod keys;
mod limits;
mod mock;
mod mutual;
mod peers;
mod perfetto;
mod residency;
mod slo;
mod standstill;
mod stop;
mod straggler;
mod tls;
mod trace;
mod tuning;
