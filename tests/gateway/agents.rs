//! Agents beside engines: what stays, what is forwarded, and that nothing is forwarded twice.

use std::sync::Arc;

use bytes::Bytes;
use gorgo::gateway::{AgentConfig, Gateway, GatewayHandle, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::Region;
use gorgo::routing::ReplicaKind;
use gorgo::wire::{PeerState, Policy, Replicas};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Semaphore;

use super::admin::{change, get as admin_get};
use super::client::{Client, STREAM, chat, code, config, get, piece, until, whole};
use super::mock::{Answer, HELLO, Mock, ROLE, Received, Step, WORLD, hello, send};

/// A node: an engine and the agent beside it.
pub(super) struct Node {
    pub(super) engine: Mock,
    pub(super) agent: GatewayHandle,
    /// Ends one blocked request per permit.
    go: Arc<Semaphore>,
}

/// What an engine does: a prompt with `wait` in it is answered, but for its end, and holds its place until told.
fn script(go: Arc<Semaphore>) -> impl Fn(&Received) -> Answer + Send + Sync {
    move |received| {
        if memchr::memmem::find(&received.body, b"wait").is_some() {
            Answer::events(&[ROLE]).then(Step::Acquire(go.clone())).then(send("data: [DONE]\n\n"))
        } else {
            hello()
        }
    }
}

/// Starts a node whose engine is full at two requests: the mock's metrics say that one of them waits.
async fn node(name: &str) -> Node {
    let go = Arc::new(Semaphore::new(0));
    let engine = Mock::start(script(go.clone())).await;
    let mut config = config("gorgo", &[]);
    config.agent = Some(AgentConfig { name: name.to_owned(), region: Region::new(&format!("region-{name}")) });
    config.routing.parameters = vec![("running_threshold".to_owned(), 1.0), ("max_running".to_owned(), 100.0)];
    let mut own = ReplicaConfig::new(name, &engine.url(), &format!("region-{name}"));
    own.engine = Some(&EMULATOR);
    config.replicas.push(own);
    let agent = super::client::start(config).await;
    Node { engine, agent, go }
}

fn peer(name: &str, url: &str) -> ReplicaConfig {
    ReplicaConfig { kind: ReplicaKind::Peer, ..ReplicaConfig::new(name, url, &format!("region-{name}")) }
}

/// Nodes that all know each other.
pub(super) async fn cluster<const N: usize>(names: [&str; N]) -> [Node; N] {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(node(name).await);
    }
    for (name, node) in names.iter().zip(&nodes) {
        for (other, at) in names.iter().zip(&nodes).filter(|(other, _)| *other != name) {
            node.agent.fleet().add(peer(other, &at.agent.url())).unwrap();
        }
    }
    for node in &nodes {
        until("all healthy", || node.agent.healthy() == N).await;
        // The engine's metrics count from here on.
        gauges(&node.agent).await;
    }
    nodes.try_into().ok().expect("as many nodes as names")
}

async fn gauges(agent: &GatewayHandle) {
    for _ in 0..1000 {
        let document: Replicas = admin_get(agent, "/admin/v1/replicas").await;
        if document.replicas.iter().all(|replica| replica.gauges.is_some() && replica.rtt.is_some()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("no gauges");
}

/// A prompt of some 10,000 tokens: half a second to wait behind by the rule, far more than any round trip here.
fn waiting() -> String {
    json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": format!("wait {}", "x".repeat(40_000))}]})
        .to_string()
}

/// The same, too short to cost anything anywhere.
const SHORT_WAIT: &str = r#"{"model":"tiny","stream":true,"messages":[{"role":"user","content":"wait"}]}"#;

/// Two requests that hold places in the engine.
pub(super) async fn fill(node: &Node) -> [(Client, Incoming); 2] {
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&node.agent).await;
        let response = client.chat(waiting()).await;
        let own = node.agent.dispatched()[0].0.clone();
        assert_eq!(response.headers()["x-gorgo-replica"], own.as_str());
        held.push((client, response.into_body()));
    }
    held.try_into().ok().expect("two")
}

fn hop(body: &'static str) -> Request<Full<Bytes>> {
    let mut request = chat(body);
    request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
    request
}

