//! One routing decision from the canonical bytes of a prompt of 32,768 tokens (128 KiB), through the router itself.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use gorgo::inference::prompt::{Dialect, parse};
use gorgo::model::{Region, RequestId, Time};
use gorgo::routing::features::hash_blocks;
use gorgo::routing::{Features, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec, Router, Settings, Usage, Verdict};

use crate::timing::Samples;
use crate::traffic::{BYTES_PER_TOKEN, Session, Traffic};

/// KV tokens of each replica: nine tenths of them are 156,250 blocks of the index, or 10 million over 64 replicas.
const KV_TOKENS: u64 = 11_111_112;
/// Blocks in the index of each replica when it is warm.
const BLOCKS_PER_REPLICA: usize = 156_250;
/// Requests in flight per replica.
const IN_FLIGHT: usize = 8;
/// Decisions measured.
const DECISIONS: usize = 3000;
/// Requests between two measured ones, so that neither the session nor its neighbours are still in the processor's caches.
const BETWEEN: usize = 20;
/// Bytes of each message of the JSON body.
const MESSAGE_BYTES: usize = 4096;

/// A router under load.
struct Bench {
    router: Router,
    replicas: usize,
    traffic: Traffic,
    now: Time,
    requests: u64,
    in_flight: VecDeque<(RequestId, Usage)>,
}

impl Bench {
    /// `session-affinity` spreads the sessions over the fleet while the index is filled.
    fn warm(replicas: usize) -> anyhow::Result<Self> {
        let router = Router::new(Settings { strategy: "session-affinity".into(), ..Settings::default() })?;
        let traffic = Traffic::new(64 * replicas, 2);
        let mut bench = Self { router, replicas, traffic, now: Time::ZERO, requests: 0, in_flight: VecDeque::new() };
        for number in 0..replicas {
            let spec = ReplicaSpec {
                name: format!("replica-{number}").into(),
                region: Region::new("us-east-1"),
                kind: ReplicaKind::Engine,
                models: Vec::new(),
                limits: Limits { kv_tokens: Some(KV_TOKENS) },
                rates: Rates::default(),
            };
            let (replica, _) = bench.router.add_replica(bench.now, spec);
            bench.router.rtt(bench.now, replica, 20.0 + number as f64);
            bench.router.health(bench.now, replica, true);
        }
        while bench.router.index_stats().total.blocks < BLOCKS_PER_REPLICA * replicas {
            (0..10_000).for_each(|_| bench.serve_other());
        }
        bench.router.set_strategy(bench.now, "gorgo", &[])?;
        Ok(bench)
    }

    /// Routes the next turn of some session.
    fn serve_other(&mut self) {
        let features = features(self.traffic.turn());
        let request = self.next();
        let usage = Usage { prompt_tokens: Some(tokens(features.blocks.len())), ..Usage::default() };
        self.router.arrive(self.now, request, Arc::new(features));
        self.dispatched(request, usage);
    }

    fn next(&mut self) -> RequestId {
        self.now = self.now.plus_ms(1.0);
        self.requests += 1;
        RequestId(self.requests)
    }

    /// A request is on its way; the oldest ones finish as soon as there are enough in flight.
    fn dispatched(&mut self, request: RequestId, usage: Usage) {
        self.router.headers(self.now, request);
        self.router.first_token(self.now, request);
        self.in_flight.push_back((request, usage));
        while self.in_flight.len() > IN_FLIGHT * self.replicas {
            if let Some((request, usage)) = self.in_flight.pop_front() {
                self.router.finish(self.now, request, Outcome::Done(usage));
            }
        }
    }
}

/// Measures with 64 and 8 replicas.
pub(crate) fn run() -> anyhow::Result<()> {
    for (replicas, target_us) in [(64, 150.0), (8, 60.0)] {
        println!(
            "\none decision, 128 KiB prompt, {replicas} replicas with {BLOCKS_PER_REPLICA} blocks each, strategy gorgo"
        );
        measure(&mut Bench::warm(replicas)?, target_us)?;
    }
    Ok(())
}

fn measure(bench: &mut Bench, target_us: f64) -> anyhow::Result<()> {
    let (mut extracting, mut hashing, mut arriving) = (Samples::default(), Samples::default(), Samples::default());
    let (mut deciding, mut all) = (Samples::default(), Samples::default());
    let mut warm = 0;
    for _ in 0..DECISIONS {
        (0..BETWEEN).for_each(|_| bench.serve_other());
        let session = bench.traffic.long_turn();
        let body = chat_body(&session)?;
        let parsed = extracting.time(|| parse(Dialect::Chat, black_box(&body)))?;
        let text = session.text();
        let blocks = hashing.time(|| hash_blocks([black_box(text.as_slice())], 0));
        anyhow::ensure!(blocks == session.hashes, "the prompt is hashed as the session was");
        anyhow::ensure!(hash_blocks(parsed.canonical(), 0) == blocks, "extraction gives the canonical bytes");
        let request = bench.next();
        let now = bench.now;
        let decision = arriving.time(|| bench.router.arrive(now, request, Arc::new(features(&session))));
        deciding.sum_of_newest(&[&hashing, &arriving]);
        all.sum_of_newest(&[&extracting, &hashing, &arriving]);
        anyhow::ensure!(matches!(decision.verdict, Verdict::Dispatch(_)), "dispatched at once");
        warm += usize::from(decision.chosen().is_some_and(|chosen| chosen.cached_tokens > chosen.uncached_tokens));
        bench.dispatched(request, Usage { prompt_tokens: Some(decision.prompt_tokens), ..Usage::default() });
    }
    hashing.print("hash 512 blocks", None);
    arriving.print("Router::arrive", None);
    deciding.print("hash + arrive", Some(target_us));
    extracting.print("JSON extraction of the body, apart", None);
    all.print("extraction + hash + arrive", None);
    println!("  {warm} of {DECISIONS} prompts went to a replica that held more than half of them");
    Ok(())
}

fn tokens(blocks: usize) -> u32 {
    (blocks * gorgo::routing::BLOCK_BYTES / BYTES_PER_TOKEN) as u32
}

/// Features as the gateway would extract them.
fn features(session: &Session) -> Features {
    Features {
        session: Some(session.affinity),
        blocks: session.hashes.as_slice().into(),
        prompt_bytes: (session.hashes.len() * gorgo::routing::BLOCK_BYTES) as u64,
        max_tokens: Some(500),
        ..Features::default()
    }
}

/// A chat request whose canonical prompt is the session's text, in messages of [`MESSAGE_BYTES`].
fn chat_body(session: &Session) -> anyhow::Result<Vec<u8>> {
    let text = session.text();
    let messages: Vec<_> = text
        .chunks(MESSAGE_BYTES)
        .map(|message| serde_json::json!({ "role": "user", "content": String::from_utf8_lossy(message) }))
        .collect();
    Ok(serde_json::to_vec(&serde_json::json!({ "model": "m", "stream": true, "messages": messages }))?)
}
