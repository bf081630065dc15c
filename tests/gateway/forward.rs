//! What passes through, and that it passes as it is.

use std::sync::Arc;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::client::{BOUND, Client, PLAIN, STREAM, chat, config, get, piece, post, start, until, whole};
use super::mock::{Answer, HELLO, Mock, REPLY, ROLE, Step, USAGE, WORLD, hello, send};

#[tokio::test]
async fn a_stream_passes_byte_for_byte_with_our_headers() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("least-load", &[&mock])).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["x-gorgo-replica"], "r0");
    assert_eq!(headers["x-gorgo-region"], "region-0");
    assert_eq!(headers["x-gorgo-strategy"], "least-load");
    assert_eq!(headers["x-gorgo-request-id"].len(), 16);
    assert!(!headers.contains_key("x-gorgo-decision"));
    let (text, complete) = whole(response.into_body()).await;
    assert!(complete);
    assert_eq!(text, format!("data: {ROLE}\n\ndata: {HELLO}\n\ndata: {WORLD}\n\ndata: [DONE]\n\n"));
    assert_eq!(mock.requests()[0].body, STREAM);
    until("counted", || gateway.counts().ok == 1).await;
}

#[tokio::test]
async fn the_first_piece_arrives_while_the_engine_is_still_writing() {
    let go = Arc::new(Notify::new());
    let answer = Answer::events(&[ROLE]).then(Step::Until(go.clone())).then(send("data: [DONE]\n\n"));
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut body = Client::connect(&gateway).await.chat(STREAM).await.into_body();
    assert_eq!(piece(&mut body).await.unwrap().unwrap(), format!("data: {ROLE}\n\n"));
    assert_eq!(mock.active(), 1, "the engine has not finished");
    go.notify_one();
    assert_eq!(whole(body).await, ("data: [DONE]\n\n".to_owned(), true));
}

