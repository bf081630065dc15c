//! What passes through, and that it passes as it is.

use std::sync::Arc;

use http::HeaderValue;
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
async fn the_head_arrives_before_the_first_piece() {
    let go = Arc::new(Notify::new());
    let answer = Answer::events(&[]).then(Step::Until(go.clone())).then(send("data: [DONE]\n\n"));
    let mock = Mock::start(move |_| answer.clone()).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    let response = Client::connect(&gateway).await.chat(STREAM).await;
    assert_eq!(response.status(), 200);
    go.notify_one();
    assert!(whole(response.into_body()).await.1);
}
