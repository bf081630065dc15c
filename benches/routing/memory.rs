//! Resident memory of an index of 10 million blocks, each stream of prompts in a process of its own.

use std::array;
use std::env;
use std::process::{Command, ExitCode};

use gorgo::model::ReplicaId;
use gorgo::routing::index::PrefixIndex;

use crate::machine::resident_bytes;
use crate::traffic::Traffic;

/// Argument by which this program starts itself for one stream.
pub(crate) const CHILD: &str = "--memory-of=";

const REPLICAS: u32 = 64;
const BLOCKS: usize = 10_000_000;
const TARGET_BYTES: usize = 1 << 30;

/// What goes into the index.
struct Stream {
    name: &'static str,
    what: &'static str,
    feed: fn(&mut Feed),
}

const STREAMS: [Stream; 3] = [
    Stream { name: "traffic", what: "shared openings, growing sessions, retried turns", feed: sessions },
    Stream { name: "single", what: "endless distinct prompts of one block (every block a node)", feed: single_blocks },
    Stream { name: "long", what: "endless distinct prompts of 512 blocks", feed: long_prompts },
];

/// An index under a stream; reports whenever a given number of new blocks went in.
struct Feed {
    index: PrefixIndex,
    new_blocks: usize,
    baseline: usize,
    reports: array::IntoIter<usize, 4>,
    next_report: usize,
}

impl Feed {
    fn new() -> Self {
        let mut index = PrefixIndex::new();
        (0..REPLICAS).for_each(|replica| index.add(ReplicaId(replica), BLOCKS / REPLICAS as usize));
        let mut reports = [1, 2, 4, 8].map(|times| times * BLOCKS).into_iter();
        let next_report = reports.next().unwrap_or(0);
        Self { index, new_blocks: 0, baseline: resident_bytes(), reports, next_report }
    }

    /// Enters a prompt; false when the last report is out.
    fn insert(&mut self, replica: ReplicaId, blocks: &[u64]) -> bool {
        self.new_blocks += self.index.insert(replica, blocks);
        if self.new_blocks < self.next_report {
            return true;
        }
        self.report();
        match self.reports.next() {
            Some(next) => self.next_report = next,
            None => return false,
        }
        true
    }

    fn report(&self) {
        let total = self.index.stats().total;
        let resident = resident_bytes().saturating_sub(self.baseline);
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        println!(
            "    after {:>2}x capacity: {:>8} blocks held, {:>8} nodes, bytes() {:>6.0} MiB, resident {:>6.0} MiB = {:>5.1} bytes/block, \
             ratio to 1 GiB {:.2}",
            self.new_blocks / BLOCKS,
            total.blocks,
            total.nodes,
            mib(total.bytes),
            mib(resident),
            resident as f64 / total.blocks as f64,
            resident as f64 / TARGET_BYTES as f64,
        );
    }
}

fn sessions(feed: &mut Feed) {
    let mut traffic = Traffic::new(4000, 1);
    feed.baseline = resident_bytes();
    loop {
        let session = traffic.turn();
        if !feed.insert(replica(session.affinity), &session.hashes) {
            return;
        }
    }
}

fn replica(number: u64) -> ReplicaId {
    ReplicaId((number % u64::from(REPLICAS)) as u32)
}

fn single_blocks(feed: &mut Feed) {
    let mut hash = 1_u64;
    while feed.insert(replica(hash), &[hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)]) {
        hash += 1;
    }
}

fn long_prompts(feed: &mut Feed) {
    let mut prompt = vec![0_u64; 512];
    let mut number = 0_u64;
    loop {
        for block in &mut prompt {
            number += 1;
            *block = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        if !feed.insert(replica(number / 512), &prompt) {
            return;
        }
    }
}

/// Runs every stream in a child process, so that none sees what another left in the allocator.
pub(crate) fn run() -> ExitCode {
    println!(
        "\nmemory of {BLOCKS} blocks over {REPLICAS} replicas (target: resident at most 1 GiB, flat as the stream goes on)"
    );
    for stream in &STREAMS {
        let child = env::current_exe()
            .and_then(|program| Command::new(program).arg(format!("{CHILD}{}", stream.name)).status());
        if !child.is_ok_and(|status| status.success()) {
            println!("    failed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One stream, in the child.
pub(crate) fn child(name: &str) -> ExitCode {
    let Some(stream) = STREAMS.iter().find(|stream| stream.name == name) else { return ExitCode::FAILURE };
    println!("  {}: {}", stream.name, stream.what);
    (stream.feed)(&mut Feed::new());
    ExitCode::SUCCESS
}
