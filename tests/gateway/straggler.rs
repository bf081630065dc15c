//! An engine that somebody else keeps busy: what waits there unbegun is called back, and computed once.

use std::net::SocketAddr;
use std::time::Duration;

use gorgo::emulator::engine::{self, EngineHandle, EngineOptions};
use gorgo::gateway::{GatewayHandle, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::Region;
use gorgo::sim::preset::sglang_like;
use gorgo::sim::timing::StepTiming;
use gorgo::wire::{Explanation, Replicas};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinHandle;

use super::admin;
use super::client::{Client, config, get, start, until, whole};

/// Tokens of a step: with little more than two such and a prompt before it a request has certainly not begun.
const STEP: u32 = 256;

/// 1 ms per step and 0.05 ms per token.
async fn engine() -> EngineHandle {
    let timing = StepTiming { fixed_ms: 1.0, linear_ms: 0.05, ..StepTiming::default() };
    let mut spec = sglang_like(timing, STEP);
    spec.kv_tokens = 1_000_000;
    let (listen, region) = (([127, 0, 0, 1], 0).into(), Region::new("r"));
    engine::start(EngineOptions { listen, spec, model: "tiny".into(), region, seed: 1 }).await.unwrap()
}

/// A prompt of so many tokens of four bytes, a text of its own.
fn prompt(number: usize, tokens: usize) -> String {
    let text = format!("{number:<16}{}", "word".repeat(tokens));
    json!({"model": "tiny", "stream": true, "max_tokens": 2, "ignore_eos": true,
        "messages": [{"role": "user", "content": text}]})
    .to_string()
}

struct Lab {
    engines: [EngineHandle; 2],
    gateway: GatewayHandle,
}

/// A proxy that has learned how fast `r0` is.
async fn lab(guard: f64) -> Lab {
    let engines = [engine().await, engine().await];
    let mut config = config("predictive", &[]);
    config.inject_usage = true;
    config.routing.parameters = vec![("hold_ms".into(), 60_000.0), ("guard".into(), guard)];
    for (i, engine) in engines.iter().enumerate() {
        let mut replica = ReplicaConfig::new(&format!("r{i}"), &format!("http://{}", engine.address()), "r");
        replica.engine = Some(&EMULATOR);
        config.replicas.push(replica);
    }
    let lab = Lab { engines, gateway: start(config).await };
    until("both healthy", || lab.gateway.healthy() == 2).await;
    lab.drain("r1", true).await;
    for number in 0..12 {
        let body = prompt(number, 400 + 200 * (number % 4));
        assert_eq!(lab.ask(body).await.unwrap().0, "r0");
    }
    lab
}

impl Lab {
    async fn drain(&self, name: &str, draining: bool) {
        let body = json!({"drain": {"name": name, "draining": draining}});
        let _: Replicas = admin::change(&self.gateway, "/admin/v1/replicas", body).await;
    }

    /// A request on its way; in the end who served it, and its name.
    fn ask(&self, body: String) -> JoinHandle<(String, String)> {
        let listen = self.gateway.listen();
        tokio::spawn(async move {
            let response = Client::at(listen, None).await.chat(body).await;
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            let told = (header("x-gorgo-replica"), header("x-gorgo-request-id"));
            assert!(whole(response.into_body()).await.1);
            told
        })
    }

    /// Keeps `r0` busy for as long as this lives, with half a minute's work that the router knows nothing of.
    async fn hog(&self) -> Client {
        let mut client = Client::at(self.engines[0].address(), None).await;
        let mut body = client.chat(prompt(999, 400_000)).await.into_body();
        // The engine sends a head at once.
        tokio::spawn(async move { while matches!(body.frame().await, Some(Ok(_))) {} });
        client
    }

    /// Prompts of 2000 tokens, one after the other, while only `r0` takes any.
    async fn line_up(&self) -> Vec<JoinHandle<(String, String)>> {
        let before = self.engines[0].counts().requests;
        let mut asked = Vec::new();
        for number in 0..5 {
            asked.push(self.ask(prompt(100 + number, 2000)));
            until("it is there", || self.engines[0].counts().requests == before + 1 + number as u64).await;
            // Apart by more than lines may delay.
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
        self.drain("r1", false).await;
        asked
    }
}

/// Prompt tokens that an engine has taken in work.
async fn prompt_tokens(address: SocketAddr) -> u64 {
    let response = Client::at(address, None).await.send(get("/metrics")).await.unwrap();
    let (page, _) = whole(response.into_body()).await;
    let line = page.lines().find(|line| line.starts_with("sglang:prompt_tokens_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("a count") as u64
}

#[tokio::test]
async fn what_an_engine_has_not_begun_is_called_back_and_computed_once() {
    let lab = lab(1.0).await;
    let hog = lab.hog().await;
    let learned = prompt_tokens(lab.engines[0].address()).await;
    let mut asked = lab.line_up().await;
    let rescued = [asked.pop().unwrap(), asked.pop().unwrap()];
    for answer in rescued {
        let (replica, request) = answer.await.unwrap();
        assert_eq!(replica, "r1");
        let explained: Explanation = admin::get(&lab.gateway, &format!("/admin/v1/decisions/{request}")).await;
        let [attempt] = &*explained.attempts else { panic!("{explained:?}") };
        assert!(attempt.recalled && attempt.failed_after_ms.is_some_and(|ms| ms > 1500.0), "{attempt:?}");
        assert_eq!(explained.decisions.len(), 2);
    }
    let page = admin::text(&lab.gateway, "/metrics").await;
    let counted = "gorgo_replica_recalled_total{replica=\"r0\",region=\"r\"} 2";
    assert!(page.contains(counted) && page.contains("gorgo_retries_total 2"), "{page}");
    let served = prompt_tokens(lab.engines[1].address()).await;
    assert!((2 * 2000..2 * 2010).contains(&served), "{served} tokens where they went");
    // The first three may have been begun for all that anybody knows.
    assert!(asked.iter().all(|answer| !answer.is_finished()));
    hog.leave();
    for answer in asked {
        assert_eq!(answer.await.unwrap().0, "r0");
    }
    assert_eq!(lab.engines[0].counts().aborted, 3, "both and the hog");
    let spent = prompt_tokens(lab.engines[0].address()).await - learned;
    assert!((3 * 2000..3 * 2010).contains(&spent), "{spent} tokens where they waited");
}

#[tokio::test]
async fn switched_off_it_lets_them_wait() {
    let lab = lab(0.0).await;
    let hog = lab.hog().await;
    let asked = lab.line_up().await;
    // Longer than the guard would wait.
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert!(asked.iter().all(|answer| !answer.is_finished()));
    hog.leave();
    for answer in asked {
        assert_eq!(answer.await.unwrap().0, "r0");
    }
    assert_eq!(lab.engines[0].counts().aborted, 1, "the hog");
}
