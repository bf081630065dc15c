//! API keys of clients: who is let in, who is not any more, and that no key goes further than it must.

use std::path::{Path, PathBuf};

use gorgo::gateway::keys::file::{Grant, change};
use gorgo::gateway::keys::token::Token;
use gorgo::gateway::{AuditTarget, GatewayConfig, GatewayHandle};
use gorgo::model::Secret;
use gorgo::wire::{AuditEvent, AuditLine};
use http::Request;
use http_body_util::Full;

use super::client::{BOUND, Client, PLAIN, chat, code, config, get, start, whole};
use super::mock::{Answer, Mock, REPLY};

/// A file of keys in a folder of its own, and an audit log beside it.
pub(super) struct KeyRing {
    folder: tempfile::TempDir,
}

impl KeyRing {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    /// A new key; gives its text.
    pub(super) fn add(&self, name: &str, residency: &[&str]) -> String {
        let residency = residency.iter().map(|class| (*class).to_owned()).collect();
        self.grant(name, &Grant { residency, class: None })
    }

    /// A new key with a class of service of its own.
    pub(super) fn of_class(&self, name: &str, class: &str) -> String {
        self.grant(name, &Grant { residency: Vec::new(), class: Some(class.to_owned()) })
    }

    fn grant(&self, name: &str, grant: &Grant) -> String {
        let token = Token::generate().unwrap();
        change(&self.path(), |file| file.add(name, grant, &token, "now").map(|_| ())).unwrap();
        token.text().reveal().to_owned()
    }

    pub(super) fn revoke(&self, name: &str) {
        change(&self.path(), |file| file.revoke(name, "now").map(|_| ())).unwrap();
    }

    pub(super) fn audit(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    /// With these keys and an audit log.
    pub(super) fn guard(&self, mut config: GatewayConfig) -> GatewayConfig {
        config.api_keys = Some(self.path());
        config.audit = AuditTarget::File(self.audit());
        config
    }
}

pub(super) type Chat = Request<Full<bytes::Bytes>>;

/// A request with this key, if any.
pub(super) fn with_key(mut request: Chat, key: &str) -> Chat {
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

/// The lines of an audit log, once there are so many.
pub(super) async fn audited(path: &Path, lines: usize) -> Vec<AuditEvent> {
    let read = || -> Vec<AuditEvent> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| Some(serde_json::from_str::<AuditLine>(line).ok()?.event)).collect()
    };
    super::client::until("audited", || read().len() >= lines).await;
    read()
}

/// Status and code of a request with this key.
async fn asked(gateway: &GatewayHandle, key: &str) -> (u16, String) {
    let response = Client::connect(gateway).await.send(with_key(chat(PLAIN), key)).await.unwrap();
    if response.status() == 200 { (200, String::new()) } else { code(response).await }
}

/// Asks until the status is this: files are looked at once a second.
async fn becomes(gateway: &GatewayHandle, key: &str, status: u16) {
    let asking = async { while asked(gateway, key).await.0 != status {} };
    tokio::time::timeout(BOUND, asking).await.unwrap_or_else(|_| panic!("not {status} within {BOUND:?}"));
}

