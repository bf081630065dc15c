//! Replicas behind a central proxy that stand still: connections can be made and stay, and nothing comes back any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gorgo::emulator::wan::{self, Jitter, WanHandle, WanOptions};
use gorgo::gateway::GatewayHandle;
use gorgo::routing::ReplicaKind;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::client::{Client, config, piece, replica, start, until, whole};
use super::mock::{Answer, HELLO, Mock, ROLE, Received, Step, hello, send};

/// Longest time for one answer to a probe: a busy machine takes less, and three of them are soon over.
const PROBE_LIMIT: Duration = Duration::from_millis(700);

/// `wait` is answered when told; of `head` the head comes before, of `talk` a token.
fn script(go: Arc<Semaphore>) -> impl Fn(&Received) -> Answer + Send + Sync {
    move |received| {
        let has = |word: &[u8]| memchr::memmem::find(&received.body, word).is_some();
        let (go, end) = (Step::Acquire(go.clone()), send("data: [DONE]\n\n"));
        if has(b"talk") {
            Answer::events(&[ROLE, HELLO]).then(go).then(end)
        } else if has(b"head") {
            Answer::events(&[]).then(go).then(send(format!("data: {HELLO}\n\n"))).then(end)
        } else if has(b"wait") {
            hello().after(go)
        } else {
            hello()
        }
    }
}

/// A proxy over `r0`, behind a line that can be cut, and others.
struct Lab {
    mocks: Vec<Mock>,
    line: WanHandle,
    gateway: GatewayHandle,
    /// Lets each engine answer one request per permit.
    go: Vec<Arc<Semaphore>>,
}

async fn lab(replicas: usize, kind: ReplicaKind) -> Lab {
    let (mut mocks, mut go) = (Vec::new(), Vec::new());
    for _ in 0..replicas {
        let permits = Arc::new(Semaphore::new(0));
        mocks.push(Mock::start(script(permits.clone())).await);
        go.push(permits);
    }
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = WanOptions { listen, to: mocks[0].address, rtt_ms: 1.0, jitter: Jitter::None, seed: 1 };
    let line = wan::start(options).await.unwrap();
    let mut config = config("round-robin", &[]);
    config.probe.timeout = PROBE_LIMIT;
    config.replicas = mocks.iter().enumerate().map(|(i, mock)| replica(i, mock)).collect();
    config.replicas[0].url = format!("http://{}", line.address());
    for replica in &mut config.replicas {
        replica.kind = kind;
    }
    let gateway = start(config).await;
    until("all healthy", || gateway.healthy() == replicas).await;
    Lab { mocks, line, gateway, go }
}

impl Lab {
    /// A request on its way; in the end its status and who served it.
    fn ask(&self, word: &str) -> JoinHandle<(u16, String)> {
        let (listen, body) = (self.gateway.listen(), prompt(word));
        tokio::spawn(async move {
            let response = Client::at(listen, None).await.chat(body).await;
            let told = (response.status().as_u16(), response.headers()["x-gorgo-replica"].to_str().unwrap().to_owned());
            assert!(whole(response.into_body()).await.1);
            told
        })
    }

    /// How often an engine got each prompt.
    fn times(&self, engine: usize) -> BTreeMap<Vec<u8>, usize> {
        let mut times = BTreeMap::new();
        for received in self.mocks[engine].requests() {
            *times.entry(received.body.to_vec()).or_default() += 1;
        }
        times
    }
}

fn prompt(word: &str) -> String {
    format!(r#"{{"model":"tiny","stream":true,"messages":[{{"role":"user","content":"{word}"}}]}}"#)
}

async fn what_waits_is_rescued(kind: ReplicaKind) {
    let lab = lab(2, kind).await;
    let mut talks = Vec::new();
    for i in 0..2 {
        let mut client = Client::connect(&lab.gateway).await;
        let mut body = client.chat(prompt(&format!("talk{i}"))).await.into_body();
        assert!(piece(&mut body).await.expect("a token").is_ok());
        talks.push((client, body));
    }
    let words: Vec<String> = (0..4).map(|i| format!("wait{i}")).chain((0..4).map(|i| format!("head{i}"))).collect();
    let asked: Vec<_> = words.iter().map(|word| lab.ask(word)).collect();
    until("half of it at each", || lab.mocks.iter().all(|mock| mock.active() == 5)).await;
    lab.line.cut();
    until("taken out", || lab.gateway.healthy() == 1).await;
    until("all that waits at the other", || lab.mocks[1].active() == 9).await;
    lab.go[1].add_permits(9);
    for answer in asked {
        assert_eq!(answer.await.unwrap(), (200, "r1".to_owned()));
    }
    let there = lab.times(1);
    assert!(words.iter().all(|word| there[prompt(word).as_bytes()] == 1), "each once: {there:?}");
    assert!(lab.times(0).values().all(|times| *times == 1));
    lab.line.restore();
    until("called off where it stood still", || lab.mocks[0].aborted() == 4).await;
    lab.go[0].add_permits(1);
    for (_client, body) in talks {
        let (text, complete) = whole(body).await;
        assert!(complete && text.ends_with("[DONE]\n\n"), "what has begun stays and goes on: {text}");
    }
    until("back", || lab.gateway.healthy() == 2).await;
    until("counted", || lab.gateway.counts().ok == 10).await;
    assert_eq!(lab.gateway.counts().retried, 4);
}

#[tokio::test]
async fn what_waits_at_an_engine_that_stands_still_is_served_by_another_and_none_of_it_twice() {
    what_waits_is_rescued(ReplicaKind::Engine).await;
}

#[tokio::test]
async fn what_waits_at_an_agent_that_stands_still_is_served_by_another_and_none_of_it_twice() {
    what_waits_is_rescued(ReplicaKind::Peer).await;
}

#[tokio::test]
async fn where_nobody_else_could_serve_it_what_waits_goes_on_waiting() {
    let lab = lab(1, ReplicaKind::Engine).await;
    let asked = lab.ask("wait");
    until("there", || lab.mocks[0].active() == 1).await;
    lab.line.cut();
    until("taken out", || lab.gateway.healthy() == 0).await;
    lab.line.restore();
    until("back", || lab.gateway.healthy() == 1).await;
    lab.go[0].add_permits(1);
    assert_eq!(asked.await.unwrap(), (200, "r0".to_owned()));
    assert_eq!((lab.mocks[0].requests().len(), lab.gateway.counts().retried), (1, 0));
}

#[tokio::test]
async fn an_engine_that_says_that_it_is_not_ready_keeps_what_waits_there() {
    let lab = lab(2, ReplicaKind::Engine).await;
    let asked = [lab.ask("wait0"), lab.ask("wait1")];
    until("one at each", || lab.mocks.iter().all(|mock| mock.active() == 1)).await;
    lab.mocks[0].set_ready(503);
    until("taken out", || lab.gateway.healthy() == 1).await;
    lab.go.iter().for_each(|go| go.add_permits(1));
    let mut served = Vec::new();
    for answer in asked {
        served.push(answer.await.unwrap());
    }
    served.sort();
    assert_eq!(served, [(200, "r0".to_owned()), (200, "r1".to_owned())]);
    assert_eq!(lab.gateway.counts().retried, 0);
}
