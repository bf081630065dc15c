//! Lambda Cloud: machines rented by the minute over an HTTP API.

pub mod wire;
