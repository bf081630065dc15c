//! The admin API: what it shows, what it changes, and that nothing is lost meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gorgo::gateway::GatewayHandle;
use gorgo::wire::{
    Cache, Cleared, Decisions, Drain, Explanation, Latency, OutcomeKind, Policy, Replicas, Status, Tune,
};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use insta::assert_snapshot;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::client::{BOUND, Client, STREAM, code, config, piece, replica, start, until, whole};
use super::mock::{Answer, HELLO, Mock, ROLE, Step, USAGE, hello, send};

/// One request to the admin API.
pub(super) async fn ask(gateway: &GatewayHandle, method: &str, path: &str, body: String) -> (u16, String) {
    let stream = TcpStream::connect(gateway.admin()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri(path).header("host", "127.0.0.1");
    let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, whole(response.into_body()).await.0)
}

pub(super) async fn get<T: DeserializeOwned>(gateway: &GatewayHandle, path: &str) -> T {
    let (status, text) = ask(gateway, "GET", path, String::new()).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error} in {text}"))
}

pub(super) async fn text(gateway: &GatewayHandle, path: &str) -> String {
    let (status, text) = ask(gateway, "GET", path, String::new()).await;
    assert_eq!(status, 200, "{path}: {text}");
    text
}

pub(super) async fn change<T: DeserializeOwned>(gateway: &GatewayHandle, path: &str, body: serde_json::Value) -> T {
    let (status, text) = ask(gateway, "POST", path, body.to_string()).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

pub(super) async fn refused(gateway: &GatewayHandle, path: &str, body: serde_json::Value) -> (u16, String, String) {
    let (status, text) = ask(gateway, "POST", path, body.to_string()).await;
    let error: gorgo::wire::ErrorBody = serde_json::from_str(&text).expect(&text);
    (status, error.error.code.unwrap().into_owned(), error.error.message)
}

#[tokio::test]
async fn everything_about_a_router_can_be_seen() {
    let mock = Mock::start(|_| Answer::events(&[ROLE, HELLO, USAGE, "[DONE]"])).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut client = Client::connect(&gateway).await;
    let mut id = String::new();
    for _ in 0..3 {
        let response = client.chat(STREAM).await;
        id = response.headers()["x-gorgo-request-id"].to_str().unwrap().to_owned();
        assert!(whole(response.into_body()).await.1);
    }
    until("counted", || gateway.counts().ok == 3).await;

    let status: Status = get(&gateway, "/admin/v1/status").await;
    assert_eq!((status.strategy.as_str(), status.replicas.healthy, status.requests.ok), ("gorgo", 1, 3));
    assert_eq!(status.listen, gateway.listen().to_string());

    let replicas: Replicas = get(&gateway, "/admin/v1/replicas").await;
    let r0 = &replicas.replicas[0];
    assert_eq!((r0.name.as_str(), r0.requests.ok, r0.requests.dispatched), ("r0", 3, 3));
    assert_eq!((r0.ledger.prefilling, r0.ledger.decoding), (0, 0));

    let mut seen = replicas;
    for _ in 0..500 {
        if seen.replicas[0].gauges.is_some() && seen.replicas[0].rtt.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = get(&gateway, "/admin/v1/replicas").await;
    }
    let gauges = seen.replicas[0].gauges.expect("gauges");
    assert_eq!((gauges.running, gauges.waiting, gauges.kv_tokens), (Some(3.0), Some(1.0), Some(40000.0)));
    assert!(seen.replicas[0].rtt.expect("round trips").ms < 1000.0);

    let cache: Cache = get(&gateway, "/admin/v1/cache").await;
    assert_eq!(
        (cache.replicas[0].requests_with_usage, cache.replicas[0].prompt_tokens, cache.replicas[0].cached_tokens),
        (3, 60, 48)
    );

    let latency: Latency = get(&gateway, "/admin/v1/latency").await;
    assert_eq!(latency.replicas[0].ttft_ms.unwrap().count, 3);
    assert_eq!(latency.replicas[0].prediction.unwrap().count, 3);

    let decisions: Decisions = get(&gateway, "/admin/v1/decisions?limit=2").await;
    assert_eq!((decisions.decisions.len(), &decisions.decisions[0].request), (2, &id));

    let explanation: Explanation = get(&gateway, &gorgo::wire::paths::decision(&id)).await;
    let outcome = explanation.outcome.unwrap();
    assert_eq!(
        (explanation.model.as_deref(), outcome.kind, outcome.status),
        (Some("tiny"), OutcomeKind::Ok, Some(200))
    );
    assert_eq!(
        (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens),
        (Some(20), Some(16), Some(2))
    );
    assert!(outcome.ttft_ms.unwrap() <= outcome.e2e_ms);
    assert_eq!(explanation.decisions[0].candidates[0].replica, "r0");
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_others_have_left() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(gateway.admin()).await.unwrap());
    }
    let asked = ask(&gateway, "GET", "/healthz", String::new());
    tokio::pin!(asked);
    assert!(timeout(Duration::from_millis(100), asked.as_mut()).await.is_err(), "no place for it");
    idle.truncate(1);
    assert_eq!(timeout(BOUND, asked).await.expect("an answer in time"), (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn policy_and_weights_change_while_it_runs() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let policy: Policy = change(&gateway, "/admin/v1/policy", json!({"strategy": "least-load"})).await;
    assert_eq!(policy.strategy, "least-load");
    assert!(policy.known.iter().any(|known| known.name == "gorgo" && !known.summary.is_empty()));
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert_eq!(response.headers()["x-gorgo-strategy"], "least-load");

    let _: Policy =
        change(&gateway, "/admin/v1/policy", json!({"strategy": "gorgo", "parameters": {"w_rtt": 0.5}})).await;
    let tune: Tune =
        change(&gateway, "/admin/v1/tune", json!({"parameters": {"w_queue": 0.25}, "max_concurrent": 7})).await;
    let value = |key: &str| tune.parameters.iter().find(|parameter| parameter.key == key).unwrap().value;
    assert_eq!((value("w_rtt"), value("w_queue"), tune.max_concurrent), (0.5, 0.25, Some(7)));
    let tune: Tune = change(&gateway, "/admin/v1/tune", json!({"max_concurrent": 0})).await;
    assert_eq!(tune.max_concurrent, None);

    let (status, _, message) = refused(&gateway, "/admin/v1/policy", json!({"strategy": "best"})).await;
    assert!(status == 400 && message.contains("known strategies: predictive, gorgo"), "{message}");
    let (_, _, message) = refused(&gateway, "/admin/v1/tune", json!({"parameters": {"w_rtx": 1.0}})).await;
    assert!(message.contains("w_rtx") && message.contains("w_rtt"), "{message}");
    let (status, code, _) = refused(&gateway, "/admin/v1/policy", json!({"strategy": "gorgo", "typo": 1})).await;
    assert_eq!((status, code.as_str()), (400, "bad_request"));
    let policy: Policy = get(&gateway, "/admin/v1/policy").await;
    assert_eq!(policy.strategy, "gorgo", "what was refused changed nothing");
}

#[tokio::test]
async fn the_cache_is_cleared_by_name_or_whole() {
    let (a, b) = (Mock::start(|_| hello()).await, Mock::start(|_| hello()).await);
    let gateway = start(config("round-robin", &[&a, &b])).await;
    until("both healthy", || gateway.healthy() == 2).await;
    let long = STREAM.replace("Say hello", &"word ".repeat(500));
    let mut client = Client::connect(&gateway).await;
    for _ in 0..2 {
        assert!(whole(client.chat(long.clone()).await.into_body()).await.1);
    }
    let cache: Cache = get(&gateway, "/admin/v1/cache").await;
    let blocks: Vec<u64> = cache.replicas.iter().map(|replica| replica.blocks).collect();
    assert_eq!(blocks, [9, 9]);
    let cleared: Cleared = change(&gateway, "/admin/v1/cache", json!({"replica": "r1"})).await;
    assert_eq!((cleared.replicas, cleared.blocks), (vec!["r1".to_owned()], 9));
    let (status, code, message) = refused(&gateway, "/admin/v1/cache", json!({"replica": "r9"})).await;
    assert!(status == 404 && code == "unknown_replica" && message.contains("r0, r1"), "{message}");
    let cleared: Cleared = change(&gateway, "/admin/v1/cache", json!({})).await;
    assert_eq!(cleared.blocks, 9);
}

#[tokio::test]
async fn the_cache_of_a_process_that_is_gone_is_forgotten() {
    let (gone, stays) = (Mock::start(|_| hello()).await, Mock::start(|_| hello()).await);
    let gateway = start(config("round-robin", &[&gone, &stays])).await;
    until("both healthy", || gateway.healthy() == 2).await;
    let long = STREAM.replace("Say hello", &"word ".repeat(500));
    let mut client = Client::connect(&gateway).await;
    for _ in 0..2 {
        assert!(whole(client.chat(long.clone()).await.into_body()).await.1);
    }
    drop(gone);
    until("out of rotation", || gateway.healthy() == 1).await;
    let cache: Cache = get(&gateway, "/admin/v1/cache").await;
    let blocks: Vec<u64> = cache.replicas.iter().map(|replica| replica.blocks).collect();
    assert_eq!(blocks, [0, 9], "nobody listens there any more; the other's is untouched");
}

#[tokio::test]
async fn what_only_reads_takes_no_post_and_unknown_things_are_404() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    for path in ["/admin/v1/status", "/admin/v1/latency", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(refused(&gateway, path, json!({})).await.0, 405, "{path}");
    }
    for path in ["/", "/admin", "/admin/v1/trace", "/admin/v1/decisions/zz", "/admin/v1/decisions/0123"] {
        assert_eq!(ask(&gateway, "GET", path, String::new()).await.0, 404, "{path}");
    }
    assert_eq!(ask(&gateway, "GET", "/healthz", String::new()).await, (200, "ok\n".to_owned()));
    assert_eq!(ask(&gateway, "GET", "/readyz", String::new()).await.0, 200);
    assert_eq!(ask(&gateway, "DELETE", "/admin/v1/replicas", String::new()).await.0, 405);
}

