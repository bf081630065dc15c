//! The admin API for others than this machine: a token, and TLS where strangers could read along.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use gorgo::gateway::{AuditTarget, Gateway, GatewayConfig, GatewayHandle, TlsFiles};
use gorgo::wire::AuditEvent;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::client::{BOUND, code, config, start, whole};
use super::keys::audited;
use super::mock::{Mock, hello};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const CERTIFICATE: &str = include_str!("tls/cert.pem");
const KEY: &str = include_str!("tls/key.pem");

fn put(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn with_token(folder: &Path, mock: &Mock) -> GatewayConfig {
    let mut config = config("gorgo", &[mock]);
    config.admin_token = Some(put(folder, "token", TOKEN));
    config.audit = AuditTarget::File(folder.join("audit.jsonl"));
    config
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    token: Option<&str>,
) -> Response<Incoming> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", "router.example");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

async fn ask(gateway: &GatewayHandle, path: &str, token: Option<&str>) -> Response<Incoming> {
    over(TcpStream::connect(gateway.admin()).await.unwrap(), path, token).await
}

#[tokio::test]
async fn with_a_token_file_nothing_but_health_is_told_without_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(with_token(folder.path(), &mock)).await;
    for path in ["/admin/v1/status", "/admin/v1/decisions", "/metrics", "/none"] {
        for token in [None, Some(""), Some("0123456789abcdef"), Some(&TOKEN.to_uppercase())] {
            let response = ask(&gateway, path, token).await;
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(code(response).await, (401, "invalid_token".to_owned()), "{path} {token:?}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&gateway, path, None).await.status(), 200);
    }
    assert_eq!(ask(&gateway, "/admin/v1/status", Some(TOKEN)).await.status(), 200, "under any name");
    let events = audited(&folder.path().join("audit.jsonl"), 16).await;
    let refused = |event: &&AuditEvent| matches!(event, AuditEvent::Refused { request: None, status: 401, .. });
    assert_eq!((events.len(), events.iter().filter(refused).count()), (16, 16));

    let other = TOKEN.replace('0', "f");
    put(folder.path(), "token", &other);
    let changed = async { while ask(&gateway, "/admin/v1/status", Some(&other)).await.status() != 200 {} };
    timeout(BOUND, changed).await.expect("taken in time");
    assert_eq!(ask(&gateway, "/admin/v1/status", Some(TOKEN)).await.status(), 401);
}

/// All addresses of the machine stand for a public one; what is connected to is loopback.
#[tokio::test]
async fn where_strangers_could_read_along_the_admin_api_speaks_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let mut config = with_token(folder.path(), &mock);
    config.admin = "0.0.0.0:0".parse().unwrap();
    config.tls = Some(TlsFiles {
        certificate: put(folder.path(), "cert.pem", CERTIFICATE),
        key: put(folder.path(), "key.pem", KEY),
    });
    let gateway = start(config).await;
    assert!(gateway.admin_url().starts_with("https://"));
    let address = ("127.0.0.1", gateway.admin().port());

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth()));
    for (token, status) in [(Some(TOKEN), 200), (None, 401)] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
        assert_eq!(over(stream, "/admin/v1/status", token).await.status(), status);
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(format!("GET /admin/v1/status HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(BOUND, plain.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn an_open_or_a_guessable_door_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let error = async |config: GatewayConfig| format!("{:#}", Gateway::start(config).await.err().expect("refused"));
    let mut open = config("gorgo", &[&mock]);
    open.admin = "0.0.0.0:0".parse().unwrap();
    assert!(error(open).await.contains("without a token the admin API listens on loopback only"));
    let mut short = with_token(folder.path(), &mock);
    put(folder.path(), "token", "secret");
    assert!(error(short.clone()).await.contains("wanted 32 or more"));
    put(folder.path(), "token", TOKEN);
    fs::set_permissions(folder.path().join("token"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(error(short.clone()).await.contains("chmod 600"));
    short.admin_token = Some(folder.path().join("none"));
    assert!(error(short).await.contains("none"));
    let response = ask(&start(config("gorgo", &[&mock])).await, "/healthz", None).await;
    assert_eq!(response.status(), 403, "without a token the name counts");
    whole(response.into_body()).await;
}
