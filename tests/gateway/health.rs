//! `/health`, as DNS and BGP speakers ask it: 200 exactly while a request could be served.

use gorgo::gateway::{AgentConfig, Gateway, GatewayHandle, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::Region;
use gorgo::routing::ReplicaKind;
use gorgo::wire::{Drain, Replicas};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

use super::admin::{change, text};
use super::client::{Client, STREAM, code, config, get, start, until, whole};
use super::mock::{Mock, hello};

/// Status and code of an answer.
async fn health(gateway: &GatewayHandle) -> (u16, String) {
    let response = Client::connect(gateway).await.send(get("/health")).await.unwrap();
    if response.status() == 200 { (200, String::new()) } else { code(response).await }
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_router_that_has_not_seen_a_healthy_engine_says_no() {
    let mock = Mock::start(|_| hello()).await;
    mock.set_ready(503);
    let gateway = Gateway::start(config("gorgo", &[&mock])).await.unwrap();
    assert_eq!(health(&gateway).await, is(503, "none_healthy"));
    mock.set_ready(200);
    gateway.ready(super::client::BOUND).await.unwrap();
    assert_eq!(health(&gateway).await, is(200, ""));
    let head =
        Request::builder().method(Method::HEAD).uri("/health").header("host", "x").body(Full::default()).unwrap();
    assert_eq!(Client::connect(&gateway).await.send(head).await.unwrap().status(), 200);

    let drained = |draining: bool| json!({"drain": {"name": "r0", "draining": draining}});
    let _: Replicas = change(&gateway, "/admin/v1/replicas", drained(true)).await;
    assert_eq!(health(&gateway).await, is(503, "none_healthy"));
    let _: Replicas = change(&gateway, "/admin/v1/replicas", drained(false)).await;
    assert_eq!(health(&gateway).await, is(200, ""));

    let _: Drain = change(&gateway, "/admin/v1/drain", json!({"draining": true})).await;
    assert_eq!(health(&gateway).await, is(503, "draining"));
    let _: Drain = change(&gateway, "/admin/v1/drain", json!({"draining": false})).await;
    assert_eq!(health(&gateway).await, is(200, ""));
    let _: Replicas = change(&gateway, "/admin/v1/replicas", json!({"remove": {"name": "r0"}})).await;
    assert_eq!(health(&gateway).await, is(503, "no_replica"));
}

#[tokio::test]
async fn an_agent_says_yes_while_a_peer_can_serve_for_it() {
    let (engine, peer) = (Mock::start(|_| hello()).await, Mock::start(|_| hello()).await);
    let mut config = config("gorgo", &[]);
    config.agent = Some(AgentConfig { name: "a".to_owned(), region: Region::new("here") });
    config.replicas = vec![
        ReplicaConfig { engine: Some(&EMULATOR), ..ReplicaConfig::new("a", &engine.url(), "here") },
        ReplicaConfig { kind: ReplicaKind::Peer, ..ReplicaConfig::new("b", &peer.url(), "there") },
    ];
    let agent = start(config).await;
    until("both healthy", || agent.healthy() == 2).await;
    drop(engine);
    until("its engine is out", || agent.healthy() == 1).await;
    assert_eq!(health(&agent).await, is(200, ""));
    let response = Client::connect(&agent).await.chat(STREAM).await;
    assert_eq!(response.status(), 200, "it is true");
    assert!(whole(response.into_body()).await.1);
    drop(peer);
    until("nobody is left", || agent.healthy() == 0).await;
    assert_eq!(health(&agent).await, is(503, "none_healthy"));
}

#[tokio::test]
async fn an_engine_is_asked_for_its_settings_when_it_is_found_and_when_it_comes_back() {
    let mock = Mock::start(|_| hello()).await;
    mock.set_settings(r#"{"internal_states":[{"effective_max_running_requests_per_dp":48}]}"#);
    let gateway = start(config("predictive", &[&mock])).await;
    told(&gateway, "48").await;
    mock.set_ready(503);
    until("out", || gateway.healthy() == 0).await;
    mock.set_settings(r#"{"max_running_requests":16}"#);
    mock.set_ready(200);
    told(&gateway, "16").await;
    until("in again", || gateway.healthy() == 1).await;
    mock.set_ready(503);
    until("out", || gateway.healthy() == 0).await;
    mock.set_settings("{}");
    mock.set_ready(200);
    told(&gateway, "NaN").await;
}

/// Returns once the engine has told that it runs so many.
async fn told(gateway: &GatewayHandle, most: &str) {
    let line = format!("gorgo_replica_engine_max_running{{replica=\"r0\",region=\"region-0\"}} {most}");
    let waiting = async {
        while !text(gateway, "/metrics").await.contains(&line) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(super::client::BOUND, waiting).await.is_err() {
        panic!("{line}: not in {}", text(gateway, "/metrics").await);
    }
}
