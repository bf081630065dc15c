//! A scriptable engine: answers probes by itself, and requests as a test tells it, over real sockets.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// One thing that an engine does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Sends these bytes as a piece of its body.
    Send(Bytes),
    /// Does nothing for a while.
    Pause(Duration),
    /// Does nothing until told.
    Until(Arc<Notify>),
    /// Does nothing until it gets a permit, which is then used up.
    Acquire(Arc<Semaphore>),
    /// Breaks the connection.
    Die,
    /// Never does anything again.
    Hang,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) before: Vec<Step>,
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<Step>,
}

pub(super) fn send(text: impl Into<String>) -> Step {
    Step::Send(Bytes::from(text.into()))
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &str, body: Vec<Step>) -> Self {
        Self { before: Vec::new(), status, headers: vec![("content-type", content_type.to_owned())], body }
    }

    pub(super) fn json(status: u16, text: &str) -> Self {
        let mut answer = Self::new(status, "application/json", vec![send(text)]);
        answer.headers.push(("content-length", text.len().to_string()));
        answer
    }

    /// A stream of events, each a piece of its own.
    pub(super) fn events(events: &[&str]) -> Self {
        Self::new(200, "text/event-stream", events.iter().map(|event| send(format!("data: {event}\n\n"))).collect())
    }

    pub(super) fn after(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }

    pub(super) fn then(mut self, step: Step) -> Self {
        self.body.push(step);
        self
    }
}

pub(super) const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
pub(super) const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hello"}}]}"#;
pub(super) const WORLD: &str = r#"{"choices":[{"index":0,"delta":{"content":" world"}}]}"#;
pub(super) const USAGE: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":16}}}"#;
pub(super) const REPLY: &str = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"prompt_tokens":20,"completion_tokens":1}}"#;

/// A short stream that ends as it should.
pub(super) fn hello() -> Answer {
    Answer::events(&[ROLE, HELLO, WORLD, "[DONE]"])
}

type Script = dyn Fn(&Received) -> Answer + Send + Sync;

/// What the engine has seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) requests: Mutex<Vec<Received>>,
    /// Requests that are being answered.
    pub(super) active: AtomicUsize,
    /// Requests whose client left before their answer was complete.
    pub(super) aborted: AtomicUsize,
    /// Connections opened.
    pub(super) connections: AtomicUsize,
}

/// What probes are told.
struct Probes {
    /// Status of readiness probes.
    ready: AtomicUsize,
    /// Requests that wait in the engine.
    waiting: AtomicUsize,
    /// The engine's settings.
    settings: Mutex<String>,
}

