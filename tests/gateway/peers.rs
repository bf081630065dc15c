//! Agents that tell each other how they are, over real sockets and lines that are cut and mended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gorgo::emulator::wan::{self, Jitter, WanHandle, WanOptions};
use gorgo::gateway::{AgentConfig, Gateway, GatewayHandle, PeerSettings, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::Region;
use gorgo::routing::{BLOCK_BYTES, ReplicaKind};
use gorgo::wire::peer::{Figure, Figures, Frame, FrameDecoder, Hello};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{BOUND, Client, STREAM, chat, code, config, get, piece, until, whole};
use super::mock::{Answer, HELLO, Mock, ROLE, Received, Step, hello, send};

/// Quick enough for tests; a busy machine does not look like a silent one.
const QUICK: PeerSettings = PeerSettings {
    every: Duration::from_millis(20),
    silence: Duration::from_millis(1500),
    retry_first: Duration::from_millis(10),
    retry_most: Duration::from_millis(100),
};

/// The same where nothing may look silent, however long the machine takes to mend what a test has cut.
const PATIENT: PeerSettings = PeerSettings { silence: Duration::from_secs(15), ..QUICK };

/// Longest pause inside a stream: longer than it takes to notice that a line is cut.
const PAUSE: Duration = Duration::from_millis(5000);

/// A node: an engine, the agent beside it, and the line on which the others reach it.
struct Node {
    name: &'static str,
    engine: Mock,
    agent: GatewayHandle,
    line: WanHandle,
    /// Ends one blocked request per permit.
    go: Arc<Semaphore>,
}

/// A prompt with `hold` in it is answered, but for its end, when told; of one with `talk` a token comes before; one with `wait` holds its
/// place without a word until then.
fn script(go: Arc<Semaphore>) -> impl Fn(&Received) -> Answer + Send + Sync {
    move |received| {
        let has = |word: &[u8]| memchr::memmem::find(&received.body, word).is_some();
        if has(b"hold") {
            Answer::events(&[ROLE]).then(Step::Acquire(go.clone())).then(send("data: [DONE]\n\n"))
        } else if has(b"talk") {
            Answer::events(&[ROLE, HELLO]).then(Step::Acquire(go.clone())).then(send("data: [DONE]\n\n"))
        } else if has(b"wait") {
            hello().after(Step::Acquire(go.clone()))
        } else {
            hello()
        }
    }
}

async fn agent(
    name: &str,
    engine: &Mock,
    (strategy, peers): (&str, PeerSettings),
    listen: SocketAddr,
) -> GatewayHandle {
    let mut config = config(strategy, &[]);
    config.listen = listen;
    config.peers = peers;
    config.limits.stream_timeout = PAUSE;
    config.agent = Some(AgentConfig { name: name.to_owned(), region: Region::new(&format!("region-{name}")) });
    config.routing.residency.classes = [("only-a".to_owned(), vec!["region-a".to_owned()])].into();
    let mut own = ReplicaConfig::new(name, &engine.url(), &format!("region-{name}"));
    own.engine = Some(&EMULATOR);
    config.replicas.push(own);
    super::client::start(config).await
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn peer(name: &str, address: SocketAddr) -> ReplicaConfig {
    let kind = ReplicaKind::Peer;
    ReplicaConfig { kind, ..ReplicaConfig::new(name, &format!("http://{address}"), &format!("region-{name}")) }
}

async fn node(name: &'static str, strategy: &str) -> Node {
    node_with(name, (strategy, QUICK)).await
}

async fn node_with(name: &'static str, settings: (&str, PeerSettings)) -> Node {
    let go = Arc::new(Semaphore::new(0));
    let engine = Mock::start(script(go.clone())).await;
    let agent = agent(name, &engine, settings, any()).await;
    let options = WanOptions { listen: any(), to: agent.listen(), rtt_ms: 1.0, jitter: Jitter::None, seed: 1 };
    let line = wan::start(options).await.unwrap();
    Node { name, engine, agent, line, go }
}

/// Nodes that all know each other and have heard of each other.
async fn cluster<const N: usize>(names: [&'static str; N], strategy: &str) -> [Node; N] {
    cluster_with(names, (strategy, QUICK)).await
}

async fn cluster_with<const N: usize>(names: [&'static str; N], settings: (&str, PeerSettings)) -> [Node; N] {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(node_with(name, settings.clone()).await);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.name != node.name) {
            node.agent.fleet().add(peer(other.name, other.line.address())).unwrap();
        }
    }
    for node in &nodes {
        until("all healthy", || node.agent.healthy() == N).await;
    }
    nodes.try_into().ok().expect("as many nodes as names")
}

/// A figure of a peer on an agent's page of metrics; NaN counts as missing.
async fn metric(agent: &GatewayHandle, name: &str, peer: &str) -> Option<f64> {
    let (status, page) = super::admin::ask(agent, "GET", "/metrics", String::new()).await;
    assert_eq!(status, 200);
    let start = format!("gorgo_{name}{{replica=\"{peer}\"");
    let line = page.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next()?.parse().ok().filter(|value: &f64| !value.is_nan())
}

/// Waits until a figure is so.
async fn until_metric(agent: &GatewayHandle, name: &str, peer: &str, so: impl Fn(f64) -> bool) {
    let waiting = async {
        while !metric(agent, name, peer).await.is_some_and(&so) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("{name} of {peer}: not within {BOUND:?}"));
}

/// A prompt of so many tokens, told apart by its first word.
fn prompt(word: &str, tokens: usize) -> Bytes {
    let text = format!("{word} {}", word.repeat(tokens * 4 / word.len()));
    json!({"model": "tiny", "stream": true, "messages": [{"role": "user", "content": text}]}).to_string().into()
}

/// Sends a request; where it went, and the decision.
async fn explained(agent: &GatewayHandle, body: Bytes) -> (String, Value) {
    let mut request = chat(body);
    request.headers_mut().insert("x-gorgo-explain", "1".parse().unwrap());
    let response = Client::connect(agent).await.send(request).await.unwrap();
    let decision = serde_json::from_slice(response.headers()["x-gorgo-decision"].as_bytes()).unwrap();
    let replica = replica(&response).to_owned();
    assert!(whole(response.into_body()).await.1);
    (replica, decision)
}

/// What a decision says of a replica.
fn of<'a>(decision: &'a Value, replica: &str) -> &'a Value {
    let mut candidates = decision["candidates"].as_array().expect("candidates").iter();
    candidates.find(|candidate| candidate["replica"] == replica).unwrap_or_else(|| panic!("{replica} in {decision}"))
}

