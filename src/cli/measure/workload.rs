//! Which requests to send: a trace, or prompts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::exit::Failure;
use crate::workload::{ReadOptions, Trace};

/// Options that name a workload.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TraceArgs {
    /// Trace to replay: Mooncake, Claude Code or prompt lines, plain or .zst [default: the bundled BFCL multi-turn trace]
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Tokens per block id of a Mooncake trace [default: found from the lengths, else 512]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) block_size: Option<u32>,
    /// Leave out prompts longer than this
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_input: Option<u32>,
}

impl TraceArgs {
    /// Reads the trace; a missing or unreadable one is a usage error that names the file and the line.
    pub(crate) fn read(&self, options: ReadOptions) -> Result<Trace, Failure> {
        let options = ReadOptions { block_size: self.block_size.or(options.block_size), ..options };
        match &self.trace {
            Some(path) => read_file(path, &options),
            None => Trace::bundled().map_err(Failure::usage),
        }
    }
}

/// Reads a trace or prompt file.
pub(crate) fn read_file(path: &Path, options: &ReadOptions) -> Result<Trace, Failure> {
    let name = path.display().to_string();
    let bytes =
        std::fs::read(path).with_context(|| format!("failed to read the trace `{name}`")).map_err(Failure::usage)?;
    Trace::read(&name, &bytes, options).map_err(Failure::usage)
}

/// The configuration part of a report from pairs; absent values are left out.
pub(crate) fn json_values<const N: usize>(pairs: [(&str, Option<Value>); N]) -> BTreeMap<String, Value> {
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
