//! The account as a whole: what a request at a moment gets.

use serde_json::{Value, json};

use super::life::after;
use super::world::{Answer, Ask, Content, Delivery, World};
use super::{LambdaOptions, Secret};
use crate::model::Time;

struct Account {
    world: World,
    now: Time,
}

impl Account {
    fn new(faults: &[&str]) -> Self {
        Self::with(LambdaOptions {
            faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
            ..LambdaOptions::new(3)
        })
    }

    fn with(options: LambdaOptions) -> Self {
        let mut account = Self { world: World::new(options, 1_780_000_000), now: Time::ZERO };
        account.ask("POST", "/ssh-keys", json!({"name": "me", "public_key": "ssh-ed25519 AAAA me"}));
        account
    }

    fn wait(&mut self, seconds: u64) {
        self.now = after(self.now, seconds);
    }

    fn raw(&mut self, method: &str, path: &str, body: &Value, authorization: &str) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned()));
        let ask = Ask {
            method: method.into(),
            path: format!("/api/v1{path}"),
            query: query.collect(),
            authorization: Some(authorization.into()),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        self.world.answer(self.now, &ask)
    }

    /// Status and `data`, or status and error code.
    fn ask(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.raw(method, path, &body, "Bearer k");
        match answer.content {
            Content::Json(mut json) if answer.status == 200 => (200, json["data"].take()),
            Content::Json(mut json) => (answer.status, json["error"]["code"].take()),
            other => (answer.status, Value::from(format!("{other:?}"))),
        }
    }

    fn launch(&mut self, change: impl FnOnce(&mut Value)) -> (u16, Value) {
        let mut body = json!({"region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["me"], "name": "n"});
        change(&mut body);
        self.ask("POST", "/instance-operations/launch", body)
    }

    fn launched(&mut self) -> String {
        let (status, data) = self.launch(|_| ());
        assert_eq!(status, 200, "{data}");
        data["instance_ids"][0].as_str().unwrap().to_owned()
    }

    fn show(&mut self, id: &str) -> (u16, Value) {
        self.ask("GET", &format!("/instances/{id}"), Value::Null)
    }
}

#[test]
fn a_machine_lives_from_launch_to_404() {
    let mut account = Account::new(&["slow-boot=1000000", "slow-terminate=100"]);
    let id = account.launched();
    let (_, young) = account.show(&id);
    assert_eq!((&young["status"], young.get("ip"), young.get("jupyter_token")), (&json!("booting"), None, None));
    account.wait(40);
    let (_, addressed) = account.show(&id);
    assert_eq!((&addressed["status"], &addressed["ip"]), (&json!("booting"), &json!("203.0.113.1")));
    account.wait(300);
    let (_, active) = account.show(&id);
    assert_eq!((&active["status"], &active["actions"]["restart"]["available"]), (&json!("active"), &json!(true)));
    assert!(active["jupyter_token"].is_string());
    let ids = json!({"instance_ids": [id]});
    let (_, ending) = account.ask("POST", "/instance-operations/terminate", ids.clone());
    assert_eq!(ending["terminated_instances"][0]["status"], "terminating");
    account.wait(120);
    assert_eq!(account.show(&id).1["status"], "terminated");
    account.wait(120);
    assert_eq!(account.show(&id), (404, json!("global/object-does-not-exist")));
    assert_eq!(account.ask("POST", "/instance-operations/terminate", ids).0, 404);
    assert_eq!(account.ask("GET", "/instances", Value::Null), (200, json!([])));
    let (_, log) = account.ask("GET", "/audit-events?resource_type=cloud.instance", Value::Null);
    let deeds: Vec<_> = log["events"].as_array().unwrap().iter().map(|event| event["action"].clone()).collect();
    assert_eq!(deeds, ["created", "terminated"]);
}

#[test]
fn one_unknown_id_and_nothing_is_terminated() {
    let mut account = Account::new(&[]);
    let id = account.launched();
    assert_eq!(account.ask("POST", "/instance-operations/terminate", json!({"instance_ids": [id, "nobody"]})).0, 404);
    assert_eq!(account.show(&id).1["status"], "booting");
}

#[test]
fn launches_that_break_a_rule_are_refused() {
    let mut account = Account::new(&[]);
    let west = account.ask("POST", "/firewall-rulesets", json!({"name": "w", "region": "us-west-1", "rules": []})).1;
    let far = account.ask("POST", "/filesystems", json!({"name": "far", "region": "us-west-1"})).1;
    let (invalid, missing) = ("global/invalid-parameters", "global/object-does-not-exist");
    let long = "x".repeat(1_000_001);
    let cases = [
        ("ssh_key_names", json!([]), 400, invalid),
        ("ssh_key_names", json!(["me", "me"]), 400, invalid),
        ("ssh_key_names", json!(["you"]), 404, missing),
        ("quantity", json!(2), 400, invalid),
        ("region_name", json!("us-eats-1"), 400, invalid),
        ("instance_type_name", json!("gpu_9x"), 404, missing),
        ("instance_type_name", json!("gpu_1x_b200_sxm6"), 400, "instance-operations/launch/insufficient-capacity"),
        ("name", json!("n".repeat(65)), 400, invalid),
        ("name", Value::Null, 400, invalid),
        ("hostname", json!("-a"), 400, invalid),
        ("tags", json!([{"key": "gorgo_run", "value": ""}]), 400, invalid),
        ("user_data", json!(long), 400, invalid),
        ("user_data", json!("\u{0}"), 400, invalid),
        ("image", json!({"id": "i", "family": "f"}), 400, invalid),
        ("image", json!({"family": "lambda-stack-18-04"}), 404, missing),
        ("file_system_names", json!(["nothing"]), 404, missing),
        ("file_system_names", json!(["far"]), 400, "instance-operations/launch/file-system-in-wrong-region"),
        ("file_system_mounts", json!([{"mount_point": "/mnt", "file_system_id": far["id"]}]), 400, invalid),
        ("firewall_rulesets", json!([{"id": "nothing"}]), 404, missing),
        ("firewall_rulesets", json!([{"id": west["id"]}]), 400, invalid),
    ];
    for (field, value, status, code) in cases {
        let found = account.launch(|body| body[field] = value.clone());
        assert_eq!(found, (status, json!(code)), "{field}");
    }
    assert_eq!(account.world.counts().launches, 0);
    assert_eq!(account.launch(|body| body["quantity"] = json!(1)).0, 200, "tolerated");
}

#[test]
fn capacity_is_used_up_and_comes_back() {
    let mut account = Account::new(&["slow-terminate=10"]);
    let here = |account: &mut Account| {
        let (_, types) = account.ask("GET", "/instance-types", Value::Null);
        types["gpu_8x_a100"]["regions_with_capacity_available"].as_array().unwrap().len()
    };
    let wish = |body: &mut Value| {
        body["region_name"] = json!("us-west-1");
        body["instance_type_name"] = json!("gpu_8x_a100");
    };
    assert_eq!(here(&mut account), 1);
    let (_, first) = account.launch(wish);
    assert_eq!((here(&mut account), account.launch(wish).0), (0, 400));
    account.ask("POST", "/instance-operations/terminate", json!({"instance_ids": first["instance_ids"]}));
    account.wait(11);
    assert_eq!((here(&mut account), account.launch(wish).0), (1, 200));
}

#[test]
fn given_addresses_are_given_out_and_taken_back() {
    let options = LambdaOptions {
        addresses: vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()],
        ..LambdaOptions::new(1)
    };
    let mut account = Account::with(options);
    let ids = [account.launched(), account.launched()];
    assert_eq!(account.launch(|_| ()), (400, json!("instance-operations/launch/insufficient-capacity")));
    account.ask("POST", "/instance-operations/terminate", json!({"instance_ids": [ids[0]]}));
    account.wait(61);
    let third = account.launched();
    account.wait(60);
    assert_eq!(
        (&account.show(&ids[1]).1["ip"], &account.show(&third).1["ip"]),
        (&json!("127.0.0.3"), &json!("127.0.0.2"))
    );
}

