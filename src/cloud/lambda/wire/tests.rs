//! Answers that the document does not show but the service sends, and what must never come back out.

use serde_json::{Value, json};

use super::{AddedSshKey, Architecture, FirewallRule, Image, Instance, LaunchRequest, PortRange, Protocol};
use crate::cloud::Status;
use crate::model::Secret;

fn instance() -> Value {
    json!({
        "id": "0920582c7ff041399e34823a0be62549",
        "status": "active",
        "ssh_key_names": ["k"],
        "file_system_names": [],
        "region": {"name": "us-west-1", "description": "California, USA"},
        "instance_type": {
            "name": "gpu_1x_a10", "description": "1x A10 (24 GB PCIe)", "gpu_description": "A10 (24 GB PCIe)",
            "price_cents_per_hour": 129, "specs": {"vcpus": 30, "memory_gib": 200, "storage_gib": 1434, "gpus": 1}
        },
        "actions": {
            "migrate": {"available": false, "reason_code": "moon-phase", "reason_description": "wait"},
            "rebuild": {"available": true}, "restart": {"available": true}, "cold_reboot": {"available": true},
            "terminate": {"available": true}
        },
        "jupyter_token": "sekrit-token",
        "jupyter_url": "https://jupyter.example/?token=sekrit-token"
    })
}

#[test]
fn a_machine_never_keeps_its_jupyter_credentials() {
    let read: Instance = serde_json::from_value(instance()).unwrap();
    assert_eq!((&read.jupyter_token, &read.jupyter_url), (&None, &None));
    assert!(!format!("{read:?}").contains("sekrit"));
    assert!(!serde_json::to_string(&read).unwrap().contains("sekrit"));
}

#[test]
fn the_stand_in_can_write_credentials_that_do_not_print() {
    let mut made: Instance = serde_json::from_value(instance()).unwrap();
    made.jupyter_token = Some(Secret::new("sekrit-token".into()));
    assert_eq!(serde_json::to_value(&made).unwrap()["jupyter_token"], "sekrit-token");
    assert!(!format!("{made:?}").contains("sekrit"));
}

#[test]
fn open_sets_keep_words_that_came_later() {
    let mut odd = instance();
    odd["status"] = json!("alert");
    odd["region"]["name"] = json!("moon-north-1");
    odd["is_reserved"] = json!(true);
    odd["tags"] = Value::Null;
    let read: Instance = serde_json::from_value(odd).unwrap();
    assert_eq!(read.status, Status::Other("alert".into()));
    assert_eq!(read.region.name.as_str(), "moon-north-1");
    assert_eq!(read.actions.migrate.reason_code.as_deref(), Some("moon-phase"));
    assert_eq!(serde_json::to_value(&read.status).unwrap(), "alert");

    let image: Image = serde_json::from_value(json!({
        "id": "i", "name": "n", "family": "f", "architecture": "riscv64", "region": {"name": "us-west-1"}
    }))
    .unwrap();
    assert_eq!(image.architecture, Architecture::Other("riscv64".into()));
}

#[test]
fn port_ranges_are_read_leniently_and_written_as_two() {
    let cases = [
        (json!([22, 22]), Some(PortRange::single(22)), "22"),
        (json!([443]), Some(PortRange::single(443)), "443"),
        (json!([8000, 8100]), Some(PortRange { low: 8000, high: 8100 }), "8000-8100"),
        (json!([]), None, ""),
        (Value::Null, None, ""),
    ];
    for (ports, expected, shown) in cases {
        let rule = json!({"protocol": "tcp", "port_range": ports, "source_network": "0.0.0.0/0", "description": ""});
        let rule: FirewallRule = serde_json::from_value(rule).unwrap();
        assert_eq!(rule.port_range, expected);
        assert_eq!(rule.port_range.map(|range| range.to_string()).unwrap_or_default(), shown);
        let written = serde_json::to_value(&rule).unwrap();
        let pair = expected.map(|range| json!([range.low, range.high]));
        assert_eq!(written.get("port_range"), pair.as_ref());
    }
    for bad in [json!([1, 2, 3]), json!([70000, 70000]), json!("22")] {
        let rule = json!({"protocol": "tcp", "port_range": bad, "source_network": "0.0.0.0/0"});
        assert!(serde_json::from_value::<FirewallRule>(rule).is_err());
    }
    assert_eq!(serde_json::from_value::<Protocol>(json!("gre")).unwrap(), Protocol::Other("gre".into()));
}

#[test]
fn secrets_in_bodies_are_sent_but_not_shown() {
    let request: LaunchRequest = serde_json::from_value(json!({
        "region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["k"], "user_data": "#cloud-config sekrit"
    }))
    .unwrap();
    assert_eq!(serde_json::to_value(&request).unwrap()["user_data"], "#cloud-config sekrit");
    assert!(!format!("{request:?}").contains("sekrit"));

    let key = json!({"id": "i", "name": "n", "public_key": "ssh-rsa A", "private_key": "sekrit"});
    let added: AddedSshKey = serde_json::from_value(key.clone()).unwrap();
    assert_eq!(serde_json::to_value(&added).unwrap(), key);
    assert!(!format!("{added:?}").contains("sekrit"));
}
