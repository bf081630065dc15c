//! Every answer is what the document shows for its call and status; what the document's schemas refuse, the stand-in refuses too.

use std::collections::BTreeSet;

use gorgo::emulator::lambda::LambdaHandle;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::document::Document;
use super::{KEY, account};

/// Statuses of which the document says nothing: too many calls, and faults of the service.
const UNDECLARED: [u16; 4] = [429, 500, 502, 503];
/// Calls with a body for which the document has no 400; they get the one that the other calls have.
const WITHOUT_400: [&str; 5] = [
    "POST /api/v1/instance-operations/restart",
    "POST /api/v1/instance-operations/terminate",
    "PUT /api/v1/firewall-rules",
    "PATCH /api/v1/firewall-rulesets/global",
    "PATCH /api/v1/firewall-rulesets/{id}",
];

/// Somebody who calls and holds every answer against the document.
struct Caller<'a> {
    document: &'a Document,
    http: reqwest::Client,
    base: String,
    key: &'static str,
    seen: BTreeSet<(String, u16)>,
}

impl<'a> Caller<'a> {
    fn new(document: &'a Document, server: &LambdaHandle) -> Self {
        gorgo::cli::install_tls();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let base = format!("http://{}/api/v1", server.address());
        Self { document, http, base, key: KEY, seen: BTreeSet::new() }
    }

    /// Makes a call; `data` or `error` of its answer.
    async fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base)).bearer_auth(self.key);
        let request = if let Some(body) = body { request.body(body.to_string()) } else { request };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let plain = path.split('?').next().unwrap();
        let call = self.document.operation(method, &format!("/api/v1{plain}")).unwrap();
        let place = format!("{} answers {status} to {body:?} with {text}", call.name);
        self.seen.insert((call.name.clone(), status));
        if let (Some(schema), Some(body), 200) = (&call.request, body, status) {
            assert_eq!(self.document.complaints(schema, body), Vec::<String>::new(), "{place}, and should refuse it");
        }
        if UNDECLARED.contains(&status) {
            return (status, Value::Null);
        }
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{place}: {error}"));
        match call.answers.iter().find(|(declared, _)| *declared == status) {
            Some((_, schema)) => {
                assert_eq!(self.document.complaints(schema, &answer), Vec::<String>::new(), "{place}");
            }
            None => {
                assert!(status == 400 && WITHOUT_400.contains(&call.name.as_str()), "{place}, which is not declared");
                let schema = self.document.schema("ApiErrorInvalidParameters");
                assert_eq!(self.document.complaints(&schema, &answer["error"]), Vec::<String>::new(), "{place}");
            }
        }
        (status, answer.get("data").or_else(|| answer.get("error")).unwrap().clone())
    }

    async fn made(&mut self, path: &str, body: Value) -> Value {
        let (status, data) = self.call("POST", path, Some(&body)).await;
        assert_eq!(status, 200, "{path}: {data}");
        data
    }

    /// Every call once, with the ids that it needs.
    async fn every_call(&mut self, ids: &Ids) {
        for (method, path, body) in ids.calls() {
            self.call(method, &path, body.as_ref()).await;
        }
    }
}

/// One of each thing.
#[derive(Clone, Default)]
struct Ids {
    machine: String,
    key: String,
    filesystem: String,
    ruleset: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rules() -> Value {
    json!([
        {"protocol": "tcp", "port_range": [8000, 8000], "source_network": "192.0.2.1", "description": "a peer"},
        {"protocol": "icmp", "source_network": "0.0.0.0/0", "description": ""}
    ])
}

fn launch() -> Value {
    json!({"region_name": "us-east-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["me"], "name": "n",
        "hostname": "n-1", "user_data": "#cloud-config", "tags": [{"key": "gorgo:run", "value": "1"}],
        "image": {"family": "lambda-stack-24-04"}})
}

impl Ids {
    /// One of each, and a machine that has them.
    async fn make(caller: &mut Caller<'_>) -> Self {
        let key = caller.made("/ssh-keys", json!({"name": "me", "public_key": "ssh-ed25519 AAAA me"})).await;
        let filesystem = caller.made("/filesystems", json!({"name": "models", "region": "us-east-1"})).await;
        let ruleset =
            caller.made("/firewall-rulesets", json!({"name": "r", "region": "us-east-1", "rules": rules()})).await;
        let mut wish = launch();
        wish["file_system_mounts"] = json!([{"mount_point": "/data", "file_system_id": filesystem["id"]}]);
        wish["firewall_rulesets"] = json!([{"id": ruleset["id"]}]);
        let machine = caller.made("/instance-operations/launch", wish).await;
        Self {
            machine: text(&machine["instance_ids"][0]),
            key: text(&key["id"]),
            filesystem: text(&filesystem["id"]),
            ruleset: text(&ruleset["id"]),
        }
    }

