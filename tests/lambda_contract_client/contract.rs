//! What the client sends is what the document asks for; what the document shows, the client understands.

use std::collections::BTreeSet;
use std::sync::Arc;

use gorgo::cloud::lambda::{LambdaCloud, wire};
use gorgo::cloud::{Cloud as _, CloudError, CloudErrorKind, InstanceId, LaunchRequest};
use gorgo::model::{Region, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio_util::sync::CancellationToken;

use super::client;
use super::document::{Document, Operation};
use super::server::{Reply, Seen, Server};

/// The id that the document's samples use for machines, so that answers mention what was asked for.
const ID: &str = "0920582c7ff041399e34823a0be62549";

fn launch_request(full: bool) -> LaunchRequest {
    let some = |text: &str| if full { vec![text.to_owned()] } else { Vec::new() };
    LaunchRequest {
        name: "east".into(),
        instance_type: "gpu_1x_a100".into(),
        region: Region::new("us-east-1"),
        ssh_key: Some("my-public-key".into()),
        user_data: full.then(|| Secret::new("#cloud-config\n".into())),
        tags: some("gorgo:run").into_iter().map(|key| (key, "0123456789abcdef".to_owned())).collect(),
        firewall_rulesets: some("c4d291f47f9d436fa39f58493ce3b50d"),
        file_systems: some("my-filesystem"),
        image_family: full.then(|| "lambda-stack-24-04".to_owned()),
    }
}

fn rules() -> Vec<wire::FirewallRule> {
    let rule = |protocol, port_range| wire::FirewallRule {
        protocol,
        port_range,
        source_network: "203.0.113.0/24".into(),
        description: "the cluster's peers".into(),
    };
    vec![rule(wire::Protocol::Tcp, Some(wire::PortRange { low: 8000, high: 8443 })), rule(wire::Protocol::Icmp, None)]
}

/// Makes one call of the document through the client.
async fn make(cloud: &LambdaCloud, operation: &str, full: bool) -> Result<(), CloudError> {
    let ids = [InstanceId(ID.into())];
    let text = |text: &str| full.then(|| text.to_owned());
    match operation.replace("/api/v1", "").as_str() {
        "GET /instances" => cloud.instances().await.map(drop),
        "GET /instances/{id}" => cloud.instance(ID).await.map(drop),
        "POST /instances/{id}" => cloud.rename(ID, "another name").await.map(drop),
        "GET /instance-types" => cloud.types().await.map(drop),
        "POST /instance-operations/launch" => {
            cloud.launch(&launch_request(full), &CancellationToken::new()).await.map(drop)
        }
        "POST /instance-operations/restart" => cloud.restart(&ids).await,
        "POST /instance-operations/terminate" => cloud.terminate(&ids).await,
        "GET /ssh-keys" => cloud.ssh_keys().await.map(drop),
        "POST /ssh-keys" => {
            let key = wire::AddSshKey { name: "k".into(), public_key: text("ssh-ed25519 AAAA me") };
            cloud.add_ssh_key(&key).await.map(drop)
        }
        "DELETE /ssh-keys/{id}" => cloud.delete_ssh_key(ID).await,
        "GET /file-systems" => cloud.filesystems().await.map(drop),
        "POST /filesystems" => {
            let filesystem = wire::CreateFilesystem { name: "models".into(), region: Region::new("us-west-1") };
            cloud.create_filesystem(&filesystem).await.map(drop)
        }
        "DELETE /filesystems/{id}" => cloud.delete_filesystem(ID).await.map(drop),
        "GET /images" => cloud.images().await.map(drop),
        "GET /firewall-rules" => cloud.firewall_rules().await.map(drop),
        "PUT /firewall-rules" => cloud.replace_firewall_rules(rules()).await.map(drop),
        "GET /firewall-rulesets" => cloud.rulesets().await.map(drop),
        "POST /firewall-rulesets" => {
            let ruleset = wire::CreateRuleset { name: "lab".into(), region: Region::new("us-west-1"), rules: rules() };
            cloud.create_ruleset(&ruleset).await.map(drop)
        }
        "GET /firewall-rulesets/global" => cloud.global_ruleset().await.map(drop),
        "PATCH /firewall-rulesets/global" => {
            cloud.change_global_ruleset(&wire::PatchGlobalRuleset { rules: full.then(rules) }).await.map(drop)
        }
        "GET /firewall-rulesets/{id}" => cloud.ruleset(ID).await.map(drop),
        "PATCH /firewall-rulesets/{id}" => {
            let change = wire::PatchRuleset { name: text("lab"), rules: full.then(rules) };
            cloud.change_ruleset(ID, &change).await.map(drop)
        }
        "DELETE /firewall-rulesets/{id}" => cloud.delete_ruleset(ID).await,
        "GET /audit-events" => {
            let query = wire::AuditQuery {
                start: text("2025-09-01T10:30:45.123456Z"),
                end: text("2025-09-15T10:30:45.123456Z"),
                page_token: text("abCdEFg0h1I2jKlm34n5O6Pq78r="),
                resource_type: text("cloud.api_key"),
            };
            cloud.audit_events(&query).await.map(drop)
        }
        other => panic!("the client has no call for `{other}`"),
    }
}

/// What is wrong with a request, if anything.
fn complaints(document: &Document, request: &Seen) -> Vec<String> {
    let Some(call) = document.operation(&request.method, &request.path) else {
        return vec![format!("the document has no {} {}", request.method, request.path)];
    };
    let mut found = match (&call.request, request.body.is_empty()) {
        (Some(schema), false) => document.complaints(schema, &request.json()),
        (None, true) => Vec::new(),
        (Some(_), true) => vec!["a body is missing".to_owned()],
        (None, false) => vec!["no body belongs here".to_owned()],
    };
    let names = request.query.iter().flat_map(|query| query.split('&')).map(|pair| pair.split('=').next().unwrap());
    found.extend(
        names
            .filter(|name| !call.parameters.iter().any(|known| known == name))
            .map(|name| format!("no parameter `{name}`")),
    );
    found
}

#[tokio::test]
async fn every_request_is_as_documented_and_every_sample_answer_is_understood() {
    let Some(document) = Document::load().map(Arc::new) else { return };
    for full in [false, true] {
        let state = tempdir().unwrap();
        let answers = Arc::clone(&document);
        let server = Server::start(move |request| {
            let call = answers.operation(&request.method, &request.path).unwrap();
            let (_, schema) = call.answers.iter().find(|(status, _)| *status == 200).unwrap();
            let sample = answers.sample(schema, full);
            assert_eq!(
                answers.complaints(schema, &sample),
                Vec::<String>::new(),
                "the sample for {} is wrong",
                call.name
            );
            Reply::json(200, &sample)
        })
        .await;
        let cloud = client(&server.url, &state, 1);
        let names: BTreeSet<String> = document.operations().into_iter().map(|call| call.name).collect();
        assert_eq!(names.len(), 24);
        for name in &names {
            make(&cloud, name, full).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let seen = server.seen();
        for request in &seen {
            let found = complaints(&document, request);
            assert!(
                found.is_empty(),
                "{} {} {}: {found:?}",
                request.method,
                request.path,
                String::from_utf8_lossy(&request.body)
            );
        }
        let called: BTreeSet<String> =
            seen.iter().map(|request| document.operation(&request.method, &request.path).unwrap().name).collect();
        assert_eq!(called, names);
    }
}

/// The check above must be able to fail.
#[tokio::test]
async fn a_wrong_request_is_noticed() {
    let Some(document) = Document::load() else { return };
    let request = |method: &str, path: &str, body: &str| Seen {
        method: method.into(),
        path: path.into(),
        query: None,
        headers: [].into(),
        body: body.into(),
    };
    let cases = [
        request("POST", "/api/v1/file-systems", r#"{"name":"a","region":"us-west-1"}"#),
        request("POST", "/api/v1/filesystems", r#"{"name":"1a","region":"us-west-1"}"#),
        request("POST", "/api/v1/filesystems", r#"{"name":"a","region":"moon-1"}"#),
        request("POST", "/api/v1/filesystems", ""),
        request("GET", "/api/v1/images", "{}"),
        Seen { query: Some("page=2".into()), ..request("GET", "/api/v1/audit-events", "") },
    ];
    for case in cases {
        assert!(!complaints(&document, &case).is_empty(), "{case:?}");
    }
}

fn expected_kind(code: &str) -> CloudErrorKind {
    match code.rsplit('/').next().unwrap() {
        "invalid-api-key" | "account-inactive" | "invalid-address" => CloudErrorKind::Credentials,
        "object-does-not-exist" => CloudErrorKind::NotFound,
        "quota-exceeded" => CloudErrorKind::Quota,
        "insufficient-capacity" => CloudErrorKind::Capacity,
        "internal-error" => CloudErrorKind::Transient,
        _ => CloudErrorKind::Invalid,
    }
}

#[tokio::test]
async fn every_documented_error_is_told_apart() {
    let Some(document) = Document::load() else { return };
    let mut codes = BTreeSet::new();
    for Operation { name, answers, .. } in document.operations() {
        for (status, schema) in answers.iter().filter(|(status, _)| *status != 200) {
            for body in document.errors(schema) {
                let state = tempdir().unwrap();
                let code = body["error"]["code"].as_str().unwrap().to_owned();
                let server = Server::scripted(vec![Reply::json(*status, &body)]).await;
                let result = make(&client(&server.url, &state, 1), &name, true).await;
                codes.insert(code.clone());
                if name.ends_with("/terminate") && *status == 404 {
                    assert_eq!(result, Ok(()), "gone already is success");
                    continue;
                }
                let error = result.expect_err(&name);
                assert_eq!(
                    (error.kind, error.code.as_deref()),
                    (expected_kind(&code), Some(code.as_str())),
                    "{name} {status}"
                );
                assert!(error.hint.is_some() || error.kind == CloudErrorKind::Invalid, "{name} {status} {error:?}");
            }
        }
    }
    assert_eq!(codes.len(), 12, "{codes:?}");
}

/// Reading and writing back keeps every field that the document knows (except the credentials that are dropped on purpose), and stays valid.
fn round_trip<T: DeserializeOwned + Serialize>(document: &Document, name: &str) {
    let schema = document.schema(name);
    for full in [false, true] {
        let mut sample = document.sample(&schema, full);
        let read: T = serde_json::from_value(sample.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(document.complaints(&schema, &written), Vec::<String>::new(), "{name}");
        for list in ["", "/restarted_instances/0", "/terminated_instances/0"] {
            if let Some(instance) = sample.pointer_mut(list).and_then(Value::as_object_mut) {
                instance.remove("jupyter_token");
                instance.remove("jupyter_url");
            }
        }
        assert_eq!(written, sample, "{name}");
    }
}

#[test]
fn the_wire_types_hold_every_field_of_the_document() {
    let Some(document) = Document::load() else { return };
    let document = &document;
    round_trip::<wire::Instance>(document, "Instance");
    round_trip::<wire::Rename>(document, "InstanceModificationRequest");
    round_trip::<wire::LaunchRequest>(document, "InstanceLaunchRequest");
    round_trip::<wire::LaunchedInstances>(document, "InstanceLaunchResponse");
    round_trip::<wire::InstanceIds>(document, "InstanceRestartRequest");
    round_trip::<wire::InstanceIds>(document, "InstanceTerminateRequest");
    round_trip::<wire::RestartedInstances>(document, "InstanceRestartResponse");
    round_trip::<wire::TerminatedInstances>(document, "InstanceTerminateResponse");
    round_trip::<wire::InstanceTypes>(document, "InstanceTypes");
    round_trip::<wire::AddSshKey>(document, "AddSSHKeyRequest");
    round_trip::<wire::SshKey>(document, "SSHKey");
    round_trip::<wire::AddedSshKey>(document, "SSHKey");
    round_trip::<wire::AddedSshKey>(document, "GeneratedSSHKey");
    round_trip::<wire::Filesystem>(document, "Filesystem");
    round_trip::<wire::CreateFilesystem>(document, "FilesystemCreateRequest");
    round_trip::<wire::DeletedFilesystems>(document, "FilesystemDeleteResponse");
    round_trip::<wire::Image>(document, "Image");
    round_trip::<wire::FirewallRule>(document, "FirewallRule");
    round_trip::<wire::PutRules>(document, "FirewallRulesPutRequest");
    round_trip::<wire::Ruleset>(document, "FirewallRuleset");
    round_trip::<wire::CreateRuleset>(document, "FirewallRulesetCreateRequest");
    round_trip::<wire::PatchRuleset>(document, "FirewallRulesetPatchRequest");
    round_trip::<wire::GlobalRuleset>(document, "GlobalFirewallRuleset");
    round_trip::<wire::PatchGlobalRuleset>(document, "GlobalFirewallRulesetPatchRequest");
    round_trip::<wire::AuditPage>(document, "AuditEventsPage");
    round_trip::<wire::Empty>(document, "EmptyResponse");
    let image = json!({"family": "lambda-stack-24-04"});
    assert_eq!(
        serde_json::to_value(serde_json::from_value::<wire::ImageChoice>(image.clone()).unwrap()).unwrap(),
        image
    );
}
