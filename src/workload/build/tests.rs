use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::{prop_assert, prop_assert_eq, proptest};

use super::{Pauses, PlanError, PlanOptions, SessionSource, build};
use crate::workload::arrivals::Arrivals;
use crate::workload::plan::Plan;
use crate::workload::reuse::infinite_cache;
use crate::workload::trace::{ReadOptions, Trace};

/// Three episodes with a common first block; the second step of each extends the first.
const EPISODES: &str = r#"
{"session_id":"a","turn":0,"step":0,"input_length":40,"output_length":9,"hash_ids":[1,2,3]}
{"session_id":"a","turn":0,"step":1,"input_length":50,"output_length":9,"hash_ids":[1,2,4,5]}
{"session_id":"a","turn":1,"step":0,"input_length":60,"output_length":9,"hash_ids":[1,2,4,6]}
{"session_id":"b","turn":0,"step":0,"input_length":17,"output_length":9,"hash_ids":[1,7]}
{"session_id":"c","turn":0,"step":0,"input_length":16,"output_length":9,"hash_ids":[8]}
"#;

/// Requests on a clock; the second and fourth belong together.
const TIMED: &str = r#"
{"timestamp":1000,"input_length":20,"output_length":1,"hash_ids":[1,2]}
{"timestamp":2000,"input_length":20,"output_length":1,"hash_ids":[1,3],"session_id":"s"}
{"timestamp":2500,"input_length":20,"output_length":7,"hash_ids":[1,4]}
{"timestamp":9000,"input_length":20,"output_length":1,"hash_ids":[1,3],"session_id":"s","turn":1}
"#;

fn trace(text: &str) -> Trace {
    let options = ReadOptions { block_size: Some(16), ..ReadOptions::default() };
    Trace::read("t", text.as_bytes(), &options).unwrap()
}

fn show(plan: &Plan) -> String {
    let mut out = String::new();
    for session in &plan.sessions {
        let _ = write!(out, "{} at {:.0}:", session.id, session.start_ms);
        for step in &session.steps {
            let ids: Vec<String> = step.blocks.iter().map(|id| format!("{}^{}", id & 0xff_ffff, id >> 40)).collect();
            let think = if step.think_ms > 0.0 { format!("wait {:.0}, ", step.think_ms) } else { String::new() };
            let _ = write!(out, " ({think}{}→{} {})", step.input_tokens, step.output_tokens, ids.join(" "));
        }
        out.push('\n');
    }
    out
}

fn poisson(per_s: f64, seconds: f64, seed: u64) -> PlanOptions {
    PlanOptions { seconds: Some(seconds), ..PlanOptions::new(Arrivals::Poisson { per_s }, seed) }
}

