//! One decision over a fleet of 1,000 replicas in 20 regions that are all at work, through the router itself.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use gorgo::model::{Region, RequestId, Time};
use gorgo::routing::features::hash_blocks;
use gorgo::routing::{
    BLOCK_BYTES, Features, Limits, Outcome, Rates, ReplicaKind, ReplicaSpec, Router, Settings, Usage, Verdict,
};

use crate::timing::Samples;

/// Replicas and the regions that they stand in, evenly.
const REPLICAS: usize = 1000;
const REGIONS: usize = 20;
/// Round trip to the nearest region, and how much farther each next one is, ms.
const NEAREST_MS: f64 = 10.0;
const STEP_MS: f64 = 12.0;
/// Requests in flight per replica, of which so many have no first token.
const IN_FLIGHT: usize = 8;
const PENDING: usize = 2;
/// Sessions that take turns, and blocks of their prompts: an opening that all share and their own.
const SESSIONS: usize = 4000;
const SHARED_BLOCKS: usize = 20;
const OWN_BLOCKS: std::ops::Range<usize> = 20..100;
/// Requests before the first measured one, and measured ones.
const WARM: usize = 12 * REPLICAS;
const DECISIONS: usize = 3000;

/// Decides for a fleet in which every session comes again and again.
pub(crate) fn run() -> anyhow::Result<()> {
    for (strategy, target_us) in [("predictive", Some(300.0)), ("gorgo", None)] {
        println!(
            "\none decision, prompts of 2,560 to 7,680 tokens, {REPLICAS} replicas in {REGIONS} regions, strategy {strategy}"
        );
        let (samples, scored) = measure(strategy)?;
        samples.print("Router::arrive", target_us);
        println!("  {scored:.0} replicas scored on average");
    }
    Ok(())
}

fn measure(strategy: &str) -> anyhow::Result<(Samples, f64)> {
    let mut router = fleet(strategy)?;
    let (mut samples, mut scored) = (Samples::default(), 0);
    let mut flying: VecDeque<(RequestId, Usage)> = VecDeque::new();
    for number in 0..WARM + DECISIONS {
        let (now, request) = (Time::from_ms(1000.0 + number as f64), RequestId(number as u64));
        let features = Arc::new(prompt(number * 7919 % SESSIONS));
        let mut arrive = || router.arrive(now, request, black_box(features.clone()));
        let decision = if number < WARM { arrive() } else { samples.time(arrive) };
        anyhow::ensure!(matches!(decision.verdict, Verdict::Dispatch(_)), "dispatched at once");
        scored += if number < WARM { 0 } else { decision.candidates.len() };
        let tokens = decision.prompt_tokens;
        flying.push_back((
            request,
            Usage { prompt_tokens: Some(tokens), cached_tokens: None, completion_tokens: Some(100) },
        ));
        if let Some(at) = flying.len().checked_sub(PENDING * REPLICAS) {
            router.first_token(now, flying[at].0);
        }
        if flying.len() > IN_FLIGHT * REPLICAS
            && let Some((request, usage)) = flying.pop_front()
        {
            router.finish(now, request, Outcome::Done(usage));
        }
    }
    Ok((samples, scored as f64 / DECISIONS as f64))
}

fn fleet(strategy: &str) -> anyhow::Result<Router> {
    // Whether a request waits in the router is none of the matter here.
    let held = if strategy == "predictive" { vec![("hold_ms".to_owned(), 86_400_000.0)] } else { Vec::new() };
    let mut router = Router::new(Settings { strategy: strategy.into(), parameters: held, ..Settings::default() })?;
    for number in 0..REPLICAS {
        let region = number % REGIONS;
        let spec = ReplicaSpec {
            name: format!("replica-{number}").into(),
            region: Region::new(&format!("region-{region}")),
            kind: ReplicaKind::Engine,
            models: Vec::new(),
            limits: Limits { kv_tokens: Some(500_000) },
            rates: Rates::default(),
        };
        let (replica, _) = router.add_replica(Time::ZERO, spec);
        router.rtt(Time::ZERO, replica, NEAREST_MS + STEP_MS * region as f64);
        router.health(Time::ZERO, replica, true);
    }
    Ok(router)
}

/// The prompt of a session, always the same.
fn prompt(session: usize) -> Features {
    let own = OWN_BLOCKS.start + session % OWN_BLOCKS.len();
    let text: Vec<u8> = (0..own)
        .flat_map(|block| format!("{:<BLOCK_BYTES$}", format!("session {session} block {block}")).into_bytes())
        .collect();
    let blocks = hash_blocks([vec![b'.'; SHARED_BLOCKS * BLOCK_BYTES].as_slice(), text.as_slice()], 0);
    Features {
        prompt_bytes: (blocks.len() * BLOCK_BYTES) as u64,
        blocks: blocks.into(),
        max_tokens: Some(500),
        ..Features::default()
    }
}
