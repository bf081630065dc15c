use super::{Flush, NodeFlush, flush_cache};
use crate::cluster::layout::Role;
use crate::cluster::testing::{fleet, router_on, set_up};

#[tokio::test]
async fn caches_are_emptied_and_an_engine_that_is_busy_is_told() {
    let (mut wanted, fakes, members) = fleet(3);
    wanted.proxies.push(router_on(1));
    set_up(&wanted, &members).await;
    fakes[1].change(|state| state.busy = true);
    fakes[2].change(|state| state.services.get_mut(Role::Agent.unit()).unwrap().running = false);
    let report = flush_cache(&members).await;
    assert_eq!(report.iter().map(NodeFlush::is_done).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(report[0].agent, Flush::Done { blocks: Some(42) });
    assert_eq!(report[0].proxy, Some(Flush::Done { blocks: Some(42) }), "every router's index");
    assert_eq!((&report[1].engine, &report[1].proxy), (&Flush::Busy, &None));
    assert_eq!(report[2].agent, Flush::Failed { why: "node3: agent: nothing listens on its port".into() });
    let json = serde_json::to_string(&report[1]).unwrap();
    assert_eq!(json, r#"{"node":"node2","engine":{"outcome":"busy"},"agent":{"outcome":"done","blocks":42}}"#);
}