#[test]
fn episodes_start_in_a_seeded_order_and_repeat_with_own_ids() {
    let plan = build(&trace(EPISODES), &poisson(1.0, 6.0, 3)).unwrap();
    insta::assert_snapshot!(show(&plan), @r"
    a at 2956: (40→9 0^0 1^0 2^0) (50→9 0^0 1^0 3^0 4^0) (60→9 0^0 1^0 3^0 5^0)
    c at 3748: (16→9 7^0)
    b at 5017: (17→9 0^0 6^0)
    ");
    assert_eq!((plan.block_size, plan.concurrency), (16, None));
}

#[test]
fn agents_pause_where_nothing_was_recorded() {
    let options = PlanOptions { pauses: Pauses::Agents, ..poisson(1.0, 4.0, 3) };
    insta::assert_snapshot!(show(&build(&trace(EPISODES), &options).unwrap()), @r"
    a at 2956: (40→9 0^0 1^0 2^0) (wait 313, 50→9 0^0 1^0 3^0 4^0) (wait 1497, 60→9 0^0 1^0 3^0 5^0)
    c at 3748: (16→9 7^0)
    ");
}

#[test]
fn agents_pauses_have_the_stated_distribution() {
    let trace = trace(EPISODES);
    let options = PlanOptions { pauses: Pauses::Agents, ..PlanOptions::new(Arrivals::Synchronous, 1) };
    let (mut tools, mut users) = (Vec::new(), Vec::new());
    for session in SessionSource::new(&trace, &options).take(9000).filter(|session| session.steps.len() == 3) {
        assert_eq!(session.steps[0].think_ms, 0.0);
        tools.push(session.steps[1].think_ms);
        users.push(session.steps[2].think_ms);
    }
    for (pauses, median) in [(&mut tools, 300.0), (&mut users, 1000.0 + 4000.0 * f64::ln(2.0))] {
        pauses.sort_by(f64::total_cmp);
        let found = pauses[pauses.len() / 2];
        assert!((found / median - 1.0).abs() < 0.06, "median {found}, wanted {median}");
        assert!(pauses.iter().all(|ms| *ms > 0.0 && *ms <= 10_000.0));
    }
}

#[test]
fn replay_keeps_the_clock_and_waits_inside_a_session() {
    let trace = trace(TIMED);
    let at = |time_scale, window: Option<&str>| {
        let window = window.map(|text| text.parse().unwrap());
        build(&trace, &PlanOptions::new(Arrivals::Replay { time_scale, window }, 1)).map(|plan| show(&plan))
    };
    insta::assert_snapshot!(at(1.0, None).unwrap(), @r"
    s0 at 0: (20→1 0^0 1^0)
    s1 at 1000: (20→1 0^0 2^0) (wait 7000, 20→1 0^0 2^0)
    s2 at 1500: (20→7 0^0 3^0)
    ");
    insta::assert_snapshot!(at(0.5, Some("1..2")).unwrap(), @r"
    s1 at 0: (20→1 0^0 2^0)
    s2 at 250: (20→7 0^0 3^0)
    ");
    insta::assert_snapshot!(at(1.0, Some("5..")).unwrap(), @"s1 at 3000: (20→1 0^0 2^0)");
    insta::assert_snapshot!(at(1.0, Some("60..70")).unwrap_err(), @"no request of `t` arrives between 60 s and 70 s; its last one comes at 8 s");
    let limits = PlanOptions {
        seconds: Some(1.2),
        max_output: Some(4),
        max_think_ms: Some(3000.0),
        ..PlanOptions::new(Arrivals::Replay { time_scale: 1.0, window: None }, 1)
    };
    insta::assert_snapshot!(show(&build(&trace, &limits).unwrap()), @r"
    s0 at 0: (20→1 0^0 1^0)
    s1 at 1000: (20→1 0^0 2^0) (wait 3000, 20→1 0^0 2^0)
    ");
    // Other arrivals leave the file's order to a trace with a clock.
    let constant = PlanOptions::new(Arrivals::Constant { per_s: 10.0 }, 1);
    insta::assert_snapshot!(show(&build(&trace, &constant).unwrap()), @r"
    s0 at 0: (20→1 0^0 1^0)
    s1 at 100: (20→1 0^0 2^0) (20→1 0^0 2^0)
    s2 at 200: (20→7 0^0 3^0)
    ");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let (episodes, mut empty) = (trace(EPISODES), trace(EPISODES));
    empty.drop_longer_than(3);
    let told = |trace: &Trace, options: &PlanOptions| build(trace, options).unwrap_err().to_string();
    let replay = |time_scale| PlanOptions::new(Arrivals::Replay { time_scale, window: None }, 1);
    let lines = [
        told(&empty, &poisson(1.0, 1.0, 1)),
        told(&episodes, &replay(1.0)),
        told(&trace(TIMED), &replay(0.0)),
        told(&episodes, &poisson(f64::NAN, 1.0, 1)),
        told(&episodes, &poisson(-1.0, 1.0, 1)),
        told(&episodes, &poisson(1.0, f64::INFINITY, 1)),
        told(&episodes, &poisson(1e6, 1e6, 1)),
        told(&episodes, &poisson(0.001, 1.0, 1)),
        told(&episodes, &PlanOptions::new(Arrivals::Concurrent { sessions: 0 }, 1)),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    no requests: all 5 of `t` are longer than the limit; try a larger `--max-input`
    `t` has no timestamps to replay or to scale; give `--rate` or `--concurrency`
    time scale is 0; a positive number is wanted
    rate in sessions/s is NaN; a positive number is wanted
    rate in sessions/s is -1; a positive number is wanted
    duration in seconds is inf; a positive number is wanted
    number of sessions (rate × seconds) is 1000000000000; at most five million is wanted
    no session starts within 1 s at this rate and seed; give more `--seconds` or a higher `--rate`
    number of sessions at once is 0; a positive number is wanted
    ");
    assert!(matches!(build(&episodes, &replay(1.0)), Err(PlanError::NotTimed { .. })));
}

#[test]
fn closed_loops_hold_enough_sessions() {
    let trace = trace(EPISODES);
    let cases = [
        (Arrivals::Synchronous, None, 1, 3),
        (Arrivals::Concurrent { sessions: 4 }, None, 4, 3),
        (Arrivals::Concurrent { sessions: 4 }, Some(10.0), 4, 246),
        (Arrivals::Throughput { at_most: 512 }, None, 512, 3),
    ];
    for (arrivals, seconds, concurrency, sessions) in cases {
        let plan = build(&trace, &PlanOptions { seconds, ..PlanOptions::new(arrivals, 1) }).unwrap();
        assert_eq!((plan.concurrency, plan.sessions.len()), (Some(concurrency), sessions), "{arrivals:?}");
        assert!(plan.sessions.iter().all(|session| session.start_ms == 0.0));
    }
}

#[test]
fn the_rate_of_a_plan_is_the_rate_asked_for() {
    let trace = Trace::bundled().unwrap();
    // 20 runs of 240 sessions expected: the total has a standard deviation of 69.
    let total: usize = (0..20).map(|seed| build(&trace, &poisson(20.0, 12.0, seed)).unwrap().sessions.len()).sum();
    assert!(total.abs_diff(4800) < 280, "{total} sessions, 4800 expected");
}

#[test]
fn equal_seeds_give_equal_plans_and_other_seeds_another_order() {
    let trace = Trace::bundled().unwrap();
    let plan = |seed, seconds| build(&trace, &poisson(5.0, seconds, seed)).unwrap();
    let ids = |plan: &Plan| plan.sessions.iter().map(|session| session.id.to_string()).collect::<Vec<_>>();
    let one = plan(7, 60.0);
    assert_eq!(one, plan(7, 60.0));
    let other = plan(8, 60.0);
    assert_ne!(ids(&one)[..20], ids(&other)[..20], "another order");
    assert_ne!(one.sessions[0].start_ms, other.sessions[0].start_ms, "other starts");
    let short = plan(7, 20.0);
    assert_eq!(short.sessions[..], one.sessions[..short.sessions.len()], "a longer run begins like a shorter one");
}

#[test]
fn bundled_episodes_played_again_find_only_what_episodes_share() {
    let trace = Trace::bundled().unwrap();
    let plan = build(&trace, &poisson(10.0, 100.0, 1)).unwrap();
    let (first, again): (Vec<_>, Vec<_>) = plan.sessions.iter().partition(|session| !session.id.contains('#'));
    assert_eq!(first.len(), 200, "each episode once before any comes again");
    assert!(again.len() > 700);
    let ids: BTreeSet<&str> = plan.sessions.iter().map(|session| &*session.id).collect();
    assert_eq!(ids.len(), plan.sessions.len(), "ids are unique");
    let own = |sessions: &[&crate::workload::Session]| {
        let steps = sessions.iter().flat_map(|session| &session.steps);
        steps.flat_map(|step| step.blocks.to_vec()).filter(|id| id >> 40 == 0).collect::<BTreeSet<u64>>()
    };
    assert!(own(&again).iter().all(|&id| trace.shared[id as usize]));
    let requests = plan.in_order();
    let ratio = infinite_cache(requests.iter().map(|r| (&*r.step.blocks, r.step.input_tokens)), 16).ratio();
    // The first pass has 95.4 %; later ones find the shared openings at once.
    assert!((0.954..0.970).contains(&ratio), "{ratio}");
}

proptest! {
    #[test]
    fn plans_keep_what_sessions_promise(seed: u64, per_s in 0.5_f64..20.0, seconds in 1.0_f64..20.0) {
        let trace = trace(EPISODES);
        let Ok(plan) = build(&trace, &poisson(per_s, seconds, seed)) else {
            prop_assert!(per_s * seconds < 40.0, "a plan without sessions");
            return Ok(());
        };
        prop_assert!(plan.sessions.windows(2).all(|pair| pair[0].start_ms <= pair[1].start_ms));
        prop_assert!(plan.sessions.iter().all(|session| session.start_ms < seconds * 1000.0));
        for session in &plan.sessions {
            let origin = session.id.split('#').next().unwrap();
            let episode = trace.episodes.iter().find(|episode| &*episode.id == origin).unwrap();
            let lengths: Vec<u32> = session.steps.iter().map(|step| step.input_tokens).collect();
            prop_assert_eq!(lengths, episode.rows.iter().map(|row| row.input_tokens).collect::<Vec<_>>());
        }
        let earliest: Vec<f64> = plan.in_order().iter().map(|request| request.earliest_ms).collect();
        prop_assert_eq!(earliest.len(), plan.requests());
        prop_assert!(earliest.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
