//! When bytes that enter a wide-area path leave it again: the simulator's links, and the emulator's relay, which asks and then waits.
//!
//! One direction of one connection. Modelled: distance, jitter, spikes, TCP's set-up and its slow start after idling. Not
//! modelled: bandwidth, loss as such (a spike stands for a retransmission), congestion avoidance, competing traffic.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

use crate::model::Time;
use crate::workload::fleet::Jitter;

/// Standard deviation of the jitter as a share of the one-way delay: the middle of 2 to 3 % (docs/models.md 4).
const SIGMA: f64 = 0.025;

/// Shape of the Gamma distribution that jitter follows: many small delays, few large ones, none below the base.
const SHAPE: f64 = 2.0;

/// Share of chunks that meet a spike on the public Internet, and its extra delay in ms (docs/models.md 4).
const SPIKE_SHARE: f64 = 0.005;
const SPIKE_MS: std::ops::RangeInclusive<f64> = 50.0..=400.0;

/// What TCP sends at first and after idling: 10 segments of 1460 bytes (RFC 6928).
const INITIAL_WINDOW: u64 = 14_600;

/// Linux sets the retransmission timeout to the smoothed RTT plus at least this, ms; after so long without sending the window
/// falls back (`tcp_slow_start_after_idle`).
const MIN_RTO_VARIANCE_MS: f64 = 200.0;

/// One direction of one connection.
#[derive(Debug)]
pub struct Path {
    one_way_ms: f64,
    jitter: Jitter,
    rng: ChaCha8Rng,
    /// `None`: whatever is sent goes at once.
    window: Option<Window>,
    /// Nothing is sent before: the connection is still being set up.
    open_at: Time,
    /// Nothing leaves before what entered before it.
    last_exit: Time,
}

impl Path {
    /// A path with a round-trip time of `rtt_ms`, over which nothing is sent before `open_at`.
    #[must_use]
    pub fn new(rtt_ms: f64, jitter: Jitter, rng: ChaCha8Rng, open_at: Time) -> Self {
        let one_way_ms = rtt_ms.max(0.0) / 2.0;
        let window = Some(Window::new(2.0 * one_way_ms));
        Self { one_way_ms, jitter, rng, window, open_at, last_exit: Time::ZERO }
    }

    /// The same without TCP's slow start: sizes do not matter.
    #[must_use]
    pub fn without_slow_start(mut self) -> Self {
        self.window = None;
        self
    }

    /// When the last of `bytes` bytes leaves that enter at `now`; calls must not go back in time. 0 bytes are a mere sign, such
    /// as the end of the stream.
    pub fn exit(&mut self, now: Time, bytes: u64) -> Time {
        let open = now.max(self.open_at);
        let sent = self.window.as_mut().map_or(open, |window| window.send(open, bytes));
        self.last_exit = sent.plus_ms(self.delay_ms()).max(self.last_exit);
        self.last_exit
    }

    /// One-way delay for one chunk.
    fn delay_ms(&mut self) -> f64 {
        let spread = match self.jitter {
            Jitter::None => 0.0,
            Jitter::Backbone | Jitter::Internet => {
                // The variance of a Gamma distribution is shape · scale².
                let scale = SIGMA * self.one_way_ms / SHAPE.sqrt();
                // A path without length has no jitter, and Gamma refuses a scale of 0.
                Gamma::new(SHAPE, scale).map_or(0.0, |gamma| gamma.sample(&mut self.rng))
            }
        };
        let spikes = self.jitter == Jitter::Internet && self.rng.random_bool(SPIKE_SHARE);
        let spike = if spikes { self.rng.random_range(SPIKE_MS) } else { 0.0 };
        self.one_way_ms + spread + spike
    }
}

/// TCP's congestion window in slow start: each round trip that uses it up doubles it. From an idle start, `bytes` bytes take
/// `ceil(log2(1 + bytes / 14600)) - 1` round trips more than their first one (docs/models.md 4).
#[derive(Debug)]
struct Window {
    rtt_ms: f64,
    size: u64,
    /// Of it used in the current round.
    used: u64,
    round_began: Time,
    last_sent: Option<Time>,
}

impl Window {
    fn new(rtt_ms: f64) -> Self {
        Self { rtt_ms, size: INITIAL_WINDOW, used: 0, round_began: Time::ZERO, last_sent: None }
    }

    /// When the last of these bytes is sent.
    fn send(&mut self, now: Time, bytes: u64) -> Time {
        let idle_ms = self.last_sent.map_or(f64::INFINITY, |last| now.since_ms(last));
        let mut at = now.max(self.round_began);
        if idle_ms > self.rtt_ms + MIN_RTO_VARIANCE_MS {
            self.begin_round(at, INITIAL_WINDOW);
        } else if at >= self.round_began.plus_ms(self.rtt_ms) {
            let used_up = self.used >= self.size;
            self.begin_round(at, if used_up { self.size.saturating_mul(2) } else { self.size });
        }
        let mut left = bytes;
        while left > self.size - self.used {
            left -= self.size - self.used;
            at = self.round_began.plus_ms(self.rtt_ms);
            self.begin_round(at, self.size.saturating_mul(2));
        }
        self.used += left;
        if bytes > 0 {
            self.last_sent = Some(at);
        }
        at
    }