#[test]
fn an_address_can_come_back_at_once() {
    for (faults, reused) in [(&["reused-ip"][..], true), (&[], false)] {
        let mut account = Account::new(faults);
        let first = account.launched();
        account.ask("POST", "/instance-operations/terminate", json!({"instance_ids": [first]}));
        account.wait(61);
        account.launched();
        account.launched();
        let machines = account.world.overview(account.now);
        let of: Vec<&Value> = machines.as_array().unwrap().iter().map(|machine| &machine["ip"]).collect();
        assert_eq!(of[0] == of[1], reused, "{machines}");
        assert_ne!(of[1], of[2]);
    }
}

#[test]
fn what_is_in_use_cannot_be_deleted_and_stays_so_for_a_while() {
    let mut account = Account::new(&["filesystem-in-use=300", "ruleset-in-use=300", "slow-terminate=10"]);
    let ruleset = account.ask("POST", "/firewall-rulesets", json!({"name": "r", "region": "us-east-1", "rules": []})).1;
    let store = account.ask("POST", "/filesystems", json!({"name": "models", "region": "us-east-1"})).1;
    let (_, launched) = account.launch(|body| {
        body["file_system_names"] = json!(["models"]);
        body["firewall_rulesets"] = json!([{"id": ruleset["id"]}]);
    });
    let paths = [
        format!("/filesystems/{}", store["id"].as_str().unwrap()),
        format!("/firewall-rulesets/{}", ruleset["id"].as_str().unwrap()),
    ];
    let codes = [json!("filesystems/filesystem-in-use"), json!("firewall-rulesets/firewall-ruleset-in-use")];
    let refused = |account: &mut Account| {
        for (path, code) in paths.iter().zip(&codes) {
            assert_eq!(account.ask("DELETE", path, Value::Null), (400, code.clone()));
        }
    };
    refused(&mut account);
    account.ask("POST", "/instance-operations/terminate", json!({"instance_ids": launched["instance_ids"]}));
    account.wait(309);
    refused(&mut account);
    account.wait(2);
    for path in &paths {
        assert_eq!(account.ask("DELETE", path, Value::Null).0, 200);
        assert_eq!(account.ask("DELETE", path, Value::Null).0, 404);
    }
}

