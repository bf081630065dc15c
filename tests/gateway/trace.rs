//! Traces of real gateways: what is in them, and what is not.

use gorgo::gateway::GatewayHandle;
use gorgo::wire::span::{Dump, Merged, TraceStarted, Trip, merge};
use gorgo::wire::{Explanation, OutcomeKind};
use insta::assert_snapshot;
use serde_json::json;

use super::admin::{ask, change, get as admin_get, refused};
use super::agents::{Node, cluster, fill};
use super::client::{Client, PLAIN, STREAM, chat, code, config, piece, start, until, whole};
use super::mock::{Answer, Mock, ROLE, Step, hello};
use super::perfetto::{Loaded, Slice, load};

const START: &str = "/admin/v1/trace/start";
const STOP: &str = "/admin/v1/trace/stop";

async fn begin(gateway: &GatewayHandle) -> TraceStarted {
    change(gateway, START, json!({})).await
}

async fn end(gateway: &GatewayHandle) -> Dump {
    let (status, text) = ask(gateway, "POST", STOP, String::new()).await;
    assert_eq!(status, 200, "{text}");
    Dump::parse(&text).unwrap()
}

/// Dumps as one file, which has to load.
fn file(dumps: &[Dump]) -> (Merged, Loaded) {
    let trips: Vec<Trip> = dumps.iter().map(|dump| Trip { asked_us: 0, answered_us: dump.node.now_us }).collect();
    let merged = merge(dumps, &trips);
    let loaded = load(&merged.written.json);
    assert_eq!(loaded.errors, Vec::<String>::new());
    (merged, loaded)
}

/// Slices track by track, without their times.
fn outline(loaded: &Loaded) -> String {
    let mut tracks: Vec<&str> = Vec::new();
    for slice in &loaded.slices {
        if !tracks.contains(&slice.track.as_str()) {
            tracks.push(&slice.track);
        }
    }
    let line = |slice: &Slice| {
        let to: Vec<&str> = slice.to.iter().map(|to| loaded.slices[*to].track.as_str()).collect();
        let to = if to.is_empty() { String::new() } else { format!(" -> {}", to.join(", ")) };
        format!("{}{}{to}\n", "  ".repeat(slice.depth + 1), slice.name)
    };
    let track = |track: &str| {
        let slices: String = loaded.slices.iter().filter(|slice| slice.track == track).map(line).collect();
        format!("[{track}]\n{slices}")
    };
    tracks.into_iter().map(track).collect()
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.slices.iter().filter(|slice| slice.track.contains("router")).map(|slice| slice.name.as_str()).collect()
}

