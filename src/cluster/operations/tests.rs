use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Flush, Member, doctor, flush_cache, logs, plans, status, until_ready};
use crate::cluster::apply::{Job, StepJournal, apply};
use crate::cluster::balance::{Change, Means, Way, restart_lb};
use crate::cluster::crash::CrashHook;
use crate::cluster::desired::{Desired, EngineChoice};
use crate::cluster::inventory::FinishedStep;
use crate::cluster::layout::Role;
use crate::cluster::plan::setup;
use crate::cluster::testing::{Break, FakeNode, Gauge, container, desired, emulator, node};
use crate::remote::{Remote, RemoteErrorKind};

struct Nobody;

impl StepJournal for Nobody {
    fn finished(&mut self, _: &str, _: FinishedStep) -> anyhow::Result<()> {
        Ok(())
    }
}

fn fleet(nodes: u8) -> (Desired, Vec<Arc<FakeNode>>, Vec<Member>) {
    let desired = Desired {
        strategy: "least-load".into(),
        ..desired((1..=nodes).map(|number| node(number, "us-east-1", emulator())).collect())
    };
    let fakes: Vec<Arc<FakeNode>> = desired.nodes.iter().map(|node| Arc::new(FakeNode::new(node.clone()))).collect();
    let members = fakes.iter().map(|fake| {
        let remote: Arc<dyn Remote> = Arc::clone(fake) as Arc<dyn Remote>;
        Member { spec: fake.spec.clone(), remote }
    });
    let members = members.collect();
    (desired, fakes, members)
}

async fn set_up(desired: &Desired, members: &[Member]) {
    let plans = plans(members, |node, facts| setup(desired, node, facts)).await;
    let jobs: Vec<Job<'_>> = plans
        .into_iter()
        .zip(members)
        .map(|((_, plan), member)| Job { plan: plan.unwrap(), remote: member.remote.as_ref() })
        .collect();
    let report = apply(&jobs, &mut Nobody, &CrashHook::default(), &CancellationToken::new(), &|_| {}).await;
    assert!(report.failed().is_empty(), "{report}");
}

async fn change(members: &[Member], before: &Desired, after: &Desired) -> Change {
    let (crash, stop) = (CrashHook::default(), CancellationToken::new());
    let mut means =
        Means { journal: &mut Nobody, crash: &crash, stop: &stop, events: &|_| {}, patience: Duration::ZERO };
    restart_lb(members, before, after, &mut means).await
}

async fn assert_settled(desired: &Desired, members: &[Member]) {
    for (name, plan) in plans(members, |node, facts| setup(desired, node, facts)).await {
        let plan = plan.unwrap();
        assert!(plan.is_empty(), "{name}: {plan:?}");
    }
}

/// What makes 50 nodes at 100 ms take 0.4 s: each costs one round trip, because its four questions are sent at once, and 16 are looked at
/// together.
#[tokio::test]
async fn fifty_nodes_are_looked_at_side_by_side_and_in_order() {
    let gauge = Arc::new(Gauge::default());
    let slow = |number| FakeNode {
        latency: Duration::from_millis(5),
        gauge: Arc::clone(&gauge),
        ..FakeNode::new(node(number, "us-east-1", emulator()))
    };
    let fakes: Vec<Arc<FakeNode>> = (1..=50).map(|number| Arc::new(slow(number))).collect();
    let members: Vec<Member> = fakes
        .iter()
        .map(|fake| Member { spec: fake.spec.clone(), remote: Arc::clone(fake) as Arc<dyn Remote> })
        .collect();
    fakes[7].change(|state| state.breaks = Some((0, Break::Before)));
    let seen = status(&members).await;
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, desired_names(50).iter().map(String::as_str).collect::<Vec<_>>());
    let failed: Vec<&str> = seen.iter().filter(|(_, facts)| facts.is_err()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(gauge.peak(), 16 * 4);
    assert_eq!(failed, ["node8"], "one node that is away takes nothing from the others");
}

fn desired_names(nodes: u8) -> Vec<String> {
    (1..=nodes).map(|number| format!("node{number}")).collect()
}

#[tokio::test]
async fn strategy_and_limits_change_live_and_hold_after_the_next_start() {
    let (before, fakes, members) = fleet(3);
    set_up(&before, &members).await;
    let starts = |fake: &FakeNode| fake.change(|state| state.services[Role::Agent.unit()].starts);
    let after = Desired { strategy: "gorgo".into(), max_concurrent: Some(50), ..before.clone() };
    let changed = change(&members, &before, &after).await;
    let live: Vec<_> = desired_names(3).into_iter().map(|name| (name, Way::Live)).collect();
    assert_eq!((changed.changed, changed.failed), (live, None));
    for fake in &fakes {
        assert_eq!(starts(fake), 1, "nothing was restarted");
        fake.change(|state| {
            let agent = &state.services[Role::Agent.unit()];
            assert_eq!((agent.strategy.as_str(), agent.max_concurrent), ("gorgo-v1", Some(50)));
        });
    }
    assert_settled(&after, &members).await;
    let back = change(&members, &after, &before).await;
    assert!(back.failed.is_none());
    assert_settled(&before, &members).await;
}

