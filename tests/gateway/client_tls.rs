//! TLS towards clients: versions, protocols, renewal, and what is not TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gorgo::gateway::{GatewayConfig, GatewayHandle, TlsFiles};
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{BOUND, PLAIN, config, start};
use super::mock::{Answer, Mock, REPLY, hello};

/// Two certificates for `localhost` and 127.0.0.1 that sign themselves; good for these tests and nothing else.
const FIRST: (&str, &str) = (include_str!("tls/cert.pem"), include_str!("tls/key.pem"));
const RENEWED: (&str, &str) = (include_str!("tls/renewed-cert.pem"), include_str!("tls/renewed-key.pem"));

/// Puts a file there in one step.
fn put(folder: &Path, name: &str, text: &str) {
    let new = folder.join("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, folder.join(name)).unwrap();
}

fn files(folder: &Path, (certificate, key): (&str, &str)) -> TlsFiles {
    put(folder, "cert.pem", certificate);
    put(folder, "key.pem", key);
    TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
}

fn secured(folder: &Path, mock: &Mock) -> GatewayConfig {
    let mut config = config("gorgo", &[mock]);
    config.tls = Some(files(folder, FIRST));
    config
}

async fn handshake(
    gateway: &GatewayHandle,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for (certificate, _) in [FIRST, RENEWED] {
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(gateway.listen()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    timeout(BOUND, connector.connect(ServerName::try_from("localhost").unwrap(), tcp)).await.expect("in time")
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn request(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).header("host", "localhost").body(Full::new(Bytes::from(PLAIN))).unwrap()
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| Answer::json(200, REPLY)).await;
    let gateway = start(secured(folder.path(), &mock)).await;
    assert!(gateway.url().starts_with("https://"));
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let stream = handshake(&gateway, &[version], &[b"http/1.1"]).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!((session.protocol_version(), session.alpn_protocol()), (Some(number), Some(&b"http/1.1"[..])));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request("/v1/chat/completions")).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_11));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), REPLY);
    }
    let stream = handshake(&gateway, &[&TLS13], &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request("https://localhost/v1/chat/completions")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let without_alpn = handshake(&gateway, &[&TLS13], &[]).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(without_alpn)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(sender.send_request(request("/v1/chat/completions")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_connections_live_on() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(secured(folder.path(), &mock)).await;
    let stream = handshake(&gateway, &[&TLS13], &[b"http/1.1"]).await.unwrap();
    let first = shown(&stream);
    let (mut old, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    // The certificate comes before its key: the pair does not match for a while, and the old one stays.
    put(folder.path(), "cert.pem", RENEWED.0);
    for _ in 0..30 {
        let stream = handshake(&gateway, &[&TLS13], &[]).await.unwrap();
        assert_eq!(shown(&stream), first);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(folder.path(), "key.pem", RENEWED.1);
    let renewed = async {
        while shown(&handshake(&gateway, &[&TLS13], &[]).await.unwrap()) == first {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, renewed).await.expect("renewed in time");
    let response = old.send_request(request("/v1/chat/completions")).await.unwrap();
    assert_eq!(response.status(), 200, "on the connection that is there");
}

#[tokio::test]
async fn what_is_not_tls_gets_nothing_and_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let mut config = secured(folder.path(), &mock);
    config.limits.header_timeout = Duration::from_millis(200);
    config.limits.max_connections = 1;
    let gateway = start(config).await;

    let mut plain = TcpStream::connect(gateway.listen()).await.unwrap();
    plain.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(BOUND, plain.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(!answer.starts_with(b"HTTP"), "no answer in the clear");

    // Who says nothing holds its place for no longer than a request head may take.
    let mut silent = TcpStream::connect(gateway.listen()).await.unwrap();
    let _ = timeout(BOUND, silent.read_to_end(&mut answer)).await.expect("closed in time");
    assert!(handshake(&gateway, &[&TLS13], &[]).await.is_ok());
    assert_eq!(mock.requests().len(), 0);
}

#[tokio::test]
async fn a_pair_that_does_not_match_or_a_key_for_everybody_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let error = async || {
        let mut config = config("gorgo", &[&mock]);
        config.tls = Some(TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") });
        format!("{:#}", gorgo::gateway::Gateway::start(config).await.err().expect("refused"))
    };
    assert!(error().await.contains("cert.pem"), "no file");
    files(folder.path(), (FIRST.0, RENEWED.1));
    assert!(error().await.contains("is not the key of"));
    files(folder.path(), ("", FIRST.1));
    assert!(error().await.contains("holds no certificate"));
    files(folder.path(), (FIRST.0, "nonsense"));
    assert!(error().await.contains("holds no private key"));
    files(folder.path(), FIRST);
    fs::set_permissions(folder.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(error().await.contains("chmod 640"));
}

#[tokio::test]
async fn a_connection_that_is_leaving_is_told_over_tls_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mock = Mock::start(|_| hello()).await;
    let gateway = start(secured(folder.path(), &mock)).await;
    let idle = handshake(&gateway, &[&TLS13], &[b"http/1.1"]).await.unwrap();
    let (sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(idle)).await.unwrap();
    let ended = tokio::spawn(connection);
    assert!(timeout(BOUND, gateway.drain()).await.expect("in time"), "an idle connection does not hold it up");
    timeout(BOUND, ended).await.expect("closed in time").unwrap().ok();
    drop(sender);
}