#[tokio::test]
async fn only_who_has_a_key_is_let_in_and_health_is_open() {
    let ring = KeyRing::new();
    let key = ring.add("ann", &[]);
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let gateway = start(ring.guard(config("gorgo", &[&mock]))).await;
    let mut client = Client::connect(&gateway).await;

    let response = client.send(chat(PLAIN)).await.unwrap();
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert_eq!(code(response).await, (401, "missing_api_key".to_owned()));
    let mut last = key.clone();
    let changed = if last.pop() == Some('0') { '1' } else { '0' };
    last.push(changed);
    for wrong in ["sk-1", "gorgo-", &key[..key.len() - 1], &format!("{key}0"), &last, &key.to_uppercase()] {
        assert_eq!(asked(&gateway, wrong).await, (401, "invalid_api_key".to_owned()), "{wrong}");
    }
    assert_eq!(mock.requests().len(), 0);

    let response = client.send(with_key(chat(PLAIN), &key)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(whole(response.into_body()).await, (REPLY.to_owned(), true));
    let mut other_header = chat(PLAIN);
    other_header.headers_mut().insert("x-api-key", key.parse().unwrap());
    assert_eq!(client.send(other_header).await.unwrap().status(), 200);

    assert_eq!(Client::connect(&gateway).await.send(get("/health")).await.unwrap().status(), 200);
    for path in ["/v1/models", "/v1/models/tiny"] {
        let mut client = Client::connect(&gateway).await;
        assert_eq!(code(client.send(get(path)).await.unwrap()).await, (401, "missing_api_key".to_owned()));
        assert_eq!(client.send(with_key(get(path), &key)).await.unwrap().status(), 200);
    }
    // Nine refusals, and two ways out of a router that does not know where it stands.
    let events = audited(&ring.audit(), 11).await;
    let refused = events.iter().filter(|event| matches!(event, AuditEvent::Refused { status: 401, key: None, .. }));
    assert_eq!((events.len(), refused.count()), (11, 9));
    let written = std::fs::read_to_string(ring.audit()).unwrap();
    assert!(!written.contains("gorgo-"), "no key, not even a wrong one: {written}");
}

#[tokio::test]
async fn a_key_is_revoked_and_another_added_without_a_restart() {
    let ring = KeyRing::new();
    let (ann, bob) = (ring.add("ann", &[]), ring.add("bob", &[]));
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let gateway = start(ring.guard(config("gorgo", &[&mock]))).await;
    assert_eq!((asked(&gateway, &ann).await.0, asked(&gateway, &bob).await.0), (200, 200));

    ring.revoke("ann");
    becomes(&gateway, &ann, 401).await;
    assert_eq!(asked(&gateway, &bob).await.0, 200);
    let new = ring.add("ann", &[]);
    becomes(&gateway, &new, 200).await;
    assert_eq!(asked(&gateway, &ann).await.0, 401, "the name is the same, the key is not");

    // Half an edit locks nobody out, and lets nobody in.
    let text = std::fs::read_to_string(ring.path()).unwrap();
    std::fs::write(ring.path(), &text[..text.len() / 2]).unwrap();
    let cleo = {
        let whole = KeyRing::new();
        std::fs::write(whole.path(), &text).unwrap();
        std::fs::set_permissions(whole.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let cleo = whole.add("cleo", &[]);
        assert_eq!((asked(&gateway, &new).await.0, asked(&gateway, &ann).await.0), (200, 401));
        std::fs::rename(whole.path(), ring.path()).unwrap();
        cleo
    };
    becomes(&gateway, &cleo, 200).await;
    assert_eq!(asked(&gateway, &new).await.0, 200);
}

#[tokio::test]
async fn an_engine_gets_its_own_key_and_never_a_clients() {
    let ring = KeyRing::new();
    let key = ring.add("ann", &[]);
    let (plain, guarded) =
        (Mock::start(|_| Answer::json(200, REPLY)).await, Mock::start(|_| Answer::json(200, REPLY)).await);
    let mut config = ring.guard(config("round-robin", &[&plain, &guarded]));
    config.replicas[1].api_key = Some(Secret::new("engine-key".into()));
    let gateway = start(config).await;
    for _ in 0..4 {
        let mut request = with_key(chat(PLAIN), &key);
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        assert_eq!(Client::connect(&gateway).await.send(request).await.unwrap().status(), 200);
    }
    let sent = |mock: &Mock, name: &str| -> Vec<Option<String>> {
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        mock.requests().iter().map(|request| request.headers.get(name).map(text)).collect()
    };
    assert_eq!((sent(&plain, "authorization"), sent(&plain, "x-api-key")), (vec![None; 2], vec![None; 2]));
    let engines = vec![Some("Bearer engine-key".to_owned()); 2];
    assert_eq!((sent(&guarded, "authorization"), sent(&guarded, "x-api-key")), (engines, vec![None; 2]));

    let secret = key.rsplit('-').next().unwrap();
    for path in ["/admin/v1/decisions", "/admin/v1/replicas", "/admin/v1/status", "/metrics"] {
        let shown = super::admin::text(&gateway, path).await;
        assert!(!shown.contains(secret) && !shown.contains("engine-key"), "{path}: {shown}");
    }
}

#[tokio::test]
async fn without_a_file_of_keys_nothing_is_asked_and_nothing_taken_away() {
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let gateway = start(config("gorgo", &[&mock])).await;
    assert_eq!(asked(&gateway, "the-engines-own").await.0, 200);
    assert_eq!(mock.requests()[0].headers["authorization"], "Bearer the-engines-own");
    // But for a key of ours, which another router has let in: it is of no use to an engine.
    let mut request = with_key(chat(PLAIN), &KeyRing::new().add("ann", &[]));
    request.headers_mut().insert("x-api-key", "the-engines-own".parse().unwrap());
    assert_eq!(Client::connect(&gateway).await.send(request).await.unwrap().status(), 200);
    let headers = &mock.requests()[1].headers;
    assert!(!headers.contains_key("authorization") && headers["x-api-key"] == "the-engines-own");
}

#[tokio::test]
async fn a_router_does_not_start_with_keys_that_it_cannot_trust() {
    let ring = KeyRing::new();
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let error = async || {
        let started = gorgo::gateway::Gateway::start(ring.guard(config("gorgo", &[&mock]))).await;
        format!("{:#}", started.err().expect("refused"))
    };
    assert!(error().await.contains("keys.toml"), "there is none");
    ring.add("ann", &[]);
    std::fs::set_permissions(ring.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    assert!(error().await.contains("mode 0666"));
}
