//! Limits of the data path, and clients that try them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gorgo::gateway::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::client::{BOUND, Client, STREAM, chat, code, config, get, piece, post, start, until, whole};
use super::mock::{Answer, Mock, ROLE, Step, hello, send};

/// Everything that comes until the connection closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(BOUND, async {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..read]);
        }
    })
    .await
    .expect("closed in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.max_body_bytes = 1 << 20;
    let gateway = start(config).await;
    let large = vec![b'x'; 3 << 20];
    let response = Client::connect(&gateway).await.chat(large.clone()).await;
    assert_eq!(code(response).await, (413, "body_too_large".to_owned()));

    let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in large.chunks(1 << 16) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
        stream.write_all(chunk).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");

    let mut waiting = TcpStream::connect(gateway.listen()).await.unwrap();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 3000000\r\nexpect: 100-continue\r\n\r\n";
    waiting.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "a body that is refused is not asked for: {answer}");

    let most = format!("{{\"x\":\"{}\"}}", "y".repeat((1 << 20) - 8));
    assert_eq!(Client::connect(&gateway).await.chat(most).await.status(), 200);
    assert_eq!(mock.requests().len(), 1);
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut request = get("/v1/models");
    request.headers_mut().insert("x-long", "y".repeat(70 << 10).parse().unwrap());
    let response = Client::connect(&gateway).await.send(request).await.unwrap();
    assert_eq!(code(response).await, (431, "headers_too_large".to_owned()));

    // The target is part of the head.
    let mut request = get(&format!("/v1/models?{}", "z".repeat(40 << 10)));
    request.headers_mut().insert("x-long", "y".repeat(30 << 10).parse().unwrap());
    let response = Client::connect(&gateway).await.send(request).await.unwrap();
    assert_eq!(code(response).await, (431, "headers_too_large".to_owned()));
}

#[tokio::test]
async fn all_bodies_together_have_a_limit() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.max_bodies_bytes = 100_000;
    let gateway = start(config).await;
    let body = |bytes: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(bytes - 8));
    // One whose body is half here holds what has come.
    let mut holder = TcpStream::connect(gateway.listen()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: 90000\r\n\r\n";
    holder.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    timeout(BOUND, holder.read_exact(&mut told)).await.unwrap().unwrap();
    holder.write_all(&body(90_000).as_bytes()[..60_000]).await.unwrap();

    let mut held = (200, String::new());
    for _ in 0..1000 {
        let response = Client::connect(&gateway).await.chat(body(50_000)).await;
        if response.status() != 200 {
            assert_eq!(response.headers()["retry-after"], "1");
            held = code(response).await;
            break;
        }
        assert!(whole(response.into_body()).await.1, "before the other one had come");
    }
    assert_eq!(held, (503, "bodies_full".to_owned()));
    assert_eq!(Client::connect(&gateway).await.chat(body(30_000)).await.status(), 200, "room for a smaller one");
    drop(holder);
    for _ in 0..1000 {
        if Client::connect(&gateway).await.chat(body(90_000)).await.status() == 200 {
            return;
        }
    }
    panic!("what was held has not come back");
}

#[tokio::test]
async fn a_body_that_drips_is_408_in_the_end() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.body_timeout = BOUND;
    config.limits.body_total_timeout = Duration::from_millis(200);
    let gateway = start(config).await;
    let (mut reader, mut writer) = TcpStream::connect(gateway.listen()).await.unwrap().into_split();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 100000\r\n\r\n";
    writer.write_all(head.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = vec![0; 13];
    timeout(BOUND, reader.read_exact(&mut answer)).await.expect("an answer in time").unwrap();
    assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 408 ");
    dripping.abort();
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.header_timeout = Duration::from_millis(100);
    config.limits.keep_alive = Duration::from_millis(400);
    let gateway = start(config).await;
    for sent in ["", "P", "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n"] {
        let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{sent}");
    }
    let mut client = Client::connect(&gateway).await;
    assert!(whole(client.chat(STREAM).await.into_body()).await.1);
    client.closed().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.body_timeout = Duration::from_millis(100);
    let gateway = start(config).await;
    let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n{\"half\":";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"body_timeout\""), "{answer}");
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn nonsense_is_400_and_closes() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
    stream.write_all(b"this is not http at all\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_client_that_never_reads_stops_its_engine_and_nobody_else() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let endless = move |request: &super::mock::Received| {
        if request.body.starts_with(b"{\"endless") {
            let piece = send(format!("data: {}\n\n", "z".repeat(64 << 10)));
            counted.fetch_add(1, Ordering::SeqCst);
            Answer::new(200, "text/event-stream", vec![piece; 2000])
        } else {
            hello()
        }
    };
    let mock = Mock::start(endless).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.write_timeout = Duration::from_millis(600);
    let gateway = start(config).await;
    let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
    let body = "{\"endless\":1}";
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    until("at the engine", || sent.load(Ordering::SeqCst) == 1).await;
    for _ in 0..5 {
        let response = Client::connect(&gateway).await.chat(STREAM).await;
        assert!(whole(response.into_body()).await.1, "others are served");
    }
    // 125 MB cannot have gone through: the engine's request is cut unfinished, because its client took nothing.
    until("cut", || mock.aborted() == 1).await;
    until("counted", || gateway.counts().cancelled == 1).await;
}

