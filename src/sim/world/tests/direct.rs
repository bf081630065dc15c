//! Routers that each reach every engine: what they know of each other's requests.

use super::{Case, conversations, fleet, plan, session, step};
use crate::sim::world::{Edge, News};
use crate::workload::fleet::Form;
use crate::workload::{Fleet, Home, homes};

fn direct(regions: &str, routers: &str) -> Fleet {
    Fleet { form: Form::Direct, ..fleet(regions, routers, "") }
}

#[test]
fn a_router_sees_the_load_of_another_when_it_is_told() {
    let fleet = direct("ab", "ab");
    // 510 ms of prefill from the first router; 300 ms later the second one has the same choice.
    let plan = plan(vec![session(0, 0.0, vec![step(1, 5000, 1, 0.0)]), session(1, 300.0, vec![step(2, 5000, 1, 0.0)])]);
    let seed = (0..100).find(|seed| homes(&fleet.clients, &plan, *seed, 0.0) == [Home(0), Home(1)]).unwrap();
    let second = |news, faults| {
        let case = Case::new(&fleet, &plan, "least-load");
        // Nor do the engines themselves tell it.
        let edge = Edge { news, gauges_every_ms: 1e8, ..case.edge };
        let played = Case { edge, faults, seed, ..case }.play();
        assert!(played.samples.iter().all(|sample| sample.ok()));
        assert_eq!(played.samples[0].replica.as_deref(), Some("a"), "the first of equals");
        played.samples[1].replica.clone().unwrap().to_string()
    };
    assert_eq!(second(News::Own, &[]), "a", "nobody tells it");
    assert_eq!(second(News::Told, &[]), "b");
    assert_eq!(second(News::Oracle, &[]), "b");
    assert_eq!(second(News::Told, &["cut:a/b@0..1"]), "a", "no word comes through");
}

#[test]
fn nothing_is_forwarded_and_a_seed_repeats() {
    let fleet = direct("abc", "ac");
    let plan = conversations(60, 40.0);
    let play = || Case::new(&fleet, &plan, "gorgo").play();
    let played = play();
    assert_eq!((played.forwarded, played.queued, played.in_flight), (0, 0, 0));
    assert_eq!(played.samples.len(), plan.requests());
    assert!(played.busy_ms.iter().all(|ms| *ms > 0.0), "every engine is used: {:?}", played.busy_ms);
    assert_eq!(played, play());
}
