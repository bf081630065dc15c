use std::collections::BTreeMap;

use insta::assert_snapshot;
use serde_json::json;

use super::{Row, cards, clock, document, tables};
use crate::cli::nodes::Node;
use crate::cloud::{Instance, InstanceId, Status};
use crate::cluster::desired::{AgentBinary, Balance, Container, EngineChoice, NodeSpec};
use crate::cluster::facts::{Answer, Facts, Gpu};
use crate::cluster::layout::{Ports, Role};
use crate::model::Region;
use crate::remote::ServiceState;

fn own() -> AgentBinary {
    AgentBinary { path: "gorgo".into(), sha256: "aa".into(), bytes: 1, arch: "x86_64".into(), glibc: None }
}

fn node(name: &str) -> Node {
    let instance = Instance {
        id: InstanceId(format!("i-{name}")),
        name: Some(name.to_owned()),
        status: Status::Active,
        address: Some([10, 0, 0, 7].into()),
        private_address: None,
        region: Region::new("us-east-1"),
        instance_type: "gpu_1x_a100".to_owned(),
        price_cents_per_hour: Some(199),
        tags: BTreeMap::new(),
    };
    Node { name: name.to_owned(), record: None, instance: Some(instance) }
}

fn spec(name: &str) -> NodeSpec {
    let ports = Ports::default();
    let (listen, url) = NodeSpec::reach([10, 0, 0, 7].into(), ports.agent);
    let container = Container { model: "m".into(), image: None, arguments: Vec::new(), kv_events: true };
    let engine = EngineChoice::Sglang(container);
    NodeSpec {
        name: name.to_owned(),
        region: Region::new("us-east-1"),
        engine,
        ports,
        listen,
        url,
        addresses: Vec::new(),
    }
}

fn answer(status: u16, body: &serde_json::Value) -> Answer {
    Answer { status, body: body.to_string() }
}

fn agent(in_flight: u64, healthy: u32) -> Answer {
    answer(
        200,
        &json!({
            "version": "0.1.0", "pid": 7, "uptime_s": 1.0, "listen": "10.0.0.7:8000", "strategy": "gorgo-v1",
            "max_concurrent": 50, "draining": false,
            "replicas": { "total": 1, "healthy": healthy, "unhealthy": 0, "unknown": 0, "draining": 0 },
            "queue": { "waiting": 2, "limit": 1000, "timeout_ms": 60000.0, "oldest_ms": null },
            "requests": { "total": 9, "in_flight": in_flight, "ok": 1, "failed": 0, "refused": 0, "cancelled": 0, "retried": 0 },
        }),
    )
}

fn gpu(memory_used_mib: Option<u64>, busy_percent: Option<u8>) -> Gpu {
    let (driver, name) = ("570.148.08".to_owned(), "NVIDIA A100".to_owned());
    Gpu { driver, name, memory_mib: 40960, memory_used_mib, busy_percent }
}

fn facts() -> Facts {
    let state =
        |restarts| ServiceState { installed: true, running: true, pid: Some(9), restarts, definition_sha256: None };
    let completion = json!({ "model": "mistral", "choices": [{ "text": "yes" }] });
    let gpu = gpu(Some(36_864), Some(97));
    Facts {
        arch: "x86_64".into(),
        disk_free: 400 << 30,
        gpus: vec![gpu],
        binary_sha256: Some("aa".into()),
        binary_version: Some(format!("gorgo {}", env!("CARGO_PKG_VERSION"))),
        services: [(Role::Engine, state(0)), (Role::Agent, state(2))].into(),
        answers: [(Role::Engine, answer(200, &completion)), (Role::Agent, agent(3, 1))].into(),
        ..Facts::default()
    }
}

fn row<'a>(node: &'a Node, seen: Result<Facts, (String, Option<String>)>) -> Row<'a> {
    Row { spec: Some(spec(&node.name)), node, seen, told: None }
}

