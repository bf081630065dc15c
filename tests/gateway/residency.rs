//! Every road by which a request of Paris could come to Virginia, and that none of them gets there.
//!
//! Class `eu-only` allows `europe-*`. The engines of Paris and Frankfurt may serve its requests; Virginia's must never see one.

use std::collections::BTreeMap;
use std::sync::Arc;

use gorgo::gateway::{AgentConfig, AuditTarget, GatewayConfig, GatewayHandle, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::Region;
use gorgo::routing::ReplicaKind;
use gorgo::routing::policy::registry::strategies;
use gorgo::routing::residency::Residency;
use gorgo::wire::{AuditEvent, Replicas};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Semaphore;

use super::admin::change;
use super::client::{Client, PLAIN, STREAM, chat, code, config, post, start, until, whole};
use super::keys::{Chat, KeyRing, audited, with_key};
use super::mock::{Answer, Mock, ROLE, Step, hello, send};

const PARIS: &str = "europe-west-9";
const FRANKFURT: &str = "europe-central-1";
const VIRGINIA: &str = "us-east-1";

fn residency(models: &[(&str, &str)]) -> Residency {
    let class = |name: &str, pattern: &str| (name.to_owned(), vec![pattern.to_owned()]);
    let classes = [class("eu-only", "europe-*"), class("any", "*"), class("nowhere", "moon-*")];
    let models = models.iter().map(|(model, class)| ((*model).to_owned(), (*class).to_owned())).collect();
    Residency { classes: classes.into(), models }
}

fn at(region: &str, mock: &Mock) -> ReplicaConfig {
    ReplicaConfig { engine: Some(&EMULATOR), ..ReplicaConfig::new(region, &mock.url(), region) }
}

/// A request of class `eu-only`, by its header.
fn restricted(mut request: Chat) -> Chat {
    request.headers_mut().insert("x-gorgo-residency", "eu-only".parse().unwrap());
    request
}

/// Engines in three regions behind a central router.
struct World {
    paris: Mock,
    frankfurt: Mock,
    virginia: Mock,
    router: GatewayHandle,
    go: Arc<Semaphore>,
}

/// What an engine does: a prompt with `wait` in it holds its place until told.
fn script(go: Arc<Semaphore>) -> impl Fn(&super::mock::Received) -> Answer + Send + Sync {
    move |received| {
        if memchr::memmem::find(&received.body, b"wait").is_some() {
            Answer::events(&[ROLE]).then(Step::Acquire(go.clone())).then(send("data: [DONE]\n\n"))
        } else {
            hello()
        }
    }
}

async fn world(strategy: &str, change: impl FnOnce(&mut GatewayConfig)) -> World {
    let go = Arc::new(Semaphore::new(0));
    let [paris, frankfurt, virginia] = [
        Mock::start(script(go.clone())).await,
        Mock::start(script(go.clone())).await,
        Mock::start(script(go.clone())).await,
    ];
    let mut config = config(strategy, &[]);
    config.routing.residency = residency(&[("medical-*", "eu-only")]);
    config.replicas = vec![at(VIRGINIA, &virginia), at(PARIS, &paris), at(FRANKFURT, &frankfurt)];
    // Some rules send nothing to engines at which requests wait.
    for engine in [&paris, &frankfurt, &virginia] {
        engine.set_waiting(0);
    }
    change(&mut config);
    let router = start(config).await;
    until("all healthy", || router.healthy() == 3).await;
    World { paris, frankfurt, virginia, router, go }
}

impl World {
    async fn ask(&self, request: Chat) -> http::Response<Incoming> {
        Client::connect(&self.router).await.send(request).await.unwrap()
    }

    /// The region that answered this request.
    async fn region(&self, request: Chat) -> String {
        let response = self.ask(request).await;
        let region = response.headers().get("x-gorgo-region").map(|region| region.to_str().unwrap().to_owned());
        let status = response.status();
        let (text, complete) = whole(response.into_body()).await;
        assert!(complete && status == 200, "{status} {text}");
        region.unwrap()
    }

    async fn refusal(&self, request: Chat) -> (u16, String) {
        code(self.ask(request).await).await
    }

    /// Takes Europe's engines out of rotation, or back in.
    async fn drain_europe(&self, draining: bool) {
        for name in [PARIS, FRANKFURT] {
            let drain = json!({"drain": {"name": name, "draining": draining}});
            let _: Replicas = change(&self.router, "/admin/v1/replicas", drain).await;
        }
    }

    fn virginia_saw(&self) -> usize {
        self.virginia.requests().len()
    }
}

fn said(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn about(prompt: &str) -> String {
    json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": prompt}]}).to_string()
}

#[tokio::test]
async fn a_header_narrows_what_a_key_allows_and_never_widens_it() {
    let ring = KeyRing::new();
    let (paris, free) = (ring.add("paris", &["eu-only"]), ring.add("free", &[]));
    let (nowhere, unknown) = (ring.add("nowhere", &["nowhere"]), ring.add("unknown", &["forgotten"]));
    let world = world("round-robin", |config| *config = ring.guard(config.clone())).await;
    let widening: [&[&str]; 5] = [&[], &["any"], &["any", "any"], &["any,any"], &["eu-only, any"]];
    for headers in widening {
        for _ in 0..3 {
            let mut request = with_key(chat(STREAM), &paris);
            for value in headers {
                request.headers_mut().append("x-gorgo-residency", value.parse().unwrap());
            }
            assert_ne!(world.region(request).await, VIRGINIA, "{headers:?}");
        }
    }
    for _ in 0..3 {
        assert_ne!(world.region(restricted(with_key(chat(STREAM), &free))).await, VIRGINIA, "narrowed");
    }
    // What only peers may say counts for nothing from a client, nor do names of replicas that it would like.
    let mut request = with_key(post("/v1/chat/completions?replica=us-east-1", STREAM), &paris);
    for (name, value) in [("x-gorgo-hop", "1"), ("x-gorgo-replica", VIRGINIA), ("x-gorgo-region", VIRGINIA)] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_ne!(world.region(request).await, VIRGINIA);
    assert_eq!(world.virginia_saw(), 0);

    let mut moon = with_key(chat(STREAM), &paris);
    moon.headers_mut().insert("x-gorgo-residency", "moon".parse().unwrap());
    assert_eq!(world.refusal(moon).await, said(403, "unknown_residency"));
    assert_eq!(world.refusal(with_key(chat(STREAM), &unknown)).await, said(403, "unknown_residency"));
    assert_eq!(world.refusal(with_key(chat(STREAM), &nowhere)).await, said(403, "residency"));
    assert_eq!(world.virginia_saw(), 0);
    // The same words without a class may go anywhere: the way is open, and was not taken.
    let mut regions: Vec<String> = Vec::new();
    for _ in 0..3 {
        regions.push(world.region(with_key(chat(STREAM), &free)).await);
    }
    assert!(regions.iter().any(|region| region == VIRGINIA), "{regions:?}");
}

#[tokio::test]
async fn a_model_brings_its_class_along_and_no_name_is_every_name() {
    let world = world("round-robin", |_| {}).await;
    let named = |model: &str| STREAM.replace("tiny", model);
    let unreadable = "{\"model\":\"medical-7b\",\"messages\":[";
    let bodies =
        [named("medical-7b"), named("medical-"), STREAM.replace("\"model\":\"tiny\",", ""), unreadable.to_owned()];
    for body in bodies {
        for class in [None, Some("any")] {
            for _ in 0..3 {
                let mut request = chat(body.clone());
                if let Some(class) = class {
                    request.headers_mut().insert("x-gorgo-residency", class.parse().unwrap());
                }
                assert_ne!(world.region(request).await, VIRGINIA, "{body}");
            }
        }
    }
    assert_eq!(world.virginia_saw(), 0);
}

#[tokio::test]
async fn a_retry_stays_where_the_first_attempt_had_to() {
    let world = world("gorgo", |_| {}).await;
    for mock in [&world.paris, &world.frankfurt] {
        mock.set(|_| Answer::events(&[]).after(Step::Die));
    }
    assert_eq!(world.refusal(restricted(chat(STREAM))).await, said(502, "all_tried"));
    let tried = |mock: &Mock| !mock.requests().is_empty();
    assert_eq!((tried(&world.paris), tried(&world.frankfurt), world.virginia_saw()), (true, true, 0));
    for mock in [&world.paris, &world.frankfurt] {
        mock.set(|_| Answer::json(503, "{}"));
    }
    let response = world.ask(restricted(chat(STREAM))).await;
    assert_eq!(response.status(), 503, "an engine's own words");
    assert_eq!(world.virginia_saw(), 0);
}

#[tokio::test]
async fn no_strategy_is_lured_by_a_session_or_a_cache_in_virginia() {
    for strategy in strategies() {
        let world = world(strategy.name, |_| {}).await;
        let prompt = about(&"the same words again ".repeat(200));
        let session = |body: &str| {
            let mut request = chat(body.to_owned());
            request.headers_mut().insert("x-gorgo-session", "s".parse().unwrap());
            request
        };
        world.drain_europe(true).await;
        for _ in 0..3 {
            assert_eq!(world.region(session(&prompt)).await, VIRGINIA, "{}", strategy.name);
        }
        world.drain_europe(false).await;
        let seen = world.virginia_saw();
        for _ in 0..6 {
            assert_ne!(world.region(restricted(session(&prompt))).await, VIRGINIA, "{}", strategy.name);
        }
        assert_eq!(world.virginia_saw(), seen, "{}", strategy.name);
    }
}

#[tokio::test]
async fn a_request_waits_for_europe_while_virginia_is_idle() {
    let world = world("gorgo", |config| {
        config.routing.max_concurrent = Some(1);
        config.routing.queue_limit = 1;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&world.router).await;
        let response = client.send(restricted(chat(about("wait")))).await.unwrap();
        held.push((client, response.into_body()));
    }
    assert_eq!((world.paris.active(), world.frankfurt.active()), (1, 1));
    let address = world.router.listen();
    let waiting = tokio::spawn(async move {
        let response = Client::at(address, None).await.send(restricted(chat(STREAM))).await.unwrap();
        response.headers()["x-gorgo-region"].to_str().unwrap().to_owned()
    });
    until("it waits", || world.router.counts().in_flight == 3).await;
    // Full is full: the queue has no second place, and Virginia is none either.
    assert_eq!(world.refusal(restricted(chat(STREAM))).await, said(429, "queue_full"));
    // What may go anywhere still goes there, past the one that waits.
    assert_eq!(world.region(chat(STREAM)).await, VIRGINIA);
    assert!(!waiting.is_finished());
    // Nor does another strategy, or a new replica over there, set it free.
    let _: serde_json::Value = change(&world.router, "/admin/v1/policy", json!({"strategy": "random"})).await;
    let more = json!({"add": {"name": "virginia-2", "url": world.virginia.url(), "region": VIRGINIA}});
    let _: Replicas = change(&world.router, "/admin/v1/replicas", more).await;
    until("it is in rotation", || world.router.healthy() == 4).await;
    assert!(!waiting.is_finished());
    world.go.add_permits(1);
    assert_ne!(waiting.await.unwrap(), VIRGINIA);
    world.go.add_permits(1);
    assert_eq!(world.virginia_saw(), 1);
}

#[tokio::test]
async fn without_europe_there_is_no_answer_rather_than_a_wrong_one() {
    let world = world("gorgo", |_| {}).await;
    world.drain_europe(true).await;
    assert_eq!(world.refusal(restricted(chat(STREAM))).await, said(503, "none_healthy"));
    // The name stays, the engine behind it moves: what counts is where it stands now.
    for name in [PARIS, FRANKFURT] {
        let moved = json!({"add": {"name": name, "url": world.virginia.url(), "region": VIRGINIA}});
        let _: Replicas = change(&world.router, "/admin/v1/replicas", moved).await;
    }
    until("all healthy", || world.router.healthy() == 3).await;
    assert_eq!(world.refusal(restricted(chat(STREAM))).await, said(403, "residency"));
    for name in [PARIS, FRANKFURT] {
        let _: Replicas = change(&world.router, "/admin/v1/replicas", json!({"remove": {"name": name}})).await;
    }
    assert_eq!(world.refusal(restricted(chat(STREAM))).await, said(403, "residency"));
    assert_eq!(world.virginia_saw(), 0);
}

#[tokio::test]
async fn refusals_and_ways_over_the_border_are_written_down_without_words_of_the_prompt() {
    let ring = KeyRing::new();
    let (free, nowhere) = (ring.add("free", &[]), ring.add("nowhere", &["nowhere"]));
    let world = world("round-robin", |config| {
        *config = ring.guard(config.clone());
        config.region = Some(Region::new(PARIS));
    })
    .await;
    for _ in 0..3 {
        world.region(with_key(chat(about("confidential words")), &free)).await;
    }
    world.refusal(with_key(chat(PLAIN), &nowhere)).await;
    let events = audited(&ring.audit(), 3).await;
    let mut to: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    let mut refused = Vec::new();
    for event in &events {
        match event {
            AuditEvent::Forward { from, to: region, key, .. } => {
                to.insert(region.clone(), (from.clone(), key.clone()));
            }
            AuditEvent::Refused { code, status, classes, key, .. } => {
                refused.push((code.as_str(), *status, classes.clone(), key.as_deref()));
            }
            AuditEvent::Tune(_) | AuditEvent::Dropped { .. } => panic!("nothing was tuned or dropped"),
        }
    }
    let from_paris = (Some(PARIS.to_owned()), Some("free".to_owned()));
    assert_eq!(to, [(FRANKFURT.to_owned(), from_paris.clone()), (VIRGINIA.to_owned(), from_paris)].into());
    assert_eq!(refused, [("residency", 403, vec!["nowhere".to_owned()], Some("nowhere"))]);
    let written = std::fs::read_to_string(ring.audit()).unwrap();
    assert!(!written.contains("confidential") && !written.contains(&free), "{written}");
}

/// An agent with an engine of its own, which says where it stands.
struct Node {
    engine: Mock,
    agent: GatewayHandle,
    go: Arc<Semaphore>,
    folder: tempfile::TempDir,
}

async fn node(name: &str, region: &str, residency: Residency) -> Node {
    let go = Arc::new(Semaphore::new(0));
    let engine = Mock::start(script(go.clone())).await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("round-robin", &[]);
    config.agent = Some(AgentConfig { name: name.to_owned(), region: Region::new(region) });
    config.routing.residency = residency;
    config.audit = AuditTarget::File(folder.path().join("audit.jsonl"));
    config.replicas.push(ReplicaConfig { engine: Some(&EMULATOR), ..ReplicaConfig::new(name, &engine.url(), region) });
    Node { engine, agent: start(config).await, go, folder }
}

/// Tells `node` of a peer, in whatever region it is said to stand.
fn introduce(node: &Node, name: &str, other: &Node, region: &str) {
    let peer = ReplicaConfig { kind: ReplicaKind::Peer, ..ReplicaConfig::new(name, &other.agent.url(), region) };
    node.agent.fleet().add(peer).unwrap();
}

/// Waits until so many replicas of a node are in rotation.
async fn settled(node: &Node, healthy: usize) {
    until("as many in rotation", || node.agent.healthy() == healthy).await;
}

async fn answered(node: &Node, request: Chat) -> String {
    let response = Client::connect(&node.agent).await.send(request).await.unwrap();
    let region = response.headers()["x-gorgo-region"].to_str().unwrap().to_owned();
    assert_eq!(response.status(), 200);
    assert!(whole(response.into_body()).await.1);
    region
}

#[tokio::test]
async fn agents_forward_inside_the_borders_and_tell_the_class() {
    let rules = || residency(&[("medical-*", "eu-only")]);
    let (paris, frankfurt) = (node("paris", PARIS, rules()).await, node("frankfurt", FRANKFURT, rules()).await);
    let virginia = node("virginia", VIRGINIA, rules()).await;
    let nodes = [("paris", &paris, PARIS), ("frankfurt", &frankfurt, FRANKFURT), ("virginia", &virginia, VIRGINIA)];
    for (own, node, _) in nodes {
        for (name, other, region) in nodes.iter().filter(|(name, ..)| *name != own) {
            introduce(node, name, other, region);
        }
    }
    for (_, node, _) in nodes {
        settled(node, 3).await;
    }
    for body in [STREAM.to_owned(), STREAM.replace("tiny", "medical-1")] {
        for _ in 0..6 {
            assert_ne!(answered(&paris, restricted(chat(body.clone()))).await, VIRGINIA);
        }
    }
    for _ in 0..6 {
        assert_ne!(answered(&paris, chat(STREAM.replace("tiny", "medical-1"))).await, VIRGINIA);
    }
    assert_eq!(virginia.engine.requests().len(), 0);
    let told = frankfurt.engine.requests();
    assert!(!told.is_empty() && told.iter().all(|request| request.headers["x-gorgo-residency"] == "eu-only"));
    let lines = audited(&paris.folder.path().join("audit.jsonl"), told.len()).await;
    let abroad = lines.iter().filter(|event| matches!(event, AuditEvent::Forward { to, .. } if to == FRANKFURT));
    assert_eq!(abroad.count(), told.len());

    // In Frankfurt's name: it would have to send on what it cannot serve, were Virginia allowed.
    frankfurt.engine.set_ready(503);
    settled(&frankfurt, 2).await;
    for _ in 0..4 {
        assert_eq!(answered(&frankfurt, restricted(chat(STREAM))).await, PARIS);
    }
    paris.engine.set_ready(503);
    settled(&frankfurt, 1).await;
    let response = Client::connect(&frankfurt.agent).await.send(restricted(chat(STREAM))).await.unwrap();
    assert_eq!(code(response).await, said(503, "none_healthy"));
    assert_eq!(virginia.engine.requests().len(), 0);
    let _ = (paris.go, virginia.folder);
}

#[tokio::test]
async fn a_peer_whose_region_is_a_lie_refuses_and_the_next_one_serves() {
    let rules = || residency(&[]);
    let (paris, frankfurt) = (node("paris", PARIS, rules()).await, node("frankfurt", FRANKFURT, rules()).await);
    let virginia = node("virginia", VIRGINIA, rules()).await;
    introduce(&paris, "liar", &virginia, "europe-south-1");
    introduce(&virginia, "paris", &paris, PARIS);
    settled(&paris, 2).await;
    settled(&virginia, 2).await;
    paris.engine.set_ready(503);
    settled(&paris, 1).await;
    let response = Client::connect(&paris.agent).await.send(restricted(chat(STREAM))).await.unwrap();
    assert_eq!(code(response).await, said(403, "residency"), "the client gets no 421: it asked the right router");
    introduce(&paris, "frankfurt", &frankfurt, FRANKFURT);
    introduce(&frankfurt, "paris", &paris, PARIS);
    settled(&paris, 2).await;
    for _ in 0..6 {
        assert_eq!(answered(&paris, restricted(chat(STREAM))).await, FRANKFURT);
    }
    assert_eq!(virginia.engine.requests().len(), 0);
    assert_eq!(paris.agent.healthy(), 2, "to be in the wrong place is no illness");
    let lines = audited(&virginia.folder.path().join("audit.jsonl"), 1).await;
    assert!(lines.iter().all(|event| matches!(event, AuditEvent::Refused { status: 421, .. })), "{lines:?}");
    // What may go anywhere is served there as ever.
    assert!(answered(&paris, chat(STREAM)).await.len() > 3);
}

#[tokio::test]
async fn a_peer_that_does_not_know_the_class_fails_closed() {
    let paris = node("paris", PARIS, residency(&[])).await;
    let frankfurt = node("frankfurt", FRANKFURT, Residency::default()).await;
    introduce(&paris, "frankfurt", &frankfurt, FRANKFURT);
    introduce(&frankfurt, "paris", &paris, PARIS);
    settled(&paris, 2).await;
    for _ in 0..4 {
        assert_eq!(answered(&paris, restricted(chat(STREAM))).await, PARIS);
    }
    assert_eq!(frankfurt.engine.requests().len(), 0);
    let lines = audited(&frankfurt.folder.path().join("audit.jsonl"), 1).await;
    let told = |event: &AuditEvent| match event {
        AuditEvent::Refused { code, classes, .. } => code == "unknown_residency" && classes == &["eu-only"],
        _ => false,
    };
    assert!(lines.iter().all(told), "{lines:?}");
}
