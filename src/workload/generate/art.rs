//! Conversations like those of ART-Chat, by the statistics that the GORGO paper (arXiv 2602.11688 v3) prints of its windows: users in
//! half an hour, requests per user, prompt lengths and reuse. Shapes between those figures are ours.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::{BLOCK, Ids, episode, lognormal, row, tokens};
use crate::workload::trace::Episode;

/// Users of the window.
const USERS: usize = 579;
/// The window, ms.
const WINDOW_MS: f64 = 1_800_000.0;
/// Requests of a user: 1 and an exponential of this mean.
const MORE_REQUESTS: f64 = 12.8;
/// Longest prompt, tokens; from [`FULL`] on the next one begins a fresh conversation.
const LONGEST: u32 = 24_000;
const FULL: u32 = 23_000;
/// Chance that a request begins a fresh conversation.
const FRESH: f64 = 0.16;
/// Share of users whose prompts begin with the common opening of this many blocks.
const OPENED: f64 = 0.1;
const OPENING: u32 = 2;

/// A conversation that grows.
struct Talk {
    /// Ids of its full blocks so far.
    blocks: Vec<u64>,
    length: u32,
}

/// The users, each with its requests in order; a user is a session.
pub(super) fn episodes(rng: &mut ChaCha8Rng, ids: &mut Ids) -> Vec<Episode> {
    let opening = ids.take(OPENING, true);
    (0..USERS)
        .map(|user| {
            let opened = rng.random_bool(OPENED);
            let opening: &[u64] = if opened { &opening } else { &[] };
            // Half of the users come in the first 90 % of the window, half in its first 30 %.
            let share = if user % 2 == 0 { 0.9 } else { 0.3 };
            let mut at_ms = WINDOW_MS * share * rng.random::<f64>();
            let count = 1 + (MORE_REQUESTS * rng.sample::<f64, _>(Exp1)) as usize;
            let mut talk = Talk::begin(rng, ids, opening);
            let mut rows = Vec::new();
            for turn in 0..count {
                if turn > 0 {
                    at_ms += 3000.0 + lognormal(rng, 28_000.0, 1.1);
                    if talk.length > FULL || rng.random_bool(FRESH) {
                        talk = Talk::begin(rng, ids, opening);
                    } else {
                        let more = tokens(rng, 300.0, 0.9, 1.0..=f64::from(LONGEST));
                        talk.grow((talk.length + more).min(LONGEST), ids);
                    }
                }
                // The window ends for everybody; the first request always counts.
                if turn > 0 && at_ms >= WINDOW_MS {
                    break;
                }
                let output = tokens(rng, 150.0, 0.9, 4.0..=128.0);
                rows.push(row(at_ms, (talk.length, output), talk.prompt(ids)));
            }
            episode("user", user, rows)
        })
        .collect()
}

impl Talk {
    fn begin(rng: &mut ChaCha8Rng, ids: &mut Ids, opening: &[u64]) -> Self {
        let length = tokens(rng, 4400.0, 0.85, 200.0..=f64::from(FULL));
        let mut talk = Self { blocks: opening.to_vec(), length: 0 };
        talk.blocks.truncate((length / BLOCK) as usize);
        talk.grow(length, ids);
        talk
    }

    fn grow(&mut self, length: u32, ids: &mut Ids) {
        let more = (length / BLOCK).saturating_sub(self.blocks.len() as u32);
        self.blocks.extend(ids.take(more, false));
        self.length = length;
    }

    /// The ids of a prompt: a block that is not full yet is another one at every turn, since its rest will be.
    fn prompt(&self, ids: &mut Ids) -> Vec<u64> {
        let rest = u32::from(!self.length.is_multiple_of(BLOCK));
        [self.blocks.clone(), ids.take(rest, false)].concat()
    }
}
