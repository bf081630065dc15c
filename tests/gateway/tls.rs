//! Engines behind `https`.

use std::sync::Arc;

use gorgo::gateway::ReplicaConfig;
use gorgo::inference::engine::EMULATOR;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::client::{Client, STREAM, config, start, until, whole};
use super::mock::{Mock, hello};

/// A certificate for `localhost` and 127.0.0.1 that signs itself, and its key; good for these tests and nothing else.
const CERTIFICATE: &[u8] = include_bytes!("tls/cert.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Speaks TLS in front of a mock; gives its port.
async fn in_front_of(mock: &Mock) -> u16 {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let engine = mock.address;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut tls) = acceptor.accept(stream).await {
                    let mut engine = TcpStream::connect(engine).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut engine).await;
                }
            });
        }
    });
    port
}

fn trusting() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(client.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn an_engine_behind_tls_is_used_if_it_is_trusted() {
    let mock = Mock::start(|_| hello()).await;
    let port = in_front_of(&mock).await;
    let mut config = config("gorgo", &[]);
    let mut replica = ReplicaConfig::new("safe", &format!("https://localhost:{port}"), "region");
    replica.engine = Some(&EMULATOR);
    config.replicas.push(replica);

    let mut trusting_config = config.clone();
    trusting_config.pool.tls = Some(trusting());
    let gateway = start(trusting_config).await;
    let mut client = Client::connect(&gateway).await;
    for _ in 0..3 {
        assert!(whole(client.chat(STREAM).await.into_body()).await.1);
    }

    let wary = gorgo::gateway::Gateway::start(config).await.unwrap();
    let reason = async || {
        let replicas: gorgo::wire::Replicas = super::admin::get(&wary, "/admin/v1/replicas").await;
        replicas.replicas[0].health_reason.clone()
    };
    until("tried", || wary.healthy() == 0).await;
    let mut said = None;
    for _ in 0..500 {
        said = reason().await;
        if said.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(
        said.is_some_and(|said| said.contains("certificate")),
        "the operating system does not know this certificate"
    );
}