/// A running mock; dropping it closes its port and its connections.
pub(super) struct Mock {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
    script: Arc<Mutex<Arc<Script>>>,
    probes: Arc<Probes>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mock {
    pub(super) async fn start(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let probes = Arc::new(Probes {
            ready: AtomicUsize::new(200),
            waiting: AtomicUsize::new(1),
            settings: Mutex::new(r#"{"engine":"emulator"}"#.to_owned()),
        });
        let task = tokio::spawn(listen(listener, seen.clone(), script.clone(), probes.clone()));
        Self { address, seen, script, probes, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn set(&self, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Status of readiness probes from now on.
    pub(super) fn set_ready(&self, status: usize) {
        self.probes.ready.store(status, Ordering::SeqCst);
    }

    /// Requests that wait in the engine, as its metrics say from now on.
    pub(super) fn set_waiting(&self, waiting: usize) {
        self.probes.waiting.store(waiting, Ordering::SeqCst);
    }

    /// What the engine says of its settings from now on.
    pub(super) fn set_settings(&self, settings: &str) {
        settings.clone_into(&mut self.probes.settings.lock().unwrap());
    }

    pub(super) fn requests(&self) -> Vec<Received> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(super) fn active(&self) -> usize {
        self.seen.active.load(Ordering::SeqCst)
    }

    pub(super) fn aborted(&self) -> usize {
        self.seen.aborted.load(Ordering::SeqCst)
    }
}

async fn listen(listener: TcpListener, seen: Arc<Seen>, script: Arc<Mutex<Arc<Script>>>, probes: Arc<Probes>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let (seen, script, probes) = (seen.clone(), script.clone(), probes.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, seen.clone(), script.clone(), probes.clone()));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the mock dies as told")]
struct Dead;

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    script: Arc<Mutex<Arc<Script>>>,
    probes: Arc<Probes>,
) -> Result<Response<Pieces>, Dead> {
    if request.method() == Method::GET {
        return Ok(probe(request.uri().path(), &probes));
    }
    let mut active = Active::new(seen.clone());
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Dead)?.to_bytes();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let received = Received { path, headers: parts.headers, body };
    seen.requests.lock().unwrap().push(received.clone());
    let script = script.lock().unwrap().clone();
    let Answer { before, status, headers, body } = script(&received);
    let (sender, receiver) = mpsc::channel(1);
    if !play(before, &sender).await {
        active.complete = true;
        return Err(Dead);
    }
    tokio::spawn(async move {
        let alive = play(body, &sender).await;
        if !alive {
            let _ = sender.send(Err(Dead)).await;
        }
    });
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Pieces { receiver, active: Some(active) }).unwrap())
}

/// Plays the steps; false = dead.
async fn play(steps: Vec<Step>, sender: &mpsc::Sender<Result<Bytes, Dead>>) -> bool {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if sender.send(Ok(bytes)).await.is_err() {
                    return true;
                }
            }
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Until(told) => told.notified().await,
            Step::Acquire(go) => go.acquire().await.expect("never closed").forget(),
            Step::Hang => std::future::pending().await,
            Step::Die => return false,
        }
    }
    true
}

fn probe(path: &str, probes: &Probes) -> Response<Pieces> {
    let settings = probes.settings.lock().unwrap().clone();
    let (status, body) = match path {
        "/ready" => (u16::try_from(probes.ready.load(Ordering::SeqCst)).unwrap(), ""),
        "/server_info" | "/get_server_info" => (200, &*settings),
        "/model_info" | "/get_model_info" | "/health" => (200, "{}"),
        "/v1/models" => {
            (200, r#"{"object":"list","data":[{"id":"tiny","object":"model","owned_by":"mock","max_model_len":4096}]}"#)
        }
        "/gorgo/v1/peer" => (
            200,
            r#"{"name":"mock","region":"r","serving":true,"running":0,"queued":0,"kv_usage":null,"kv_tokens":null}"#,
        ),
        "/metrics" => (
            200,
            &*format!(
                "sglang:num_running_reqs 3.0\nsglang:num_queue_reqs {}.0\nsglang:token_usage 0.25\nsglang:max_total_num_tokens 40000.0\n",
                probes.waiting.load(Ordering::SeqCst)
            ),
        ),
        _ => (404, ""),
    };
    let (sender, receiver) = mpsc::channel(1);
    if !body.is_empty() {
        sender.try_send(Ok(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    }
    let response = Response::builder().status(status).header("content-length", body.len());
    response.body(Pieces { receiver, active: None }).unwrap()
}

struct Pieces {
    receiver: mpsc::Receiver<Result<Bytes, Dead>>,
    active: Option<Active>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Dead;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dead>>> {
        let piece = std::task::ready!(self.receiver.poll_recv(cx));
        if matches!(piece, None | Some(Err(_)))
            && let Some(active) = &mut self.active
        {
            active.complete = true;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }
}

struct Active {
    seen: Arc<Seen>,
    complete: bool,
}

impl Active {
    fn new(seen: Arc<Seen>) -> Self {
        seen.active.fetch_add(1, Ordering::SeqCst);
        Self { seen, complete: false }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.seen.active.fetch_sub(1, Ordering::SeqCst);
        if !self.complete {
            self.seen.aborted.fetch_add(1, Ordering::SeqCst);
        }
    }
}
