//! The straggler guard in a whole fleet: it rescues, and nothing is computed twice on its account.

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};

use super::{Case, fleet, mean, plan, session, step};
use crate::routing::Settings;
use crate::sim::world::{Edge, Played};
use crate::workload::Plan;
use crate::workload::fleet::Jitter;

/// `count` prompts of `tokens` and more, each a text of its own, one every `gap_ms`.
fn documents(count: u64, tokens: u32, gap_ms: f64) -> Plan {
    let one = |id: u64| session(id, id as f64 * gap_ms, vec![step(id, tokens + 301 * (id as u32 % 5), 4, 0.0)]);
    plan((0..count).map(one).collect())
}

/// As a router plays it that lets requests line up at the engines.
fn play(case: &Case<'_>, guard: f64) -> Played {
    let parameters = vec![("hold_ms".to_owned(), 60_000.0), ("guard".to_owned(), guard)];
    case.play_with(&Settings { strategy: case.strategy.into(), parameters, seed: case.seed, ..Settings::default() })
}

#[test]
fn what_waits_behind_a_sudden_slowness_is_served_elsewhere() {
    let fleet = fleet("abc", "a", "chunk = 1024\n");
    // Every nine seconds eighteen at once: two seconds of work for each engine.
    let burst =
        |id: u64| session(id, 9000.0 * (id / 18) as f64 + 40.0 * (id % 18) as f64, vec![step(id, 3000, 4, 0.0)]);
    let plan = plan((0..108).map(burst).collect());
    let case = Case { faults: &["slow:b@27.5..90x60"], ..Case::new(&fleet, &plan, "predictive") };
    let (with, without) = (play(&case, 1.0), play(&case, 0.0));
    assert!(with.samples.iter().chain(&without.samples).all(crate::report::Sample::ok));
    assert_eq!((without.recalled, without.retried), (0, 0));
    assert!(with.recalled > 0 && with.retried == with.recalled, "{} called back", with.recalled);
    assert_eq!(with.recalled_begun, 0);
    // The same requests without it.
    let both = with.samples.iter().zip(&without.samples).filter(|(with, _)| with.retried);
    let ttfts = both.filter_map(|(with, without)| Some((with.ttft_ms()?, without.ttft_ms()?)));
    let (rescued, left): (Vec<f64>, Vec<f64>) = ttfts.unzip();
    assert!(mean(&rescued) < 0.5 * mean(&left), "{} ms instead of {} ms", mean(&rescued), mean(&left));
}

/// A machine that slows down or hangs for a while, within twenty seconds.
fn fault() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    (
        name,
        prop_oneof![Just("hang"), Just("slow"), Just("slow"), Just("rtt")],
        4000_u32..12_000,
        2000_u32..20_000,
        2_u32..30,
    )
        .prop_map(|(name, kind, from, length, factor)| {
            let (from, to) = (f64::from(from) / 1000.0, f64::from(from + length) / 1000.0);
            match kind {
                "hang" => format!("hang:{name}@{from}..{to}"),
                "slow" => format!("slow:{name}@{from}..{to}x{factor}"),
                _ => format!("rtt:{name}@{from}..{to}x3"),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever slows engines down and lines, and whichever way they serve: what is called back has never been begun.
    #[test]
    fn nothing_is_computed_twice(
        faults in collection::vec(fault(), 1..3), seed in 0_u64..1_000_000, agents: bool, spells: bool,
        tokens in 200_u32..4000, crowd in 0.4_f64..1.6, chunk in prop_oneof![Just(256), Just(512), Just(1024)],
        more in prop_oneof![Just(""), Just("scheduler = \"mixed\"\n"), Just("max_running = 4\n"), Just("kv_tokens = 12000\n")],
    ) {
        let mut fleet = fleet("abc", if agents { "abc" } else { "a" }, &format!("chunk = {chunk}\n{more}"));
        fleet.jitter = Jitter::Backbone;
        // What three engines do in the time of one prompt.
        let gap_ms = 0.1 * f64::from(tokens + 600) / 3.0 / crowd;
        let plan = documents(250, tokens, gap_ms);
        let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
        let edge = Edge { rtt_spells: spells, ..Edge::default() };
        let played = play(&Case { edge, faults: &faults, seed, ..Case::new(&fleet, &plan, "predictive") }, 1.0);
        prop_assert_eq!(played.recalled_begun, 0, "of {} called back", played.recalled);
        prop_assert_eq!((played.samples.len(), played.queued, played.in_flight), (plan.requests(), 0, 0));
        prop_assert!(played.samples.iter().all(crate::report::Sample::ok));
    }
}