#[tokio::test]
async fn a_request_through_two_agents_is_one_connected_flow() {
    let [a, b] = cluster(["a", "b"]).await;
    let _held = fill(&a).await;
    for Node { agent, .. } in [&a, &b] {
        begin(agent).await;
    }
    let response = Client::connect(&a.agent).await.chat(STREAM).await;
    let id = response.headers()["x-gorgo-request-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["x-gorgo-replica"], "b");
    assert!(whole(response.into_body()).await.1);
    until("it has ended at both", || a.agent.counts().ok == 1 && b.agent.counts().ok == 1).await;
    let dumps = [end(&a.agent).await, end(&b.agent).await];
    let [at_a, at_b] = [&dumps[0].requests[0], &dumps[1].requests[0]];
    assert_eq!((&at_b.trace, at_b.parent.as_ref()), (&at_a.request, Some(&at_a.request)));
    assert_eq!(at_a.attempts[0].peer_request.as_ref(), Some(&at_b.request));
    assert_eq!((dumps[0].requests.len(), dumps[1].requests.len()), (1, 1));

    let (merged, loaded) = file(&dumps);
    assert_eq!((merged.written.flows, merged.written.reversed, loaded.dangling()), (1, 0, 0));
    assert_snapshot!(outline(&loaded), @r"
    [a: clients / client]
      request -> a: router (region-a) / request
    [a: router (region-a) / request]
      request -> a: router (region-a) / request
        receive
        extract
        decide
        to b -> b: router (region-b) / request
          forward
          answer
            first token
      done
    [b: router (region-b) / request]
      request -> b: router (region-b) / request
        receive
        extract
        decide
        to b -> b: engine b / slot
          forward
          answer
            first token
      done
    [b: engine b / slot]
      request
        prefill
        decode
    ");
    let error = merged.nodes[1].clock_error_us.unwrap();
    assert!((0..100_000).contains(&error), "the peers' own round trips tie the clocks: ± {error} µs");
    let counters: Vec<&str> = loaded.counters.iter().map(String::as_str).collect();
    assert_snapshot!(counters.join("\n"), @r"
    a: router (region-a) / in flight a
    a: router (region-a) / in flight b
    a: router (region-a) / queue requests
    a: router (region-a) / rtt ms a
    a: router (region-a) / rtt ms b
    b: router (region-b) / in flight a
    b: router (region-b) / in flight b
    b: router (region-b) / queue requests
    b: router (region-b) / rtt ms a
    b: router (region-b) / rtt ms b
    ");

    let told: Explanation = admin_get(&a.agent, &format!("/admin/v1/decisions/{id}")).await;
    let there = told.attempts[0].peer_request.clone().unwrap();
    let there: Explanation = admin_get(&b.agent, &format!("/admin/v1/decisions/{there}")).await;
    assert_eq!(there.decisions[0].excluded[0].reason, "hop", "asked where it went");
    let engine = b.engine.requests().pop().unwrap();
    assert!(!engine.headers.contains_key("x-gorgo-trace"), "between routers only");
}

#[tokio::test]
async fn nobody_but_a_peer_says_whose_request_it_is() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    begin(&gateway).await;
    let mut request = chat(STREAM);
    request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
    request.headers_mut().insert("x-gorgo-trace", "00000000000000a1-00000000000000a2".parse().unwrap());
    let response = Client::connect(&gateway).await.send(request).await.unwrap();
    assert!(whole(response.into_body()).await.1);
    until("it has ended", || gateway.counts().ok == 1).await;
    let span = end(&gateway).await.requests.remove(0);
    assert_eq!((&span.trace, span.parent), (&span.request, None));
    assert!(!mock.requests()[0].headers.contains_key("x-gorgo-trace"));
}

#[tokio::test]
async fn a_retry_shows_both_attempts_and_why_the_first_failed() {
    let bad = Mock::start(|_| Answer::json(503, "{}")).await;
    let good = Mock::start(|_| hello()).await;
    let gateway = start(config("round-robin", &[&bad, &good])).await;
    until("both", || gateway.healthy() == 2).await;
    begin(&gateway).await;
    let mut id = String::new();
    let mut client = Client::connect(&gateway).await;
    // Whose turn it is first is not said; the second of two is the other's.
    for _ in 0..2 {
        let response = client.chat(STREAM).await;
        let here = response.headers()["x-gorgo-request-id"].to_str().unwrap().to_owned();
        assert!(whole(response.into_body()).await.1);
        let told: Explanation = admin_get(&gateway, &format!("/admin/v1/decisions/{here}")).await;
        if told.decisions.len() == 2 {
            id = here;
        }
    }
    until("they have ended", || gateway.counts().ok == 2).await;
    let mut dump = end(&gateway).await;
    dump.requests.retain(|request| request.request == id);
    dump.counters.clear();
    let (merged, loaded) = file(&[dump]);
    assert_eq!(merged.written.flows, 2, "the second attempt has arrows of its own");
    assert_snapshot!(outline(&loaded), @r"
    [proxy: clients / client]
      request -> proxy: router / request
    [proxy: router / request]
      request -> proxy: router / request
        receive
        extract
        decide
        to r0 -> proxy: engine r0 / slot
          forward
          answer
        decide
        to r1 -> proxy: engine r1 / slot
          forward
            retry
          answer
            first token
      done
    [proxy: engine r0 / slot]
      request
    [proxy: engine r1 / slot]
      request
        prefill
        decode
    ");
    let told: Explanation = admin_get(&gateway, &format!("/admin/v1/decisions/{id}")).await;
    let tried = &told.attempts[0];
    assert_eq!((tried.attempt, tried.failure.as_deref()), (1, Some("status 503")));
    assert!(tried.failed_after_ms.is_some_and(|ms| ms >= 0.0));
    let outcome = told.outcome.unwrap();
    assert!(outcome.dispatch_ttft_ms.unwrap() <= outcome.ttft_ms.unwrap());
}

#[tokio::test]
async fn a_client_that_leaves_and_a_request_that_is_refused_have_their_marks() {
    let mock = Mock::start(|_| Answer::events(&[ROLE]).then(Step::Hang)).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    begin(&gateway).await;
    let mut client = Client::connect(&gateway).await;
    let mut body = client.chat(STREAM).await.into_body();
    piece(&mut body).await.unwrap().unwrap();
    client.leave();
    drop(body);
    until("cancelled", || gateway.counts().cancelled == 1).await;

    let mut request = chat(PLAIN);
    request.headers_mut().insert("x-gorgo-priority", "much".parse().unwrap());
    let response = Client::connect(&gateway).await.send(request).await.unwrap();
    assert_eq!(code(response).await, (400, "bad_header".to_owned()));
    gateway.fleet().remove("r0");
    let response = Client::connect(&gateway).await.chat(PLAIN).await;
    assert_eq!(code(response).await, (503, "no_replica".to_owned()));

    let dump = end(&gateway).await;
    let told: Vec<_> = dump.requests.iter().map(|it| (it.outcome, it.status, it.refusal.as_deref())).collect();
    let wanted = [
        (OutcomeKind::Cancelled, Some(200), None),
        (OutcomeKind::Refused, Some(400), Some("bad_header")),
        (OutcomeKind::Refused, Some(503), Some("no_replica")),
    ];
    assert_eq!(told, wanted);
    let (_, loaded) = file(&[dump]);
    let names = names(&loaded);
    assert_eq!(names.iter().filter(|name| **name == "cancel").count(), 1);
    assert_eq!(names.iter().filter(|name| **name == "refused").count(), 2);
}

#[tokio::test]
async fn what_waits_in_the_queue_is_seen_waiting() {
    let mock = Mock::start(|_| hello()).await;
    let mut settings = config("gorgo", &[&mock]);
    settings.routing.max_concurrent = Some(1);
    let gateway = start(settings).await;
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = go.clone();
    mock.set(move |_| Answer::events(&[ROLE]).then(Step::Acquire(held.clone())));
    begin(&gateway).await;
    let first = Client::connect(&gateway).await.chat(STREAM).await;
    let address = gateway.listen();
    let second =
        tokio::spawn(async move { whole(Client::at(address, None).await.chat(STREAM).await.into_body()).await });
    until("it waits", || gateway.counts().in_flight == 2).await;
    go.add_permits(2);
    assert!(whole(first.into_body()).await.1 && second.await.unwrap().1);
    until("they have ended", || gateway.counts().in_flight == 0).await;
    let (_, loaded) = file(&[end(&gateway).await]);
    assert_eq!(names(&loaded).iter().filter(|name| **name == "queue").count(), 1);
    let held = loaded.slices.iter().find(|slice| slice.name == "decide" && slice.args["verdict"] == "hold").unwrap();
    assert_eq!(held.args["excluded"]["r0"], "capacity", "who was filtered, and why");
}

#[tokio::test]
async fn memory_is_bounded_and_what_had_to_go_is_counted() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let (status, kind, _) = refused(&gateway, START, json!({ "buffer_bytes": 100 })).await;
    assert_eq!((status, kind.as_str()), (400, "bad_request"));
    let started: TraceStarted = change(&gateway, START, json!({ "buffer_bytes": 8192 })).await;
    assert_eq!((started.node.as_str(), started.buffer_bytes), ("proxy", 8192));
    let mut client = Client::connect(&gateway).await;
    for _ in 0..50 {
        assert!(whole(client.chat(STREAM).await.into_body()).await.1);
    }
    until("they have ended", || gateway.counts().ok == 50).await;
    let (_, text) = ask(&gateway, "POST", STOP, String::new()).await;
    let dump = Dump::parse(&text).unwrap();
    assert!(text.len() < 8192 + 1024, "the lines and one about the node: {}", text.len());
    let kept = dump.requests.len() as u64;
    assert!(kept > 0 && kept + dump.node.dropped >= 50, "{kept} and {} dropped", dump.node.dropped);
    assert_eq!(ask(&gateway, "POST", STOP, String::new()).await.1.lines().count(), text.lines().count(), "once more");
}

#[tokio::test]
async fn start_twice_and_stop_without_start_are_told_so() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let (status, kind, message) = refused(&gateway, STOP, json!({})).await;
    assert_eq!((status, kind.as_str()), (409, "not_tracing"));
    assert!(message.contains("start one first"), "{message}");
    begin(&gateway).await;
    let (status, kind, message) = refused(&gateway, START, json!({})).await;
    assert_eq!((status, kind.as_str()), (409, "already_tracing"));
    assert!(message.contains("stop it first"), "{message}");
    for path in [START, STOP] {
        assert_eq!(ask(&gateway, "GET", path, String::new()).await.0, 405, "{path}");
        assert_eq!(refused(&gateway, path, json!({ "bufer": 1 })).await.0, 400, "{path}");
    }
    end(&gateway).await;
    begin(&gateway).await;
}

#[tokio::test]
async fn a_request_that_goes_on_when_tracing_ends_is_counted_and_not_told() {
    let mock = Mock::start(|_| Answer::events(&[ROLE]).then(Step::Hang)).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    begin(&gateway).await;
    let mut client = Client::connect(&gateway).await;
    let mut body = client.chat(STREAM).await.into_body();
    piece(&mut body).await.unwrap().unwrap();
    let dump = end(&gateway).await;
    assert_eq!((dump.requests.len(), dump.node.unfinished), (0, 1));
}
