use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{LOOKED_AT, Member, logs, status, until_ready};
use crate::cluster::desired::EngineChoice;
use crate::cluster::layout::Role;
use crate::cluster::testing::{Break, FakeNode, Gauge, container, emulator, fleet, node, node_names};
use crate::remote::{Remote, RemoteErrorKind};

/// Each node costs one round trip, because its four questions are sent at once, and 32 are looked at together: two rounds for 50 nodes.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the time is printed, and nothing is asserted of it")]
async fn fifty_nodes_are_looked_at_side_by_side_and_in_order() {
    let gauge = Arc::new(Gauge::default());
    let slow = |number| FakeNode {
        latency: Duration::from_millis(100),
        gauge: Arc::clone(&gauge),
        ..FakeNode::new(node(number, "us-east-1", emulator()))
    };
    let fakes: Vec<Arc<FakeNode>> = (1..=50).map(|number| Arc::new(slow(number))).collect();
    let members: Vec<Member> = fakes
        .iter()
        .map(|fake| Member { spec: fake.spec.clone(), remote: Arc::clone(fake) as Arc<dyn Remote> })
        .collect();
    fakes[7].change(|state| state.breaks = Some((0, Break::Before)));
    let begun = Instant::now();
    let seen = status(&members).await;
    println!("measured: status of 50 nodes at 100 ms: {:.2} s", begun.elapsed().as_secs_f64());
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, node_names(50));
    let failed: Vec<&str> = seen.iter().filter(|(_, facts)| facts.is_err()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(gauge.peak(), LOOKED_AT * 4);
    assert_eq!(failed, ["node8"], "one node that is away takes nothing from the others");
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
