//! Overload: who cannot be in time is refused, keys take turns, and classes are known.

use std::sync::Arc;
use std::time::Duration;

use gorgo::emulator::engine::{self, EngineHandle, EngineOptions};
use gorgo::gateway::{GatewayConfig, GatewayHandle, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::Region;
use gorgo::routing::{Class, Late, Slo};
use gorgo::sim::preset;
use gorgo::wire::{AuditEvent, Explanation, Verdict, paths};
use http::Response;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::admin::{get, text};
use super::client::{Client, PLAIN, chat, code, config, start, until, whole};
use super::keys::{Chat, KeyRing, audited, with_key};
use super::mock::{Answer, Mock, REPLY, Received, Step};

/// The engine's time per prompt token, ms.
const MS_PER_TOKEN: f64 = 2.0;
/// Prompt length in the emulator's tokens, 4 bytes each: 400 ms.
const TOKENS: usize = 200;

async fn slow_engine() -> EngineHandle {
    let mut spec = preset::engine("h200", "mistral-7b").unwrap();
    spec.timing.linear_ms = MS_PER_TOKEN;
    let (listen, model, region) = (([127, 0, 0, 1], 0).into(), "tiny".to_owned(), Region::new("region-0"));
    engine::start(EngineOptions { listen, spec, model, region, seed: 1 }).await.unwrap()
}

/// A router that predicts, in front of the slow engine, whose rate it is told.
fn predicting(engine: &EngineHandle, ttft_ms: f64) -> GatewayConfig {
    let mut replica = ReplicaConfig::new("slow", &format!("http://{}", engine.address()), "region-0");
    replica.engine = Some(&EMULATOR);
    replica.rates.prefill_ms_per_token = Some(MS_PER_TOKEN);
    let mut config = config("predictive", &[]);
    config.replicas.push(replica);
    config.routing.slo = Slo { default: Class { ttft_ms: Some(ttft_ms), ..Class::default() }, ..Slo::default() };
    config
}

/// A prompt like no other, answered with a stream of two tokens.
fn prompt(number: usize) -> Chat {
    let text = format!("{number:_<width$}", width = 4 * TOKENS);
    chat(format!(
        r#"{{"model":"tiny","stream":true,"stream_options":{{"include_usage":true}},"max_tokens":2,"messages":[{{"role":"user","content":"{text}"}}]}}"#
    ))
}

/// Requests on a connection each, all on their way before the first answer; each connection lives as long as its client.
async fn at_once(gateway: &GatewayHandle, requests: Vec<Chat>) -> Vec<(Client, Response<Incoming>)> {
    let mut tasks = Vec::new();
    for request in requests {
        let mut client = Client::connect(gateway).await;
        tasks.push(tokio::spawn(async move {
            let response = client.send(request).await.unwrap();
            (client, response)
        }));
    }
    let mut responses = Vec::new();
    for task in tasks {
        responses.push(task.await.unwrap());
    }
    responses
}

#[tokio::test]
async fn who_cannot_be_in_time_is_refused_at_once_and_told_when_to_come_back() {
    let engine = slow_engine().await;
    let ring = KeyRing::new();
    let mut config = predicting(&engine, 1000.0);
    config.audit = gorgo::gateway::AuditTarget::File(ring.audit());
    config.region = Some(Region::new("region-0"));
    let gateway = start(config).await;
    let (mut served, mut refused) = (0, Vec::new());
    for (_client, response) in at_once(&gateway, (0..5).map(prompt).collect()).await {
        if response.status() == 200 {
            assert!(whole(response.into_body()).await.1);
            served += 1;
            continue;
        }
        let retry_after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{retry_after}");
        refused.push(response.headers()["x-gorgo-request-id"].to_str().unwrap().to_owned());
        assert_eq!(code(response).await, (429, "deadline".to_owned()));
    }
    // Two are done within the limit of a second, the third would take a fifth more than that.
    assert!(served >= 2 && !refused.is_empty(), "{served} served, {} refused", refused.len());
    assert_eq!(served + refused.len(), 5);

    let explained: Explanation = get(&gateway, &paths::decision(&refused[0])).await;
    let decision = &explained.decisions[0];
    assert!(matches!(&decision.verdict, Verdict::Reject { reason, .. } if reason == "deadline"), "{decision:?}");
    let deadline = decision.deadline.as_ref().unwrap();
    assert!(deadline.limit_ms == 1000.0 && deadline.late_by_ms > 0.0, "{deadline:?}");
    let events = audited(&ring.audit(), refused.len()).await;
    let told = events.iter().filter(|event| matches!(event, AuditEvent::Refused { code, .. } if code == "deadline"));
    assert_eq!(told.count(), refused.len());
    let page = text(&gateway, "/metrics").await;
    let count = |result: &str| {
        let line = format!("gorgo_slo_requests_total{{class=\"none\",result=\"{result}\"}} ");
        page.lines().find_map(|it| it.strip_prefix(&line)?.parse::<usize>().ok()).unwrap_or(0)
    };
    assert_eq!((count("refused"), count("good") + count("late")), (refused.len(), served), "{page}");

    let (_client, again) = at_once(&gateway, vec![prompt(9)]).await.pop().unwrap();
    assert_eq!(again.status(), 200, "nobody is before it any more");
    gateway.stop();
    engine.shutdown(Duration::ZERO).await;
}

/// Two classes, one engine: `gold` may wait a second, `batch` a minute.
fn classes() -> Slo {
    let class = |ttft_ms, late| Class { ttft_ms: Some(ttft_ms), weight: 1.0, late };
    let classes = [("gold", class(1000.0, Late::Refuse)), ("batch", class(60_000.0, Late::Defer))];
    Slo { classes: classes.map(|(name, class)| (name.to_owned(), class)).into(), ..Slo::default() }
}

fn of_class(name: &str) -> Chat {
    let mut request = chat(PLAIN);
    request.headers_mut().insert("x-gorgo-class", name.parse().unwrap());
    request
}

#[tokio::test]
async fn a_class_is_named_by_the_request_or_fixed_by_its_key_and_unknown_ones_are_refused() {
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let ring = KeyRing::new();
    let (ann, bob, cyd) = (ring.add("ann", &[]), ring.of_class("bob", "gold"), ring.of_class("cyd", "silver"));
    let mut config = ring.guard(config("predictive", &[&mock]));
    config.routing.slo = classes();
    let gateway = start(config).await;
    let mut client = Client::connect(&gateway).await;
    let mut class_of = async |request: Chat| {
        let mut request = request;
        request.headers_mut().insert("x-gorgo-explain", "1".parse().unwrap());
        let response = client.send(request).await.unwrap();
        let decision = response.headers().get("x-gorgo-decision").map(|it| it.to_str().unwrap().to_owned());
        match decision {
            Some(decision) => {
                let decision: gorgo::wire::Decision = serde_json::from_str(&decision).unwrap();
                whole(response.into_body()).await;
                decision.deadline.and_then(|deadline| deadline.class).unwrap_or("none".to_owned())
            }
            None => whole(response.into_body()).await.0,
        }
    };
    assert_eq!(class_of(with_key(chat(PLAIN), &ann)).await, "none");
    assert_eq!(class_of(with_key(of_class("batch"), &ann)).await, "batch");
    assert_eq!(class_of(with_key(of_class("batch"), &bob)).await, "gold", "the key's goes before");
    let unknown = class_of(with_key(of_class("plutonium"), &ann)).await;
    assert!(unknown.contains("no class of service `plutonium`") && unknown.contains("known classes: batch, gold"));
    assert!(unknown.contains(r#""code":"unknown_class""#), "{unknown}");
    assert!(class_of(with_key(chat(PLAIN), &cyd)).await.contains("no class of service `silver`"));
    assert!(mock.requests().iter().all(|request| !request.headers.contains_key("x-gorgo-class")), "ours alone");
}

#[tokio::test]
async fn keys_take_turns_however_many_requests_one_of_them_sends() {
    // The engine ends one request for every permit.
    let permits = Arc::new(Semaphore::new(0));
    let script = {
        let permits = permits.clone();
        move |_: &Received| Answer::json(200, REPLY).after(Step::Acquire(permits.clone()))
    };
    let mock = Mock::start(script).await;
    let ring = KeyRing::new();
    let (ann, bob) = (ring.add("ann", &[]), ring.add("bob", &[]));
    let mut config = ring.guard(config("gorgo", &[&mock]));
    config.routing.max_concurrent = Some(1);
    let gateway = start(config).await;
    let tagged = |name: &str, key: &str| {
        let mut request = with_key(chat(PLAIN), key);
        request.headers_mut().insert("x-gorgo-session", name.parse().unwrap());
        request
    };
    let wanted = ["a1", "a2", "a3", "a4", "b1", "b2"];
    let mut tasks = Vec::new();
    for (i, name) in wanted.into_iter().enumerate() {
        let request = tagged(name, if name.starts_with('a') { &ann } else { &bob });
        let mut client = Client::connect(&gateway).await;
        tasks.push(tokio::spawn(async move { client.send(request).await.unwrap().status().as_u16() }));
        // One after the other, so that who came first is known.
        until("arrived", || gateway.counts().in_flight == i as u64 + 1).await;
    }
    for served in 1..=wanted.len() {
        until("sent", || mock.requests().len() == served).await;
        permits.add_permits(1);
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let order: Vec<String> =
        mock.requests().iter().map(|request| request.headers["x-gorgo-session"].to_str().unwrap().to_owned()).collect();
    assert_eq!(order, ["a1", "b1", "a2", "b2", "a3", "a4"], "Bob waits for one of Ann's at a time");
}
