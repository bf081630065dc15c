use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{BalanceJournal, Change, Means, Way, restart_lb};
use crate::cluster::apply::StepJournal;
use crate::cluster::crash::CrashHook;
use crate::cluster::desired::{Balance, Desired};
use crate::cluster::inventory::FinishedStep;
use crate::cluster::layout::Role;
use crate::cluster::operations::Member;
use crate::cluster::testing::{FakeNode, assert_settled, fleet, node_names, set_up};

/// What was noted last, by node.
#[derive(Default)]
struct Notes(BTreeMap<String, String>);

impl StepJournal for Notes {
    fn finished(&mut self, _: &str, _: FinishedStep) -> anyhow::Result<()> {
        Ok(())
    }
}

impl BalanceJournal for Notes {
    fn note_balance(&mut self, node: &str, balance: &Balance, _: &Balance) -> anyhow::Result<()> {
        self.0.insert(node.to_owned(), balance.to_string());
        Ok(())
    }
}

/// How a change is made; no waiting, for a fake is at once what it will be.
#[derive(Default)]
struct How {
    restart: bool,
    drain: Duration,
    stop: CancellationToken,
    notes: Notes,
}

impl How {
    async fn change(&mut self, members: &[Member], before: &Desired, after: &Desired) -> Change {
        let crash = CrashHook::default();
        let mut means = Means {
            journal: &mut self.notes,
            crash: &crash,
            stop: &self.stop,
            events: &|_| {},
            patience: Duration::ZERO,
            drain: self.drain,
            restart: self.restart,
        };
        restart_lb(members, before, after, &mut means).await
    }
}

fn all(nodes: u8, way: Way) -> Vec<(String, Way)> {
    node_names(nodes).into_iter().map(|name| (name, way)).collect()
}

fn starts(fake: &FakeNode) -> u32 {
    fake.change(|state| state.services[Role::Agent.unit()].starts)
}

fn shown(fake: &FakeNode) -> (String, Option<u32>, Option<f64>) {
    fake.change(|state| {
        let agent = &state.services[Role::Agent.unit()];
        (agent.strategy.clone(), agent.max_concurrent, agent.weights.get("q").copied())
    })
}

fn weights(q: f64) -> BTreeMap<String, f64> {
    BTreeMap::from([("q".to_owned(), q)])
}

#[tokio::test]
async fn strategy_limit_and_weights_change_live_and_hold_after_the_next_start() {
    let (before, fakes, members) = fleet(3);
    set_up(&before, &members).await;
    let after = Desired { strategy: "gorgo".into(), max_concurrent: Some(50), weights: weights(2.0), ..before.clone() };
    let mut how = How::default();
    let changed = how.change(&members, &before, &after).await;
    assert_eq!((changed.changed, changed.failed), (all(3, Way::Live), None));
    for fake in &fakes {
        assert_eq!(starts(fake), 1, "nothing was restarted");
        assert_eq!(shown(fake), ("gorgo-v1".to_owned(), Some(50), Some(2.0)));
    }
    assert_eq!(how.notes.0["node3"], "gorgo, at most 50 running, q=2");
    assert_settled(&after, &members).await;
    assert_eq!(how.change(&members, &after, &after).await.changed, all(3, Way::Already), "again, and nothing to do");
    let heavier = Desired { weights: weights(3.0), max_concurrent: None, ..after.clone() };
    assert_eq!(how.change(&members, &after, &heavier).await.changed, all(3, Way::Live));
    assert_eq!(shown(&fakes[0]), ("gorgo-v1".to_owned(), None, Some(3.0)), "the limit is gone");
    let plain = Desired { weights: BTreeMap::new(), ..heavier.clone() };
    assert!(how.change(&members, &heavier, &plain).await.failed.is_none());
    assert_eq!(shown(&fakes[0]).2, Some(0.0), "back to its default");
    assert!(how.change(&members, &plain, &before).await.failed.is_none());
    assert_settled(&before, &members).await;
}

#[tokio::test]
async fn one_node_can_differ_from_the_others() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    let mut after = before.clone();
    let own = Balance { strategy: "random".into(), max_concurrent: None, weights: BTreeMap::new() };
    after.pinned.insert("node2".into(), own);
    let changed = How::default().change(&members[1..], &before, &after).await;
    assert_eq!(changed.changed, [("node2".to_owned(), Way::Live)]);
    assert_eq!([shown(&fakes[0]).0, shown(&fakes[1]).0], ["least-load", "random"]);
    assert_settled(&after, &members).await;
}

#[tokio::test]
async fn an_agent_that_cannot_change_live_is_drained_first_and_then_restarted() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    fakes[0].change(|state| (state.old, state.in_flight) = (true, 3));
    fakes[0].changes();
    let after = Desired { strategy: "random".into(), weights: weights(1.0), ..before.clone() };
    let mut how = How { drain: Duration::from_secs(60), ..How::default() };
    let failed = how.change(&members, &before, &after).await.failed.expect("its weights cannot be seen");
    assert!(failed.1.what.ends_with("it does not tell its weights, and answers 404"), "{failed:?}");
    assert_settled(&before, &members).await;
    fakes[0].changes();
    let after = Desired { strategy: "random".into(), ..before.clone() };
    let changed = how.change(&members, &before, &after).await;
    assert_eq!(changed.changed, [("node1".to_owned(), Way::Restarted), ("node2".to_owned(), Way::Live)]);
    let done = fakes[0].changes();
    let place = |what: &str| done.iter().position(|change| change.starts_with(what)).expect(what);
    assert!(place("POST agent /admin/v1/drain") < place("restart gorgo-agent"), "{done:?}");
    assert_settled(&after, &members).await;
}

