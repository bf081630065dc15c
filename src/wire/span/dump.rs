//! A dump: what a node hands out when tracing ends, as JSON lines. Its first line is about the node.

use super::{Counters, Line, NodeTrace, RequestSpan, SCHEMA};

/// Everything that one router told.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// About the router.
    pub node: NodeTrace,
    /// Requests in the order in which they ended.
    pub requests: Vec<RequestSpan>,
    /// Counters in order of time.
    pub counters: Vec<Counters>,
}

/// Why something is no dump.
#[derive(Debug, thiserror::Error)]
pub enum BadDump {
    /// A line is not what stands there.
    #[error("line {line} of the trace cannot be read: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The first line is not about a node, or a later one is.
    #[error("line {line} of the trace is out of place: wanted one line about the node, and that first")]
    Order {
        /// Counted from 1.
        line: usize,
    },
    /// It ends too early.
    #[error("the trace is cut off: {found} of {wanted} lines came")]
    Short {
        /// Lines that came.
        found: u64,
        /// Lines that were promised.
        wanted: u64,
    },
    /// There is nothing.
    #[error("the trace is empty")]
    Empty,
    /// Another form.
    #[error(
        "the trace is of the form `{found}`, this gorgo reads `{SCHEMA}`: use the version of gorgo that runs on the node"
    )]
    Schema {
        /// What it says.
        found: String,
    },
}

impl Dump {
    /// Reads a dump.
    ///
    /// # Errors
    /// See [`BadDump`]. Keys that are not known are passed over.
    pub fn parse(text: &str) -> Result<Self, BadDump> {
        let mut lines = text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
        let read = |(index, text): (usize, &str)| {
            let line = index + 1;
            serde_json::from_str::<Line>(text).map(|read| (line, read)).map_err(|source| BadDump::Line { line, source })
        };
        let node = match read(lines.next().ok_or(BadDump::Empty)?)? {
            (_, Line::Node(node)) => node,
            (line, _) => return Err(BadDump::Order { line }),
        };
        if node.schema != SCHEMA {
            return Err(BadDump::Schema { found: node.schema });
        }
        let mut dump = Self { node, requests: Vec::new(), counters: Vec::new() };
        for line in lines {
            match read(line)? {
                (_, Line::Request(request)) => dump.requests.push(*request),
                (_, Line::Counters(counters)) => dump.counters.push(counters),
                (line, Line::Node(_)) => return Err(BadDump::Order { line }),
            }
        }
        let found = (dump.requests.len() + dump.counters.len()) as u64;
        if found == dump.node.lines { Ok(dump) } else { Err(BadDump::Short { found, wanted: dump.node.lines }) }
    }
}
