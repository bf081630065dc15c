//! The engine model against measured runs of a real vLLM 0.19: 300 ShareGPT requests at 10 per second on three set-ups.
//!
//! Data and origin: `engine_validation` of the shared traces (casys-kaist/LLMServingSim, MIT). All three runs are overloaded, so
//! that this checks batch composition, KV limits and throughput rather than the prefill time of one request alone.
//!
//! The constants were fitted with KV counted in single tokens and without prefix reuse; replayed like that, the model has to be
//! as close as what is published of that fit. Replayed as the engine was really set up (blocks of 16 tokens, prefix cache on, 7 % of
//! the prompt tokens reused) it is faster by those tokens, and by recomputation that the cache saves after a preemption: a
//! second, wider limit.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gorgo::model::Time;
use gorgo::sim::engine::{Engine, EngineEvent, EngineGauges, EngineSpec, Job, Order, Scheduler};
use gorgo::sim::hardware::{Gpu, Model};
use gorgo::sim::preset::find_model;
use gorgo::sim::timing::{Efficiency, StepTiming, TensorParallel};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// One measured request. Times are seconds of the engine's monotonic clock.
#[derive(Deserialize)]
struct Measured {
    request_id: String,
    input_toks: u32,
    output_toks: u32,
    queued_ts: f64,
    first_token_ts: f64,
    last_token_ts: f64,
}

/// The prompt of one request: ids of its started blocks of 16 tokens.
#[derive(Deserialize)]
struct Prompt {
    request_id: String,
    hash_ids: Vec<u64>,
}

/// A measured set-up with the published constants, and the greatest error allowed for each figure, %.
struct Run {
    name: &'static str,
    prompts: &'static str,
    gpu: Gpu,
    model: &'static str,
    efficiency: Efficiency,
    parallel: TensorParallel,
    kv_tokens: u64,
    max_running: u32,
    /// TTFT mean, p50, p95, p99, then TPOT mean, p50, p95.
    allowed: [f64; 7],
}

/// How KV is kept in a replay.
#[derive(Clone, Copy)]
enum Kv {
    /// As the constants were fitted: token by token, nothing reused.
    Fitted,
    /// As the engine was set up: blocks of [`BLOCK`] tokens, shared prefixes reused.
    Configured,
}

/// Block of the engine and of the prompts' ids, tokens.
const BLOCK: u32 = 16;
/// Greatest error of any figure with [`Kv::Configured`], %.
const CONFIGURED_ALLOWED: f64 = 12.0;
/// Replays that are averaged: with preemption, which request has to go depends on single tokens, and the tail with it.
const REPLAYS: u64 = 9;
/// Arrivals are shifted by up to this much in all replays but the first, µs: a tenth of a step, and far less than the 15 ms and
/// more by which the measured `queued_ts` lags the true arrival.
const SHIFT_MICROS: u64 = 2000;

const FIGURES: [&str; 7] = ["TTFT mean", "p50", "p95", "p99", "TPOT mean", "p50", "p95"];

const RTX_PRO_6000: Gpu = gpu("rtx-pro-6000", 503.0, 1597.0);
const RTX_4090: Gpu = gpu("rtx-4090", 165.2, 1008.0);

/// Only the peaks count here: the KV room is given per run.
const fn gpu(id: &'static str, tflops: f64, gb_per_s: f64) -> Gpu {
    let (bf16_flops, bytes_per_s) = (tflops * 1e12, gb_per_s * 1e9);
    Gpu { id, bf16_flops, fp8_flops: None, bytes_per_s, memory_mib: 0, usd_per_hour: None }
}

