//! Samples of a duration and their percentiles.

use std::time::{Duration, Instant};

/// Durations of one thing that was done many times.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Does it once more and keeps the time.
    pub(crate) fn time<T>(&mut self, action: impl FnOnce() -> T) -> T {
        let start = now();
        let result = action();
        self.0.push(now() - start);
        result
    }

    /// Keeps the sum of the newest sample of each part as one sample.
    pub(crate) fn sum_of_newest(&mut self, parts: &[&Self]) {
        self.0.push(parts.iter().filter_map(|part| part.0.last()).sum());
    }

    /// Prints p50 and p95 in microseconds and, with a target for p50, the ratio to it.
    pub(crate) fn print(mut self, name: &str, target_us: Option<f64>) {
        self.0.sort_unstable();
        let percentile = |share: f64| {
            let position = (share * (self.0.len().saturating_sub(1)) as f64).round() as usize;
            self.0.get(position).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e6)
        };
        let (p50, p95) = (percentile(0.5), percentile(0.95));
        let verdict =
            target_us.map_or(String::new(), |target| format!("   target {target} µs, ratio {:.2}", p50 / target));
        println!("  {name:<44} p50 {p50:>8.1} µs   p95 {p95:>8.1} µs{verdict}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}
