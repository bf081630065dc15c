//! Engines that fail, and clients that leave.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::{BOUND, Client, PLAIN, STREAM, chat, code, config, get, piece, post, start, until, whole};
use super::mock::{Answer, HELLO, Mock, REPLY, ROLE, Step, hello, send};
use gorgo::gateway::ReplicaConfig;
use gorgo::inference::engine::EMULATOR;

/// A gateway over a bad engine that is preferred, and a good one.
async fn bad_and_good(bad: Answer) -> (Mock, Mock, gorgo::gateway::GatewayHandle) {
    let bad = Mock::start(move |_| bad.clone()).await;
    let good = Mock::start(|_| hello()).await;
    // Round robin begins with the first replica.
    let gateway = start(config("round-robin", &[&bad, &good])).await;
    until("both healthy", || gateway.healthy() == 2).await;
    (bad, good, gateway)
}

#[tokio::test]
async fn what_fails_before_its_first_byte_is_tried_elsewhere() {
    let cases = [
        ("reset", hello().after(Step::Die)),
        ("502", Answer::json(502, "{}")),
        ("503", Answer::json(503, "{}")),
        ("504", Answer::json(504, "{}")),
    ];
    for (name, answer) in cases {
        let (bad, good, gateway) = bad_and_good(answer).await;
        let mut client = Client::connect(&gateway).await;
        for _ in 0..2 {
            let response = client.chat(STREAM).await;
            assert_eq!(response.headers()["x-gorgo-replica"], "r1", "{name}");
            assert!(whole(response.into_body()).await.1, "{name}");
        }
        assert_eq!(good.requests().len(), 2, "{name}");
        assert!(!bad.requests().is_empty(), "{name}");
        until("counted", || gateway.counts().ok == 2 && gateway.counts().retried >= 1).await;
        assert_eq!(gateway.counts().failed, 0);
    }
}

/// Engines send the head of a stream before they compute: a client that has got nothing but could have had that loses nothing.
#[tokio::test]
async fn what_fails_behind_its_head_and_before_its_first_byte_is_tried_elsewhere() {
    let pause = || Step::Pause(Duration::from_millis(50));
    let cases = [
        ("a stream", Answer::new(200, "text/event-stream", vec![pause(), Step::Die])),
        ("a document", Answer::new(200, "application/json", vec![pause(), Step::Die])),
        ("a document of known length", {
            let mut answer = Answer::new(200, "application/json", vec![pause(), Step::Die]);
            answer.headers.push(("content-length", "1000".to_owned()));
            answer
        }),
    ];
    for (name, answer) in cases {
        let (bad, good, gateway) = bad_and_good(answer).await;
        let response = Client::connect(&gateway).await.chat(STREAM).await;
        assert_eq!(response.headers()["x-gorgo-replica"], "r1", "{name}");
        let (text, complete) = whole(response.into_body()).await;
        assert!(complete && text.matches("[DONE]").count() == 1 && !text.contains("error"), "{name}: {text}");
        assert_eq!((bad.requests().len(), good.requests().len()), (1, 1), "{name}");
        until("counted", || gateway.counts().ok == 1 && gateway.counts().retried == 1).await;
    }
}

#[tokio::test]
async fn an_answer_without_a_body_is_one() {
    let mut empty = Answer::new(200, "application/json", Vec::new());
    empty.headers.push(("content-length", "0".to_owned()));
    for answer in [empty, Answer::new(200, "application/json", Vec::new())] {
        let (_bad, good, gateway) = bad_and_good(answer).await;
        let response = Client::connect(&gateway).await.chat(PLAIN).await;
        assert_eq!((response.status().as_u16(), &response.headers()["x-gorgo-replica"]), (200, &"r0".parse().unwrap()));
        assert_eq!(whole(response.into_body()).await, (String::new(), true));
        assert!(good.requests().is_empty());
    }
}

#[tokio::test]
async fn an_unreachable_replica_is_tried_elsewhere() {
    let good = Mock::start(|_| hello()).await;
    let gone = Mock::start(|_| hello()).await;
    let gateway = start(config("round-robin", &[&gone, &good])).await;
    until("both healthy", || gateway.healthy() == 2).await;
    drop(gone);
    let mut client = Client::connect(&gateway).await;
    for _ in 0..4 {
        let response = client.chat(STREAM).await;
        assert_eq!(response.headers()["x-gorgo-replica"], "r1");
        assert!(whole(response.into_body()).await.1);
    }
    until("out of rotation", || gateway.healthy() == 1).await;
}