/// Clients that send one request after the other until told to stop; gives how many were answered well, and badly.
fn load(gateway: &Arc<GatewayHandle>, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<(usize, usize)>> {
    (0..8)
        .map(|_| {
            let (gateway, stop) = (gateway.clone(), stop.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(&gateway).await;
                let (mut good, mut bad) = (0, 0);
                while !stop.load(Ordering::SeqCst) {
                    let response = client.chat(STREAM).await;
                    let status = response.status();
                    let (text, complete) = whole(response.into_body()).await;
                    if status == 200 && complete && text.ends_with("data: [DONE]\n\n") {
                        good += 1;
                    } else {
                        bad += 1;
                    }
                }
                (good, bad)
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_strategy_and_replicas_change() {
    let answer =
        || Answer::events(&[ROLE, HELLO]).then(Step::Pause(Duration::from_millis(3))).then(send("data: [DONE]\n\n"));
    let (a, b) = (Mock::start(move |_| answer()).await, Mock::start(move |_| answer()).await);
    let gateway = Arc::new(start(config("gorgo", &[&a])).await);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&gateway, &stop);
    for round in 0..6 {
        let strategy = ["least-load", "round-robin", "prefix-tree", "random", "power-of-two", "gorgo"][round];
        let _: Policy = change(&gateway, "/admin/v1/policy", json!({"strategy": strategy})).await;
        let served = gateway.counts().ok;
        let added = json!({"add": {"name": "b", "url": b.url(), "region": "b", "engine": "emulator"}});
        let replicas: Replicas = change(&gateway, "/admin/v1/replicas", added).await;
        assert_eq!(replicas.replicas.len(), 2);
        until("work goes on", || gateway.counts().ok > served + 20).await;
        let served = gateway.counts().ok;
        let drained: Replicas =
            change(&gateway, "/admin/v1/replicas", json!({"drain": {"name": "r0", "draining": true}})).await;
        assert!(drained.replicas[0].draining);
        until("work goes on", || gateway.counts().ok > served + 20).await;
        let _: Replicas =
            change(&gateway, "/admin/v1/replicas", json!({"drain": {"name": "r0", "draining": false}})).await;
        let replicas: Replicas = change(&gateway, "/admin/v1/replicas", json!({"remove": {"name": "b"}})).await;
        assert_eq!(replicas.replicas.len(), 1);
    }
    stop.store(true, Ordering::SeqCst);
    let mut all = (0, 0);
    for client in clients {
        let (good, bad) = timeout(BOUND, client).await.unwrap().unwrap();
        all = (all.0 + good, all.1 + bad);
    }
    assert!(all.0 > 200 && all.1 == 0, "{all:?}");
    until("all ended", || gateway.counts().in_flight == 0).await;
    assert!(!b.requests().is_empty());
    let (status, code, _) = refused(&gateway, "/admin/v1/replicas", json!({"remove": {"name": "b"}})).await;
    assert_eq!((status, code.as_str()), (404, "unknown_replica"));
}

#[tokio::test]
async fn a_replica_of_the_same_name_is_replaced() {
    let (a, b) = (Mock::start(|_| hello()).await, Mock::start(|_| hello()).await);
    let gateway = start(config("gorgo", &[&a])).await;
    assert!(whole(Client::connect(&gateway).await.chat(long_prompt()).await.into_body()).await.1);
    let mut known: Replicas = get(&gateway, "/admin/v1/replicas").await;
    for _ in 0..500 {
        if known.replicas[0].rtt.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        known = get(&gateway, "/admin/v1/replicas").await;
    }
    let cache: Cache = get(&gateway, "/admin/v1/cache").await;
    assert!(known.replicas[0].rtt.is_some() && cache.replicas[0].blocks > 0);

    let mut changed = replica(0, &a);
    changed.limits.kv_tokens = Some(1_000_000);
    assert_eq!(gateway.fleet().add(changed).unwrap(), known.replicas[0].id, "the same engine");
    let same: Cache = get(&gateway, "/admin/v1/cache").await;
    assert_eq!(same.replicas[0].blocks, cache.replicas[0].blocks, "what was learned of it stays");

    let id = gateway.fleet().add(replica(0, &b)).unwrap();
    assert_ne!(id, known.replicas[0].id, "another engine");
    let other: Cache = get(&gateway, "/admin/v1/cache").await;
    assert_eq!(other.replicas[0].blocks, 0, "that holds nothing");
    assert!(whole(Client::connect(&gateway).await.chat(STREAM).await.into_body()).await.1);
    assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
    let replicas: Replicas = get(&gateway, "/admin/v1/replicas").await;
    assert_eq!((replicas.replicas.len(), replicas.replicas[0].url.clone()), (1, b.url()));
}

/// A request of several blocks.
fn long_prompt() -> String {
    STREAM.replace("Say hello", &"again and ".repeat(200))
}

#[tokio::test]
async fn what_was_foreseen_does_not_depend_on_the_journal() {
    let mock = Mock::start(|_| Answer::events(&[ROLE, HELLO, USAGE, "[DONE]"])).await;
    let mut config = config("gorgo", &[&mock]);
    config.decisions_kept = 0;
    let gateway = start(config).await;
    for i in 1..=2 {
        assert!(whole(Client::connect(&gateway).await.chat(long_prompt()).await.into_body()).await.1);
        until("counted", || gateway.counts().ok == i).await;
    }
    let cache: Cache = get(&gateway, "/admin/v1/cache").await;
    assert!(cache.replicas[0].predicted_cached_tokens > 0);
    let latency: Latency = get(&gateway, "/admin/v1/latency").await;
    assert_eq!(latency.replicas[0].prediction.map(|prediction| prediction.count), Some(2));
}

#[tokio::test]
async fn weights_that_two_people_set_at_once_add_up() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    for i in 1..=20 {
        let value = f64::from(i) / 100.0;
        let one = change::<Tune>(&gateway, "/admin/v1/tune", json!({"parameters": {"w_queue": value}}));
        let other = change::<Tune>(&gateway, "/admin/v1/tune", json!({"parameters": {"w_rtt": value}}));
        tokio::join!(one, other);
        let tune: Tune = get(&gateway, "/admin/v1/tune").await;
        let of = |key| tune.parameters.iter().find(|parameter| parameter.key == key).map(|parameter| parameter.value);
        assert_eq!((of("w_queue"), of("w_rtt")), (Some(value), Some(value)));
    }
    let (status, ..) =
        refused(&gateway, "/admin/v1/tune", json!({"parameters": {"w_rt": 1}, "max_concurrent": 5})).await;
    let tune: Tune = get(&gateway, "/admin/v1/tune").await;
    assert_eq!((status, tune.max_concurrent), (400, None), "a change that is refused changes nothing");
}

#[tokio::test]
async fn metrics_and_status_count_the_same_requests() {
    let mock = Mock::start(|request| if request.body.is_empty() { Answer::json(500, "{}") } else { hello() }).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.max_body_bytes = 5000;
    let gateway = start(config).await;
    let mut bad = super::client::chat(STREAM);
    bad.headers_mut().insert("x-gorgo-priority", "high".parse().unwrap());
    let mut long = super::client::get("/v1/models");
    long.headers_mut().insert("x-long", "y".repeat(70 << 10).parse().unwrap());
    let requests = [
        (super::client::get("/nothing"), 404),
        (super::client::get("/v1/chat/completions"), 405),
        (bad, 400),
        (long, 431),
        (super::client::chat("x".repeat(6000)), 413),
        (super::client::chat(""), 500),
        (super::client::chat(STREAM), 200),
    ];
    for (request, status) in requests {
        let response = Client::connect(&gateway).await.send(request).await.unwrap();
        assert_eq!(response.status(), status);
        whole(response.into_body()).await;
    }
    until("counted", || gateway.counts().total == 7 && gateway.counts().in_flight == 0).await;
    let counts = gateway.counts();
    assert_eq!((counts.ok, counts.failed, counts.refused, counts.cancelled), (1, 1, 5, 0));
    let (_, page) = ask(&gateway, "GET", "/metrics", String::new()).await;
    for (outcome, count) in [("ok", 1), ("failed", 1), ("refused", 5), ("cancelled", 0)] {
        let line = format!("gorgo_requests_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(page.contains(&line), "{line} in {page}");
    }
    assert!(page.contains("gorgo_request_duration_seconds_count 7\n"), "{page}");
}

#[tokio::test]
async fn draining_finishes_streams_and_takes_nothing_new() {
    let go = Arc::new(Notify::new());
    let answer = Answer::events(&[ROLE]).then(Step::Until(go.clone())).then(send("data: [DONE]\n\n"));
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = Arc::new(start(config("gorgo", &[&mock])).await);
    let mut client = Client::connect(&gateway).await;
    let mut body = client.chat(STREAM).await.into_body();
    assert!(piece(&mut body).await.unwrap().is_ok());

    let state: Drain = change(&gateway, "/admin/v1/drain", json!({"draining": true})).await;
    assert_eq!((state.draining, state.stopping, state.in_flight), (true, false, 1));
    assert_eq!(code(Client::connect(&gateway).await.chat(STREAM).await).await, (503, "draining".to_owned()));
    assert_eq!(ask(&gateway, "GET", "/readyz", String::new()).await.0, 503);
    let state: Drain = change(&gateway, "/admin/v1/drain", json!({"draining": false})).await;
    assert!(!state.draining);
    assert_eq!(ask(&gateway, "GET", "/readyz", String::new()).await.0, 200);

    let (status, ..) = refused(&gateway, "/admin/v1/drain", json!({"draining": false, "stop": true})).await;
    assert_eq!(status, 400);
    let _: Drain = change(&gateway, "/admin/v1/drain", json!({"draining": true, "stop": true})).await;
    timeout(BOUND, gateway.stop_asked()).await.expect("told");
    assert_eq!(refused(&gateway, "/admin/v1/drain", json!({"draining": false})).await.0, 409);

    let draining = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.drain().await }
    });
    until("no new connections", || std::net::TcpStream::connect(gateway.listen()).is_err()).await;
    assert!(!draining.is_finished(), "a stream is still open");
    let state: Drain = get(&gateway, "/admin/v1/drain").await;
    assert_eq!((state.stopping, state.in_flight), (true, 1));
    go.notify_one();
    assert_eq!(whole(body).await, ("data: [DONE]\n\n".to_owned(), true));
    assert!(timeout(BOUND, draining).await.unwrap().unwrap());
    client.closed().await;
}

#[tokio::test]
async fn draining_has_an_end() {
    let mock = Mock::start(|_| Answer::events(&[ROLE]).then(Step::Hang)).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.drain_timeout = Duration::from_millis(100);
    let gateway = start(config).await;
    let mut body = Client::connect(&gateway).await.chat(STREAM).await.into_body();
    assert!(piece(&mut body).await.unwrap().is_ok());
    assert!(!timeout(BOUND, gateway.drain()).await.unwrap());
    until("cancelled at the engine", || mock.aborted() == 1).await;
}

#[tokio::test]
async fn the_metrics_page_has_these_names() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let mock = Mock::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Answer::events(&[HELLO, USAGE, "[DONE]"])
    })
    .await;
    let gateway = start(config("gorgo", &[&mock])).await;
    assert!(whole(Client::connect(&gateway).await.chat(STREAM).await.into_body()).await.1);
    until("counted", || gateway.counts().ok == 1).await;
    let response = Client::connect(&gateway).await.send(super::client::get("/nothing")).await.unwrap();
    assert_eq!(response.status(), 404);
    let (status, page) = ask(&gateway, "GET", "/metrics", String::new()).await;
    assert_eq!((status, calls.load(Ordering::SeqCst)), (200, 1));
    let mut types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    types.sort_unstable();
    assert_snapshot!(types.join("\n"), @r"
    gorgo_audit_dropped counter
    gorgo_build info
    gorgo_cached_tokens counter
    gorgo_certificate_expiry_timestamp_seconds gauge
    gorgo_client_connections gauge
    gorgo_completion_tokens counter
    gorgo_decision_duration_seconds histogram
    gorgo_draining gauge
    gorgo_foreseen_cached_tokens counter
    gorgo_index_blocks gauge
    gorgo_index_bytes gauge
    gorgo_prediction_hit_ratio gauge
    gorgo_prediction_ttft_bias_ratio gauge
    gorgo_prediction_ttft_error_ratio gauge
    gorgo_prediction_ttft_samples gauge
    gorgo_prompt_tokens counter
    gorgo_queue_requests gauge
    gorgo_refusals counter
    gorgo_replica_attempts counter
    gorgo_replica_dispatched counter
    gorgo_replica_engine_max_running gauge
    gorgo_replica_engine_running gauge
    gorgo_replica_engine_waiting gauge
    gorgo_replica_health_changes counter
    gorgo_replica_healthy gauge
    gorgo_replica_hit_ratio gauge
    gorgo_replica_idle_connections gauge
    gorgo_replica_in_flight gauge
    gorgo_replica_kv_usage_ratio gauge
    gorgo_replica_recalled counter
    gorgo_replica_rtt_seconds gauge
    gorgo_request_duration_seconds histogram
    gorgo_requests counter
    gorgo_retries counter
    gorgo_ttft_seconds histogram
    gorgo_tune_active gauge
    gorgo_tune_step gauge
    ");
    assert!(page.contains("gorgo_cached_tokens_total{replica=\"r0\",region=\"region-0\"} 16"), "{page}");
    assert!(page.contains("gorgo_replica_in_flight{replica=\"r0\",region=\"region-0\"} 0"));
}
