use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Answered, start, stop};
use crate::cluster::layout::Role;
use crate::cluster::testing::{fleet, router_on, set_up};
use crate::wire::span::StartTrace;

fn failures<T>(answered: &[Answered<T>]) -> Vec<(String, Option<&str>)> {
    answered.iter().map(|it| (it.name(), it.result.as_ref().err().map(String::as_str))).collect()
}

#[tokio::test]
async fn every_router_is_asked_and_what_fails_is_named() {
    let (mut wanted, fakes, members) = fleet(3);
    wanted.proxies.push(router_on(1));
    set_up(&wanted, &members).await;
    fakes[1].change(|state| state.old = true);
    fakes[2].change(|state| state.services.get_mut(Role::Agent.unit()).unwrap().running = false);
    let told = [
        ("node1".to_owned(), None),
        ("proxy on node1".to_owned(), None),
        ("node2".to_owned(), Some("it knows no traces: `gorgo cluster upload` brings this version")),
        ("node3".to_owned(), Some("node3: agent: nothing listens on its port")),
    ];
    let said = Mutex::new(Vec::new());
    let say = |node: &str, what: &str| said.lock().unwrap().push(format!("{node}: {what}"));
    let started = start(&members, StartTrace { buffer_bytes: Some(9_999) }, &say).await;
    assert_eq!(failures(&started), told);
    assert_eq!(started[0].result.as_ref().unwrap().buffer_bytes, 9_999);

    let clock = AtomicU64::new(0);
    let stopped = stop(&members, &|| clock.fetch_add(10, Ordering::Relaxed), &say).await;
    assert_eq!(failures(&stopped), told);
    let names: Vec<_> = stopped.iter().filter_map(|it| Some(it.result.as_ref().ok()?.dump.node.node.clone())).collect();
    assert_eq!(names, ["agent", "proxy on node1"], "an agent knows its name itself");
    for collected in stopped.iter().filter_map(|it| it.result.as_ref().ok()) {
        assert!(collected.trip.answered_us > collected.trip.asked_us);
    }
    let said = said.into_inner().unwrap();
    assert!(said.contains(&"node1: proxy: done".to_owned()), "{said:?}");
}