#[tokio::test]
async fn other_statuses_are_answers() {
    for status in [400, 401, 404, 422, 429, 500, 501] {
        let (_bad, good, gateway) = bad_and_good(Answer::json(status, r#"{"error":{"message":"engine"}}"#)).await;
        let response = Client::connect(&gateway).await.chat(STREAM).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-gorgo-replica"], "r0");
        assert_eq!(whole(response.into_body()).await.0, r#"{"error":{"message":"engine"}}"#);
        assert!(good.requests().is_empty(), "{status}");
        assert_eq!(gateway.healthy(), 2, "{status} says nothing about health");
        until("counted", || gateway.counts().in_flight == 0).await;
        let (ok, failed) = (gateway.counts().ok, gateway.counts().failed);
        assert_eq!((ok, failed), if status < 500 { (1, 0) } else { (0, 1) }, "{status}");
    }
}

#[tokio::test]
async fn a_replica_that_dies_inside_a_stream_ends_it_with_an_error_event() {
    for half in ["", "data: {\"cho"] {
        let mut answer = Answer::events(&[ROLE, HELLO]);
        if !half.is_empty() {
            answer = answer.then(send(half));
        }
        let (bad, good, gateway) = bad_and_good(answer.then(Step::Die)).await;
        let mut client = Client::connect(&gateway).await;
        let response = client.chat(STREAM).await;
        assert_eq!(response.headers()["x-gorgo-replica"], "r0");
        let (text, _) = whole(response.into_body()).await;
        let before = format!("data: {ROLE}\n\ndata: {HELLO}\n\n{half}");
        let error = text.strip_prefix(&before).expect("everything that came before");
        let error = if half.is_empty() { error } else { error.strip_prefix("\n\n").expect("the half event is ended") };
        let json = error.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n")).expect("one event");
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(value["error"]["code"], "replica_failed");
        assert!(!text.contains("[DONE]"));
        client.closed().await;
        assert_eq!((bad.requests().len(), good.requests().len()), (1, 0), "never again after the first byte");
        until("counted", || gateway.counts().failed == 1).await;
    }
}

#[tokio::test]
async fn a_document_that_breaks_off_does_not_look_complete() {
    let mut with_length = Answer::new(200, "application/json", vec![send("{\"half\":"), Step::Die]);
    let chunked = with_length.clone();
    with_length.headers.push(("content-length", "1000".to_owned()));
    for answer in [with_length, chunked] {
        let (_bad, good, gateway) = bad_and_good(answer).await;
        let response = Client::connect(&gateway).await.chat(PLAIN).await;
        assert_eq!(response.status(), 200);
        let (text, complete) = whole(response.into_body()).await;
        assert_eq!((text.as_str(), complete), ("{\"half\":", false));
        assert!(good.requests().is_empty());
    }
}

#[tokio::test]
async fn a_stream_without_framing_needs_its_done() {
    let endings = [("data: [DONE]\n\n", true), ("", false)];
    let cases = ["/v1/chat/completions", "/generate"].into_iter().flat_map(|path| endings.map(|ending| (path, ending)));
    for (path, (ending, complete)) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    let read = stream.read(&mut head).await.unwrap_or(0);
                    let answer = if head[..read].starts_with(b"POST") {
                        format!("HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {HELLO}\n\n{ending}")
                    } else {
                        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.shutdown().await;
                });
            }
        });
        let mut config = config("gorgo", &[]);
        let mut replica = ReplicaConfig::new("old", &url, "region");
        replica.engine = Some(&EMULATOR);
        config.replicas.push(replica);
        let gateway = start(config).await;
        let response = Client::connect(&gateway).await.send(post(path, STREAM)).await.unwrap();
        let (text, _) = whole(response.into_body()).await;
        assert_eq!(text.contains("replica_failed"), !complete, "{path}: {text}");
    }
}

#[tokio::test]
async fn when_all_have_failed_the_client_is_told() {
    let dead = |_: &super::mock::Received| hello().after(Step::Die);
    let (a, b) = (Mock::start(dead).await, Mock::start(dead).await);
    let gateway = start(config("least-load", &[&a, &b])).await;
    until("both healthy", || gateway.healthy() == 2).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert!(response.headers().contains_key("x-gorgo-request-id"));
    assert_eq!(response.headers()["x-gorgo-replica"], "r1", "the last one that failed");
    assert_eq!(code(response).await, (502, "all_tried".to_owned()));
    until("counted", || gateway.counts().failed == 1 && gateway.counts().in_flight == 0).await;
}