const RUNS: [Run; 3] = [
    Run {
        name: "RTXPRO6000_Llama-3.1-8B",
        prompts: "sharegpt300_l31_mooncake_blk16",
        gpu: RTX_PRO_6000,
        model: "llama-3.1-8b",
        efficiency: Efficiency { compute: 0.60, memory: 0.80, attention: 0.5 },
        parallel: TensorParallel::NONE,
        kv_tokens: 566_693,
        max_running: 128,
        allowed: [5.0; 7],
    },
    Run {
        name: "RTXPRO6000_Qwen3-32B",
        prompts: "sharegpt300_q3_mooncake_blk16",
        gpu: RTX_PRO_6000,
        model: "qwen3-32b",
        efficiency: Efficiency { compute: 0.60, memory: 0.80, attention: 0.5 },
        parallel: TensorParallel { gpus: 2, allreduce_ms: 0.080, allreduce_bytes_per_s: 20e9 },
        kv_tokens: 380_000,
        max_running: 128,
        allowed: [5.0; 7],
    },
    Run {
        name: "RTX4090_Llama-3.1-8B",
        prompts: "sharegpt300_l31_mooncake_blk16",
        gpu: RTX_4090,
        model: "llama-3.1-8b",
        efficiency: Efficiency { compute: 0.85, memory: 0.95, attention: 0.5 },
        parallel: TensorParallel::NONE,
        kv_tokens: 41_408,
        max_running: 256,
        allowed: [5.0, 5.0, 15.0, 5.0, 5.0, 5.0, 5.0],
    },
];

#[test]
fn measured_vllm_runs_are_reproduced() {
    let folder = data_folder();
    if !folder.is_dir() {
        // Not `eprintln!`: what a passing test prints that way is never seen.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no {} (GORGO_TEST_DATA names the folder that holds `traces`)",
            folder.display()
        );
        return;
    }
    println!("{:<36}{}", "error, %", FIGURES.map(|figure| format!("{figure:>10}")).concat());
    let mut misses = Vec::new();
    for run in &RUNS {
        let measured: Vec<Measured> = read_lines(&folder.join(format!("{}.requests.jsonl.zst", run.name)));
        let prompts: Vec<Prompt> = read_lines(&folder.join(format!("{}.jsonl.zst", run.prompts)));
        let real = figures(&measured.iter().map(Measured::latencies).collect::<Vec<_>>());
        for (kv, allowed) in [(Kv::Fitted, run.allowed), (Kv::Configured, [CONFIGURED_ALLOWED; 7])] {
            let (simulated, about) = average(run, kv, &measured, &prompts);
            let errors: [f64; 7] = std::array::from_fn(|figure| 100.0 * (simulated[figure] / real[figure] - 1.0));
            let row = format!("{} {}", run.name, if matches!(kv, Kv::Fitted) { "fitted" } else { "configured" });
            println!("{row:<36}{}   {about}", errors.map(|error| format!("{error:>+10.1}")).concat());
            for ((figure, error), allowed) in FIGURES.iter().zip(errors).zip(allowed) {
                if error.abs() > allowed {
                    misses.push(format!("{row}, {figure}: {error:+.1} %, allowed {allowed} %"));
                }
            }
        }
    }
    assert!(misses.is_empty(), "{misses:#?}");
}

/// The figures averaged over the replays, and in words what the first of them did.
fn average(run: &Run, kv: Kv, measured: &[Measured], prompts: &[Prompt]) -> ([f64; 7], String) {
    let mut sums = [0.0; 7];
    let mut about = String::new();
    for seed in 0..REPLAYS {
        let (latencies, gauges) = replay(run, kv, seed, measured, prompts);
        let figures = figures(&latencies);
        sums = std::array::from_fn(|figure| sums[figure] + figures[figure]);
        if seed == 0 {
            let reused = 100.0 * gauges.cached_tokens_total as f64 / gauges.prompt_tokens_total as f64;
            about = format!("{} preemptions, {reused:.1} % of the prompt tokens reused", gauges.preemptions_total);
        }
    }
    (sums.map(|sum| sum / REPLAYS as f64), about)
}

impl Measured {
    /// TTFT and TPOT, ms. TTFT counts from the moment when the engine's loop picked the request up, since the arrival is on
    /// another clock.
    fn latencies(&self) -> (f64, f64) {
        let ttft = self.first_token_ts - self.queued_ts;
        let tpot = (self.last_token_ts - self.first_token_ts) / f64::from(self.output_toks - 1);
        (1e3 * ttft, 1e3 * tpot)
    }
}