    /// All 24, those that destroy last.
    fn calls(&self) -> Vec<(&'static str, String, Option<Value>)> {
        let Self { machine, key, filesystem, ruleset } = self;
        let ids = json!({"instance_ids": [machine]});
        let get = |path: &str| ("GET", path.to_owned(), None);
        vec![
            get("/instances"),
            get("/instances?cluster_id=0920582c7ff041399e34823a0be62549"),
            get(&format!("/instances/{machine}")),
            ("POST", format!("/instances/{machine}"), Some(json!({"name": "other"}))),
            get("/instance-types"),
            ("POST", "/instance-operations/launch".into(), Some(launch())),
            ("POST", "/instance-operations/restart".into(), Some(ids.clone())),
            get("/ssh-keys"),
            ("POST", "/ssh-keys".into(), Some(json!({"name": "made-up"}))),
            get("/file-systems"),
            ("POST", "/filesystems".into(), Some(json!({"name": "more", "region": "us-west-1"}))),
            get("/images"),
            get("/firewall-rules"),
            ("PUT", "/firewall-rules".into(), Some(json!({"data": rules()}))),
            get("/firewall-rulesets"),
            ("POST", "/firewall-rulesets".into(), Some(json!({"name": "s", "region": "us-south-1", "rules": []}))),
            get("/firewall-rulesets/global"),
            ("PATCH", "/firewall-rulesets/global".into(), Some(json!({"rules": rules()}))),
            get(&format!("/firewall-rulesets/{ruleset}")),
            ("PATCH", format!("/firewall-rulesets/{ruleset}"), Some(json!({"rules": []}))),
            get("/audit-events"),
            get("/audit-events?page_token=zz"),
            ("DELETE", format!("/filesystems/{filesystem}"), None),
            ("DELETE", format!("/firewall-rulesets/{ruleset}"), None),
            ("DELETE", format!("/ssh-keys/{key}"), None),
            ("POST", "/instance-operations/terminate".into(), Some(ids)),
        ]
    }
}

/// All statuses that the document declares for all calls, and the shape of each.
#[tokio::test]
async fn every_declared_answer_is_given_as_declared() {
    let Some(document) = Document::load() else { return };
    let mut seen = BTreeSet::new();
    let nothing = Ids { machine: "x".into(), key: "x".into(), filesystem: "x".into(), ruleset: "x".into() };

    // Things that are there, then used, then gone. An hour of the stand-in's is 36 ms.
    let server = account(100_000.0, &["slow-terminate=0"]).await;
    let mut caller = Caller::new(&document, &server);
    let ids = Ids::make(&mut caller).await;
    caller.every_call(&ids).await;
    caller.every_call(&ids).await;
    caller.every_call(&nothing).await;
    for (method, path, body) in ids.calls() {
        if body.is_some() {
            caller.call(method, &path, Some(&json!("nonsense"))).await;
        }
    }
    let wish = launch_with_new_key(&mut caller).await;
    let made = caller.made("/instance-operations/launch", wish).await;
    let rename = format!("/instances/{}", text(&made["instance_ids"][0]));
    assert_eq!(caller.call("POST", &rename, Some(&json!({"name": "x".repeat(65)}))).await.0, 400);
    seen.append(&mut caller.seen);

    for (key, faults) in
        [("", &[][..]), (KEY, &["account-inactive"][..]), (KEY, &["no-address"][..]), (KEY, &["quota=0"][..])]
    {
        let server = account(1.0, faults).await;
        let mut caller = Caller { key, ..Caller::new(&document, &server) };
        caller.call("POST", "/ssh-keys", Some(&json!({"name": "me", "public_key": "ssh-ed25519 AAAA me"}))).await;
        caller.every_call(&nothing).await;
        seen.append(&mut caller.seen);
    }
    for one_in in ["concurrent-edit=1", "concurrent-edit=2"] {
        let server = account(1.0, &[one_in]).await;
        let mut caller = Caller::new(&document, &server);
        collide(&mut caller).await;
        seen.append(&mut caller.seen);
    }

    let declared = document
        .operations()
        .into_iter()
        .flat_map(|call| call.answers.iter().map(|(status, _)| (call.name.clone(), *status)).collect::<Vec<_>>());
    let never: Vec<_> = declared.filter(|pair| !seen.contains(pair)).collect();
    assert_eq!(never, [], "declared, but never answered");
}

async fn launch_with_new_key(caller: &mut Caller<'_>) -> Value {
    caller.made("/ssh-keys", json!({"name": "fresh", "public_key": "ssh-ed25519 AAAA me"})).await;
    let mut wish = launch();
    wish["ssh_key_names"] = json!(["fresh"]);
    wish
}

/// Changes of rulesets, of which some collide with somebody else's.
async fn collide(caller: &mut Caller<'_>) {
    let wish = json!({"name": "r", "region": "us-east-1", "rules": []});
    let (_, made) = caller.call("POST", "/firewall-rulesets", Some(&wish)).await;
    let path = format!("/firewall-rulesets/{}", made["id"].as_str().unwrap_or("global"));
    caller.call("PATCH", &path, Some(&json!({}))).await;
    caller.call("PATCH", &path, Some(&json!({}))).await;
    if made["id"].is_string() {
        caller.call("DELETE", &path, None).await;
    }
}

/// Values that nothing wants.
fn odd(rng: &mut ChaCha8Rng) -> Value {
    let values = [
        Value::Null,
        json!(5),
        json!(-1),
        json!(""),
        json!("x".repeat(300)),
        json!("_"),
        json!([]),
        json!([5]),
        json!([[]]),
        json!({}),
        json!([{}]),
        json!(["nobody"]),
        json!([{"id": "nobody"}]),
        json!([["a", "b"]]),
        json!(true),
    ];
    values.choose(rng).unwrap().clone()
}

/// Sometimes one field changed, added or taken away; sometimes the whole body.
fn spoilt(rng: &mut ChaCha8Rng, mut body: Value) -> Value {
    if rng.random_bool(0.5) {
        return body;
    }
    if rng.random_bool(0.1) {
        return odd(rng);
    }
    let fields = body.as_object_mut().unwrap();
    let names: Vec<String> = fields.keys().cloned().chain(["quantity".to_owned(), "unknown".to_owned()]).collect();
    let name = names.choose(rng).unwrap();
    if rng.random_bool(0.3) {
        drop(fields.remove(name));
    } else {
        drop(fields.insert(name.clone(), odd(rng)));
    }
    body
}

/// Ids in an answer's list.
fn ids_of(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect()
}

/// Calls in any order, with good and bad bodies, while machines boot, flap, end and vanish.
#[tokio::test]
async fn a_random_walk_stays_within_the_document() {
    let Some(document) = Document::load() else { return };
    let faults: [&[&str]; 3] = [
        &[],
        &["flapping", "no-private-ip", "no-name", "reused-ip", "filesystem-in-use", "ruleset-in-use", "extra-fields"],
        &["unhealthy=2", "preempted=100", "no-ip", "error-500=5", "429-storm=5", "not-found-as-400", "capacity-loss=3"],
    ];
    for (seed, faults) in faults.iter().enumerate() {
        let server = account(5_000.0, faults).await;
        let mut caller = Caller::new(&document, &server);
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let mut known = Ids::default();
        for _ in 0..150 {
            let calls = known.calls();
            let (method, path, body) = calls.choose(&mut rng).unwrap();
            let path = path.trim_end_matches('/');
            let operation = document.operation(method, &format!("/api/v1{}", path.split('?').next().unwrap()));
            // Without an id yet, the path is that of another call, if of any.
            let Some(operation) = operation.filter(|call| call.request.is_some() == body.is_some()) else { continue };
            let body = body.clone().map(|body| spoilt(&mut rng, body));
            let (status, data) = caller.call(method, path, body.as_ref()).await;
            if status == 200 && operation.name.starts_with("GET") {
                let pick = |found: Vec<String>, old: &mut String, rng: &mut ChaCha8Rng| {
                    if let Some(id) = found.choose(rng) {
                        old.clone_from(id);
                    }
                };
                match path {
                    "/instances" => pick(ids_of(&data), &mut known.machine, &mut rng),
                    "/ssh-keys" => pick(ids_of(&data), &mut known.key, &mut rng),
                    "/file-systems" => pick(ids_of(&data), &mut known.filesystem, &mut rng),
                    "/firewall-rulesets" => pick(ids_of(&data), &mut known.ruleset, &mut rng),
                    _ => {}
                }
            }
            if rng.random_bool(0.1) {
                caller.call("POST", "/ssh-keys", Some(&json!({"name": "me", "public_key": "ssh-rsa AAAA"}))).await;
            }
        }
        assert!(server.counts().requests > 50);
    }
}