#[tokio::test]
async fn a_request_that_engines_die_of_is_not_tried_everywhere() {
    let dead = |_: &super::mock::Received| hello().after(Step::Die);
    let mocks = [Mock::start(dead).await, Mock::start(dead).await, Mock::start(dead).await];
    let mut config = config("round-robin", &mocks.iter().collect::<Vec<_>>());
    config.routing.max_attempts = 2;
    let gateway = start(config).await;
    until("all healthy", || gateway.healthy() == 3).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert_eq!(response.headers()["x-gorgo-replica"], "r1");
    assert_eq!(code(response).await, (502, "all_tried".to_owned()));
    let dispatched: Vec<u64> = gateway.dispatched().into_iter().map(|(_, count)| count).collect();
    assert_eq!(dispatched, [1, 1, 0]);
}

#[tokio::test]
async fn the_last_engines_own_words_reach_the_client() {
    let mock = Mock::start(|_| Answer::json(503, r#"{"error":{"message":"loading"}}"#)).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert_eq!((response.status().as_u16(), &response.headers()["x-gorgo-replica"]), (503, &"r0".parse().unwrap()));
    assert_eq!(whole(response.into_body()).await.0, r#"{"error":{"message":"loading"}}"#);
}

#[tokio::test]
async fn a_silent_engine_is_given_up() {
    let mock = Mock::start(|_| hello().after(Step::Hang)).await;
    let other = Mock::start(|_| hello()).await;
    let mut config = config("round-robin", &[&mock, &other]);
    config.limits.upstream_timeout = Duration::from_millis(100);
    let gateway = start(config).await;
    until("both healthy", || gateway.healthy() == 2).await;
    let mut client = Client::connect(&gateway).await;
    let response = client.chat(STREAM).await;
    assert_eq!(
        (&response.headers()["x-gorgo-replica"], &response.headers()["x-gorgo-region"]),
        (&"r0".parse().unwrap(), &"region-0".parse().unwrap())
    );
    assert_eq!(code(response).await, (504, "upstream_timeout".to_owned()));
    assert!(other.requests().is_empty(), "the engine may be working on it: nobody else gets it");
    assert!(gateway.fleet().remove("r1"));
    until("cancelled at the engine", || mock.aborted() == 1).await;

    mock.set(|_| Answer::events(&[HELLO]).then(Step::Hang));
    let (text, _) = whole(client.chat(STREAM).await.into_body()).await;
    assert!(text.contains("it was silent for 0.1 s"), "{text}");
    until("cancelled at the engine", || mock.aborted() == 2).await;
}

/// An engine that sends the head of its answer has no more time for the first byte than one that does not.
#[tokio::test]
async fn one_time_limit_holds_for_an_attempt_until_its_first_byte() {
    let pause = || Step::Pause(Duration::from_millis(1400));
    let answer = Answer::new(200, "text/event-stream", vec![pause(), send("data: [DONE]\n\n")]).after(pause());
    let mock = Mock::start(move |_| answer.clone()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.upstream_timeout = Duration::from_millis(2000);
    let gateway = start(config).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert_eq!(code(response).await, (504, "upstream_timeout".to_owned()));
    until("cancelled at the engine", || mock.aborted() == 1).await;
}

#[tokio::test]
async fn a_stream_may_begin_late_and_not_pause_for_long() {
    let (pause, role) = (Duration::from_millis(400), send(format!("data: {ROLE}\n\n")));
    let late = Answer::new(200, "text/event-stream", vec![Step::Pause(pause), role.clone(), Step::Pause(pause)]);
    let late = late.then(send(format!("data: {HELLO}\n\ndata: [DONE]\n\n")));
    let mock = Mock::start(move |_| late.clone()).await;
    let other = Mock::start(|_| hello()).await;
    let mut config = config("round-robin", &[&mock, &other]);
    config.limits.stream_timeout = Duration::from_millis(100);
    let gateway = start(config).await;
    until("both healthy", || gateway.healthy() == 2).await;
    let mut client = Client::connect(&gateway).await;
    let (text, complete) = whole(client.chat(STREAM).await.into_body()).await;
    assert!(complete && text.ends_with("[DONE]\n\n"), "nothing was computed yet: {text}");

    assert!(gateway.fleet().remove("r1"));
    mock.set(|_| Answer::events(&[ROLE, HELLO]).then(Step::Hang));
    let (text, _) = whole(client.chat(STREAM).await.into_body()).await;
    let event = text.strip_prefix(&format!("data: {ROLE}\n\ndata: {HELLO}\n\ndata: ")).expect(&text);
    let error: serde_json::Value = serde_json::from_str(event).expect(event);
    assert_eq!(error["error"]["code"], "replica_failed");
    assert!(event.contains("it was silent for 0.1 s"), "{event}");
    until("cancelled at the engine", || mock.aborted() == 1).await;
    assert_eq!((mock.requests().len(), other.requests().len()), (2, 0), "never repeated");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_at_once_in_the_prefill_and_in_the_stream() {
    let mock = Mock::start(|_| hello().after(Step::Hang)).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut client = Client::connect(&gateway).await;
    let prefill = tokio::spawn(async move {
        let _ = client.send(chat(STREAM)).await;
    });
    until("at the engine", || mock.active() == 1).await;
    prefill.abort();
    until("cancelled in the prefill", || mock.aborted() == 1).await;

    mock.set(|_| Answer::events(&[ROLE, HELLO]).then(Step::Hang));
    let mut client = Client::connect(&gateway).await;
    let mut body = client.chat(STREAM).await.into_body();
    assert!(piece(&mut body).await.unwrap().is_ok());
    client.leave();
    drop(body);
    until("cancelled in the stream", || mock.aborted() == 2).await;
    until("counted", || gateway.counts().cancelled == 2 && gateway.counts().in_flight == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_forgotten() {
    let mock = Mock::start(|_| Answer::events(&[ROLE]).then(Step::Hang)).await;
    let mut config = config("least-load", &[&mock]);
    config.routing.max_concurrent = Some(1);
    let gateway = start(config).await;
    let mut first = Client::connect(&gateway).await;
    let mut body = first.chat(STREAM).await.into_body();
    assert!(piece(&mut body).await.unwrap().is_ok());
    let mut second = Client::connect(&gateway).await;
    let held = tokio::spawn(async move {
        let _ = second.send(chat(STREAM)).await;
    });
    until("held", || gateway.counts().in_flight == 2).await;
    held.abort();
    until("forgotten", || gateway.counts().cancelled == 1).await;
    assert_eq!(mock.requests().len(), 1, "it never reached the engine");

    mock.set(|_| hello());
    first.leave();
    drop(body);
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert!(whole(response.into_body()).await.1, "the gate is open again");
}

#[tokio::test]
async fn health_follows_readiness_with_hysteresis() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut client = Client::connect(&gateway).await;
    assert_eq!(client.send(get("/health")).await.unwrap().status(), 200);
    mock.set_ready(503);
    until("out", || gateway.healthy() == 0).await;
    assert_eq!(code(client.send(get("/health")).await.unwrap()).await, (503, "none_healthy".to_owned()));
    assert_eq!(code(client.chat(STREAM).await).await, (503, "none_healthy".to_owned()));
    mock.set_ready(200);
    until("in again", || gateway.healthy() == 1).await;
    assert!(whole(client.chat(STREAM).await.into_body()).await.1);
}

#[tokio::test]
async fn without_replicas_everything_is_refused() {
    let gateway = gorgo::gateway::Gateway::start(config("gorgo", &[])).await.unwrap();
    let mut client = Client::connect(&gateway).await;
    assert_eq!(code(client.chat(STREAM).await).await, (503, "no_replica".to_owned()));
    assert_eq!(code(client.send(get("/health")).await.unwrap()).await, (503, "no_replica".to_owned()));
}

#[tokio::test]
async fn an_error_event_of_the_engine_counts_as_failed() {
    let mock = Mock::start(|_| Answer::events(&[r#"{"error":{"message":"out of memory"}}"#, "[DONE]"])).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let (text, complete) = whole(Client::connect(&gateway).await.chat(STREAM).await.into_body()).await;
    assert!(complete && text.contains("out of memory"));
    until("counted", || gateway.counts().failed == 1).await;
}

#[tokio::test]
async fn an_engine_that_closes_after_each_answer_costs_no_request() {
    let mut answer = Answer::json(200, REPLY);
    answer.headers.push(("connection", "close".to_owned()));
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut client = Client::connect(&gateway).await;
    for _ in 0..20 {
        let response = client.chat(PLAIN).await;
        assert_eq!(response.status(), 200);
        assert!(tokio::time::timeout(BOUND, whole(response.into_body())).await.unwrap().1);
    }
    assert_eq!(gateway.counts().retried, 0);
}