fn term(decision: &Value, replica: &str, name: &str) -> f64 {
    let terms = of(decision, replica)["terms"].as_array().expect("terms");
    terms.iter().find(|term| term["name"] == name).expect(name)["value"].as_f64().expect("a number")
}

fn replica(response: &Response<Incoming>) -> &str {
    response.headers()["x-gorgo-replica"].to_str().unwrap()
}

/// Requests that a node's own engine holds.
async fn fill(node: &Node, requests: usize) -> Vec<(Client, Incoming)> {
    let mut held = Vec::new();
    for i in 0..requests {
        let mut client = Client::connect(&node.agent).await;
        let mut request = chat(prompt(&format!("hold{i}"), 2000));
        // As if a peer had sent it, so that it stays.
        request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
        let response = client.send(request).await.unwrap();
        assert_eq!(replica(&response), node.name);
        held.push((client, response.into_body()));
    }
    held
}

#[tokio::test]
async fn a_peers_load_is_in_its_cost_and_what_was_sent_there_counts_once() {
    let [a, b] = cluster(["a", "b"], "gorgo-v3").await;
    let (_, idle) = explained(&a.agent, prompt("first", 10)).await;
    assert_eq!(term(&idle, "b", "queue"), 0.0);
    let held = fill(&b, 2).await;
    // Half of 4,000 tokens, as soon as it has been told and no longer looks like a moment's.
    let mut cost = 0.0;
    let waiting = async {
        while cost < 1900.0 {
            cost = term(&explained(&a.agent, prompt("next", 10)).await.1, "b", "queue");
        }
    };
    timeout(BOUND, waiting).await.expect("it is told");
    assert!(cost < 2200.0, "{cost}");
    // Now as if `a` itself had sent a third there: `b` tells it of two all the same.
    let mut third = chat(prompt("hold3", 2000));
    third.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
    third.headers_mut().insert("x-gorgo-peer", "a".parse().unwrap());
    let mut client = Client::connect(&b.agent).await;
    let third_answer = client.send(third).await.unwrap();
    let told = listen(&b.agent, "a", |figures| figures.get(Figure::Running) == Some(3)).await;
    let figure = |figure| told.get(figure).expect("told");
    let (running, pending, decoding) = (figure(Figure::Running), figure(Figure::Pending), figure(Figure::Decoding));
    assert_eq!((running, pending + decoding), (3, 2), "its own are left out");
    drop((held, third_answer));
}