#[test]
fn rules_reach_machines_except_where_the_firewall_has_no_effect() {
    let mut account = Account::new(&[]);
    for (region, expected) in [("us-east-1", 3), ("us-south-1", 0)] {
        let rule =
            json!({"protocol": "tcp", "port_range": [8000, 8000], "source_network": "192.0.2.1", "description": ""});
        let made = account.ask("POST", "/firewall-rulesets", json!({"name": "r", "region": region, "rules": [rule]})).1;
        let found = account.launch(|body| {
            body["region_name"] = json!(region);
            body["firewall_rulesets"] = json!([{"id": made["id"]}]);
        });
        assert_eq!(found.0, 200);
        let machines = account.world.overview(account.now);
        let inbound = &machines.as_array().unwrap().last().unwrap()["inbound"];
        assert_eq!(inbound.as_array().map_or(0, Vec::len), expected, "{inbound}");
        assert_eq!(inbound == "everything", expected == 0);
    }
}

#[test]
fn the_key_is_checked_in_both_forms() {
    let mut account = Account::with(LambdaOptions { key: Some(Secret::new("k".into())), ..LambdaOptions::new(1) });
    let cases = [("Bearer k", 200), ("Basic azo=", 200), ("Bearer x", 401), ("Basic eDo=", 401), ("k", 401), ("", 401)];
    for (authorization, status) in cases {
        assert_eq!(account.raw("GET", "/images", &Value::Null, authorization).status, status, "{authorization}");
    }
    let wrong = account.raw("POST", "/file-systems", &json!({}), "Bearer k");
    assert_eq!((wrong.status, wrong.allow), (405, Some("GET")));
}

#[test]
fn faults_of_the_account_answer_as_documented() {
    let cases = [
        ("account-inactive", 403, "global/account-inactive"),
        ("no-address", 403, "global/invalid-address"),
        ("quota=0", 400, "global/quota-exceeded"),
        ("capacity-loss", 400, "instance-operations/launch/insufficient-capacity"),
        ("no-capacity-in=us-east-1", 400, "instance-operations/launch/insufficient-capacity"),
        ("error-500=9", 500, "global/unknown"),
        ("error-503=9", 503, "provider/internal-unavailable"),
        ("429-storm=9", 429, "global/too-many-requests"),
        ("not-found-as-400", 400, "global/object-does-not-exist"),
    ];
    for (fault, status, code) in cases {
        let mut account = Account::new(&[fault]);
        let found = account.launch(|body| {
            if fault == "not-found-as-400" {
                body["ssh_key_names"] = json!(["you"]);
            }
        });
        assert_eq!(found, (status, json!(code)), "{fault}");
        assert_eq!(account.world.counts().launches, 0);
    }
}

