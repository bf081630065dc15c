//! One decision over a fleet of 1,000 replicas in 20 regions that are all at work, through the router itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
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
/// Arrivals, ms apart, and what a replica takes for a prompt: fixed, per uncached token, and for the answer after it, ms. About a quarter of
/// every replica's time is filled, and ten requests are in flight there.
const EVERY_MS: f64 = 0.2;
const SERVICE_MS: (f64, f64) = (15.0, 0.05);
const ANSWER_MS: f64 = 2000.0;
/// Sessions that take turns, and blocks of their prompts: an opening that all share and their own.
const SESSIONS: usize = 4000;
const SHARED_BLOCKS: usize = 20;
const OWN_BLOCKS: std::ops::Range<usize> = 20..100;
/// Requests before the first measured one, and measured ones.
const WARM: usize = 24 * REPLICAS;
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
    // What comes back, in its order: when, of which request, and its tokens once it is complete.
    let mut due = BinaryHeap::new();
    let mut free_ms = vec![0.0_f64; REPLICAS];
    for number in 0..WARM + DECISIONS {
        let (now, request) = (Time::from_ms(1000.0 + EVERY_MS * number as f64), number as u64);
        while let Some(Reverse((at, request, tokens))) = due.pop() {
            if at > now {
                due.push(Reverse((at, request, tokens)));
                break;
            }
            back(&mut router, at, RequestId(request), tokens);
        }
        let features = Arc::new(prompt(number * 7919 % SESSIONS));
        let mut arrive = || router.arrive(now, RequestId(request), black_box(features.clone()));
        let decision = if number < WARM { arrive() } else { samples.time(arrive) };
        anyhow::ensure!(matches!(decision.verdict, Verdict::Dispatch(_)), "dispatched at once");
        scored += if number < WARM { 0 } else { decision.candidates.len() };
        let Some(chosen) = decision.chosen() else { continue };
        let replica = chosen.replica.0 as usize;
        let rtt_ms = rtt_ms(replica);
        let begun_ms = free_ms[replica].max(now.ms() + rtt_ms / 2.0);
        free_ms[replica] = begun_ms + SERVICE_MS.0 + SERVICE_MS.1 * f64::from(chosen.uncached_tokens);
        let first = Time::from_ms(free_ms[replica] + rtt_ms / 2.0);
        due.push(Reverse((first, request, None)));
        due.push(Reverse((first.plus_ms(ANSWER_MS), request, Some((decision.prompt_tokens, chosen.cached_tokens)))));
    }
    Ok((samples, scored as f64 / DECISIONS as f64))
}

/// A first token, or the end of an answer with the prompt's tokens and those of them that were cached.
fn back(router: &mut Router, at: Time, request: RequestId, tokens: Option<(u32, u32)>) {
    let Some((prompt, cached)) = tokens else {
        router.first_token(at, request);
        return;
    };
    let usage = Usage { prompt_tokens: Some(prompt), cached_tokens: Some(cached), completion_tokens: Some(100) };
    router.finish(at, request, Outcome::Done(usage));
}

fn rtt_ms(replica: usize) -> f64 {
    NEAREST_MS + STEP_MS * (replica % REGIONS) as f64
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
        router.rtt(Time::ZERO, replica, rtt_ms(number));
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
