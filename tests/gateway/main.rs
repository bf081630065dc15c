//! The gateway over real sockets, with scripted engines behind it.

mod client;
mod forward;
mod mock;
