//! What one listener is told, from the router's state to bytes. Pure: time is an argument.

use super::convert;
use crate::model::Time;
use crate::routing::index::{DigestPart, Teller};
use crate::routing::{Report, Router};
use crate::wire::peer::{Figures, Frame, Hello, State};

/// A conversation with one listener.
#[derive(Debug)]
pub(super) struct Telling {
    /// What it knows.
    told: Figures,
    teller: Teller,
    greeted: bool,
}

/// The state of the router at one moment, as far as the listener has to know.
pub(super) struct News {
    now: Time,
    report: Report,
    part: DigestPart,
}

impl Telling {
    /// Nothing has been said.
    #[must_use]
    pub(super) fn new(teller: Teller) -> Self {
        Self { told: Figures::default(), teller, greeted: false }
    }

    /// What there is to tell now. This is all that needs the router.
    pub(super) fn news(&mut self, now: Time, router: &Router, listener: &str, draining: bool) -> News {
        let report = Report { draining, ..router.report(now, listener) };
        News { now, report, part: router.tell(now, &mut self.teller) }
    }

    /// It as frames, behind a hello if these are the first.
    pub(super) fn frames(&mut self, news: News, hello: impl FnOnce() -> Hello) -> Vec<u8> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.greeted, true) {
            Frame::Hello(hello()).encode(&mut out);
        }
        let figures = convert::figures(&news.report);
        let changes = figures.changes_since(&self.told);
        self.told = figures;
        Frame::State(State { sent_us: news.now.micros(), changes }).encode(&mut out);
        if !news.part.is_empty() {
            Frame::Digest(convert::digest(news.part)).encode(&mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Telling;
    use crate::gateway::peers::convert;
    use crate::model::{Region, ReplicaId, RequestId, Time};
    use crate::routing::index::SAMPLE_EVERY;
    use crate::routing::{
        BLOCK_BYTES, Features, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec, Router, Settings, Usage,
    };
    use crate::wire::peer::{Figures, Frame, FrameDecoder, Hello, VERSION};

    /// Between two states, ms.
    const EVERY_MS: f64 = 200.0;
    /// Requests per second, prompt tokens of each, and 4 bytes per token.
    const RATE: f64 = 20.0;
    const PROMPT_TOKENS: usize = 20_000;
    const BLOCKS: usize = PROMPT_TOKENS * 4 / BLOCK_BYTES;
    /// What HTTP puts around a piece of an endless body: its length in hexadecimal digits and two line ends.
    const CHUNK_BYTES: usize = 8;
    /// What a link may cost.
    const BUDGET_BYTES_PER_S: f64 = 20_000.0;

    fn router(kind: ReplicaKind, kv_tokens: u64) -> (Router, ReplicaId) {
        // A rule that holds nothing back: what is sent here gets no answer.
        let settings = Settings { strategy: "gorgo".into(), ..Settings::default() };
        let mut router = Router::new(settings).expect("settings");
        router.publish();
        let spec = ReplicaSpec {
            name: "node".into(),
            region: Region::new("r"),
            kind,
            models: Vec::new(),
            limits: Limits { kv_tokens: Some(kv_tokens) },
            rates: Rates::default(),
        };
        let (id, _) = router.add_replica(Time::ZERO, spec);
        router.health(Time::ZERO, id, true);
        (router, id)
    }

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            oldest: VERSION,
            name: "node".to_owned(),
            region: Region::new("r"),
            epoch: 1,
            every_ms: EVERY_MS as u64,
            block_bytes: BLOCK_BYTES as u64,
            sample_every: SAMPLE_EVERY as u64,
        }
    }

    /// Prompt number `i` of sessions that grow by a quarter of a prompt per turn, of four turns each; `turns` = 1: all of it is new.
    fn blocks(i: u64, turns: u64) -> Vec<u64> {
        let (session, turn) = (i / turns, i % turns);
        let length = BLOCKS as u64 * (turn + 1) / turns;
        (0..length).map(|block| xxhash_rust::xxh3::xxh3_64(&(session << 20 | block).to_le_bytes())).collect()
    }

    struct Run {
        bytes_per_s: f64,
        worst_second: f64,
        heartbeat_bytes: usize,
        /// Share of the last prompt that the listener believes cached, of what the sender believes.
        known: f64,
    }

    /// A minute of such requests at a node, told to one listener.
    fn run(turns: u64, kv_tokens: u64) -> Run {
        let (mut router, _) = router(ReplicaKind::Engine, kv_tokens);
        let (mut peer, id) = self::router(ReplicaKind::Peer, kv_tokens);
        let mut telling = Telling::new(router.teller(&Region::new("r")));
        let (mut decoder, mut figures) = (FrameDecoder::default(), Figures::default());
        let (mut sizes, mut sent) = (Vec::new(), 0_u64);
        let ticks = (60_000.0 / EVERY_MS) as u64;
        for tick in 0..ticks {
            let now = Time::from_ms(tick as f64 * EVERY_MS);
            while (sent as f64) < tick as f64 * EVERY_MS / 1000.0 * RATE {
                let blocks = blocks(sent, turns);
                let features = Features {
                    prompt_bytes: (blocks.len() * BLOCK_BYTES) as u64,
                    blocks: blocks.into(),
                    ..Features::default()
                };
                router.arrive(now, RequestId(sent), Arc::new(features));
                // An answer takes a second.
                let done = sent.wrapping_sub(RATE as u64);
                router.finish(now, RequestId(done), Outcome::Done(Usage::default()));
                sent += 1;
            }
            let news = telling.news(now, &router, "peer", false);
            let bytes = telling.frames(news, hello);
            sizes.push(bytes.len() + CHUNK_BYTES);
            decoder.push(&bytes);
            while let Some(frame) = decoder.frame().expect("our own frames") {
                match frame {
                    Frame::Hello(hello) => peer.greet(id, hello.epoch),
                    Frame::State(state) => {
                        figures.apply(&state.changes);
                        peer.hear(now, id, now, convert::report(&figures));
                    }
                    Frame::Digest(digest) => peer.learn_digest(id, &convert::digest_part(digest)),
                }
            }
        }
        let now = Time::from_ms(60_000.0);
        let idle = telling.news(now, &router, "peer", false);
        telling.frames(idle, hello);
        let again = telling.news(now, &router, "peer", false);
        let heartbeat_bytes = telling.frames(again, hello).len() + CHUNK_BYTES;
        let per_second: Vec<usize> =
            sizes.chunks((1000.0 / EVERY_MS) as usize).map(|second| second.iter().sum()).collect();
        let last: Features = Features {
            blocks: blocks(sent - 1, turns).into(),
            prompt_bytes: (blocks(sent - 1, turns).len() * BLOCK_BYTES) as u64,
            ..Features::default()
        };
        let cached = |router: &mut Router| {
            let decision = router.arrive(now, RequestId(u64::MAX), Arc::new(last.clone()));
            f64::from(decision.chosen().expect("the only replica").cached_tokens)
        };
        Run {
            bytes_per_s: sizes.iter().sum::<usize>() as f64 / 60.0,
            worst_second: per_second.into_iter().max().unwrap_or(0) as f64,
            heartbeat_bytes,
            known: cached(&mut peer) / cached(&mut router),
        }
    }

    #[test]
    fn a_link_costs_less_than_20_kb_per_second_at_20_long_prompts_per_second() {
        // Every prompt new: far more than any engine computes, but nothing bounds what clients send. Then conversations of four turns.
        for (turns, kv_tokens) in [(1, 500_000), (4, 500_000), (4, 5_000_000)] {
            let run = run(turns, kv_tokens);
            let Run { bytes_per_s, worst_second, heartbeat_bytes, known } = run;
            println!(
                "{turns} turns, {kv_tokens} tokens of KV: {bytes_per_s:.0} B/s, worst second {worst_second:.0} B, \
                 heartbeat {heartbeat_bytes} B, {:.1} % of a cached prompt known",
                known * 100.0
            );
            assert!(worst_second <= BUDGET_BYTES_PER_S, "{worst_second} bytes in a second, {turns} turns");
            assert!(heartbeat_bytes <= 20, "{heartbeat_bytes}");
            assert!(known > 0.97 && known <= 1.0, "{known}");
        }
    }
}