#[tokio::test]
async fn a_restart_that_was_asked_for_happens_even_where_nothing_changes() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    let changed = How { restart: true, ..How::default() }.change(&members, &before, &before).await;
    assert_eq!(changed.changed, all(2, Way::Restarted));
    assert_eq!(fakes.iter().map(|fake| starts(fake)).collect::<Vec<_>>(), [2, 2]);
    assert_settled(&before, &members).await;
}

#[tokio::test]
async fn requests_that_do_not_end_in_time_are_not_cut_off() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    fakes[0].change(|state| state.in_flight = 1_000);
    let after = Desired { max_concurrent: Some(5), ..before.clone() };
    let mut how = How { restart: true, ..How::default() };
    let changed = how.change(&members, &before, &after).await;
    let (node, fault) = changed.failed.unwrap();
    assert_eq!(node, "node1");
    assert!(fault.what.contains("requests still run after 0 s; it was not restarted"), "{}", fault.what);
    assert_eq!((changed.taken_back, changed.astray), (vec!["node1".to_owned()], vec![]));
    assert_eq!((starts(&fakes[0]), starts(&fakes[1])), (1, 1));
    assert!(!fakes[0].change(|state| state.services[Role::Agent.unit()].draining), "it takes requests again");
    assert_settled(&before, &members).await;
}

#[tokio::test]
async fn a_drain_that_a_dead_gorgo_left_behind_is_ended() {
    let (before, fakes, members) = fleet(1);
    set_up(&before, &members).await;
    fakes[0].change(|state| state.services.get_mut(Role::Agent.unit()).unwrap().draining = true);
    let changed = How::default().change(&members, &before, &before).await;
    assert!(changed.failed.is_none(), "{changed:?}");
    assert!(!fakes[0].change(|state| state.services[Role::Agent.unit()].draining));
}

#[tokio::test]
async fn an_agent_that_does_not_come_up_right_takes_the_change_back_everywhere() {
    let (before, fakes, members) = fleet(3);
    set_up(&before, &members).await;
    fakes[1].change(|state| state.sick = true);
    let after = Desired { max_concurrent: Some(5), ..before.clone() };
    let mut how = How::default();
    let changed = how.change(&members, &before, &after).await;
    let (node, fault) = changed.failed.unwrap();
    assert_eq!(node, "node2");
    assert_eq!(fault.what, "node2: the agent is not as wanted after 0 s: none of its 1 replicas is healthy");
    assert_eq!((changed.taken_back, changed.astray), (vec!["node1".to_owned()], vec!["node2".to_owned()]));
    assert!(changed.changed.is_empty());
    fakes[1].change(|state| state.sick = false);
    assert_settled(&before, &members).await;
    for fake in &fakes {
        assert_eq!(shown(fake), ("least-load".to_owned(), None, None));
    }
    assert_eq!(how.notes.0["node1"], "least-load, no limit", "what is noted is what is");
}

#[tokio::test]
async fn what_an_agent_goes_back_to_is_what_it_had_and_not_what_was_believed() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    let had = Desired { strategy: "random".into(), max_concurrent: Some(3), weights: weights(4.0), ..before.clone() };
    let mut how = How::default();
    assert!(how.change(&members, &before, &had).await.failed.is_none());
    fakes[1].change(|state| state.sick = true);
    let after = Desired { strategy: "gorgo".into(), ..before.clone() };
    assert!(how.change(&members, &before, &after).await.failed.is_some());
    assert_eq!(shown(&fakes[0]), ("random".to_owned(), Some(3), Some(4.0)));
    assert_eq!(how.notes.0["node1"], "random, at most 3 running, q=4");
}

#[tokio::test]
async fn an_unknown_strategy_is_refused_by_the_first_agent() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    fakes[1].changes();
    let after = Desired { strategy: "unknown".into(), ..before.clone() };
    let changed = How::default().change(&members, &before, &after).await;
    let (node, fault) = changed.failed.unwrap();
    assert_eq!((node.as_str(), fault.what.as_str()), ("node1", "node1: the agent refuses (400): unknown strategy"));
    assert_eq!(fakes[1].changes(), Vec::<String>::new(), "the second was never touched");
    assert_settled(&before, &members).await;
}

#[tokio::test]
async fn it_is_interrupted_between_nodes() {
    let (before, _, members) = fleet(2);
    set_up(&before, &members).await;
    let mut how = How::default();
    how.stop.cancel();
    let changed = how.change(&members, &before, &before).await;
    assert!(changed.interrupted && changed.changed.is_empty() && changed.failed.is_none(), "{changed:?}");
}
