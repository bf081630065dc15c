//! Single prompts like those of WildChat, as the GORGO paper (arXiv 2602.11688 v3) plays them: short, at a steady rate, hardly sharing
//! anything. The rate is such that `--time-scale 2` gives the paper's 5.7 requests per second.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::{BLOCK, Ids, episode, row, tokens};
use crate::workload::trace::Episode;

/// Requests per second of the trace's own clock.
const PER_S: f64 = 11.4;
/// Length, ms.
const WINDOW_MS: f64 = 900_000.0;
/// Share of prompts that begin with one of the common openings.
const OPENED: f64 = 0.3;
/// Common openings and the blocks of each.
const OPENINGS: usize = 5;
const OPENING: u32 = 2;

/// The requests, each a session of its own.
pub(super) fn episodes(rng: &mut ChaCha8Rng, ids: &mut Ids) -> Vec<Episode> {
    let openings: Vec<Vec<u64>> = (0..OPENINGS).map(|_| ids.take(OPENING, true)).collect();
    let mut episodes = Vec::new();
    let mut at_ms = 0.0;
    loop {
        at_ms += rng.sample::<f64, _>(Exp1) * 1000.0 / PER_S;
        if at_ms >= WINDOW_MS {
            return episodes;
        }
        let length = tokens(rng, 480.0, 1.05, 8.0..=24_000.0);
        let output = tokens(rng, 140.0, 0.8, 4.0..=128.0);
        let mut blocks =
            if rng.random_bool(OPENED) { openings[rng.random_range(0..OPENINGS)].clone() } else { Vec::new() };
        blocks.truncate((length / BLOCK) as usize);
        blocks.extend(ids.take(length.div_ceil(BLOCK) - blocks.len() as u32, false));
        let number = episodes.len();
        episodes.push(episode("chat", number, vec![row(at_ms, (length, output), blocks)]));
    }
}
