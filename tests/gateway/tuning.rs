//! The tuner on live requests: a real gateway, emulated engines, real sockets.
//!
//! Two engines, one of which takes 40 ms per step and the other 2 ms. The quick one is known to take 0.1 ms per token, the slow one takes
//! what the weight of the strategy says: below 0.1 requests go to the slow engine, above it to the quick one.

use std::path::Path;
use std::time::Duration;

use gorgo::emulator::engine::{self, EngineHandle, EngineOptions};
use gorgo::gateway::{AuditTarget, GatewayConfig, GatewayHandle, ReplicaConfig};
use gorgo::model::Region;
use gorgo::routing::Rates;
use gorgo::sim::engine::{EngineSpec, Order, Scheduler};
use gorgo::sim::timing::StepTiming;
use gorgo::wire::{AuditEvent, AuditLine, Tune, Tuner};
use serde_json::json;
use tokio::time::timeout;

use super::admin::{change, get, refused, text};
use super::client::{self, BOUND, Client, config, start, whole};

const TUNE: &str = "/admin/v1/tune";
/// Clients at once.
const CLIENTS: usize = 4;
/// Longest time for a tuner to make up its mind: seconds on a quiet machine.
const LONGEST: Duration = Duration::from_secs(120);

async fn emulated(step_ms: f64) -> EngineHandle {
    let timing = StepTiming {
        fixed_ms: step_ms,
        weights_ms: 0.0,
        linear_ms: 0.001,
        quadratic_ms: 0.0,
        context_ms: 0.0,
        request_ms: 0.0,
        decoding_ms: 0.0,
        allreduce_ms: 0.0,
        allreduce_token_ms: 0.0,
    };
    let spec = EngineSpec {
        timing,
        chunk: 8192,
        max_running: 64,
        kv_tokens: 100_000,
        block: 16,
        scheduler: Scheduler::PrefillFirst,
        order: Order::Arrival,
        usd_per_hour: None,
    };
    let options = EngineOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        spec,
        model: "tiny".into(),
        region: Region::new("r"),
        seed: 1,
    };
    engine::start(options).await.unwrap()
}

/// A gateway before both engines with this weight, and its audit log in `folder`.
async fn gateway(folder: &Path, weight: f64) -> (GatewayHandle, [EngineHandle; 2]) {
    let engines = [emulated(2.0).await, emulated(40.0).await];
    let replicas = ["quick", "slow"].iter().zip(&engines).map(|(name, engine)| {
        let own = (*name == "quick").then_some(0.1);
        let rates = Rates { prefill_ms_per_token: own, queue_ms_per_token: None };
        ReplicaConfig { rates, ..ReplicaConfig::new(name, &format!("http://{}", engine.address()), name) }
    });
    let mut config = GatewayConfig { replicas: replicas.collect(), ..config("gorgo", &[]) };
    config.routing.parameters =
        vec![("prefill_ms_per_token".into(), weight), ("w_rtt".into(), 0.0), ("w_queue".into(), 0.0)];
    config.audit = AuditTarget::File(folder.join("audit.jsonl"));
    (start(config).await, engines)
}

fn started() -> serde_json::Value {
    json!({"tuner": {"action": "start", "keys": [{"key": "prefill_ms_per_token"}], "block": 8, "periods": 7, "share": 0.2}})
}

/// Sends requests until the tuner is as wanted; each has a prompt of its own.
async fn until(gateway: &GatewayHandle, wanted: impl Fn(&Tuner) -> bool) -> Tuner {
    let sending = async {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(Client::connect(gateway).await);
        }
        let mut number = 0;
        loop {
            let asking = clients.iter_mut().map(|client| {
                number += 1;
                let prompt = format!("{number:04} {}", "words ".repeat(60));
                let body = json!({"model": "tiny", "stream": true, "max_tokens": 2,
                                  "messages": [{"role": "user", "content": prompt}]});
                async move {
                    let answer = client.chat(body.to_string()).await;
                    assert_eq!(answer.status(), 200);
                    whole(answer.into_body()).await
                }
            });
            assert!(futures_util::future::join_all(asking).await.iter().all(|(_, complete)| *complete));
            let tune: Tune = get(gateway, TUNE).await;
            let tuner = tune.tuner.expect("it was started");
            if wanted(&tuner) {
                return tuner;
            }
        }
    };
    timeout(LONGEST, sending).await.expect("in time")
}

/// What the tuner did, by its lines of the audit log.
fn whats(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<AuditLine>(line).ok());
    let what = |line: AuditLine| match line.event {
        AuditEvent::Tune(record) => Some(record.what),
        _ => None,
    };
    lines.filter_map(what).collect()
}

