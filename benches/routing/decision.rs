//! One routing decision from the canonical bytes of a prompt of 32,768 tokens (128 KiB).

use std::hint::black_box;

use gorgo::model::ReplicaId;
use gorgo::routing::features::hash_blocks;
use gorgo::routing::index::PrefixIndex;

use crate::timing::Samples;
use crate::traffic::Traffic;

/// Blocks that each replica's mirror holds: 10 million over 64.
const BLOCKS_PER_REPLICA: usize = 156_250;
/// Decisions measured.
const DECISIONS: usize = 3000;

/// Measures with 64 and 8 replicas.
pub(crate) fn run() {
    for (replicas, target_us) in [(64, 150.0), (8, 60.0)] {
        println!("\none decision, 128 KiB prompt, {replicas} replicas with {BLOCKS_PER_REPLICA} blocks each");
        measure(replicas, target_us);
    }
}

fn measure(replicas: u32, target_us: f64) {
    let mut traffic = Traffic::new(64 * replicas as usize, 2);
    let mut index = PrefixIndex::new();
    (0..replicas).for_each(|replica| index.add(ReplicaId(replica), BLOCKS_PER_REPLICA));
    while index.stats().total.blocks < BLOCKS_PER_REPLICA * replicas as usize {
        for _ in 0..10_000 {
            let (replica, session) = traffic.placed_turn(replicas);
            index.insert(replica, &session.hashes);
        }
    }
    let (mut hashing, mut matching, mut inserting, mut all) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    for _ in 0..DECISIONS {
        // Other requests come between, so that neither the session nor its neighbours are still in the processor's caches.
        for _ in 0..20 {
            let (replica, session) = traffic.placed_turn(replicas);
            index.insert(replica, &session.hashes);
        }
        let session = traffic.long_turn();
        let text = session.text();
        let blocks = hashing.time(|| hash_blocks([black_box(text.as_slice())], 0));
        let best = matching.time(|| index.matches(&blocks).max_by_key(|&(_, matched)| matched));
        let Some((replica, _)) = best else { continue };
        inserting.time(|| index.insert(replica, &blocks));
        all.sum_of_newest(&[&hashing, &matching, &inserting]);
    }
    hashing.print("hash 512 blocks", None);
    matching.print("match on all replicas", None);
    inserting.print("insert on one, evicting", None);
    all.print("hash + match + insert", Some(target_us));
}
