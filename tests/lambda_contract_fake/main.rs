//! The stand-in for Lambda's API: its answers against the vendor's document, and gorgo's own client and launch protocol against its faults.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a panic is the report, a skip is told"
)]

#[expect(dead_code, reason = "shared with the client's contract, which also makes samples")]
#[path = "../lambda_contract_client/document.rs"]
mod document;

mod contract;
mod launches;

use gorgo::emulator::lambda::{LambdaHandle, LambdaOptions, start};

/// The key of all tests.
const KEY: &str = "sekrit-key";

/// A stand-in without limits, with these faults.
async fn account(speed: f64, faults: &[&str]) -> LambdaHandle {
    let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
    start(LambdaOptions { speed, faults, ..LambdaOptions::new(7) }).await.unwrap()
}
