//! The end of a gateway: what came before it is answered to the last byte.

use std::sync::Arc;
use std::time::Duration;

use gorgo::gateway::GatewayHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::{BOUND, Client, PLAIN, STREAM, config, get, start, until, whole};
use super::mock::{Answer, Mock, REPLY, hello, send};

/// Begins to drain and returns once the listener is gone.
async fn drain(gateway: &Arc<GatewayHandle>) -> JoinHandle<bool> {
    let draining = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.drain().await }
    });
    until("no new connections", || std::net::TcpStream::connect(gateway.listen()).is_err()).await;
    draining
}

/// Reads until `end` has come.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    timeout(BOUND, async {
        let mut buffer = [0; 4096];
        while !text.contains(end) {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "cut after {text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    })
    .await
    .expect("in time");
    text
}

#[tokio::test]
async fn a_body_that_is_still_coming_is_waited_for() {
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let gateway = Arc::new(start(config("gorgo", &[&mock])).await);
    let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
    let length = PLAIN.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    read_to(&mut stream, "100 Continue").await;
    let (half, rest) = PLAIN.split_at(length / 2);
    stream.write_all(half.as_bytes()).await.unwrap();

    let draining = drain(&gateway).await;
    assert_eq!(gateway.counts().in_flight, 0, "the router does not know it yet");
    assert!(!draining.is_finished());
    stream.write_all(rest.as_bytes()).await.unwrap();
    let answer = read_to(&mut stream, REPLY).await;
    assert!(answer.contains("200 OK"), "{answer}");
    assert!(timeout(BOUND, draining).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_slow_reader_gets_the_tail_of_its_answer() {
    // More than the kernel and hyper hold between them, so that the end is still here when draining begins.
    const BYTES: usize = 12 << 20;
    let answer = Answer::new(200, "text/plain", vec![send("x".repeat(BYTES))]);
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = Arc::new(start(config("gorgo", &[&mock])).await);
    let mut client = Client::connect(&gateway).await;
    let body = client.chat(STREAM).await.into_body();
    let draining = drain(&gateway).await;
    assert!(!draining.is_finished());
    let (text, complete) = whole(body).await;
    assert_eq!((text.len(), complete), (BYTES, true));
    assert!(timeout(BOUND, draining).await.unwrap().unwrap());
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.drain_timeout = BOUND;
    let gateway = start(config).await;
    let silent = TcpStream::connect(gateway.listen()).await.unwrap();
    let mut used = Client::connect(&gateway).await;
    assert!(used.send(get("/health")).await.unwrap().status().is_success());
    assert!(timeout(BOUND / 2, gateway.drain()).await.expect("at once"));
    used.closed().await;
    drop(silent);
}

#[tokio::test]
async fn a_client_that_never_finishes_is_cut_at_the_limit() {
    let mock = Mock::start(|_| hello()).await;
    let mut config = config("gorgo", &[&mock]);
    config.limits.drain_timeout = Duration::from_millis(200);
    let gateway = start(config).await;
    let mut stream = TcpStream::connect(gateway.listen()).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: 99\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read_to(&mut stream, "100 Continue").await;
    assert!(!timeout(BOUND, gateway.drain()).await.unwrap());
}
