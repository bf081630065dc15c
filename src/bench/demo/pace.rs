//! How much of a trace a fleet can take, so that a demo's defaults load it without drowning it, and what to say where the result
//! shows little.

use crate::report::Run;
use crate::sim::engine::EngineSpec;
use crate::workload::Trace;

/// Share of the estimated capacity that a replay asks for by default: queues form and all strategies still keep up.
const LOAD: f64 = 0.5;
/// Hit ratio below that of an infinite cache, 0..=1, from which the caches are said to be too small.
const WIDE_GAP: f64 = 0.2;

/// Mean lengths of a trace's requests, tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mean {
    input: f64,
    output: f64,
}

impl Mean {
    fn of(trace: &Trace, max_output: Option<u32>) -> Self {
        let count = trace.requests().max(1) as f64;
        let output = |tokens: u32| f64::from(max_output.map_or(tokens, |most| tokens.min(most)));
        Self {
            input: trace.rows().map(|row| f64::from(row.input_tokens)).sum::<f64>() / count,
            output: trace.rows().map(|row| output(row.output_tokens)).sum::<f64>() / count,
        }
    }
}

/// Factor on the trace's times that brings its mean rate to [`LOAD`] of what the fleet takes with nothing cached; 1 where it fits as
/// it is, else rounded up to tenths. 1 as well for a trace without a clock.
#[must_use]
pub fn default_time_scale(trace: &Trace, specs: &[EngineSpec], max_output: Option<u32>) -> f64 {
    let capacity = capacity_per_s(specs, trace, max_output);
    let offered = offered_per_s(trace).filter(|_| capacity > 0.0);
    offered.map_or(1.0, |offered| ((offered / (LOAD * capacity) * 10.0).ceil() / 10.0).max(1.0))
}

/// Requests per second of the trace's own clock; `None` without one.
#[must_use]
pub fn offered_per_s(trace: &Trace) -> Option<f64> {
    let times = || trace.rows().filter_map(|row| row.at_ms);
    let (first, last) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let span_s = (last - first) / 1000.0;
    (span_s > 0.0 && span_s.is_finite()).then(|| trace.requests() as f64 / span_s)
}

/// Requests of the trace per second that the replicas are estimated to serve together with nothing cached.
#[must_use]
pub fn capacity_per_s(specs: &[EngineSpec], trace: &Trace, max_output: Option<u32>) -> f64 {
    capacity_of(specs, Mean::of(trace, max_output))
}

/// Requests per second that the replicas serve together with nothing cached.
///
/// As many requests as the KV cache holds share a replica: `n = kv / (input + output)`, at most `max_running`. Their prefills come
/// one after the other, their outputs together: `rate = n / (n × prefill + output × step)`.
fn capacity_of(specs: &[EngineSpec], mean: Mean) -> f64 {
    let of = |spec: &EngineSpec| {
        let room = (spec.kv_tokens as f64 / (mean.input + mean.output).max(1.0)).floor();
        let n = room.clamp(1.0, f64::from(spec.max_running.max(1)));
        let prefill_ms = spec.lone_prefill_ms(0, mean.input.round() as u32);
        // One step reads the KV of all n; a single request with their contexts together reads as much.
        let step_ms = spec.decode_step_ms((n * mean.input).round() as u32);
        n * 1000.0 / (n * prefill_ms + mean.output * step_ms)
    };
    specs.iter().map(of).sum()
}