/// Runs the requests through the engine model; TTFT and TPOT of each, ms.
fn replay(run: &Run, kv: Kv, seed: u64, measured: &[Measured], prompts: &[Prompt]) -> (Vec<(f64, f64)>, EngineGauges) {
    let prompts: BTreeMap<&str, &Prompt> = prompts.iter().map(|prompt| (prompt.request_id.as_str(), prompt)).collect();
    let arrivals = arrivals(seed, measured);
    let mut engine = Engine::new(spec(run, kv));
    let mut events = Vec::new();
    for &(at, index) in &arrivals {
        let request = &measured[index];
        let full_blocks = match kv {
            Kv::Fitted => 0,
            Kv::Configured => (request.input_toks / BLOCK) as usize,
        };
        let job = Job {
            id: index as u64,
            blocks: Arc::from(&prompts[request.request_id.as_str()].hash_ids[..full_blocks]),
            prompt_tokens: request.input_toks,
            output_tokens: request.output_toks,
        };
        engine.advance(at, &mut events);
        engine.submit(at, job);
    }
    while let Some(at) = engine.next_event() {
        engine.advance(at, &mut events);
    }
    (latencies(measured, &arrivals, &events), engine.gauges())
}

/// When each request arrives and its position in `measured`, in order of time.
fn arrivals(seed: u64, measured: &[Measured]) -> Vec<(Time, usize)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start = measured.iter().map(|request| request.queued_ts).fold(f64::INFINITY, f64::min);
    let mut arrivals: Vec<(Time, usize)> = measured
        .iter()
        .enumerate()
        .map(|(index, request)| {
            let shift = if seed == 0 { 0 } else { random.random_range(0..SHIFT_MICROS) };
            (Time::from_ms(1e3 * (request.queued_ts - start) + shift as f64 / 1e3), index)
        })
        .collect();
    arrivals.sort();
    arrivals
}

fn spec(run: &Run, kv: Kv) -> EngineSpec {
    let model: &Model = find_model(run.model).expect("a preset's model");
    EngineSpec {
        timing: StepTiming::from_hardware(&run.gpu, model, run.efficiency, run.parallel).expect("bf16 weights"),
        chunk: 2048,
        max_running: run.max_running,
        kv_tokens: run.kv_tokens,
        block: match kv {
            Kv::Fitted => 1,
            Kv::Configured => BLOCK,
        },
        scheduler: Scheduler::Mixed,
        order: Order::Arrival,
        usd_per_hour: None,
    }
}

/// TTFT and TPOT per request from its arrival, first token and end.
fn latencies(measured: &[Measured], arrivals: &[(Time, usize)], events: &[EngineEvent]) -> Vec<(f64, f64)> {
    let mut first = vec![None; measured.len()];
    let mut done = vec![None; measured.len()];
    for event in events {
        match *event {
            EngineEvent::FirstToken { id, at, .. } => first[id as usize] = Some(at),
            EngineEvent::Done { id, at } => done[id as usize] = Some(at),
            EngineEvent::Token { .. } => {}
            EngineEvent::TooLarge { id, .. } => panic!("request {id} is too large for the engine"),
        }
    }
    arrivals
        .iter()
        .map(|&(arrival, index)| {
            let (first, done) = (first[index].expect("a first token"), done[index].expect("an end"));
            (first.since_ms(arrival), done.since_ms(first) / f64::from(measured[index].output_toks - 1))
        })
        .collect()
}

/// The seven figures, ms. Percentiles interpolate linearly.
fn figures(latencies: &[(f64, f64)]) -> [f64; 7] {
    let ttft = Sorted::new(latencies.iter().map(|latency| latency.0));
    let tpot = Sorted::new(latencies.iter().map(|latency| latency.1));
    [ttft.mean(), ttft.at(0.50), ttft.at(0.95), ttft.at(0.99), tpot.mean(), tpot.at(0.50), tpot.at(0.95)]
}

struct Sorted(Vec<f64>);

impl Sorted {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    fn at(&self, share: f64) -> f64 {
        let rank = share * (self.0.len() - 1) as f64;
        let below = self.0[rank.floor() as usize];
        below + (self.0[rank.ceil() as usize] - below) * rank.fract()
    }
}

fn data_folder() -> PathBuf {
    std::env::var_os("GORGO_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
        .join("traces/engine_validation")
}

fn read_lines<T: for<'de> Deserialize<'de>>(path: &Path) -> Vec<T> {
    let compressed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(compressed.as_slice())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .read_to_string(&mut text)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), index + 1))
        })
        .collect()
}
