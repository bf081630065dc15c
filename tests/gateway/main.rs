//! The gateway over real sockets, with scripted engines behind it.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod admin;
mod agents;
mod client;
mod failure;
mod forward;
mod limits;
mod mock;
mod peers;
mod stop;
mod tls;
