//! A client as plain as can be, and what the tests share.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use gorgo::gateway::{Gateway, GatewayConfig, GatewayHandle, ProbeSettings, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::routing::Settings;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mock::Mock;

/// No test waits longer than this for anything.
pub(super) const BOUND: Duration = Duration::from_secs(10);

/// A connection to a gateway.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Client {
    pub(super) async fn connect(gateway: &GatewayHandle) -> Self {
        Self::at(gateway.listen(), None).await
    }

    /// A connection from this address of ours, or any.
    pub(super) async fn at(address: SocketAddr, from: Option<IpAddr>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(from) = from {
            socket.bind(SocketAddr::new(from, 0)).unwrap();
        }
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: tokio::spawn(connection) }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        timeout(BOUND, async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await
        .expect("an answer in time")
    }

    pub(super) async fn chat(&mut self, body: impl Into<Bytes>) -> Response<Incoming> {
        self.send(chat(body)).await.expect("an answer")
    }

    /// Returns once the server has closed the connection.
    pub(super) async fn closed(self) {
        drop(self.sender);
        let _ = timeout(BOUND, self.driver).await.expect("closed in time");
    }

    /// Cuts the connection.
    pub(super) fn leave(self) {
        self.driver.abort();
    }
}

pub(super) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "gateway").header("content-type", "application/json");
    request.body(Full::new(body.into())).unwrap()
}

pub(super) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "gateway").body(Full::default()).unwrap()
}

pub(super) fn chat(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    post("/v1/chat/completions", body)
}

pub(super) const STREAM: &str = r#"{"model":"tiny","stream":true,"messages":[{"role":"user","content":"Say hello"}]}"#;
pub(super) const PLAIN: &str = r#"{"model":"tiny","messages":[{"role":"user","content":"Say hello"}]}"#;

/// The next piece of a body.
pub(super) async fn piece(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    let frame = timeout(BOUND, body.frame()).await.expect("a piece in time")?;
    Some(frame.map(|frame| frame.into_data().expect("data")))
}

/// A body to its end: the bytes, and whether it ended as it should.
pub(super) async fn whole(mut body: Incoming) -> (String, bool) {
    let mut bytes = Vec::new();
    loop {
        match piece(&mut body).await {
            Some(Ok(data)) => bytes.extend_from_slice(&data),
            Some(Err(_)) => return (String::from_utf8(bytes).unwrap(), false),
            None => return (String::from_utf8(bytes).unwrap(), true),
        }
    }
}

/// The stable code of an error object of ours.
pub(super) async fn code(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let (text, complete) = whole(response.into_body()).await;
    assert!(complete);
    let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert!(value["error"]["message"].is_string() && value["error"]["type"].is_string(), "{text}");
    (status, value["error"]["code"].as_str().expect("a code").to_owned())
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"));
}

/// Settings with quick probes, on free ports.
pub(super) fn config(strategy: &str, mocks: &[&Mock]) -> GatewayConfig {
    let routing = Settings { strategy: strategy.to_owned(), ..Settings::default() };
    let replicas = mocks.iter().enumerate().map(|(i, mock)| replica(i, mock)).collect();
    let mut config = GatewayConfig::new(routing, replicas);
    config.listen.set_port(0);
    config.admin.set_port(0);
    config.probe = ProbeSettings {
        rtt_every: Duration::from_millis(50),
        gauges_every: Duration::from_millis(50),
        models_every: Duration::from_millis(50),
        timeout: Duration::from_secs(2),
    };
    config
}

/// The i-th replica: `r0` in `region-0`, and so on.
pub(super) fn replica(i: usize, mock: &Mock) -> ReplicaConfig {
    let mut replica = ReplicaConfig::new(&format!("r{i}"), &mock.url(), &format!("region-{i}"));
    replica.engine = Some(&EMULATOR);
    replica
}

/// A gateway with these settings, ready to serve.
pub(super) async fn start(config: GatewayConfig) -> GatewayHandle {
    let gateway = Gateway::start(config).await.expect("a gateway");
    gateway.ready(BOUND).await.expect("healthy replicas");
    gateway
}