fn sent(node: &Node, name: &str) -> u64 {
    node.agent.dispatched().iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

fn replica(response: &Response<Incoming>) -> &str {
    response.headers()["x-gorgo-replica"].to_str().unwrap()
}

#[tokio::test]
async fn local_while_there_is_room_then_the_cheaper_peer() {
    let [a, b, c] = cluster(["a", "b", "c"]).await;
    let response = Client::connect(&a.agent).await.chat(STREAM).await;
    assert_eq!((replica(&response), &response.headers()["x-gorgo-strategy"]), ("a", &"gorgo-v1".parse().unwrap()));
    let (direct, complete) = whole(response.into_body()).await;
    assert!(complete);

    let _held = fill(&a).await;
    let mut request = chat(STREAM);
    request.headers_mut().insert("x-anything", "stays".parse().unwrap());
    let response = Client::connect(&a.agent).await.send(request).await.unwrap();
    let name = replica(&response).to_owned();
    let region = response.headers()["x-gorgo-region"].to_str().unwrap().to_owned();
    assert!(name == "b" || name == "c", "{name}");
    assert_eq!(region, format!("region-{name}"));
    assert_eq!(whole(response.into_body()).await, (direct, true), "byte for byte");
    let chosen = if name == "b" { &b } else { &c };
    let received = chosen.engine.requests().pop().unwrap();
    assert_eq!((received.body, &received.headers["x-anything"]), (Bytes::from(STREAM), &"stays".parse().unwrap()));
    assert!(!received.headers.contains_key("x-gorgo-hop"), "between agents only");
    until("accounted for on both sides", || {
        (sent(&a, &name), chosen.agent.counts().ok, a.agent.counts().ok) == (1, 1, 2)
    })
    .await;
}

#[tokio::test]
async fn the_first_piece_of_a_forwarded_stream_does_not_wait_for_the_rest() {
    let [a, b] = cluster(["a", "b"]).await;
    let _held = fill(&a).await;
    let mut body = Client::connect(&a.agent).await.chat(SHORT_WAIT).await.into_body();
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), format!("data: {ROLE}\n\n"));
    assert_eq!(b.engine.active(), 1, "the engine has not finished");
    b.go.add_permits(1);
    assert_eq!(whole(body).await, ("data: [DONE]\n\n".to_owned(), true));
}

#[tokio::test]
async fn what_a_peer_sent_stays() {
    let [a, b, c] = cluster(["a", "b", "c"]).await;
    let _held = fill(&b).await;
    // From the address of a peer, with its header: as if `a` had forwarded it.
    let agent = b.agent.listen();
    let forwarded = tokio::spawn(async move { Client::at(agent, None).await.send(hop(STREAM)).await.unwrap() });
    until("it waits", || b.agent.counts().in_flight == 3).await;
    // The same from a client goes on at once.
    let response = Client::connect(&b.agent).await.chat(STREAM).await;
    assert_ne!(replica(&response), "b");
    assert!(whole(response.into_body()).await.1);
    assert!(!forwarded.is_finished());
    b.go.add_permits(2);
    let response = forwarded.await.unwrap();
    assert_eq!(replica(&response), "b");
    assert!(whole(response.into_body()).await.1);
    assert_eq!(a.agent.counts().total + c.agent.counts().total, 1, "the client's request only");
}

/// Needs a second loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stranger_cannot_pretend_to_be_a_peer() {
    let [a, b] = cluster(["a", "b"]).await;
    let _held = fill(&a).await;
    let mut stranger = Client::at(a.agent.listen(), Some("127.0.0.2".parse().unwrap())).await;
    let response = stranger.send(hop(STREAM)).await.unwrap();
    assert_eq!(replica(&response), "b", "its header counts for nothing");
    assert!(whole(response.into_body()).await.1);
    let response = stranger.send(get("/gorgo/v1/peer")).await.unwrap();
    assert_eq!(code(response).await, (404, "unknown_path".to_owned()), "nor does it learn anything");
    assert_eq!(sent(&a, "b"), 1);
    drop(b);
}

