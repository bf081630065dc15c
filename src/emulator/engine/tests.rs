//! The face on real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{EngineHandle, EngineOptions, start};
use crate::emulator::wan::{self, Jitter, WanOptions};
use crate::inference::engine::{EMULATOR, Flushed, Gauges};
use crate::inference::sse::{Event, Scanner, Seen, Watch};
use crate::inference::{Dialect, Usage, usage};
use crate::model::Region;
use crate::sim::preset;

/// Longest wait for anything; far more than any of it takes.
const BOUND: Duration = Duration::from_secs(20);

/// An engine on a free port.
pub(super) fn options() -> EngineOptions {
    EngineOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        spec: preset::engine("h200", "mistral-7b").unwrap(),
        model: "mistral-7b".to_owned(),
        region: Region::new("us-east-1"),
        seed: 1,
    }
}

async fn fast() -> EngineHandle {
    start(options()).await.unwrap()
}

/// An engine that takes 1 s for a prompt of 100 tokens and 10 ms for a token.
async fn slow(max_running: u32) -> EngineHandle {
    let mut options = options();
    options.spec.timing.linear_ms = 10.0;
    options.spec.max_running = max_running;
    start(options).await.unwrap()
}

/// A client with one connection; dropping it closes the connection.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, connection: tokio::spawn(async move { drop(connection.await) }) }
    }

    async fn send(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let request =
            Request::builder().method(method).uri(path).header("host", "engine").body(Full::new(body.into())).unwrap();
        timeout(BOUND, self.sender.send_request(request)).await.expect("an answer in time").unwrap()
    }

    async fn post(&mut self, path: &str, body: &Value) -> Response<Incoming> {
        self.send(Method::POST, path, body.to_string()).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn text(response: Response<Incoming>) -> String {
    let body = timeout(BOUND, response.into_body().collect()).await.expect("a body in time").unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

async fn post(engine: &EngineHandle, path: &str, body: &Value) -> (StatusCode, Value) {
    let mut client = Client::connect(engine.address()).await;
    let response = client.post(path, body).await;
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

async fn get(engine: &EngineHandle, path: &str) -> (StatusCode, String) {
    let mut client = Client::connect(engine.address()).await;
    let response = client.send(Method::GET, path, "").await;
    (response.status(), text(response).await)
}

async fn gauges(engine: &EngineHandle) -> Gauges {
    EMULATOR.parse_gauges(&get(engine, "/metrics").await.1)
}

async fn load(engine: &EngineHandle, key: &str) -> u64 {
    let page: Value = serde_json::from_str(&get(engine, "/v1/loads").await.1).unwrap();
    page["loads"][0][key].as_u64().unwrap()
}

/// Waits until the engine runs and queues exactly so much.
async fn until_load(engine: &EngineHandle, running: u64, waiting: u64) {
    let reached = async {
        while (load(engine, "num_running_reqs").await, load(engine, "num_waiting_reqs").await) != (running, waiting) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(BOUND, reached).await.unwrap_or_else(|_| panic!("never {running} running and {waiting} waiting"));
}

/// The data of all events of a stream.
async fn stream(engine: &EngineHandle, path: &str, body: &Value) -> Vec<Value> {
    let mut client = Client::connect(engine.address()).await;
    let response = client.post(path, body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut events = Vec::new();
    let mut done = false;
    Scanner::new().feed(text(response).await.as_bytes(), |event| match event {
        Event::Data(data) => events.push(serde_json::from_slice(data).unwrap()),
        Event::Done => done = true,
        other => panic!("unexpected {other:?}"),
    });
    assert!(done, "the stream has no [DONE]");
    events
}

fn chat(prompt: &str, tokens: u32) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "ignore_eos": true})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    body
}

#[tokio::test]
async fn a_chat_streams_its_tokens_in_order_then_finish_then_usage() {
    let engine = fast().await;
    let events = stream(&engine, "/v1/chat/completions", &streamed(chat("hello there!", 5))).await;
    assert_eq!(events.len(), 7);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    for event in &events[..5] {
        assert_eq!(event["choices"][0]["delta"]["content"].as_str().unwrap().len(), 4);
        assert_eq!(event["choices"][0]["finish_reason"], Value::Null);
    }
    assert_eq!(events[5]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[6]["choices"], json!([]));
    let found = usage::from_json(events[6].to_string().as_bytes()).unwrap();
    let expected = Usage { prompt_tokens: Some(3), cached_tokens: Some(0), completion_tokens: Some(5) };
    assert_eq!(found, expected);
}

#[tokio::test]
async fn nothing_of_the_body_comes_before_the_first_token() {
    let engine = slow(8).await;
    let mut client = Client::connect(engine.address()).await;
    let response = client.post("/v1/chat/completions", &streamed(chat("twenty bytes of text", 2))).await;
    let mut body = response.into_body();
    let frame = timeout(BOUND, body.frame()).await.unwrap().unwrap().unwrap();
    let seen = Watch::new(Dialect::Chat).feed(frame.data_ref().unwrap());
    assert_eq!(seen.token_events, 1);
}

#[tokio::test]
async fn without_asking_there_is_no_usage_in_the_stream() {
    let engine = fast().await;
    let mut body = chat("hello", 2);
    body["stream"] = true.into();
    let events = stream(&engine, "/v1/chat/completions", &body).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn the_whole_reply_says_what_the_stream_says() {
    let engine = fast().await;
    let events = stream(&engine, "/v1/chat/completions", &streamed(chat("same prompt", 9))).await;
    let pieces: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let (status, whole) = post(&engine, "/v1/chat/completions", &chat("same prompt", 9)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(whole["choices"][0]["message"]["content"], pieces);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["model"], "m");
}

#[tokio::test]
async fn a_prompt_seen_before_is_cached_in_whole_blocks() {
    let engine = fast().await;
    let block = options().spec.block as usize;
    let prompt = "x".repeat(4 * (10 * block + 3));
    let cached = async || {
        let (_, reply) = post(&engine, "/v1/chat/completions", &chat(&prompt, 1)).await;
        usage::from_json(reply.to_string().as_bytes()).unwrap()
    };
    let first = cached().await;
    assert_eq!((first.prompt_tokens, first.cached_tokens), (Some(10 * block as u32 + 3), Some(0)));
    assert_eq!(cached().await.cached_tokens, Some(10 * block as u32));
    let flush = Client::connect(engine.address()).await.send(Method::POST, "/flush_cache", "").await;
    assert_eq!(EMULATOR.flush.outcome(flush.status().as_u16(), b""), Flushed::Done);
    assert_eq!(cached().await.cached_tokens, Some(0));
}

#[tokio::test]
async fn a_batch_of_prompts_gets_a_choice_each() {
    let engine = fast().await;
    let body = json!({"prompt": ["one", "the other"], "max_tokens": 3, "ignore_eos": true});
    let (_, whole) = post(&engine, "/v1/completions", &body).await;
    let texts: Vec<&str> = whole["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(whole["usage"]["completion_tokens"], 6);
    assert_eq!(whole["usage"]["prompt_tokens"], 1 + 3);
    let events = stream(&engine, "/v1/completions", &streamed(body)).await;
    for (index, expected) in texts.iter().enumerate() {
        let of_choice = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let pieces: String = of_choice.filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(pieces, *expected);
    }
    let (_, ids) = post(&engine, "/v1/completions", &json!({"prompt": [1, 2, 3], "max_tokens": 1})).await;
    assert_eq!(ids["usage"]["prompt_tokens"], 3);
}

#[tokio::test]
async fn generate_repeats_all_text_so_far() {
    let engine = fast().await;
    let body = json!({"text": "abcdefgh", "sampling_params": {"max_new_tokens": 4, "ignore_eos": true}});
    let (_, whole) = post(&engine, "/generate", &body).await;
    assert_eq!(whole["meta_info"]["finish_reason"], json!({"type": "length", "length": 4}));
    let events = stream(&engine, "/generate", &streamed(body)).await;
    let last = events.last().unwrap();
    assert_eq!(last["text"], whole["text"]);
    assert_eq!(last["meta_info"]["completion_tokens"], 4);
    assert!(
        events.windows(2).all(|pair| pair[1]["text"].as_str().unwrap().starts_with(pair[0]["text"].as_str().unwrap()))
    );
    let found = usage::from_json(last.to_string().as_bytes()).unwrap();
    assert_eq!(found, Usage { prompt_tokens: Some(2), cached_tokens: Some(0), completion_tokens: Some(4) });
}

#[tokio::test]
async fn embeddings_only_prefill() {
    let engine = fast().await;
    let (status, reply) = post(&engine, "/v1/embeddings", &json!({"input": ["abcd", "efghi"], "model": "m"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reply["data"].as_array().unwrap().len(), 2);
    assert_eq!(reply["usage"]["prompt_tokens"], 3);
}

#[tokio::test]
async fn without_ignore_eos_the_length_is_seeded_within_the_limit() {
    let engine = fast().await;
    let mut body = chat("how long?", 50);
    body["ignore_eos"] = false.into();
    let (_, first) = post(&engine, "/v1/chat/completions", &body).await;
    let (_, second) = post(&engine, "/v1/chat/completions", &body).await;
    assert_eq!(first["choices"], second["choices"]);
    let tokens = first["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((1..=50).contains(&tokens));
    assert_eq!(first["choices"][0]["finish_reason"], if tokens == 50 { "length" } else { "stop" });
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine_at_once() {
    let engine = slow(2).await;
    let long = "y".repeat(400);
    let mut clients = Vec::new();
    // Decoding, then prefilling, then queued; streamed and not.
    for (prompt, body_streams) in [("a", true), (long.as_str(), true), (long.as_str(), false), ("b", true)] {
        let address = engine.address();
        let body = if body_streams { streamed(chat(prompt, 100_000)) } else { chat(prompt, 100_000) };
        clients.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let response = client.post("/v1/chat/completions", &body).await;
            drop(response.into_body().collect().await);
        }));
        let accepted = clients.len() as u64;
        until_load(&engine, accepted.min(2), accepted.saturating_sub(2)).await;
    }
    assert!(load(&engine, "num_used_tokens").await > 0);
    for (gone, client) in clients.into_iter().rev().enumerate() {
        client.abort();
        let left = 3 - gone as u64;
        until_load(&engine, left.min(2), left.saturating_sub(2)).await;
    }
    assert_eq!(load(&engine, "num_used_tokens").await, 0);
    let shown = gauges(&engine).await;
    assert_eq!((shown.running, shown.waiting, shown.used_tokens), (Some(0.0), Some(0.0), Some(0.0)));
    assert_eq!(engine.counts().aborted, 4);
}

#[tokio::test]
async fn flush_is_refused_while_busy() {
    let engine = slow(1).await;
    let mut client = Client::connect(engine.address()).await;
    let response = client.post("/v1/chat/completions", &streamed(chat("busy", 100_000))).await;
    until_load(&engine, 1, 0).await;
    for method in [Method::GET, Method::POST] {
        let refused = Client::connect(engine.address()).await.send(method, "/flush_cache", "").await;
        assert_eq!(EMULATOR.flush.outcome(refused.status().as_u16(), b""), Flushed::Busy);
    }
    drop((response, client));
    until_load(&engine, 0, 0).await;
    assert_eq!(get(&engine, "/flush_cache").await.0, StatusCode::OK);
}

#[tokio::test]
async fn abort_request_ends_what_it_names() {
    let engine = slow(8).await;
    let mut body = streamed(chat("named", 100_000));
    body["rid"] = "r1".into();
    let mut client = Client::connect(engine.address()).await;
    let response = client.post("/v1/chat/completions", &body).await;
    until_load(&engine, 1, 0).await;
    let abort =
        async |body: Value| Client::connect(engine.address()).await.post("/abort_request", &body).await.status();
    assert_eq!(abort(json!({"rid": "another"})).await, StatusCode::OK);
    assert_eq!(load(&engine, "num_running_reqs").await, 1);
    assert_eq!(abort(json!({"rid": "r1"})).await, StatusCode::OK);
    assert!(text(response).await.contains(r#""finish_reason":"abort""#));
    assert_eq!(load(&engine, "num_running_reqs").await, 0);
    assert_eq!(abort(json!({})).await, StatusCode::BAD_REQUEST);
    assert_eq!(abort(json!({"abort_all": true})).await, StatusCode::OK);
}

#[tokio::test]
async fn metrics_count_what_was_served() {
    let engine = fast().await;
    for _ in 0..2 {
        post(&engine, "/v1/chat/completions", &chat(&"z".repeat(640), 4)).await;
    }
    let shown = gauges(&engine).await;
    let expected = Gauges {
        running: Some(0.0),
        waiting: Some(0.0),
        kv_usage: Some(0.0),
        used_tokens: Some(0.0),
        kv_tokens: Some(options().spec.kv_tokens as f64),
    };
    assert_eq!(shown, expected);
    let page = get(&engine, "/metrics").await.1;
    for (series, value) in [("prompt_tokens", 320.0), ("cached_tokens", 144.0), ("generation_tokens", 8.0)] {
        let line = page.lines().find(|line| line.starts_with(&format!("sglang:{series}_total{{")));
        let shown = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert_eq!(shown, Some(value), "{series}: {line:?}");
    }
    assert_eq!((engine.counts().requests, engine.counts().aborted), (2, 0));
}

#[tokio::test]
async fn information_pages() {
    let engine = fast().await;
    for path in ["/health", "/health_generate", "/ready", "/ping", EMULATOR.probe] {
        assert_eq!(get(&engine, path).await, (StatusCode::OK, String::new()), "{path}");
    }
    let page = async |path: &str| serde_json::from_str::<Value>(&get(&engine, path).await.1).unwrap();
    assert_eq!(page("/v1/models").await["data"][0]["id"], "mistral-7b");
    assert_eq!(page("/model_info").await, page("/get_model_info").await);
    assert_eq!(page("/model_info").await["model_path"], "mistral-7b");
    assert_eq!(page("/server_info").await, page("/get_server_info").await);
    assert_eq!(page("/server_info").await["max_total_num_tokens"], options().spec.kv_tokens);
    assert_eq!(page("/server_info").await["region"], "us-east-1");
    assert_eq!(page("/server_info").await["engine"], EMULATOR.name);
}

#[tokio::test]
async fn lateness_is_measured_for_each_stream() {
    let engine = fast().await;
    for _ in 0..3 {
        stream(&engine, "/v1/chat/completions", &streamed(chat("late?", 2))).await;
    }
    let samples = engine.timing_error_ms();
    assert_eq!(samples.len(), 3);
    assert!(samples.iter().all(|late| (0.0..BOUND.as_secs_f64() * 1e3).contains(late)), "{samples:?}");
    let page: Value = serde_json::from_str(&get(&engine, "/emulator/timing").await.1).unwrap();
    assert_eq!(page["first_token_lateness"]["count"], 3);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let engine = fast().await;
    let huge = "w".repeat(4 * options().spec.kv_tokens as usize + 4);
    let cases = [
        ("/v1/chat/completions", "{\"messages\":".to_owned(), 400, "cannot read the body"),
        ("/v1/chat/completions", "{}".to_owned(), 400, "no prompt"),
        ("/v1/chat/completions", chat("x", 0).to_string(), 400, "output limit is 0"),
        ("/v1/chat/completions", chat(&huge, 1).to_string(), 400, "the engine has room for"),
        ("/v1/completions", json!({"prompt": ["fits", huge], "stream": true}).to_string(), 400, "room for"),
        ("/v1/chat/completions", " ".repeat((64 << 20) + 1), 413, "larger than"),
        ("/v1/nothing", String::new(), 404, "no such endpoint"),
    ];
    for (path, body, status, message) in cases {
        let mut client = Client::connect(engine.address()).await;
        let response = client.send(Method::POST, path, body).await;
        assert_eq!(response.status().as_u16(), status, "{path} {message}");
        let reply: Value = serde_json::from_str(&text(response).await).unwrap();
        let told = reply["error"]["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
        assert_eq!(reply["error"]["code"], status);
    }
    assert_eq!(get(&engine, "/v1/chat/completions").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let invalid = [b"{\"prompt\":\"".as_slice(), b"\xff", b"\"}"].concat();
    let response = Client::connect(engine.address()).await.send(Method::POST, "/v1/completions", invalid).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    until_load(&engine, 0, 0).await;
}

#[tokio::test]
async fn a_client_that_never_reads_holds_nobody_up() {
    let mut options = options();
    options.spec.timing = crate::sim::timing::StepTiming { fixed_ms: 0.01, ..Default::default() };
    let engine = start(options).await.unwrap();
    let mut lazy = Client::connect(engine.address()).await;
    let response = lazy.post("/v1/chat/completions", &streamed(chat("never read", 100_000))).await;
    let (_, reply) = post(&engine, "/v1/chat/completions", &chat("other", 3)).await;
    assert_eq!(reply["usage"]["completion_tokens"], 3);
    // The engine does not wait for the client either, and what it missed is still there for it.
    until_load(&engine, 0, 0).await;
    let mut watch = Watch::new(Dialect::Chat);
    watch.feed(text(response).await.as_bytes());
    let Seen { token_events, done, .. } = watch.finish();
    assert_eq!((token_events, done), (100_000, true));
}

#[tokio::test]
async fn shutdown_lets_streams_end_and_takes_no_new_ones() {
    let engine = slow(8).await;
    let address = engine.address();
    let mut client = Client::connect(address).await;
    let response = client.post("/v1/chat/completions", &streamed(chat("last", 5))).await;
    until_load(&engine, 1, 0).await;
    let shutdown = tokio::spawn(engine.shutdown(BOUND));
    assert_eq!(Watch::new(Dialect::Chat).feed(text(response).await.as_bytes()).token_events, 5);
    timeout(BOUND, shutdown).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_killed_engine_cuts_its_streams() {
    let engine = slow(8).await;
    let mut client = Client::connect(engine.address()).await;
    let response = client.post("/v1/chat/completions", &streamed(chat("cut", 100_000))).await;
    let mut body = response.into_body();
    timeout(BOUND, body.frame()).await.unwrap().unwrap().unwrap();
    engine.kill().await;
    let rest = timeout(BOUND, body.collect()).await.unwrap();
    assert!(rest.is_err(), "a cut stream must not look complete");
}

#[tokio::test]
async fn a_dropped_handle_ends_the_engine() {
    let engine = fast().await;
    let address = engine.address();
    let mut client = Client::connect(address).await;
    drop(engine);
    timeout(BOUND, &mut client.connection).await.expect("the connection is cut").unwrap();
    timeout(BOUND, async { while TcpStream::connect(address).await.is_ok() {} }).await.expect("nobody listens");
}

#[tokio::test]
async fn a_disconnect_passes_through_the_relay() {
    let engine = slow(8).await;
    let options =
        WanOptions { listen: options().listen, to: engine.address(), rtt_ms: 20.0, jitter: Jitter::Internet, seed: 1 };
    let relay = wan::start(options).await.unwrap();
    let mut client = Client::connect(relay.address()).await;
    let response = client.post("/v1/chat/completions", &streamed(chat(&"y".repeat(400), 100_000))).await;
    until_load(&engine, 1, 0).await;
    drop((response, client));
    until_load(&engine, 0, 0).await;
    assert_eq!(engine.counts().aborted, 1);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let engine = fast().await;
    let taken = EngineOptions { listen: engine.address(), ..options() };
    assert_eq!(start(taken).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}