#[test]
fn every_node_is_a_row_whatever_became_of_it() {
    let names = ["east", "odd", "killed", "mute", "new", "away"].map(node);
    let odd = Facts {
        binary_sha256: Some("bb".into()),
        binary_version: Some("gorgo 0.0.9".into()),
        clock_ahead_ms: -31_000,
        answers: [(Role::Engine, answer(503, &json!({}))), (Role::Agent, agent(0, 1))].into(),
        ..facts()
    };
    let mut killed = facts();
    killed.services.get_mut(&Role::Engine).expect("it is there").running = false;
    killed.answers = [(Role::Agent, agent(0, 0))].into();
    let mute = Facts { answers: [(Role::Engine, facts().answers[&Role::Engine].clone())].into(), ..facts() };
    let new = Facts { arch: "x86_64".into(), disk_free: 1 << 40, ..Facts::default() };
    let away = ("connection timed out".to_owned(), Some("see that it runs".to_owned()));
    let seen = [Ok(facts()), Ok(odd), Ok(killed), Ok(mute), Ok(new), Err(away)];
    let mut rows: Vec<Row<'_>> = names.iter().zip(seen).map(|(node, seen)| row(node, seen)).collect();
    rows[5].spec = None;
    assert_snapshot!(tables(&rows, &own()), @"
    NODE    STRATEGY  IN FLIGHT  QUEUED  LIMIT  ENGINE                MODEL    GORGO                 SERVICES                                  STATE
    east    gorgo-v1          3       2     50  sglang v0.5.19-cu129  mistral  0.1.0                 engine, agent (restarted 2 times)         serving
    odd     gorgo-v1          0       2     50  sglang v0.5.19-cu129  -        0.0.9 (not this one)  engine, agent (restarted 2 times)         engine answers 503 without a completion
    killed  gorgo-v1          0       2     50  sglang v0.5.19-cu129  -        0.1.0                 engine (down), agent (restarted 2 times)  engine down
    mute    -                 -       -      -  sglang v0.5.19-cu129  mistral  0.1.0                 engine, agent (restarted 2 times)         agent does not answer
    new     -                 -       -      -  sglang                -        -                     none                                      nothing is installed
    away    -                 -       -      -  -                     -        -                     -                                         unreachable: connection timed out

    NODE    REGION     TYPE         ADDRESS   GPU              DISK FREE    CLOCK    PRICE
    east    us-east-1  gpu_1x_a100  10.0.0.7  97 %, 90 % full  400.0 GiB  in step  $1.99/h
    odd     us-east-1  gpu_1x_a100  10.0.0.7  97 %, 90 % full  400.0 GiB    -31 s  $1.99/h
    killed  us-east-1  gpu_1x_a100  10.0.0.7  97 %, 90 % full  400.0 GiB  in step  $1.99/h
    mute    us-east-1  gpu_1x_a100  10.0.0.7  97 %, 90 % full  400.0 GiB  in step  $1.99/h
    new     us-east-1  gpu_1x_a100  10.0.0.7  -                  1.0 TiB  in step  $1.99/h
    away    us-east-1  gpu_1x_a100  10.0.0.7  -                        -        -  $1.99/h
    ");
}

#[test]
fn cards_are_told_of_as_far_as_their_driver_does() {
    let cases = [
        (vec![], None),
        (vec![gpu(Some(36_864), Some(97))], Some("97 %, 90 % full")),
        (vec![gpu(Some(40_960), Some(100)), gpu(Some(0), Some(0))], Some("2x 50 %, 50 % full")),
        (vec![gpu(None, Some(8))], Some("8 %")),
        (vec![gpu(Some(4_096), None)], Some("10 % full")),
        (vec![gpu(None, None); 8], Some("8x ?")),
    ];
    for (gpus, wanted) in cases {
        assert_eq!(cards(&Facts { gpus, ..facts() }).as_deref(), wanted);
    }
    let none = Facts { gpus: Vec::new(), ..facts() };
    let (east, away) = (node("east"), node("away"));
    let rows = [row(&east, Ok(none)), row(&away, Err((String::new(), None)))];
    assert!(!tables(&rows, &own()).contains("GPU"), "a cluster without cards has no column for them");
}

#[test]
fn programs_get_all_of_it() {
    let (here, away) = (node("east"), Node { instance: None, ..node("away") });
    let told = Balance { strategy: "random".into(), max_concurrent: None, weights: BTreeMap::new() };
    let seen = row(&here, Ok(facts()));
    let rows = [
        Row { told: Some(told), ..seen },
        Row { spec: None, node: &away, seen: Err(("`away` has no machine".into(), None)), told: None },
    ];
    let shown = serde_json::to_string_pretty(&document("lab", &rows, 199, &own())).expect("JSON");
    assert_snapshot!(shown, @r#"
    {
      "cents_per_hour": 199,
      "cluster": "lab",
      "gorgo": {
        "sha256": "aa",
        "version": "0.1.0"
      },
      "nodes": [
        {
          "address": "10.0.0.7",
          "agent": {
            "draining": false,
            "listen": "10.0.0.7:8000",
            "max_concurrent": 50,
            "pid": 7,
            "queue": {
              "limit": 1000,
              "oldest_ms": null,
              "timeout_ms": 60000.0,
              "waiting": 2
            },
            "replicas": {
              "draining": 0,
              "healthy": 1,
              "total": 1,
              "unhealthy": 0,
              "unknown": 0
            },
            "requests": {
              "cancelled": 0,
              "failed": 0,
              "in_flight": 3,
              "ok": 1,
              "refused": 0,
              "retried": 0,
              "total": 9
            },
            "strategy": "gorgo-v1",
            "uptime_s": 1.0,
            "version": "0.1.0"
          },
          "binary": {
            "same": true,
            "sha256": "aa",
            "version": "0.1.0"
          },
          "clock_ahead_ms": 0,
          "disk_free_bytes": 429496729600,
          "engine": {
            "kind": "sglang",
            "model": "mistral",
            "up": true,
            "version": "v0.5.19-cu129"
          },
          "gpus": [
            {
              "busy_percent": 97,
              "driver": "570.148.08",
              "memory_mib": 40960,
              "memory_used_mib": 36864,
              "name": "NVIDIA A100"
            }
          ],
          "name": "east",
          "os": "",
          "price_cents_per_hour": 199,
          "proxy": null,
          "reachable": true,
          "region": "us-east-1",
          "services": {
            "agent": {
              "pid": 9,
              "restarts": 2,
              "running": true
            },
            "engine": {
              "pid": 9,
              "restarts": 0,
              "running": true
            }
          },
          "serving": true,
          "told": {
            "max_concurrent": null,
            "strategy": "random"
          },
          "trouble": null,
          "type": "gpu_1x_a100",
          "url": "http://10.0.0.7:8000"
        },
        {
          "address": null,
          "hint": null,
          "name": "away",
          "price_cents_per_hour": null,
          "reachable": false,
          "region": null,
          "serving": false,
          "told": null,
          "trouble": "unreachable: `away` has no machine",
          "type": null,
          "url": null
        }
      ]
    }
    "#);
}

#[test]
fn clocks_are_told_beyond_what_the_network_explains() {
    for (ahead_ms, wanted) in [(0, "in step"), (-999, "in step"), (2_500, "+2 s"), (-65_000, "-1 min 05 s")] {
        assert_eq!(clock(ahead_ms), wanted);
    }
}
