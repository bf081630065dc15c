//! The client of Lambda's API over real sockets: against the vendor's document, and against a server that misbehaves.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a panic is the report, a skip is told"
)]

mod contract;
mod document;
mod faults;
mod server;

use std::time::Duration;

use gorgo::cloud::lambda::{Endpoint, LambdaCloud, LambdaSettings, Pace, RetryPolicy};
use gorgo::model::Secret;
use tempfile::TempDir;

/// The key of all tests; no text that a test looks at may hold it.
const KEY: &str = "sekrit-key";

/// A client of the server at `url`, with its pace and its pauses shortened to nothing.
fn client(url: &str, state: &TempDir, attempts: u32) -> LambdaCloud {
    gorgo::cli::install_tls();
    let endpoint = Endpoint::parse(url).unwrap();
    let settings = LambdaSettings::new(endpoint, Secret::new(KEY.into()), state.path().into(), 1);
    let retry = RetryPolicy {
        attempts,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
        longest_asked: Duration::from_secs(1),
    };
    let pace = Pace { call: Duration::ZERO, launch: Duration::ZERO, longest_wait: Duration::from_secs(60) };
    LambdaCloud::new(LambdaSettings { retry, pace, answer_limit: Duration::from_secs(5), ..settings }).unwrap()
}
