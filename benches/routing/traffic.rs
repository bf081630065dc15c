//! Prompts as they come: shared openings, conversations that grow by a few blocks per turn, answers that are tried again.

use gorgo::routing::BLOCK_BYTES;
use gorgo::routing::features::hash_blocks;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Text has four bytes per token, as in the emulator.
pub(crate) const BYTES_PER_TOKEN: usize = 4;
/// System prompts and tool descriptions that sessions share; a few are far more frequent than the rest.
const OPENINGS: usize = 200;
/// Blocks of an opening.
const OPENING_BLOCKS: std::ops::Range<usize> = 4..96;
/// Blocks that a turn adds (64 tokens each): a question and the answer before it.
const TURN_BLOCKS: std::ops::Range<usize> = 1..16;
/// Share of turns that replace the end of the turn before (edited, regenerated, another branch of an agent).
const RETRIED: f64 = 0.1;
/// Share of turns after which a session ends.
const ENDS: f64 = 0.05;
/// Share of turns that belong to another replica than the rest of their session.
const MOVED: f64 = 0.1;
/// Sessions end at this many blocks: 32,768 tokens of 4 bytes.
pub(crate) const LONGEST: usize = 512;

/// Blocks of a long session.
const LONG: usize = LONGEST * 3 / 4;

/// One conversation.
#[derive(Clone)]
pub(crate) struct Session {
    /// Seeds of the text of each block.
    texts: Vec<u64>,
    /// Chained hashes of the blocks.
    pub(crate) hashes: Vec<u64>,
    /// Number of the session.
    number: u64,
    /// Where the turn at hand belongs: mostly the session's number.
    pub(crate) affinity: u64,
}

impl Session {
    fn push(&mut self, text: u64) {
        self.texts.push(text);
        let before = self.hashes.last().copied().unwrap_or(0);
        self.hashes.extend(hash_blocks([block(text).as_slice()], before));
    }

    fn truncate(&mut self, blocks: usize) {
        self.texts.truncate(blocks);
        self.hashes.truncate(blocks);
    }

    /// The canonical prompt.
    pub(crate) fn text(&self) -> Vec<u8> {
        self.texts.iter().flat_map(|&text| block(text)).collect()
    }
}

/// Sessions that are going on at the same time, each replaced by a new one at its end.
pub(crate) struct Traffic {
    random: ChaCha8Rng,
    openings: Vec<Session>,
    sessions: Vec<Session>,
    started: u64,
}

impl Traffic {
    /// Seeded traffic of `concurrent` sessions.
    pub(crate) fn new(concurrent: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let openings = (0..OPENINGS).map(|_| {
            let mut opening = Session {
                texts: Vec::with_capacity(LONGEST),
                hashes: Vec::with_capacity(LONGEST),
                number: 0,
                affinity: 0,
            };
            (0..random.random_range(OPENING_BLOCKS)).for_each(|_| opening.push(random.next_u64()));
            opening
        });
        let openings = openings.collect();
        let mut traffic = Self { random, openings, sessions: Vec::new(), started: 0 };
        for _ in 0..concurrent {
            let session = traffic.start();
            traffic.sessions.push(session);
        }
        traffic
    }

    fn start(&mut self) -> Session {
        self.started += 1;
        // The square of a uniform number: the tenth most frequent opening is about a third as frequent as the first.
        let choice = self.random.random::<f64>().powi(2);
        let opening = &self.openings[(choice * OPENINGS as f64) as usize];
        let mut session = Session {
            texts: Vec::with_capacity(LONGEST),
            hashes: Vec::with_capacity(LONGEST),
            number: self.started,
            affinity: self.started,
        };
        session.texts.extend_from_slice(&opening.texts);
        session.hashes.extend_from_slice(&opening.hashes);
        session
    }

    /// The next turn of some session.
    pub(crate) fn turn(&mut self) -> &Session {
        let which = self.random.random_range(0..self.sessions.len());
        let full = self.sessions[which].hashes.len() + TURN_BLOCKS.end > LONGEST;
        if full || self.random.random_bool(ENDS) {
            self.sessions[which] = self.start();
        }
        let added = self.random.random_range(TURN_BLOCKS);
        let session = &mut self.sessions[which];
        if self.random.random_bool(RETRIED) {
            session.truncate(session.hashes.len().saturating_sub(added).max(1));
        }
        for _ in 0..added {
            session.push(self.random.next_u64());
        }
        session.affinity = if self.random.random_bool(MOVED) { self.random.next_u64() } else { session.number };
        session
    }

    /// The next turn of one of the long sessions, filled up to [`LONGEST`] blocks; most of it was served before.
    pub(crate) fn long_turn(&mut self) -> Session {
        let long: Vec<&Session> = self.sessions.iter().filter(|session| session.hashes.len() >= LONG).collect();
        let mut session = match long.choose(&mut self.random) {
            Some(&session) => session.clone(),
            None => self.turn().clone(),
        };
        while session.hashes.len() < LONGEST {
            session.push(self.random.next_u64());
        }
        session
    }
}

/// The text of a block: printable ASCII from a xorshift generator (Marsaglia 2003); one character in 32 needs an escape in JSON, about
/// as in code.
fn block(seed: u64) -> [u8; BLOCK_BYTES] {
    let mut state = seed | 1;
    let mut text = [0; BLOCK_BYTES];
    for bytes in text.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.copy_from_slice(&((state & 0x3f3f_3f3f_3f3f_3f3f) + 0x2020_2020_2020_2020).to_le_bytes());
    }
    text
}
