//! The documents as programs see them: whole JSON, both directions.

use insta::assert_json_snapshot;
use serde_json::json;

use super::{
    AddReplica, CacheReplica, ClearCache, ErrorBody, Limits, Rates, ReplicaChange, SetDrain, SetPolicy, SetTune,
    Status, Verdict,
};
use crate::model::Region;

#[test]
fn the_error_object_has_the_shape_of_openai() {
    let body =
        ErrorBody::new("invalid_request_error", "unknown_strategy", "unknown strategy `x`").with_param("strategy");
    assert_json_snapshot!(body, @r#"
    {
      "error": {
        "message": "unknown strategy `x`",
        "type": "invalid_request_error",
        "param": "strategy",
        "code": "unknown_strategy"
      }
    }
    "#);
}

#[test]
fn a_change_of_replicas_names_exactly_one_change() {
    let add = ReplicaChange::Add(AddReplica {
        name: "east".into(),
        url: "http://127.0.0.1:30000".into(),
        region: Region::new("us-east-1"),
        engine: None,
        models: Vec::new(),
        limits: Limits { kv_tokens: Some(40_000) },
        rates: Rates::default(),
    });
    let cases = [
        (
            r#"{"add":{"name":"east","url":"http://127.0.0.1:30000","region":"us-east-1","limits":{"kv_tokens":40000}}}"#,
            add,
        ),
        (r#"{"remove":{"name":"east"}}"#, ReplicaChange::Remove { name: "east".into() }),
        (r#"{"drain":{"name":"east","draining":true}}"#, ReplicaChange::Drain { name: "east".into(), draining: true }),
    ];
    for (text, wanted) in cases {
        assert_eq!(serde_json::from_str::<ReplicaChange>(text).expect(text), wanted);
        let written = serde_json::to_string(&wanted).expect("written");
        assert_eq!(serde_json::from_str::<ReplicaChange>(&written).expect("read again"), wanted);
    }
}

#[test]
fn a_body_that_changes_something_refuses_what_it_does_not_know() {
    let changes = [
        r#"{"add":{"name":"a","url":"http://a","region":"r","limits":{"max_runing":1}}}"#,
        r#"{"remove":{"nme":"a"}}"#,
        r#"{"remove":{"name":"a"},"drain":{"name":"a","draining":true}}"#,
        r#"{"destroy":{"name":"a"}}"#,
    ];
    for text in changes {
        assert!(serde_json::from_str::<ReplicaChange>(text).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<SetPolicy>(r#"{"strategy":"gorgo","weights":{}}"#).is_err());
    assert!(serde_json::from_str::<SetTune>(r#"{"w_rtt":1}"#).is_err());
    assert!(serde_json::from_str::<ClearCache>(r#"{"node":"a"}"#).is_err());
    assert!(serde_json::from_str::<SetDrain>(r#"{"stop":true}"#).is_err(), "`draining` must be said");
}

#[test]
fn readers_ignore_keys_of_a_newer_proxy() {
    let mut status = json!({
        "version": "9.0.0", "pid": 1, "uptime_s": 2.5, "listen": "127.0.0.1:8000", "strategy": "gorgo",
        "max_concurrent": null, "draining": false,
        "replicas": {"total": 3, "healthy": 3, "unhealthy": 0, "unknown": 0, "draining": 0},
        "queue": {"waiting": 0, "limit": 1000, "timeout_ms": 60000.0, "oldest_ms": null},
        "requests": {"total": 0, "in_flight": 0, "ok": 0, "failed": 0, "refused": 0, "cancelled": 0, "retried": 0}
    });
    let plain: Status = serde_json::from_value(status.clone()).expect("today's form");
    assert_eq!(serde_json::to_value(&plain).expect("written"), status);
    status["moon_phase"] = json!("full");
    assert_eq!(serde_json::from_value::<Status>(status).expect("a newer form"), plain);
}

#[test]
fn a_verdict_is_told_by_its_action() {
    let cases = [
        (Verdict::Dispatch { replica: "east".into() }, r#"{"action":"dispatch","replica":"east"}"#),
        (Verdict::Hold, r#"{"action":"hold"}"#),
        (
            Verdict::Reject { reason: "queue_full".into(), retry_after_ms: Some(500.0) },
            r#"{"action":"reject","reason":"queue_full","retry_after_ms":500.0}"#,
        ),
    ];
    for (verdict, text) in cases {
        assert_eq!(serde_json::to_string(&verdict).expect("written"), text);
        assert_eq!(serde_json::from_str::<Verdict>(text).expect("read"), verdict);
    }
}

#[test]
fn hit_ratios_exist_only_once_usage_came() {
    let mut replica = CacheReplica {
        name: "east".into(),
        blocks: 0,
        capacity_blocks: 10,
        nodes: 0,
        depth: 0,
        bytes: 0,
        requests_with_usage: 0,
        prompt_tokens: 0,
        cached_tokens: 0,
        predicted_cached_tokens: 0,
    };
    assert_eq!((replica.hit_ratio(), replica.predicted_hit_ratio()), (None, None));
    replica.prompt_tokens = 200;
    replica.cached_tokens = 150;
    replica.predicted_cached_tokens = 100;
    assert_eq!((replica.hit_ratio(), replica.predicted_hit_ratio()), (Some(0.75), Some(0.5)));
}