#[tokio::test]
async fn an_agent_that_does_not_come_up_right_takes_the_change_back_everywhere() {
    let (before, fakes, members) = fleet(3);
    set_up(&before, &members).await;
    fakes[1].change(|state| state.sick = true);
    let after = Desired { max_concurrent: Some(5), ..before.clone() };
    let changed = change(&members, &before, &after).await;
    let (node, fault) = changed.failed.unwrap();
    assert_eq!(node, "node2");
    assert_eq!(fault.what, "node2: the agent is not as wanted after 0 s: none of its 1 replicas is healthy");
    assert_eq!((changed.taken_back, changed.astray), (vec!["node1".to_owned()], vec!["node2".to_owned()]));
    assert!(changed.changed.is_empty());
    fakes[1].change(|state| state.sick = false);
    assert_settled(&before, &members).await;
    for fake in &fakes {
        fake.change(|state| assert_eq!(state.services[Role::Agent.unit()].max_concurrent, None));
    }
}

#[tokio::test]
async fn an_unknown_strategy_is_refused_by_the_first_agent() {
    let (before, fakes, members) = fleet(2);
    set_up(&before, &members).await;
    fakes[1].changes();
    let after = Desired { strategy: "unknown".into(), ..before.clone() };
    let changed = change(&members, &before, &after).await;
    let (node, fault) = changed.failed.unwrap();
    assert_eq!((node.as_str(), fault.what.as_str()), ("node1", "node1: the agent refuses (400): unknown strategy"));
    assert_eq!(fakes[1].changes(), Vec::<String>::new(), "the second was never touched");
    assert_settled(&before, &members).await;
}

#[tokio::test]
async fn caches_are_emptied_and_an_engine_that_is_busy_is_told() {
    let (wanted, fakes, members) = fleet(3);
    set_up(&wanted, &members).await;
    fakes[1].change(|state| state.busy = true);
    fakes[2].change(|state| state.services.get_mut(Role::Agent.unit()).unwrap().running = false);
    let report = flush_cache(&members).await;
    assert_eq!(report.iter().map(super::NodeFlush::is_done).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(report[0].agent, Flush::Done { blocks: Some(42) });
    assert_eq!(report[1].engine, Flush::Busy);
    assert_eq!(report[2].agent, Flush::Failed { why: "node3: agent: nothing listens on its port".into() });
    let json = serde_json::to_string(&report[1]).unwrap();
    assert_eq!(json, r#"{"node":"node2","engine":{"outcome":"busy"},"agent":{"outcome":"done","blocks":42}}"#);
}

#[tokio::test]
async fn logs_of_all_nodes_come_with_their_names() {
    let (_, fakes, members) = fleet(2);
    fakes[1].change(|state| state.breaks = Some((0, Break::Before)));
    let (mut lines, failed) = logs(&members, Role::Agent, 2, false).await;
    let mut seen = Vec::new();
    while let Some((node, line)) = lines.recv().await {
        seen.push(format!("{node} {line}"));
    }
    assert_eq!(seen, ["node1 gorgo-agent.service line 0", "node1 gorgo-agent.service line 1"]);
    assert_eq!(failed.iter().map(|error| error.kind).collect::<Vec<_>>(), [RemoteErrorKind::Unreachable]);
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_nothing_where_all_is_well() {
    let (wanted, fakes, members) = fleet(5);
    set_up(&wanted, &members).await;
    assert_eq!(doctor(&members, &wanted).await, []);
    fakes[0].change(|state| state.services.get_mut(Role::Engine.unit()).unwrap().running = false);
    fakes[1].change(|state| state.sick = true);
    fakes[2].change(|state| state.deaf = true);
    fakes[3].change(|state| state.breaks = Some((0, Break::Before)));
    fakes[4].change(|state| state.files.retain(|path, _| !path.ends_with("agent.env")));
    let found = doctor(&members, &wanted).await;
    let lines: Vec<String> = found.iter().map(|finding| format!("{}: {}", finding.node, finding.what)).collect();
    assert_eq!(
        lines,
        [
            "node1: gorgo-engine.service does not run (restarted 0 times)",
            "node2: gorgo-agent.service runs, but: none of its 1 replicas is healthy",
            "node3: gorgo-agent.service runs, but: does not answer on its admin port",
            "node4: node4: the connection broke",
            "node5: it is not what gorgo.toml and this gorgo would make of it: 1 steps to go",
        ]
    );
    assert!(found.iter().all(|finding| !finding.hint.is_empty()));
}

#[tokio::test]
async fn gates_pass_what_answers_and_give_up_in_time() {
    let (_, fakes, members) = fleet(1);
    let said = std::sync::Mutex::new(Vec::new());
    let say = |text: &str| said.lock().unwrap().push(text.to_owned());
    let stop = CancellationToken::new();
    until_ready(&members[0], Duration::from_secs(5), &stop, &say).await.unwrap();
    fakes[0].change(|state| state.breaks = Some((0, Break::Before)));
    let error = until_ready(&members[0], Duration::ZERO, &stop, &say).await.unwrap_err();
    assert_eq!(error.message, "node1: the connection broke (waited 0 s)");
    stop.cancel();
    let error = until_ready(&members[0], Duration::from_secs(5), &stop, &say).await.unwrap_err();
    assert_eq!(error.message, "node1: interrupted");
    // a machine without a driver passes: its plan says what to do
    let spec = node(1, "us-east-1", EngineChoice::Sglang(container()));
    let remote: Arc<dyn Remote> = Arc::new(FakeNode::new(spec.clone()));
    let member = Member { spec, remote };
    until_ready(&member, Duration::from_secs(5), &CancellationToken::new(), &say).await.unwrap();
    assert_eq!(said.lock().unwrap().last().unwrap(), "waiting for the NVIDIA driver");
}