    fn begin_round(&mut self, at: Time, size: u64) {
        self.round_began = at;
        self.size = size;
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::{Jitter, Path};
    use crate::model::Time;

    fn path(rtt_ms: f64, jitter: Jitter, seed: u64) -> Path {
        Path::new(rtt_ms, jitter, ChaCha8Rng::seed_from_u64(seed), Time::ZERO)
    }

    /// Extra round trips of an upload in chunks of `chunk` bytes that all enter at once.
    fn extra_rounds(bytes: u64, chunk: u64) -> f64 {
        let mut path = path(100.0, Jitter::None, 0);
        let now = Time::from_ms(1000.0);
        let mut exit = now;
        for start in (0..bytes).step_by(chunk as usize) {
            exit = path.exit(now, chunk.min(bytes - start));
        }
        (exit.since_ms(now) - 50.0) / 100.0
    }

    #[test]
    fn slow_start_costs_what_the_formula_says() {
        for bytes in [1, 1460, 14_600, 14_601, 43_800, 43_801, 102_200, 102_201, 134_400, 512_000, 10_000_000] {
            let formula = (1.0 + bytes as f64 / 14_600.0).log2().ceil() - 1.0;
            for chunk in [1000, 16_384, u64::MAX] {
                assert_eq!(extra_rounds(bytes, chunk), formula, "{bytes} bytes in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn the_table_of_extra_round_trips_for_prompts() {
        // docs/models.md 4, at 4.2 bytes per token.
        for (tokens, rounds) in
            [(1000, 0.0), (4000, 1.0), (8000, 1.0), (16_000, 2.0), (32_000, 3.0), (64_000, 4.0), (122_000, 5.0)]
        {
            assert_eq!(extra_rounds(tokens * 42 / 10, 16_384), rounds, "{tokens} tokens");
        }
    }

    #[test]
    fn a_warm_window_costs_nothing_until_it_has_idled() {
        let mut path = path(100.0, Jitter::None, 0);
        let mut upload = |at_ms: f64| path.exit(Time::from_ms(at_ms), 100_000).since_ms(Time::from_ms(at_ms));
        assert_eq!(upload(0.0), 250.0, "cold: two more round trips");
        assert_eq!(upload(400.0), 150.0, "its last round was not used up, so it has grown to 58,400 bytes only");
        assert_eq!(upload(700.0), 50.0, "warm");
        assert_eq!(upload(999.0), 50.0, "still warm after 299 ms");
        assert_eq!(upload(1300.0), 250.0, "cold again after more than RTT + 200 ms");
    }

    #[test]
    fn without_slow_start_sizes_do_not_matter() {
        let mut path = path(100.0, Jitter::None, 0).without_slow_start();
        assert_eq!(path.exit(Time::ZERO, 10_000_000), Time::from_ms(50.0));
    }

    #[test]
    fn a_slow_sender_is_not_held_up() {
        let mut path = path(100.0, Jitter::None, 0);
        for step in 0..100 {
            let now = Time::from_ms(f64::from(step) * 100.0);
            assert_eq!(path.exit(now, 10_000).since_ms(now), 50.0);
        }
    }

    #[test]
    fn nothing_is_sent_before_the_connection_stands() {
        let open_at = Time::from_ms(80.0);
        let mut path = Path::new(80.0, Jitter::None, ChaCha8Rng::seed_from_u64(0), open_at);
        assert_eq!(path.exit(Time::ZERO, 100), Time::from_ms(120.0));
        assert_eq!(path.exit(Time::from_ms(200.0), 100), Time::from_ms(240.0));
    }

    #[test]
    fn jitter_has_its_spread_and_never_shortens_the_way() {
        let delays = |jitter| {
            let mut path = path(100.0, jitter, 3);
            let delays: Vec<f64> = (0..20_000u32)
                .map(|step| Time::from_ms(f64::from(step) * 1000.0))
                .map(|now| path.exit(now, 10).since_ms(now))
                .collect();
            delays
        };
        let backbone = delays(Jitter::Backbone);
        let mean = backbone.iter().sum::<f64>() / backbone.len() as f64;
        let deviation =
            (backbone.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / backbone.len() as f64).sqrt();
        assert!((0.02..0.03).contains(&(deviation / 50.0)), "standard deviation {deviation} ms of 50 ms");
        assert!(backbone.iter().all(|delay| (50.0..80.0).contains(delay)));
        let internet = delays(Jitter::Internet);
        let spikes = internet.iter().filter(|delay| **delay >= 100.0).count();
        assert!((60..=140).contains(&spikes), "{spikes} spikes of 100 expected");
        assert!(internet.iter().all(|delay| (50.0..480.0).contains(delay)));
        assert!(delays(Jitter::None).iter().all(|delay| *delay == 50.0));
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![Just(Jitter::None), Just(Jitter::Backbone), Just(Jitter::Internet)]
    }

    proptest! {
        #[test]
        fn order_is_kept_and_a_seed_repeats(
            chunks in proptest::collection::vec((0..50_000u64, 0..100_000u64), 1..60),
            rtt_ms in 0.0..400.0f64,
            jitter in any_jitter(),
            seed in 0..9u64,
        ) {
            let run = || {
                let mut path = path(rtt_ms, jitter, seed);
                let mut now = Time::ZERO;
                chunks.iter().map(|&(gap, bytes)| {
                    now = now.plus_ms(gap as f64 / 1000.0);
                    (now, path.exit(now, bytes))
                }).collect::<Vec<_>>()
            };
            let exits = run();
            prop_assert!(exits.windows(2).all(|pair| pair[0].1 <= pair[1].1));
            prop_assert!(exits.iter().all(|(now, exit)| exit.since_ms(*now) >= rtt_ms / 2.0 - 0.001));
            prop_assert_eq!(exits, run());
        }
    }
}