/// Says why caching shows little where the best strategy finds far less than an infinite cache would and the fleet's caches are
/// smaller than the distinct tokens that were played.
#[must_use]
pub(super) fn small_caches(runs: &[Run], specs: &[EngineSpec], distinct_tokens: u64) -> Option<String> {
    let infinite = runs.iter().find_map(|run| run.cache.infinite_cache_ratio)?;
    let best = runs.iter().filter_map(|run| run.cache.hit_ratio).max_by(f64::total_cmp)?;
    let room: u64 = specs.iter().map(|spec| spec.kv_tokens).sum();
    (infinite - best > WIDE_GAP && room < distinct_tokens).then(|| {
        format!(
            "the caches are small for this trace: its requests hold {distinct_tokens} distinct tokens, all replicas together \
             {room}; an infinite cache would hit {:.0} %, the best strategy hit {:.0} %; a `--fleet` with larger `kv_tokens` \
             shows what routing can gain",
            infinite * 100.0,
            best * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Mean, capacity_of, default_time_scale, small_caches};
    use crate::bench::demo::fleet::{default_fleet, specs};
    use crate::report::Run;
    use crate::report::schema::Cache;
    use crate::workload::{ReadOptions, Trace};

    /// `per_s` requests a second for a minute, of these lengths.
    fn trace(per_s: u32, input: u32, output: u32) -> Trace {
        let line = |index: u32| {
            let at = u64::from(index) * 1000 / u64::from(per_s);
            let blocks: Vec<u32> = (0..input.div_ceil(512)).collect();
            format!(
                "{{\"timestamp\":{at},\"input_length\":{input},\"output_length\":{output},\"hash_ids\":{blocks:?}}}\n"
            )
        };
        let text: String = (0..=60 * per_s).map(line).collect();
        Trace::read("t.jsonl", text.as_bytes(), &ReadOptions::default()).unwrap()
    }

    #[test]
    fn a_trace_that_fits_plays_as_it_is_and_a_heavy_one_is_stretched_in_proportion() {
        let specs = specs(&default_fleet().unwrap()).unwrap();
        assert_eq!(default_time_scale(&trace(1, 500, 10), &specs, None), 1.0);
        let (four, eight) = (trace(4, 12_000, 300), trace(8, 12_000, 300));
        let (slow, slower) = (default_time_scale(&four, &specs, None), default_time_scale(&eight, &specs, None));
        assert!(slow > 2.0 && (slower / slow - 2.0).abs() < 0.1, "{slow} {slower}");
        assert!(default_time_scale(&four, &specs, Some(8)) < slow, "short outputs hold the cache for less time");
        let untimed = Trace::bundled().unwrap();
        assert_eq!(default_time_scale(&untimed, &specs, None), 1.0);
    }

    #[test]
    fn capacity_against_the_formula_by_hand() {
        let mut spec = specs(&default_fleet().unwrap()).unwrap().remove(0);
        let mean = Mean { input: 9_900.0, output: 100.0 };
        (spec.kv_tokens, spec.max_running) = (40_000, 256);
        let (prefill, step) = (spec.lone_prefill_ms(0, 9_900), spec.decode_step_ms(39_600));
        let expected = 4.0 * 1000.0 / (4.0 * prefill + 100.0 * step);
        assert!((capacity_of(&[spec.clone()], mean) - expected).abs() < 1e-9);
        assert!((capacity_of(&[spec.clone(), spec.clone()], mean) - 2.0 * expected).abs() < 1e-9);
        spec.kv_tokens = 1;
        assert!(capacity_of(&[spec], mean) > 0.0, "one request always runs");
    }

    #[test]
    fn small_caches_are_named_only_where_they_are_the_reason() {
        let specs = specs(&default_fleet().unwrap()).unwrap();
        let run =
            |hit| Run { cache: Cache { hit_ratio: Some(hit), infinite_cache_ratio: Some(0.5) }, ..Run::default() };
        let text = small_caches(&[run(0.1), run(0.2)], &specs, 900_000).unwrap();
        assert!(text.contains("120000") && text.contains("would hit 50 %, the best strategy hit 20 %"), "{text}");
        assert_eq!(small_caches(&[run(0.1), run(0.4)], &specs, 900_000), None);
        assert_eq!(small_caches(&[run(0.1)], &specs, 100_000), None);
        assert_eq!(small_caches(&[], &specs, 900_000), None);
    }
}
