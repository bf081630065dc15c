//! A service that turns calls away, breaks off, redirects and answers nonsense; and what must not leak while it does.

use std::process::Command;
use std::time::Duration;

use gorgo::cloud::lambda::{Endpoint, LambdaCloud, LambdaSettings, Pace, wire};
use gorgo::cloud::{Cloud as _, CloudError, CloudErrorKind, InstanceId, Inventory as _, LaunchRequest};
use gorgo::model::{Region, Secret};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio_util::sync::CancellationToken;

use super::server::{Reply, Server};
use super::{KEY, client};

fn no_instances() -> Reply {
    Reply::json(200, &json!({"data": []}))
}

fn launched() -> Reply {
    Reply::json(200, &json!({"data": {"instance_ids": ["i-1"]}}))
}

fn error(status: u16, code: &str) -> Reply {
    Reply::json(status, &json!({"error": {"code": code, "message": "No.", "suggestion": "Wait."}}))
}

fn request() -> LaunchRequest {
    LaunchRequest {
        name: "east".into(),
        instance_type: "gpu_1x_a100".into(),
        region: Region::new("us-east-1"),
        ssh_key: Some("me".into()),
        user_data: Some(Secret::new("sekrit-host-key".into())),
        tags: [("gorgo:run".to_owned(), "1".to_owned())].into(),
        firewall_rulesets: Vec::new(),
        file_systems: Vec::new(),
        image_family: None,
    }
}

fn nothing_leaks(error: &CloudError) {
    assert!(!format!("{error:?} {error}").contains("sekrit"), "{error:?}");
}

#[tokio::test]
async fn calls_say_who_they_are() {
    let state = tempdir().unwrap();
    let server = Server::scripted(vec![no_instances(), launched()]).await;
    let cloud = client(&server.url, &state, 1);
    assert_eq!(cloud.list().await.unwrap(), []);
    assert_eq!(cloud.launch(&request(), &CancellationToken::new()).await.unwrap(), InstanceId("i-1".into()));
    for seen in server.seen() {
        assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(seen.headers["user-agent"], concat!("gorgo/", env!("CARGO_PKG_VERSION")));
        assert!(seen.query.is_none());
    }
    assert_eq!(server.seen()[1].json()["user_data"], "sekrit-host-key");
    assert!(!format!("{cloud:?}").contains("sekrit"));
}