/// An agent with an idle engine and a peer, `other`, that is a mock.
async fn beside_another(name: &str) -> (Node, Mock) {
    let node = node(name).await;
    let other = Mock::start(|_| hello()).await;
    node.agent.fleet().add(peer("other", &other.url())).unwrap();
    until("both healthy", || node.agent.healthy() == 2).await;
    gauges(&node.agent).await;
    (node, other)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_request_circles_even_between_agents_that_do_not_know_each_other() {
    let (a, other) = beside_another("a").await;
    let _held = fill(&a).await;
    let response = Client::connect(&a.agent).await.chat(STREAM).await;
    assert_eq!(replica(&response), "other");
    assert!(whole(response.into_body()).await.1);
    until("over", || a.agent.counts().in_flight == 2).await;
    let forwarded = other.requests().pop().unwrap();
    assert_eq!(forwarded.headers["x-gorgo-hop"], "1");
    // The other one sends it back, from an address that is nobody's.
    let mut back = chat(STREAM);
    back.headers_mut().insert("via", forwarded.headers["via"].clone());
    let agent = a.agent.listen();
    let back =
        tokio::spawn(
            async move { Client::at(agent, Some("127.0.0.2".parse().unwrap())).await.send(back).await.unwrap() },
        );
    until("it waits", || a.agent.counts().in_flight == 3).await;
    a.go.add_permits(2);
    assert_eq!(replica(&back.await.unwrap()), "a");
    assert_eq!(other.requests().len(), 1);
}

#[tokio::test]
async fn a_peer_that_is_full_or_drains_is_not_taken_for_ill() {
    let (a, other) = beside_another("a").await;
    let _held = fill(&a).await;
    let agent = a.agent.listen();
    let mut sent = 0;
    for status in [429, 503] {
        other.set(move |_| Answer::json(status, "{}"));
        for _ in 0..6 {
            tokio::spawn(async move { Client::at(agent, None).await.chat(STREAM).await });
            sent += 1;
        }
        until("all were sent there", || other.requests().len() == sent).await;
        assert_eq!(a.agent.healthy(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_peer_that_is_gone_is_not_waited_for() {
    let [a, b, c] = cluster(["a", "b", "c"]).await;
    let _held = fill(&a).await;
    drop(b);
    // At first nobody may have noticed: the attempt fails and the next one serves.
    for _ in 0..5 {
        let response = Client::connect(&a.agent).await.chat(STREAM).await;
        assert_eq!((response.status().as_u16(), replica(&response)), (200, "c"));
        assert!(whole(response.into_body()).await.1);
    }
    until("out of rotation", || a.agent.healthy() == 2).await;
    // An agent whose engine is gone is none to forward to either.
    drop(c.engine);
    until("it says so itself", || a.agent.healthy() == 1).await;
    let agent = a.agent.listen();
    let waits = tokio::spawn(async move { Client::at(agent, None).await.chat(STREAM).await });
    until("it waits", || a.agent.counts().in_flight == 3).await;
    a.go.add_permits(2);
    assert_eq!(replica(&waits.await.unwrap()), "a");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_over_the_hop() {
    let [a, b] = cluster(["a", "b"]).await;
    let _held = fill(&a).await;
    let mut client = Client::connect(&a.agent).await;
    let mut body = client.chat(SHORT_WAIT).await.into_body();
    assert!(piece(&mut body).await.is_some());
    drop(body);
    client.leave();
    until("cancelled at the engine", || b.engine.aborted() == 1).await;
    until("counted", || b.agent.counts().cancelled == 1 && a.agent.counts().cancelled == 1).await;
}

#[tokio::test]
async fn a_dead_engines_requests_go_to_the_peers() {
    let [a, b] = cluster(["a", "b"]).await;
    a.engine.set_ready(503);
    until("out of rotation", || a.agent.healthy() == 1).await;
    let response = Client::connect(&a.agent).await.chat(STREAM).await;
    assert_eq!(replica(&response), "b");
    assert_eq!(
        whole(response.into_body()).await.0,
        format!("data: {ROLE}\n\ndata: {HELLO}\n\ndata: {WORLD}\n\ndata: [DONE]\n\n")
    );
    drop(b);
}

#[tokio::test]
async fn the_strategy_changes_while_requests_run_and_gorgo_means_the_agents_rule() {
    let [a, b] = cluster(["a", "b"]).await;
    let held = fill(&a).await;
    let policy: Policy = change(&a.agent, "/admin/v1/policy", json!({"strategy": "round-robin"})).await;
    assert_eq!(policy.strategy, "round-robin");
    let mut answered = Vec::new();
    for _ in 0..4 {
        let response = Client::connect(&a.agent).await.chat(STREAM).await;
        answered.push(replica(&response).to_owned());
        assert!(whole(response.into_body()).await.1);
    }
    answered.sort();
    assert_eq!(answered, ["a", "a", "b", "b"], "engine and peer alike");
    let policy: Policy = change(&a.agent, "/admin/v1/policy", json!({"strategy": "gorgo"})).await;
    assert_eq!(policy.strategy, "gorgo-v1");
    let score = json!({"strategy": "gorgo-score", "parameters": {"w_rtt": 2.0}});
    let policy: Policy = change(&a.agent, "/admin/v1/policy", score).await;
    assert_eq!(policy.strategy, "gorgo-score", "a central router's rule, weights and all");
    a.go.add_permits(2);
    for (_client, body) in held {
        let (text, complete) = whole(body).await;
        assert!(complete && text.ends_with("data: [DONE]\n\n"), "no request was lost");
    }
    drop(b);
}

#[tokio::test]
async fn a_peer_learns_how_an_agent_is_doing_and_a_central_proxy_has_no_peers() {
    let [a, _b] = cluster(["a", "b"]).await;
    let _held = fill(&a).await;
    let response = Client::connect(&a.agent).await.send(get("/gorgo/v1/peer")).await.unwrap();
    let (text, _) = whole(response.into_body()).await;
    let told: PeerState = serde_json::from_str(&text).unwrap();
    let wanted = PeerState {
        name: "a".to_owned(),
        region: Region::new("region-a"),
        serving: true,
        running: 2,
        queued: 0,
        kv_usage: Some(0.25),
        kv_tokens: Some(40_000.0),
        clock_us: told.clock_us,
    };
    assert_eq!(told, wanted);
    assert!(told.clock_us.is_some_and(|us| us > 0));
    let listed: Replicas = admin_get(&a.agent, "/admin/v1/replicas").await;
    assert_eq!(
        listed.replicas.iter().map(|replica| replica.engine.as_str()).collect::<Vec<_>>(),
        ["emulator", "agent"]
    );

    let mock = Mock::start(|_| hello()).await;
    let proxy = super::client::start(config("gorgo", &[&mock])).await;
    let response = Client::connect(&proxy).await.send(get("/gorgo/v1/peer")).await.unwrap();
    assert_eq!(code(response).await, (404, "unknown_path".to_owned()));
}

/// A central proxy whose replicas are these agents.
async fn router(nodes: &[&Node]) -> GatewayHandle {
    let mut config = config("least-request", &[]);
    for node in nodes {
        config.replicas.push(peer(&node.agent.dispatched()[0].0, &node.agent.url()));
    }
    let proxy = super::client::start(config).await;
    until("all healthy", || proxy.healthy() == nodes.len()).await;
    proxy
}

#[tokio::test]
async fn what_a_central_proxy_sends_to_an_agent_stays_there() {
    let [a, b] = cluster(["a", "b"]).await;
    let proxy = router(&[&a]).await;
    gauges(&proxy).await;
    let _held = fill(&a).await;
    let at = proxy.listen();
    let routed = tokio::spawn(async move { Client::at(at, None).await.chat(STREAM).await });
    until("it waits", || a.agent.counts().in_flight == 3).await;
    // A client of the agent itself goes on to where there is room.
    let response = Client::connect(&a.agent).await.chat(STREAM).await;
    assert_eq!(replica(&response), "b");
    assert!(whole(response.into_body()).await.1);
    assert!(!routed.is_finished());
    a.go.add_permits(2);
    let response = routed.await.unwrap();
    assert_eq!(replica(&response), "a");
    let (text, complete) = whole(response.into_body()).await;
    assert!(complete && text.contains(WORLD) && text.contains(HELLO), "{text}");
    assert_eq!((sent(&a, "b"), b.agent.counts().total), (1, 1), "the client's request only");
}

#[tokio::test]
async fn a_central_proxy_knows_its_agents_load_and_models() {
    let [a, b] = cluster(["a", "b"]).await;
    let proxy = router(&[&a, &b]).await;
    gauges(&proxy).await;
    let listed: Replicas = admin_get(&proxy, "/admin/v1/replicas").await;
    let kinds: Vec<&str> = listed.replicas.iter().map(|replica| replica.engine.as_str()).collect();
    assert_eq!(kinds, ["agent", "agent"]);
    let told = listed.replicas[0].gauges.unwrap();
    assert_eq!((told.kv_usage, told.waiting), (Some(0.25), Some(0.0)));
    let models = |gateway: &GatewayHandle| {
        let at = gateway.listen();
        async move {
            let response = Client::at(at, None).await.send(get("/v1/models")).await.unwrap();
            whole(response.into_body()).await.0
        }
    };
    let engines = models(&a.agent).await;
    assert!(engines.contains("\"id\""), "{engines}");
    for _ in 0..1000 {
        if models(&proxy).await.contains("\"id\"") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("no models");
}

#[tokio::test]
async fn agents_are_added_to_a_central_proxy_by_their_kind() {
    let [a, _b] = cluster(["a", "b"]).await;
    let proxy = Gateway::start(config("gorgo", &[])).await.unwrap();
    let add = |name: &str, engine: Option<&str>| json!({"add": {"name": name, "url": a.agent.url(), "region": "r", "engine": engine}});
    let after: Replicas = change(&proxy, "/admin/v1/replicas", add("a", Some("agent"))).await;
    assert_eq!(after.replicas[0].engine, "agent");
    until("healthy", || proxy.healthy() == 1).await;
    for (gateway, body) in [(&proxy, add("a", None)), (&a.agent, add("b", None)), (&a.agent, add("c", Some("agent")))] {
        let (status, ..) = super::admin::refused(gateway, "/admin/v1/replicas", body).await;
        assert_eq!(status, 400);
    }
}