/// Reads an agent's stream under this name until its figures are so.
async fn listen(agent: &GatewayHandle, name: &str, so: impl Fn(&Figures) -> bool) -> Figures {
    let mut stream = Stream::open(agent, name).await;
    let mut figures = Figures::default();
    loop {
        if let Frame::State(state) = stream.frame().await.expect("no end") {
            figures.apply(&state.changes);
            if so(&figures) {
                return figures;
            }
        }
    }
}

/// An agent's stream as a peer reads it.
struct Stream {
    body: Incoming,
    decoder: FrameDecoder,
    _client: Client,
}

impl Stream {
    async fn open(agent: &GatewayHandle, name: &str) -> Self {
        let mut client = Client::connect(agent).await;
        let response = client.send(ask(name)).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "application/vnd.gorgo.peer-stream");
        Self { body: response.into_body(), decoder: FrameDecoder::default(), _client: client }
    }

    /// The next frame; `None` = the stream has ended as it should.
    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.frame().expect("frames") {
                return Some(frame);
            }
            let piece = timeout(BOUND, self.body.frame()).await.expect("a piece in time")?;
            self.decoder.push(&piece.expect("no break").into_data().expect("data"));
        }
    }

    async fn hello(&mut self) -> Hello {
        match self.frame().await {
            Some(Frame::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }
}

fn ask(name: &str) -> Request<Full<Bytes>> {
    let mut request = get("/gorgo/v1/peer/stream");
    request.headers_mut().insert("x-gorgo-peer", name.parse().unwrap());
    request
}

#[tokio::test]
async fn a_prefix_that_only_the_peer_has_seen_is_known_and_residency_is_kept() {
    let [a, b, c] = cluster(["a", "b", "c"], "gorgo-v3").await;
    // Seen by `a` alone: once for everybody, once in a class that allows `a`'s region only.
    for (word, class) in [("public", None), ("secret", Some("only-a"))] {
        let mut request = chat(prompt(word, 1000));
        request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
        if let Some(class) = class {
            request.headers_mut().insert("x-gorgo-residency", class.parse().unwrap());
        }
        let response = Client::connect(&a.agent).await.send(request).await.unwrap();
        assert_eq!(replica(&response), "a");
        assert!(whole(response.into_body()).await.1);
    }
    let most = (4_000 / BLOCK_BYTES) as f64;
    for node in [&b, &c] {
        until_metric(&node.agent, "peer_digest_blocks", "a", |blocks| blocks > 0.0).await;
        assert!(metric(&node.agent, "peer_digest_blocks", "a").await.unwrap() <= most, "of one prompt, not of two");
    }
    let cached = |decision: &Value| of(decision, "a")["cached_tokens"].as_u64().expect("tokens");
    let (_, secret) = explained(&b.agent, prompt("secret", 1000)).await;
    assert_eq!(cached(&secret), 0);
    let (went, public) = explained(&b.agent, prompt("public", 1000)).await;
    assert!(cached(&public) > 700 && went == "a", "{public}");
}

#[tokio::test]
async fn a_dead_peer_is_left_alone_and_one_that_comes_back_without_its_cache_is_believed_to_have_none() {
    let [a, b] = cluster(["a", "b"], "gorgo-v3").await;
    let mut request = chat(prompt("long", 1000));
    request.headers_mut().insert("x-gorgo-hop", "1".parse().unwrap());
    assert!(whole(Client::connect(&b.agent).await.send(request).await.unwrap().into_body()).await.1);
    until_metric(&a.agent, "peer_digest_blocks", "b", |blocks| blocks > 0.0).await;
    let address = b.agent.listen();
    drop(b.agent);
    until("out of rotation", || a.agent.healthy() == 1).await;
    let (went, _) = explained(&a.agent, prompt("long", 1000)).await;
    assert_eq!(went, "a", "served by whoever can");
    let again = agent("b", &b.engine, ("gorgo-v3", QUICK), address).await;
    again.fleet().add(peer("a", a.line.address())).unwrap();
    until("back in rotation", || a.agent.healthy() == 2).await;
    until_metric(&a.agent, "peer_digest_blocks", "b", |blocks| blocks == 0.0).await;
    let (_, decision) = explained(&a.agent, prompt("long", 1000)).await;
    assert_eq!(of(&decision, "b")["cached_tokens"], 0);
}

/// A peer that takes connections and does with them as told.
async fn odd_peer(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // Each on its own: some are opened ahead of need and ask nothing.
            connections.spawn(async move {
                let mut head = [0; 4096];
                while let Ok(1..) = stream.read(&mut head).await {
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_gets_nothing() {
    let a = node("a", "round-robin").await;
    let mute = odd_peer(b"").await;
    a.agent.fleet().add(peer("mute", mute)).unwrap();
    for i in 0..20 {
        assert_eq!(explained(&a.agent, prompt(&format!("p{i}"), 10)).await.0, "a");
    }
    let waiting = async {
        loop {
            let known: gorgo::wire::Replicas = super::admin::get(&a.agent, "/admin/v1/replicas").await;
            if known.replicas[1].health == gorgo::wire::Health::Unhealthy {
                return known.replicas[1].health_reason.clone().unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reason = timeout(BOUND, waiting).await.expect("out of rotation");
    assert!(reason.contains("said nothing"), "{reason}");
    assert_eq!(metric(&a.agent, "peer_connects_total", "mute").await, Some(0.0));
}

#[tokio::test]
async fn a_peer_that_talks_nonsense_is_not_listened_to() {
    let a = node("a", "round-robin").await;
    let odd = [
        // No frames, a frame before the hello, a version of another time.
        ("noise", &b"HTTP/1.1 200 OK\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..]),
        ("rude", &b"HTTP/1.1 200 OK\r\n\r\n\x02\x02\x02\x01"[..]),
        ("newer", &b"HTTP/1.1 200 OK\r\n\r\n\x01\x04\x02\x09\x04\x09"[..]),
    ];
    for (name, answer) in odd {
        a.agent.fleet().add(peer(name, odd_peer(answer).await)).unwrap();
    }
    for (name, _) in odd {
        until_metric(&a.agent, "peer_malformed_total", name, |times| times >= 3.0).await;
    }
    assert_eq!(a.agent.healthy(), 1);
    assert_eq!(explained(&a.agent, prompt("x", 10)).await.0, "a");
}

#[tokio::test]
async fn an_agent_of_an_older_version_is_asked_as_ever() {
    let a = node("a", "round-robin").await;
    // The mock has the document and no stream.
    let older = Mock::start(|_| hello()).await;
    a.agent.fleet().add(peer("older", older.address)).unwrap();
    until("healthy", || a.agent.healthy() == 2).await;
    assert_eq!(metric(&a.agent, "peer_state_age_seconds", "older").await, None);
    assert_eq!(metric(&a.agent, "replica_engine_running", "older").await, Some(0.0));
}

#[tokio::test]
async fn a_cut_line_is_noticed_what_waits_behind_it_goes_elsewhere_and_it_heals() {
    let [a, b, c] = cluster(["a", "b", "c"], "round-robin").await;
    // Three requests in turn: one waits at each, before the head of its answer.
    let agent = a.agent.listen();
    let ask = |i: usize| async move {
        let response = Client::at(agent, None).await.chat(prompt(&format!("wait{i}"), 10)).await;
        (response.status().as_u16(), replica(&response).to_owned())
    };
    let waiting: Vec<_> = (0..3).map(|i| tokio::spawn(ask(i))).collect();
    until("one at each", || [&a, &b, &c].iter().all(|node| node.engine.active() == 1)).await;
    b.line.cut();
    until("out of rotation", || a.agent.healthy() == 2).await;
    until("sent elsewhere", || a.engine.active() + c.engine.active() == 3).await;
    a.go.add_permits(2);
    c.go.add_permits(2);
    for answer in waiting {
        let (status, replica) = answer.await.unwrap();
        assert!(status == 200 && replica != "b", "{status} by {replica}");
    }
    for i in 0..6 {
        assert_ne!(explained(&a.agent, prompt(&format!("p{i}"), 10)).await.0, "b");
    }
    // Others reach it over the same line: they have lost it, too, and it has lost nobody.
    until("c notices as well", || c.agent.healthy() == 2).await;
    assert_eq!(b.agent.healthy(), 3, "the others' lines are whole");
    b.line.restore();
    until("healed", || a.agent.healthy() == 3 && c.agent.healthy() == 3).await;
    let mut went = Vec::new();
    for i in 0..3 {
        went.push(explained(&a.agent, prompt(&format!("q{i}"), 10)).await.0);
    }
    went.sort();
    assert_eq!(went, ["a", "b", "c"]);
    b.go.add_permits(1);
}

/// Whose first tokens are out stays where it is: it goes on after a short cut, and after a long one it ends as broken.
#[tokio::test]
async fn a_stream_behind_a_cut_line_goes_on_or_ends_and_is_never_repeated() {
    let [a, b] = cluster(["a", "b"], "round-robin").await;
    for (round, heals) in [true, false].into_iter().enumerate() {
        let mut streams = Vec::new();
        for i in 0..2 {
            let mut client = Client::connect(&a.agent).await;
            let response = client.chat(prompt(&format!("talk{round}{i}"), 10)).await;
            let mut body = (replica(&response).to_owned(), response.into_body());
            assert!(piece(&mut body.1).await.expect("a token").is_ok());
            streams.push((client, body));
        }
        b.line.cut();
        until("noticed", || a.agent.healthy() == 1).await;
        a.go.add_permits(1);
        b.go.add_permits(1);
        if heals {
            b.line.restore();
        }
        let mut ended = Vec::new();
        for (_client, (replica, body)) in streams {
            let (text, complete) = whole(body).await;
            let event = if text.ends_with("[DONE]\n\n") { "done" } else { "broken" };
            assert!(complete && (event == "done") != text.contains("it was silent for 5 s"), "{text}");
            ended.push((replica, event));
        }
        ended.sort();
        let of_b = if heals { "done" } else { "broken" };
        assert_eq!(ended, [("a".to_owned(), "done"), ("b".to_owned(), of_b)]);
        b.line.restore();
        until("healed", || a.agent.healthy() == 2).await;
    }
    assert_eq!((a.engine.requests().len(), b.engine.requests().len()), (2, 2));
    assert_eq!(a.agent.counts().retried, 0);
}

#[tokio::test]
async fn a_short_break_changes_nothing() {
    let [a, b] = cluster_with(["a", "b"], ("round-robin", PATIENT)).await;
    let connects = metric(&a.agent, "peer_connects_total", "b").await;
    for _ in 0..3 {
        b.line.cut();
        // What is known grows old; nothing else happens.
        until_metric(&a.agent, "peer_state_age_seconds", "b", |age| age > 0.3).await;
        assert_eq!(a.agent.healthy(), 2);
        b.line.restore();
        until_metric(&a.agent, "peer_state_age_seconds", "b", |age| age < 0.2).await;
        assert_eq!(a.agent.healthy(), 2);
    }
    assert_eq!(metric(&a.agent, "peer_connects_total", "b").await, connects, "the same stream");
    // Connections that are reset are made anew, without a change of health.
    b.line.reset_connections();
    until_metric(&a.agent, "peer_connects_total", "b", |times| Some(times) > connects).await;
    assert_eq!(a.agent.healthy(), 2);
    assert!(metric(&a.agent, "peer_received_bytes_total", "b").await > Some(100.0));
    assert!(metric(&b.agent, "peer_sent_bytes_total", "a").await > Some(100.0));
}

#[tokio::test]
async fn an_agent_that_leaves_says_so() {
    let [a, b] = cluster(["a", "b"], "round-robin").await;
    let mut stream = Stream::open(&b.agent, "a").await;
    let hello = stream.hello().await;
    assert_eq!((hello.name.as_str(), hello.region.as_str(), hello.version), ("b", "region-b", 1));
    // The agent itself asks anew when its stream is superseded, and then ours ends.
    let mut again = Stream::open(&b.agent, "a").await;
    let other = again.hello().await;
    assert_eq!(other.epoch, hello.epoch);
    while let Some(frame) = stream.frame().await {
        assert!(!matches!(frame, Frame::Hello(_)));
    }
    let (drained, leaving) = tokio::join!(timeout(BOUND, b.agent.drain()), async {
        let mut figures = Figures::default();
        let mut stream = Some(again);
        while let Some(open) = &mut stream {
            match open.frame().await {
                Some(Frame::State(state)) => figures.apply(&state.changes),
                Some(_) => {}
                None => stream = None,
            }
        }
        figures
    });
    assert_eq!(drained, Ok(true), "streams do not hold up the end");
    // Superseded by the real peer, or told in the last word: in either case the peer knows.
    if leaving.get(Figure::Draining) == Some(0) {
        until("gone", || a.agent.healthy() == 1).await;
    }
    for i in 0..4 {
        assert_eq!(explained(&a.agent, prompt(&format!("p{i}"), 10)).await.0, "a");
    }
}

/// Needs a second loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn strangers_get_no_stream() {
    let [a, _b] = cluster(["a", "b"], "gorgo").await;
    let cases = [("127.0.0.1", "c"), ("127.0.0.1", "a"), ("127.0.0.2", "b")];
    for (from, name) in cases {
        let mut stranger = Client::at(a.agent.listen(), Some(from.parse().unwrap())).await;
        let response = stranger.send(ask(name)).await.unwrap();
        assert_eq!(code(response).await, (404, "unknown_path".to_owned()), "{name} from {from}");
    }
    let mut nameless = Client::connect(&a.agent).await;
    let response = nameless.send(get("/gorgo/v1/peer/stream")).await.unwrap();
    assert_eq!(code(response).await.0, 404);
    let mut post = ask("b");
    *post.method_mut() = http::Method::POST;
    assert_eq!(code(nameless.send(post).await.unwrap()).await.0, 405);
    // A client's own words about peers go no further.
    let mut request = chat(STREAM);
    request.headers_mut().insert("x-gorgo-peer", "b".parse().unwrap());
    let mut client = Client::at(a.agent.listen(), Some("127.0.0.2".parse().unwrap())).await;
    assert!(whole(client.send(request).await.unwrap().into_body()).await.1);
    assert!(!a.engine.requests().pop().unwrap().headers.contains_key("x-gorgo-peer"));
}

#[tokio::test]
async fn a_listener_that_takes_nothing_holds_up_nobody() {
    let a = node("a", "gorgo").await;
    let mut config = config("gorgo", &[]);
    // So fast that its buffers fill while we watch.
    config.peers = PeerSettings { every: Duration::from_micros(100), ..QUICK };
    config.agent = Some(AgentConfig { name: "b".to_owned(), region: Region::new("region-b") });
    let mut own = ReplicaConfig::new("b", &a.engine.url(), "region-b");
    own.engine = Some(&EMULATOR);
    config.replicas = vec![own, peer("idle", any())];
    let b = Gateway::start(config).await.unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1024).unwrap();
    let mut deaf = socket.connect(b.listen()).await.unwrap();
    let head = b"GET /gorgo/v1/peer/stream HTTP/1.1\r\nhost: b\r\nx-gorgo-peer: idle\r\n\r\n";
    deaf.write_all(head).await.unwrap();
    until_metric(&b, "peer_sent_bytes_total", "idle", |bytes| bytes > 1000.0).await;
    until("its engine is found", || b.healthy() == 1).await;
    for i in 0..20 {
        let response = Client::connect(&b).await.chat(prompt(&format!("p{i}"), 10)).await;
        assert_eq!((response.status().as_u16(), replica(&response)), (200, "b"));
        assert!(whole(response.into_body()).await.1);
    }
    drop(deaf);
}