/// Reads come through; launches are made once, unless it is certain that the first did nothing.
#[tokio::test]
async fn faults_that_pass_are_passed_where_that_is_safe() {
    use CloudErrorKind::{Transient, UnknownOutcome};
    let html = "<html><body>token=sekrit</body></html>";
    let turned_away = [
        error(429, "global/too-many-requests"),
        error(429, "global/too-many-requests").with("retry-after", "0"),
        Reply::plain(429, ""),
        Reply::plain(429, "").with("retry-after", "1"),
        Reply::plain(429, html),
        Reply::plain(429, html).with("retry-after", "Thu, 01 Jan 1970 00:00:10 GMT"),
        Reply::plain(429, html).with("retry-after", "whenever"),
    ];
    let uncertain = [
        error(500, "global/unknown"),
        error(503, "provider/internal-unavailable"),
        error(400, "provider/internal-unavailable"),
        Reply::plain(502, html),
        Reply::plain(500, ""),
        Reply::Cut(r#"{"data": ["#.into()),
        Reply::Drop,
        Reply::plain(200, r#"{"data": {"instance_ids": ["#),
        Reply::plain(200, html),
        Reply::json(200, &json!({"data": "sekrit"})),
        Reply::json(200, &json!({"error": {"code": "x", "message": "sekrit"}})),
    ];
    let repeated = turned_away.iter().map(|fault| (fault, true));
    for (fault, certain) in repeated.chain(uncertain.iter().map(|fault| (fault, false))) {
        let state = tempdir().unwrap();
        let server = Server::scripted(vec![fault.clone(), no_instances()]).await;
        assert_eq!(client(&server.url, &state, 2).list().await, Ok(Vec::new()), "{fault:?}");
        assert_eq!(server.seen().len(), 2);

        let server = Server::scripted(vec![fault.clone(), launched()]).await;
        let result = client(&server.url, &state, 2).launch(&request(), &CancellationToken::new()).await;
        if certain {
            assert_eq!(result, Ok(InstanceId("i-1".into())), "{fault:?}");
            assert_eq!(server.seen().len(), 2);
        } else {
            let error = result.unwrap_err();
            nothing_leaks(&error);
            assert_eq!((error.kind, server.seen().len()), (UnknownOutcome, 1), "{fault:?}");
        }

        let server = Server::scripted(vec![fault.clone()]).await;
        let error = client(&server.url, &state, 2).list().await.unwrap_err();
        nothing_leaks(&error);
        assert!(error.kind == Transient && error.message.ends_with(", 2 attempts"), "{fault:?} {error}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_bounded_and_unknown_for_launches() {
    let state = tempdir().unwrap();
    let server = Server::scripted(vec![Reply::Hang]).await;
    gorgo::cli::install_tls();
    let endpoint = Endpoint::parse(&server.url).unwrap();
    let settings = LambdaSettings::new(endpoint, Secret::new(KEY.into()), state.path().into(), 1);
    let cloud = LambdaCloud::new(LambdaSettings { answer_limit: Duration::from_millis(200), ..settings }).unwrap();
    let error = cloud.launch(&request(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::UnknownOutcome);
    insta::assert_snapshot!(error, @"the outcome of POST /instance-operations/launch is unknown: it did not answer in time; it may have happened and cost money");
}

/// The limit of one launch per so many seconds makes the second one wait: a Ctrl-C meanwhile is no launch after all.
#[tokio::test]
async fn a_launch_that_waits_for_its_turn_can_be_stopped_before_it_is_sent() {
    let state = tempdir().unwrap();
    let server = Server::start(|_| Reply::json(200, &json!({ "data": { "instance_ids": ["i-1"] } }))).await;
    gorgo::cli::install_tls();
    let settings =
        LambdaSettings::new(Endpoint::parse(&server.url).unwrap(), Secret::new(KEY.into()), state.path().into(), 1);
    let pace =
        Pace { call: Duration::ZERO, launch: Duration::from_secs(3600), longest_wait: Duration::from_secs(3600) };
    let cloud = LambdaCloud::new(LambdaSettings { pace, ..settings }).unwrap();
    let stop = CancellationToken::new();
    assert_eq!(cloud.launch(&request(), &stop).await.unwrap(), InstanceId("i-1".into()));
    let request = request();
    let (second, ()) = tokio::join!(cloud.launch(&request, &stop), async { stop.cancel() });
    let error = second.unwrap_err();
    assert_eq!((error.kind, server.seen().len()), (CloudErrorKind::Stopped, 1));
    insta::assert_snapshot!(error, @"stopped before POST /instance-operations/launch was sent");
}

#[tokio::test]
async fn a_launch_that_found_nobody_listening_has_not_happened() {
    let state = tempdir().unwrap();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let error = client(&url, &state, 3).launch(&request(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind, CloudErrorKind::Transient);
    assert!(error.message.contains("could not be reached") && error.message.ends_with(", 3 attempts"), "{error}");
}

#[tokio::test]
async fn a_service_that_asks_for_too_much_patience_is_quoted() {
    let state = tempdir().unwrap();
    let server = Server::scripted(vec![error(429, "rate/limit").with("retry-after", "3600")]).await;
    let error = client(&server.url, &state, 5).list().await.unwrap_err();
    assert_eq!((error.kind, server.seen().len()), (CloudErrorKind::Transient, 1));
    assert_eq!(error.hint.as_deref(), Some("the service asks to wait 3600 s before the next call"));
}

#[tokio::test]
async fn refusals_are_final() {
    let state = tempdir().unwrap();
    let server = Server::start(|seen| {
        let good = seen.headers.get("authorization").is_some_and(|header| header == "Bearer another-key");
        if good { no_instances() } else { error(401, "global/invalid-api-key") }
    })
    .await;
    let error = client(&server.url, &state, 5).list().await.unwrap_err();
    assert_eq!(server.seen().len(), 1);
    insta::assert_debug_snapshot!((error.kind, &error.message, &error.hint), @r#"
    (
        Credentials,
        "Lambda refused GET /instances: No (`global/invalid-api-key`)",
        Some(
            "check `LAMBDA_API_KEY` (or the key file): the key may be mistyped or deleted; the Lambda console makes new ones",
        ),
    )
    "#);
}

#[tokio::test]
async fn the_key_does_not_follow_redirects() {
    let state = tempdir().unwrap();
    let thief = Server::scripted(vec![no_instances()]).await;
    for status in [301, 302, 307, 308] {
        let target = format!("{}/api/v1/instances?token=sekrit", thief.url.replace("127.0.0.1", "localhost"));
        let server = Server::scripted(vec![Reply::plain(status, "").with("location", &target)]).await;
        let error = client(&server.url, &state, 3).list().await.unwrap_err();
        nothing_leaks(&error);
        assert!(error.message.contains("was redirected to http://localhost:"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
    assert!(thief.seen().is_empty());
}

fn machine(id: &str) -> Value {
    json!({
        "id": id, "status": "terminating", "ssh_key_names": [], "file_system_names": [],
        "region": {"name": "us-west-1", "description": ""},
        "instance_type": {
            "name": "t", "description": "", "gpu_description": "", "price_cents_per_hour": 1,
            "specs": {"vcpus": 1, "memory_gib": 1, "storage_gib": 1, "gpus": 0}
        }
    })
}

/// A service that knows some machines and refuses a whole list if one of them is gone, or answers for some only.
#[tokio::test]
async fn terminating_ends_every_machine_that_is_there() {
    for forgetful in [false, true] {
        let state = tempdir().unwrap();
        let server = Server::start(move |seen| {
            let body: wire::InstanceIds = serde_json::from_slice(&seen.body).unwrap();
            let known: Vec<&String> = body.instance_ids.iter().filter(|id| *id != "gone").collect();
            let all_there = known.len() == body.instance_ids.len();
            match known.as_slice() {
                [] => error(404, "global/object-does-not-exist"),
                _ if !all_there && !forgetful => error(404, "global/object-does-not-exist"),
                known => {
                    let machines: Vec<Value> = known.iter().map(|id| machine(id)).collect();
                    Reply::json(200, &json!({"data": {"terminated_instances": machines}}))
                }
            }
        })
        .await;
        let ids: Vec<_> = ["a", "gone", "b"].iter().map(|id| InstanceId((*id).into())).collect();
        let cloud = client(&server.url, &state, 2);
        cloud.terminate(&ids).await.unwrap();
        cloud.terminate(&[]).await.unwrap();
        let asked: Vec<String> = server.seen().iter().map(|seen| seen.json()["instance_ids"].to_string()).collect();
        let expected: &[&str] = if forgetful {
            &[r#"["a","gone","b"]"#, r#"["gone"]"#]
        } else {
            &[r#"["a","gone","b"]"#, r#"["a"]"#, r#"["gone"]"#, r#"["b"]"#]
        };
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn a_launch_that_names_no_machine_or_two_is_unknown_and_names_them() {
    let state = tempdir().unwrap();
    for (ids, shown) in [(json!([]), "0 machines"), (json!(["i-1", "i-2"]), "2 machines instead of one (i-1, i-2)")] {
        let server = Server::scripted(vec![Reply::json(200, &json!({"data": {"instance_ids": ids}}))]).await;
        let error = client(&server.url, &state, 2).launch(&request(), &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::UnknownOutcome);
        assert!(error.message.contains(shown), "{error}");
    }
}

const CHILD: &str = "GORGO_TEST_WITHOUT_CERTIFICATES";

/// The body of a child process of the next test; does nothing when run as a test of its own.
#[test]
fn child_without_certificates() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    gorgo::cli::install_tls();
    let https = LambdaSettings::new(Endpoint::default(), Secret::new(KEY.into()), "/nowhere".into(), 1);
    let error = LambdaCloud::new(https.clone()).unwrap_err();
    println!("ERROR {error} HINT {}", error.hint.as_deref().unwrap());
    let loopback = Endpoint::parse("http://127.0.0.1:1").unwrap();
    println!("LOOPBACK {}", LambdaCloud::new(LambdaSettings { endpoint: loopback, ..https }).is_ok());
}

#[test]
fn a_machine_without_certificates_is_told_what_to_install() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::child_without_certificates", "--nocapture"])
        .env(CHILD, "1")
        .env("SSL_CERT_FILE", "/nonexistent/file")
        .env("SSL_CERT_DIR", "/nonexistent/folder")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ERROR this machine has no CA certificates to check Lambda's identity with"), "{text}");
    assert!(text.contains("HINT install the package `ca-certificates`"), "{text}");
    assert!(text.contains("LOOPBACK true"), "{text}");
}