fn noted(tuner: &Tuner, what: &str) -> bool {
    tuner.log.iter().any(|entry| entry.record.what == what)
}

#[tokio::test]
async fn weights_that_serve_badly_are_left_and_it_is_all_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _engines) = gateway(folder.path(), 0.09).await;
    let _: Tune = change(&gateway, TUNE, started()).await;
    let tuner = until(&gateway, |tuner| noted(tuner, "confirmed")).await;
    let axis = &tuner.axes[0];
    assert!(axis.key == "prefill_ms_per_token" && axis.value > 0.1, "{axis:?}");
    let accepted = tuner.log.iter().find(|entry| entry.record.what == "accepted").unwrap();
    assert!(accepted.record.measured.ratio.unwrap() < 0.7, "{:?}", accepted.record.measured);

    let metrics = text(&gateway, "/metrics").await;
    for line in [
        "gorgo_tune_candidates_total{outcome=\"accepted\"} 1",
        "gorgo_tune_value{parameter=\"prefill_ms_per_token\"} 0.1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    // Every request crosses a border here, as far as the router knows: its lines stand between those of the tuner.
    let log = folder.path().join("audit.jsonl");
    client::until("written down", || whats(&log).iter().any(|what| what == "confirmed")).await;
    let whats = whats(&log);
    assert_eq!(whats[..2], ["started", "proposed"]);
    assert!(whats.iter().any(|what| what == "accepted"), "{whats:?}");

    // Back by hand: the weight that it was started with.
    let tune: Tune = change(&gateway, TUNE, json!({"tuner": {"action": "rollback"}})).await;
    let tuner = tune.tuner.unwrap();
    assert_eq!((tuner.state.as_str(), tuner.axes[0].value), ("frozen", 0.09));
}

#[tokio::test]
async fn a_bad_candidate_is_gone_after_a_few_requests_and_the_weights_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, engines) = gateway(folder.path(), 0.12).await;
    let _: Tune = change(&gateway, TUNE, started()).await;
    let tuner = until(&gateway, |tuner| noted(tuner, "rolled_back")).await;
    assert_eq!(tuner.axes[0].value, 0.12);
    let slow = engines[1].counts().requests;
    // Two periods' blocks and the beginning of a third, each but for its share.
    assert!((1..=24).contains(&slow), "{slow} requests were slow");
}

#[tokio::test]
async fn it_is_started_once_told_what_to_do_and_ends_when_weights_are_set_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, _engines) = gateway(folder.path(), 0.12).await;
    let act = |action: &str| json!({"tuner": {"action": action}});
    let tune: Tune = get(&gateway, TUNE).await;
    assert_eq!(tune.tuner, None);
    assert_eq!(refused(&gateway, TUNE, act("freeze")).await.0, 409);
    for (body, wanted) in [
        (json!({"tuner": {"action": "start", "method": "magic"}}), "evolution, calibrated"),
        (json!({"tuner": {"action": "start", "share": 0.0}}), "`share` is 0, wanted 0.05 to 0.95"),
        (json!({"tuner": {"action": "start", "keys": [{"key": "w_rtt"}]}}), "`w_rtt` is 0"),
        (json!({"tuner": {"action": "start", "typo": 1}}), "typo"),
        (json!({"tuner": {"action": "stop"}, "max_concurrent": 1}), "stands alone"),
    ] {
        let (status, _, message) = refused(&gateway, TUNE, body).await;
        assert!(status == 400 && message.contains(wanted), "{message}");
    }
    let _: Tune = change(&gateway, TUNE, started()).await;
    assert_eq!(refused(&gateway, TUNE, started()).await.0, 409);
    for (action, state) in [("freeze", "frozen"), ("resume", "waiting"), ("stop", "ended")] {
        let tune: Tune = change(&gateway, TUNE, act(action)).await;
        assert_eq!(tune.tuner.unwrap().state, state, "{action}");
    }
    let _: Tune = change(&gateway, TUNE, started()).await;
    until(&gateway, |tuner| tuner.state == "trial").await;
    let tune: Tune = change(&gateway, TUNE, json!({"parameters": {"prefill_ms_per_token": 0.2}})).await;
    let tuner = tune.tuner.unwrap();
    assert_eq!((tuner.state.as_str(), tuner.why.as_deref()), ("ended", Some("the strategy was set by hand")));
    let set = tune.parameters.iter().find(|parameter| parameter.key == "prefill_ms_per_token").unwrap();
    assert_eq!(set.value, 0.2);
    let _ = timeout(BOUND, get::<Tune>(&gateway, TUNE)).await.expect("it still answers");
}