#[tokio::test]
async fn bodies_of_every_kind_pass_untouched() {
    let bodies = [
        (
            "/v1/chat/completions",
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"what is this"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"unknown_field":{"a":[1,2]}}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]}],"tools":[{"type":"function","function":{"name":"f"}}]}"#,
        ),
        ("/v1/completions", r#"{"model":"m","prompt":"once"}"#),
        ("/v1/completions", r#"{"model":"m","prompt":["once","twice"]}"#),
        ("/v1/completions", r#"{"model":"m","prompt":[1,2,3,4000000000]}"#),
        ("/v1/completions", r#"{"model":"m","prompt":[[1,2],[3]]}"#),
        ("/v1/embeddings", r#"{"model":"m","input":["a","b"]}"#),
        ("/generate?x=1", r#"{"input_ids":[1,2,3],"sampling_params":{"max_new_tokens":4}}"#),
        ("/v1/chat/completions", "  \n{ \"messages\" : [ ] }\t"),
        ("/v1/chat/completions", "this is not json"),
        ("/v1/chat/completions", ""),
    ];
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut client = Client::connect(&gateway).await;
    for (path, body) in bodies {
        let response = client.send(post(path, body)).await.unwrap();
        assert_eq!(response.status(), 200, "{body}");
        assert_eq!(response.headers()["content-length"], REPLY.len().to_string());
        assert_eq!(whole(response.into_body()).await, (REPLY.to_owned(), true));
        let received = mock.requests().pop().unwrap();
        assert_eq!((received.path.as_str(), &received.body[..]), (path, body.as_bytes()));
    }
    let strange: &[u8] = b"{\"messages\":[{\"content\":\"\xff\xfe\"}]}";
    let response = client.send(post("/v1/chat/completions", strange)).await.unwrap();
    assert_eq!(response.headers()["x-gorgo-strategy"], "least-load", "nothing else can judge it");
    assert_eq!(&mock.requests().pop().unwrap().body[..], strange);
}

#[tokio::test]
async fn headers_pass_both_ways_except_those_of_one_connection() {
    let mut answer = Answer::json(200, REPLY);
    answer.headers.extend([
        ("x-engine", "7".to_owned()),
        ("connection", "x-one-hop".to_owned()),
        ("x-one-hop", "1".to_owned()),
    ]);
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut request = chat(PLAIN);
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("x-request-id", "mine"),
        ("traceparent", "00-ab-cd-01"),
        ("x-gorgo-hop", "1"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("te", "trailers"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let response = Client::connect(&gateway).await.send(request).await.unwrap();
    assert_eq!(response.headers()["x-engine"], "7");
    assert!(!response.headers().contains_key("x-one-hop"));
    let headers = mock.requests().pop().unwrap().headers;
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(
        (&headers["x-request-id"], &headers["traceparent"]),
        (&HeaderValue::from_static("mine"), &HeaderValue::from_static("00-ab-cd-01"))
    );
    assert_eq!(headers["host"], mock.address.to_string());
    for gone in ["x-gorgo-hop", "x-private", "te", "connection"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn a_prompt_of_ten_megabytes_passes() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let text = "lorem ipsum ".repeat(10 * 1024 * 1024 / 12);
    let body = format!(r#"{{"stream":true,"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let response = Client::connect(&gateway).await.chat(body.clone()).await;
    assert!(whole(response.into_body()).await.1);
    assert!(mock.requests()[0].body == body);
}

#[tokio::test]
async fn http2_without_tls_is_spoken_too() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let stream = tokio::net::TcpStream::connect(gateway.listen()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = || {
        let body = http_body_util::Full::new(bytes::Bytes::from(STREAM));
        http::Request::post(format!("{}/v1/chat/completions", gateway.url())).body(body).unwrap()
    };
    let (first, second) = tokio::join!(sender.clone().send_request(request()), sender.send_request(request()));
    for response in [first.unwrap(), second.unwrap()] {
        assert_eq!(response.headers()["x-gorgo-replica"], "r0");
        let (text, complete) = whole(response.into_body()).await;
        assert!(complete && text.ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn usage_is_learned_and_a_decision_can_be_explained() {
    let mock = Mock::start(|_| Answer::events(&[ROLE, HELLO, USAGE, "[DONE]"])).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut request = chat(STREAM);
    request.headers_mut().insert("x-gorgo-explain", HeaderValue::from_static("1"));
    let response = Client::connect(&gateway).await.send(request).await.unwrap();
    let decision: gorgo::wire::Decision =
        serde_json::from_str(response.headers()["x-gorgo-decision"].to_str().unwrap()).unwrap();
    assert_eq!((decision.strategy.as_str(), decision.candidates[0].replica.as_str()), ("gorgo", "r0"));
    assert_eq!(decision.request, response.headers()["x-gorgo-request-id"].to_str().unwrap());
    assert!(decision.predicted_ttft_ms.is_some() && decision.candidates[0].terms.len() > 1);
    let (text, _) = whole(response.into_body()).await;
    assert!(text.contains("cached_tokens"), "the client asked for nothing, and gets what the engine sent");
    until("a prediction", || gateway.prediction_error_ms().is_some()).await;
    assert_eq!(gateway.dispatched(), [("r0".to_owned(), 1)]);
}

#[tokio::test]
async fn usage_that_the_client_did_not_ask_for_is_asked_for_and_taken_out() {
    let mock = Mock::start(|_| Answer::events(&[ROLE, HELLO, USAGE, "[DONE]"])).await;
    let mut config = config("gorgo", &[&mock]);
    config.inject_usage = true;
    let gateway = start(config).await;
    let mut client = Client::connect(&gateway).await;
    let (text, complete) = whole(client.chat(STREAM).await.into_body()).await;
    assert_eq!((text, complete), (format!("data: {ROLE}\n\ndata: {HELLO}\n\ndata: [DONE]\n\n"), true));
    let sent = mock.requests().pop().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
    assert_eq!(value["stream_options"]["include_usage"], true);
    assert_eq!(sent.headers["content-length"], sent.body.len().to_string());

    let asked = STREAM.replace("\"stream\":true", r#""stream":true,"stream_options":{"include_usage":true}"#);
    let (text, _) = whole(client.chat(asked.clone()).await.into_body()).await;
    assert!(text.contains("cached_tokens"), "this client asked itself");
    assert_eq!(mock.requests().pop().unwrap().body, asked);

    let (text, _) = whole(client.chat(PLAIN).await.into_body()).await;
    assert!(text.contains("cached_tokens"), "no stream was asked for");
    assert_eq!(mock.requests().pop().unwrap().body, PLAIN);
}

#[tokio::test]
async fn our_own_paths() {
    let (a, b) = (Mock::start(|_| hello()).await, Mock::start(|_| hello()).await);
    let mut config = config("gorgo", &[&a, &b]);
    config.replicas[1].models = vec!["other".to_owned()];
    let gateway = start(config).await;
    let mut client = Client::connect(&gateway).await;
    let mut list = String::new();
    for _ in 0..500 {
        list = whole(client.send(get("/v1/models")).await.unwrap().into_body()).await.0;
        if list.contains("max_model_len") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(
        list,
        r#"{"object":"list","data":[{"id":"tiny","object":"model","owned_by":"mock","max_model_len":4096}]}"#
    );
    let one = whole(client.send(get("/v1/models/tiny")).await.unwrap().into_body()).await.0;
    assert_eq!(one, r#"{"id":"tiny","object":"model","owned_by":"mock","max_model_len":4096}"#);
    let cases = [
        (get("/v1/models/none"), 404, "unknown_model"),
        (get("/v1/nothing"), 404, "unknown_path"),
        (get("/v1/chat/completions"), 405, "method_not_allowed"),
        (post("/health", ""), 405, "method_not_allowed"),
    ];
    for (request, status, code) in cases {
        let response = client.send(request).await.unwrap();
        assert!(response.headers().contains_key("x-gorgo-request-id"));
        assert_eq!(super::client::code(response).await, (status, code.to_owned()));
    }
    assert_eq!(client.send(get("/health")).await.unwrap().status(), 200);
    let mut request = chat(PLAIN);
    request.headers_mut().insert("x-gorgo-priority", HeaderValue::from_static("urgent"));
    assert_eq!(super::client::code(client.send(request).await.unwrap()).await, (400, "bad_header".to_owned()));
    until("counted", || gateway.counts().refused == 5).await;
}

#[tokio::test]
async fn a_session_stays_where_it_was() {
    let mocks = [Mock::start(|_| hello()).await, Mock::start(|_| hello()).await, Mock::start(|_| hello()).await];
    let gateway = start(config("session-affinity", &[&mocks[0], &mocks[1], &mocks[2]])).await;
    until("all healthy", || gateway.healthy() == 3).await;
    let mut client = Client::connect(&gateway).await;
    let mut places = std::collections::BTreeSet::new();
    for session in 0..12 {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut request = chat(STREAM);
            request.headers_mut().insert("x-gorgo-session", HeaderValue::from(session));
            let response = client.send(request).await.unwrap();
            seen.insert(response.headers()["x-gorgo-replica"].clone());
            assert!(whole(response.into_body()).await.1);
        }
        assert_eq!(seen.len(), 1, "session {session}");
        places.extend(seen.into_iter().map(|place| place.to_str().unwrap().to_owned()));
    }
    assert!(places.len() > 1, "sessions are spread");
}

#[tokio::test]
async fn the_kind_of_engine_is_found_out() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.replicas[0].engine = None;
    let gateway = start(config).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert!(tokio::time::timeout(BOUND, whole(response.into_body())).await.unwrap().1);
    let replicas: gorgo::wire::Replicas = super::admin::get(&gateway, "/admin/v1/replicas").await;
    assert_eq!(replicas.replicas[0].engine, "emulator");
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut stream = tokio::net::TcpStream::connect(gateway.listen()).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        STREAM.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    tokio::time::timeout(BOUND, stream.read_exact(&mut told)).await.unwrap().unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(STREAM.as_bytes()).await.unwrap();
    let mut status = [0; 15];
    tokio::time::timeout(BOUND, stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    assert!(!mock.requests()[0].headers.contains_key("expect"));
}
