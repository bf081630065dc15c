//! Work on nodes, for real: the same behaviours over SSH (against an sshd of our own) and in a local node; then what only one of them has.

mod cloud;
mod conformance;
mod hosts;
mod local;
mod refusals;
mod ssh;
mod sshd;
mod support;