#[tokio::test]
async fn a_slow_client_gets_everything() {
    let text = "w".repeat(4000);
    let answer = Answer::new(200, "text/event-stream", vec![send(format!("data: {text}\n\n")); 500]);
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let mut body = Client::connect(&gateway).await.chat(STREAM).await.into_body();
    let mut bytes = 0;
    let mut pieces = 0;
    while let Some(data) = piece(&mut body).await {
        bytes += data.unwrap().len();
        pieces += 1;
        if pieces % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(bytes, 500 * (4000 + 8));
}

#[tokio::test]
async fn the_queue_has_a_length_and_an_age() {
    let go = Arc::new(Notify::new());
    let answer = Answer::events(&[ROLE]).then(Step::Until(go.clone()));
    let mock = Mock::start(move |_| answer.clone()).await;
    let mut config = config("least-load", &[&mock]);
    config.routing.max_concurrent = Some(1);
    config.routing.queue_limit = 1;
    config.routing.queue_timeout_ms = 300.0;
    let gateway = start(config).await;
    let mut first = Client::connect(&gateway).await;
    let mut body = first.chat(STREAM).await.into_body();
    assert!(piece(&mut body).await.unwrap().is_ok());

    let mut second = Client::connect(&gateway).await;
    let held = tokio::spawn(async move { code(second.send(chat(STREAM)).await.unwrap()).await });
    until("held", || gateway.counts().in_flight == 2).await;
    assert_eq!(code(Client::connect(&gateway).await.chat(STREAM).await).await, (429, "queue_full".to_owned()));
    assert_eq!(timeout(BOUND, held).await.unwrap().unwrap(), (503, "queue_timeout".to_owned()));

    let mut third = Client::connect(&gateway).await;
    let held = tokio::spawn(async move { third.send(chat(STREAM)).await.unwrap().status() });
    until("held", || gateway.counts().in_flight == 2).await;
    go.notify_one();
    assert!(whole(body).await.1);
    assert_eq!(timeout(BOUND, held).await.unwrap().unwrap(), 200, "released when the first one ended");
    until("counted", || gateway.counts().refused == 2).await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.max_connections = 1;
    let gateway = start(config).await;
    let mut first = Client::connect(&gateway).await;
    assert!(whole(first.chat(STREAM).await.into_body()).await.1);
    let mut second = Client::connect(&gateway).await;
    let waiting =
        tokio::spawn(async move { second.send(post("/v1/chat/completions", STREAM)).await.unwrap().status() });
    first.leave();
    assert_eq!(timeout(BOUND, waiting).await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let error = |config| async { format!("{:#}", Gateway::start(config).await.err().expect("an error")) };

    let mut taken = config("gorgo", &[&mock]);
    taken.listen = gateway.listen();
    let text = error(taken).await;
    assert!(text.contains("--listen") && text.contains(&gateway.listen().to_string()), "{text}");

    let mut open = config("gorgo", &[&mock]);
    open.admin = "0.0.0.0:0".parse().unwrap();
    let text = error(open).await;
    assert!(text.contains("loopback only"), "{text}");

    let text = error(config("gorgon", &[&mock])).await;
    assert!(text.contains("unknown strategy `gorgon`") && text.contains("least-load"), "{text}");

    let mut bad = config("gorgo", &[&mock]);
    bad.replicas[0].url = "10.0.0.1:30000".to_owned();
    let text = error(bad).await;
    assert!(text.contains("replica `r0`") && text.contains("http://"), "{text}");
}
