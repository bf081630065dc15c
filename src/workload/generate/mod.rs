//! Generated traffic: traces with the statistics of sets that cannot be shipped. Each seed is another draw of the same traffic.
//!
//! A generated trace is a [`Trace`] like one from a file, with timestamps, so that it is replayed, scaled and cut like one.

mod art;
mod wild;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use super::trace::{Episode, Form, Row, Trace};

/// Tokens per block id of generated traces.
const BLOCK: u32 = 128;

/// The generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// Long multi-turn conversations of a few hundred users in half an hour (after ART-Chat).
    ArtLike,
    /// Short single prompts, a third of them behind common openings (after WildChat).
    WildLike,
}

impl Generator {
    /// All of them, for help texts and errors.
    pub const ALL: [Self; 2] = [Self::ArtLike, Self::WildLike];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ArtLike => "art-like",
            Self::WildLike => "wild-like",
        }
    }

    /// What it makes, in a line.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::ArtLike => "579 users, 30 min, 7k-token conversations that grow, three quarters of it seen before",
            Self::WildLike => "11.4 requests/s, 15 min, prompts of 800 tokens, hardly anything seen before",
        }
    }

    /// The trace of a seed.
    #[must_use]
    pub fn trace(self, seed: u64) -> Trace {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(self as u64);
        let mut ids = Ids::default();
        let episodes = match self {
            Self::ArtLike => art::episodes(&mut rng, &mut ids),
            Self::WildLike => wild::episodes(&mut rng, &mut ids),
        };
        Trace {
            name: format!("{self} (seed {seed})"),
            sha256: digest(&episodes),
            form: Form::Mooncake,
            block_size: BLOCK,
            episodes,
            dropped: 0,
            shared: ids.shared,
        }
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Generator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|generator| generator.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("unknown generator `{text}`; known: {}", known.join(", "))
        })
    }
}

/// Gives out block ids, dense from 0.
#[derive(Default)]
struct Ids {
    shared: Vec<bool>,
}

impl Ids {
    fn take(&mut self, count: u32, shared: bool) -> Vec<u64> {
        (0..count)
            .map(|_| {
                self.shared.push(shared);
                self.shared.len() as u64 - 1
            })
            .collect()
    }
}

/// A request of a generated trace.
fn row(at_ms: f64, (input_tokens, output_tokens): (u32, u32), blocks: Vec<u64>) -> Row {
    Row {
        at_ms: Some(at_ms),
        think_ms: None,
        new_turn: true,
        input_tokens,
        output_tokens,
        blocks: blocks.into(),
        text: None,
    }
}

fn episode(name: &str, number: usize, rows: Vec<Row>) -> Episode {
    Episode { id: Arc::from(format!("{name}{number}")), rows }
}

/// A name for the content: there is no file whose bytes could have one.
fn digest(episodes: &[Episode]) -> String {
    let mut hash = Sha256::new();
    for row in episodes.iter().flat_map(|episode| &episode.rows) {
        hash.update(row.at_ms.unwrap_or_default().to_le_bytes());
        hash.update(row.input_tokens.to_le_bytes());
        hash.update(row.output_tokens.to_le_bytes());
        for block in row.blocks.iter() {
            hash.update(block.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A lognormal draw of this median and sigma, cut to the range, in whole tokens.
fn tokens(rng: &mut ChaCha8Rng, median: f64, sigma: f64, range: std::ops::RangeInclusive<f64>) -> u32 {
    lognormal(rng, median, sigma).clamp(*range.start(), *range.end()) as u32
}

fn lognormal(rng: &mut ChaCha8Rng, median: f64, sigma: f64) -> f64 {
    use rand::RngExt;
    let normal: f64 = rng.sample(rand_distr::StandardNormal);
    median * (sigma * normal).exp()
}

#[cfg(test)]
mod tests {
    use super::Generator;
    use crate::workload::reuse::{Lengths, infinite_cache};
    use crate::workload::{Arrivals, PlanOptions, Trace, build};

    fn reuse(trace: &Trace) -> f64 {
        let mut rows: Vec<_> = trace.rows().collect();
        rows.sort_by(|a, b| a.at_ms.unwrap().total_cmp(&b.at_ms.unwrap()));
        infinite_cache(rows.iter().map(|row| (&*row.blocks, row.input_tokens)), trace.block_size).ratio()
    }

    #[test]
    fn names_are_read_back() {
        for generator in Generator::ALL {
            assert_eq!(generator.name().parse(), Ok(generator));
            assert!(!generator.help().is_empty());
        }
        assert_eq!("art".parse::<Generator>(), Err("unknown generator `art`; known: art-like, wild-like".to_owned()));
    }

    #[test]
    fn a_seed_repeats_and_every_row_is_whole() {
        for generator in Generator::ALL {
            let trace = generator.trace(3);
            assert_eq!(trace, generator.trace(3));
            assert_ne!(trace.sha256, generator.trace(4).sha256);
            for episode in &trace.episodes {
                assert!(episode.rows.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms), "{}", episode.id);
            }
            for row in trace.rows() {
                assert_eq!(row.blocks.len() as u32, row.input_tokens.div_ceil(trace.block_size), "{row:?}");
                assert!(row.blocks.iter().all(|id| (*id as usize) < trace.shared.len()));
            }
            let options = PlanOptions::new(Arrivals::Replay { time_scale: 2.0, window: None }, 1);
            assert_eq!(build(&trace, &options).unwrap().requests(), trace.requests());
        }
    }

    #[test]
    fn art_like_traffic_has_the_published_statistics() {
        // Published of the window that it is modelled on (arXiv 2602.11688 v3, April 5): 7,195 requests of 579 users in 30 minutes,
        // input mean 6.9k, p50 5.6k, p95 19.9k tokens, 78.5 % of it seen before. The model's own figures differ a little.
        for seed in 1..=3 {
            let trace = Generator::ArtLike.trace(seed);
            let lengths = Lengths::of(trace.rows().map(|row| row.input_tokens));
            assert!(trace.episodes.len() >= 579, "{} users", trace.episodes.len());
            assert!((4800..7800).contains(&lengths.count), "{lengths:?}");
            assert!((6000.0..8200.0).contains(&lengths.mean), "{lengths:?}");
            assert!((4700..6800).contains(&lengths.p50) && (15_000..21_000).contains(&lengths.p95), "{lengths:?}");
            assert!(lengths.max <= 24_000);
            let reuse = reuse(&trace);
            assert!((0.68..0.82).contains(&reuse), "{reuse}");
            let output = Lengths::of(trace.rows().map(|row| row.output_tokens));
            assert!(output.max <= 128 && output.mean > 70.0, "{output:?}");
        }
    }

    #[test]
    fn wild_like_traffic_hardly_repeats() {
        // Published: 20,422 requests per policy at 5.7/s; the model reuses 8 %.
        let trace = Generator::WildLike.trace(1);
        let lengths = Lengths::of(trace.rows().map(|row| row.input_tokens));
        assert!((9500..11_000).contains(&lengths.count), "{lengths:?}");
        assert!((700.0..950.0).contains(&lengths.mean), "{lengths:?}");
        let reuse = reuse(&trace);
        assert!((0.05..0.12).contains(&reuse), "{reuse}");
        assert!(!trace.has_sessions());
    }
}
