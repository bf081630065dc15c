//! A cluster's CA in a folder, agents with its certificates, and visitors with others.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gorgo::cluster::authority::Authority;
use gorgo::cluster::certificate::Request;
use gorgo::cluster::plan::Plan;
use gorgo::cluster::step::{Action, Content, Step};
use gorgo::gateway::clock::wall_micros;
use gorgo::gateway::{AgentConfig, GatewayConfig, GatewayHandle, MutualConfig, ReplicaConfig};
use gorgo::inference::engine::EMULATOR;
use gorgo::model::{Identity, Part, Region};
use gorgo::wire::Policy;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::admin::change;
use super::super::client::{BOUND, config, get, start};
use super::super::keys::Chat;
use super::super::mock::Mock;

pub(super) const HERE: [u8; 4] = [127, 0, 0, 1];
pub(super) const DAY_S: u64 = 86_400;

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    wall_micros() / 1_000_000
}

/// The CA of a cluster called `lab`.
pub(super) struct Lab {
    folder: TempDir,
    authority: Authority,
}

impl Lab {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path().join("clusters"), "lab");
        Self { folder, authority }
    }

    /// A certificate that is valid since an hour and for a day.
    pub(super) fn request(&self, part: Part, node: &str, addresses: &[[u8; 4]]) -> Request {
        Request {
            identity: Identity::new("lab", part, node).unwrap(),
            addresses: addresses.iter().map(|address| (*address).into()).collect(),
            not_before: now() - 3_600,
            not_after: now() + DAY_S,
        }
    }

    pub(super) fn issue(&self, request: &Request) -> String {
        self.authority.issue(request).unwrap().reveal().to_owned()
    }

    /// One that is noted as `gorgo cluster setup` notes them, so that it can be revoked.
    pub(super) fn noted(&self, part: Part, node: &str) -> String {
        let content = Content::Certificate(self.request(part, node, &[HERE]));
        let action = Action::Put { content, path: "/x".into(), mode: 0o600, keep_old: false };
        let step = Step { name: "certificate".into(), text: "issue".into(), action, limit_s: 1, fills: None };
        let steps = vec![step];
        let mut plans = [Plan { node: node.into(), steps, ..Plan::default() }];
        self.authority.fill(&mut plans).unwrap();
        match &plans[0].steps[0].action {
            Action::Put { content: Content::Secret(secret), .. } => secret.reveal().to_owned(),
            other => panic!("not filled: {other:?}"),
        }
    }

    pub(super) fn revoke(&self, node: &str) {
        let noted = self.authority.revoke(&[node.to_owned()], now(), false).unwrap();
        assert_eq!(noted.len(), 1, "{noted:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    /// Puts a file in place in one step, as set-up does.
    pub(super) fn write(&self, name: &str, text: &str) {
        let (new, path) = (self.folder.path().join("new"), self.path(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// An agent's settings, with the certificate of this file.
    pub(super) fn config(&self, name: &str, engine: &Mock, file: &str) -> GatewayConfig {
        let mut config = config("gorgo", &[]);
        config.agent = Some(AgentConfig { name: name.to_owned(), region: Region::new(&format!("region-{name}")) });
        let mut own = ReplicaConfig::new(name, &engine.url(), &format!("region-{name}"));
        own.engine = Some(&EMULATOR);
        config.replicas.push(own);
        let listen = SocketAddr::from((HERE, 0));
        config.mutual = Some(MutualConfig {
            look_every: Duration::from_millis(20),
            ..MutualConfig::new(self.path(file), Some(listen))
        });
        config
    }
}

/// An agent of the cluster.
pub(super) async fn member(lab: &Lab, name: &str, engine: &Mock) -> GatewayHandle {
    lab.write(name, &lab.issue(&lab.request(Part::Agent, name, &[HERE])));
    start(lab.config(name, engine, name)).await
}

pub(super) async fn set(agent: &GatewayHandle, strategy: &str) {
    let policy: Policy = change(agent, "/admin/v1/policy", json!({ "strategy": strategy })).await;
    assert_eq!(policy.strategy, strategy);
}

/// The number behind a name and its labels on the page of metrics; 0 if it is not there.
pub(super) fn metric(admin: SocketAddr, line: &str) -> f64 {
    let mut stream = BlockingStream::connect(admin).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let found = page.lines().find_map(|it| it.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}

/// Somebody who comes to the port for peers.
pub(super) struct Visitor {
    tls: Option<Arc<ClientConfig>>,
    from: [u8; 4],
    roots: Arc<RootCertStore>,
    pem: Option<String>,
}

/// A connection that was let in.
pub(super) struct Knock {
    sender: http1::SendRequest<Full<bytes::Bytes>>,
    /// The certificate that the server showed.
    pub(super) shown: Vec<u8>,
}

type Answer = (u16, String);

impl Visitor {
    fn new(lab: &Lab, pem: Option<String>) -> Self {
        let mut roots = RootCertStore::empty();
        let ours = lab.issue(&lab.request(Part::Agent, "x", &[HERE]));
        roots.add(certificates(&ours).remove(1)).unwrap();
        let mut visitor = Self { tls: None, from: HERE, roots: Arc::new(roots), pem };
        visitor.tls = Some(visitor.config(&[&rustls::version::TLS13]));
        visitor
    }

    /// Shows this certificate.
    pub(super) fn with(lab: &Lab, pem: String) -> Self {
        Self::new(lab, Some(pem))
    }

    /// Shows none.
    pub(super) fn stranger(lab: &Lab) -> Self {
        Self::new(lab, None)
    }

    /// Speaks HTTP at once.
    pub(super) fn in_plain_text() -> Self {
        Self { tls: None, from: HERE, roots: Arc::new(RootCertStore::empty()), pem: None }
    }

    pub(super) fn from(mut self, address: [u8; 4]) -> Self {
        self.from = address;
        self
    }

    pub(super) fn tls12(mut self) -> Self {
        self.tls = Some(self.config(&[&rustls::version::TLS12]));
        self
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(self.roots.clone());
        Arc::new(match &self.pem {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificates(pem).remove(0)], key).unwrap()
            }
        })
    }

    /// Connects and asks for the agent's state. An error if that ends in anything but an answer.
    pub(super) async fn knock(&self, door: SocketAddr) -> Result<(Knock, Answer), String> {
        timeout(BOUND, self.connect_and_ask(door)).await.expect("an end in time")
    }

    async fn connect_and_ask(&self, door: SocketAddr) -> Result<(Knock, Answer), String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((self.from, 0))).unwrap();
        let stream = socket.connect(door).await.map_err(|error| error.to_string())?;
        let mut knock = match &self.tls {
            None => Knock { sender: speak(stream).await?, shown: Vec::new() },
            Some(config) => {
                let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(HERE)));
                let connected = TlsConnector::from(config.clone()).connect(name, stream).await;
                let stream = connected.map_err(|error| error.to_string())?;
                let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                Knock { sender: speak(stream).await?, shown }
            }
        };
        let answer = knock.ask().await?;
        Ok((knock, answer))
    }
}

impl Knock {
    /// Asks for the agent's state.
    pub(super) async fn ask(&mut self) -> Result<Answer, String> {
        self.send(get("/gorgo/v1/peer")).await
    }

    /// Sends a request; gives its status and whole body.
    pub(super) async fn send(&mut self, request: Chat) -> Result<Answer, String> {
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, String::from_utf8_lossy(&body).into_owned()))
        };
        timeout(BOUND, exchange).await.expect("an end in time").map_err(|error| error.to_string())
    }
}

async fn speak<S>(stream: S) -> Result<http1::SendRequest<Full<bytes::Bytes>>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}