#[test]
fn launches_and_their_answers_part_ways() {
    let cases = [
        ("lost-answer", Delivery::Dropped, 200, 1),
        ("lost-request", Delivery::Dropped, 200, 0),
        ("stalled-answer", Delivery::Stalled, 200, 1),
        ("error-after-launch", Delivery::Whole, 500, 1),
    ];
    let body = json!({"region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["me"]});
    for (fault, delivery, status, launches) in cases {
        let mut account = Account::new(&[fault]);
        let answer = account.raw("POST", "/instance-operations/launch", &body, "Bearer k");
        assert_eq!((answer.delivery, answer.status), (delivery, status), "{fault}");
        assert_eq!(account.world.counts().launches, launches, "{fault}");
        let again = account.raw("POST", "/instance-operations/launch", &body, "Bearer k");
        assert_eq!((again.delivery, again.status), (Delivery::Whole, 200), "{fault} strikes once");
    }
}

#[test]
fn machines_can_hide_and_change_their_words() {
    let mut account =
        Account::new(&["no-ip", "no-name", "unknown-status", "extra-fields", "late-list=500", "unknown-region=moon-1"]);
    let id = account.launched();
    account.wait(400);
    let (_, shown) = account.show(&id);
    let absent = ["ip", "private_ip", "name"].map(|field| shown.get(field).is_none());
    assert_eq!((absent, &shown["status"], &shown["is_reserved"]), ([true; 3], &json!("alert"), &json!(false)));
    assert_eq!(account.ask("GET", "/instances", Value::Null).1, json!([]));
    account.wait(101);
    assert_eq!(account.ask("GET", "/instances", Value::Null).1.as_array().map(Vec::len), Some(1));
    let (_, types) = account.ask("GET", "/instance-types", Value::Null);
    assert!(types["gpu_1x_b200_sxm6"]["regions_with_capacity_available"].to_string().contains("moon-1"));
    assert!(types.get("came_later").is_none(), "a map by name has no fields");
    assert_eq!(account.launch(|body| body["region_name"] = json!("moon-1")).0, 200);
}

#[test]
fn storms_and_limits_turn_calls_away() {
    let mut account = Account::new(&["429-storm=2", "429-shape=html", "429-retry-after=7"]);
    let stormy = account.raw("GET", "/images", &Value::Null, "Bearer k");
    assert_eq!(
        (stormy.status, stormy.content, stormy.retry_after_s),
        (429, Content::Html, Some(7)),
        "the key's call was the first"
    );
    assert_eq!(account.ask("GET", "/images", Value::Null).0, 200);

    let mut limited = Account::with(LambdaOptions { limits: true, ..LambdaOptions::new(1) });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        limited.wait(4);
        statuses.push(limited.launch(|_| ()).0);
    }
    assert_eq!((statuses, limited.world.counts().turned_away), (vec![200, 429, 429, 200], 2));
}

#[test]
fn the_log_comes_in_pages() {
    let mut account = Account::new(&[]);
    for number in 0..120 {
        account.wait(1);
        account.ask("POST", "/ssh-keys", json!({"name": format!("k{number}"), "public_key": "ssh-rsa AAAA"}));
    }
    let (mut path, mut seen) = ("/audit-events?x=".to_owned(), 0);
    loop {
        let (_, page) = account.ask("GET", &path, Value::Null);
        seen += page["events"].as_array().unwrap().len();
        let Some(token) = page["page_token"].as_str() else { break };
        path = format!("/audit-events?page_token={token}");
    }
    assert_eq!(seen, 121);
    let late = account.ask("GET", "/audit-events?start=2100-01-01T00:00:00Z", Value::Null);
    assert_eq!(late.1["events"], json!([]));
    for bad in ["start=yesterday", "page_token=zz", "page_token=ffff"] {
        assert_eq!(account.ask("GET", &format!("/audit-events?{bad}"), Value::Null).0, 400, "{bad}");
    }
}

#[test]
fn the_same_seed_makes_the_same_world() {
    let play = || {
        let mut account = Account::new(&["flapping"]);
        (0..5).map(|_| account.launched()).for_each(drop);
        account.wait(200);
        account.ask("GET", "/instances", Value::Null).1.to_string()
    };
    assert_eq!(play(), play());
}
