//! Agents telling each other how they are: each asks every peer for one endless stream ([`listen`]) and answers every peer's ([`speech`]).
//!
//! Nothing waits for a peer. What is told is made when the listener's connection takes it, so a slow one gets news less often and never
//! old ones; what is heard is taken in as it comes and held nowhere. Streams travel over the pools' connections like forwarded
//! requests, so that whatever secures those secures these.

mod backoff;
mod convert;
mod listen;
mod speech;
mod telling;

pub(super) use listen::Ear;
pub(super) use speech::Speech;
