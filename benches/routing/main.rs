//! What a routing decision costs and what the prefix index weighs: `cargo bench --bench routing`.
//!
//! Prints each figure beside its target; asserts nothing, since a speed is a property of a machine. Run it on an idle one.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]

mod decision;
mod fleet;
mod machine;
mod memory;
mod timing;
mod traffic;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(stream) = arguments.iter().find_map(|argument| argument.strip_prefix(memory::CHILD)) {
        return memory::child(stream);
    }
    // `cargo test --all-targets` runs benches too, without this flag and without optimisation.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing measured: run `cargo bench --bench routing`");
        return ExitCode::SUCCESS;
    }
    println!("machine: {}", machine::describe());
    if let Err(error) = fleet::run().and_then(|()| decision::run()) {
        println!("failed: {error:#}");
        return ExitCode::FAILURE;
    }
    memory::run()
}
