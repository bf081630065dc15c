//! From dumps and the trips that brought them to one file and what to say of it.

use serde::Serialize;

use super::{Alignment, Dump, Offset, Trip, Written, align, bounds, perfetto};

/// One file of several nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The file.
    pub written: Written,
    /// What each node gave, in the order of the dumps.
    pub nodes: Vec<NodeSummary>,
}

/// What one node gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeSummary {
    /// Its name.
    pub node: String,
    /// Where it stands.
    pub region: Option<String>,
    /// Requests.
    pub requests: usize,
    /// Samples of its counters.
    pub samples: usize,
    /// Requests and samples for which there was no room.
    pub dropped: u64,
    /// Requests that had not ended.
    pub unfinished: u64,
    /// Its clock is ahead of the first node's by this much, µs; `null` = nothing ties it to the others.
    pub clock_offset_us: Option<i64>,
    /// The truth is no further away than this, µs.
    pub clock_error_us: Option<i64>,
}

/// Aligns dumps and writes them into one file. `trips` are those of the one who collected, one per dump.
#[must_use]
pub fn merge(dumps: &[Dump], trips: &[Trip]) -> Merged {
    let Alignment { offsets, contradictions } = align(dumps.len() + 1, &bounds(dumps, trips));
    let written = perfetto(dumps, &Alignment { offsets: offsets.clone(), contradictions });
    let nodes = dumps.iter().zip(offsets).map(|(dump, offset)| summary(dump, offset)).collect();
    Merged { written, nodes }
}

fn summary(dump: &Dump, offset: Option<Offset>) -> NodeSummary {
    NodeSummary {
        node: dump.node.node.clone(),
        region: dump.node.region.clone(),
        requests: dump.requests.len(),
        samples: dump.counters.len(),
        dropped: dump.node.dropped,
        unfinished: dump.node.unfinished,
        clock_offset_us: offset.map(|at| at.offset_us),
        clock_error_us: offset.map(|at| at.error_us),
    }
}
