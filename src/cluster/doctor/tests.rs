use super::{Finding, doctor};
use crate::cluster::certificate::Revoked;
use crate::cluster::desired::{AgentBinary, Desired};
use crate::cluster::layout::{BINARY, Role};
use crate::cluster::testing::{Break, NOW, binary, fleet, set_up};

/// What the fakes' program says of itself.
const VERSION: &str = "gorgo 0.1.0";

fn lines(findings: &[Finding]) -> Vec<String> {
    assert!(findings.iter().all(|finding| !finding.hint.is_empty()));
    findings.iter().map(|finding| format!("{}: {}", finding.node, finding.what)).collect()
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_nothing_where_all_is_well() {
    let (wanted, fakes, members) = fleet(7);
    set_up(&wanted, &members).await;
    assert_eq!(doctor(&members, &wanted, VERSION, true).await, []);
    fakes[0].change(|state| state.services.get_mut(Role::Engine.unit()).unwrap().running = false);
    fakes[1].change(|state| state.sick = true);
    fakes[2].change(|state| state.deaf = true);
    fakes[3].change(|state| state.breaks = Some((0, Break::Before)));
    fakes[4].change(|state| state.files.retain(|path, _| !path.ends_with("agent.env")));
    fakes[5].change(|state| state.services.get_mut(Role::Agent.unit()).unwrap().draining = true);
    fakes[6].change(|state| state.files.insert(BINARY.into(), b"another".to_vec()));
    assert_eq!(
        lines(&doctor(&members, &wanted, VERSION, true).await),
        [
            "node1: gorgo-engine.service does not run (restarted 0 times)",
            "node2: gorgo-agent.service runs, but: none of its 1 replicas is healthy",
            "node3: gorgo-agent.service runs, but: does not answer on its admin port",
            "node4: node4: the connection broke",
            "node5: it is not what gorgo.toml would make of it: 1 step to go",
            "node6: gorgo-agent.service runs, but: it drains",
            "node7: it is not what gorgo.toml would make of it: 8 steps to go",
            "node7: its program is another build than that of node1",
        ]
    );
}

#[tokio::test]
async fn another_program_here_is_no_finding_but_another_version_there_is() {
    let (wanted, _, members) = fleet(1);
    set_up(&wanted, &members).await;
    let other = Desired { binary: binary("a build for this machine"), ..wanted };
    assert_eq!(doctor(&members, &other, VERSION, true).await, []);
    assert_eq!(
        lines(&doctor(&members, &other, "gorgo 0.2.0", true).await),
        ["node1: its program is gorgo 0.1.0, this one is gorgo 0.2.0"]
    );
}

#[tokio::test]
async fn machines_of_different_kinds_have_different_programs() {
    let (one, fakes, members) = fleet(3);
    let arm = AgentBinary { arch: "aarch64".into(), ..binary("program for arm") };
    let wanted = Desired { others: vec![arm], ..one };
    fakes[1].change(|state| state.arch = "aarch64");
    set_up(&wanted, &members).await;
    assert_eq!(doctor(&members, &wanted, VERSION, true).await, []);
}

#[tokio::test]
async fn a_certificate_that_ends_is_told_before_it_does() {
    let (mut wanted, _, members) = fleet(1);
    set_up(&wanted, &members).await;
    for (days, ends) in [(59, None), (60, Some("expires")), (91, Some("expired"))] {
        wanted.certificates.now = NOW + days * 86_400;
        let line = ends.map(|ends| format!("node1: the certificate of gorgo-agent.service {ends} on 2027-04-15"));
        assert_eq!(lines(&doctor(&members, &wanted, VERSION, true).await), line.into_iter().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_was_revoked_and_who_has_not_been_told_is_told_until_the_next_set_up() {
    let (mut wanted, _, members) = fleet(2);
    set_up(&wanted, &members).await;
    let known = &mut wanted.certificates;
    let (identity, stolen) = known.issued.iter().find(|(identity, _)| identity.ends_with("agent/node1")).unwrap();
    let not_after = stolen.not_after;
    let entry = Revoked { identity: identity.clone(), at: NOW, not_after, authority: stolen.authority.clone() };
    known.revoked.insert(stolen.serial.clone(), entry);
    assert_eq!(
        lines(&doctor(&members, &wanted, VERSION, true).await),
        [
            "node1: the certificate of gorgo-agent.service has been revoked",
            "node2: gorgo-agent.service has not been told of revoked certificates"
        ]
    );
}

#[tokio::test]
async fn peers_that_have_no_machine_are_not_held_against_the_others() {
    let (wanted, _, members) = fleet(3);
    set_up(&wanted, &members).await;
    let left = Desired { nodes: wanted.nodes[..2].to_vec(), ..wanted };
    assert_eq!(doctor(&members[..2], &left, VERSION, false).await, []);
    assert_eq!(doctor(&members[..2], &left, VERSION, true).await.len(), 2, "with all there, that is a difference");
}
