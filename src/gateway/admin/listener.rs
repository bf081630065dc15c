//! The admin listener: one document per request, made from memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Admin;
use crate::gateway::budget::Budget;
use crate::gateway::collect::{Bounds, collect};
use crate::gateway::origin::Origin;
use crate::gateway::reject::Rejection;

/// Largest body of a change, bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Longest wait for a head, or for a piece of a body.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the admin listener.
///
/// # Errors
/// If it can be reached from outside and asks for no token, or the address cannot be had.
pub(in crate::gateway) async fn bind(address: SocketAddr, token: bool) -> anyhow::Result<TcpListener> {
    ensure!(
        token || address.ip().is_loopback(),
        "without a token the admin API listens on loopback only, not on {address}; name a token file, or forward a port, e.g. \
         `ssh -L 8001:127.0.0.1:{} HOST`",
        address.port()
    );
    TcpListener::bind(address).await.with_context(|| {
        format!("failed to listen on {address} for the admin API; if the port is in use, choose another with `--admin`")
    })
}

/// Serves until the gateway has stopped.
pub(in crate::gateway) async fn run(listener: TcpListener, admin: Arc<Admin>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = admin.shared.stopped.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                tokio::spawn(accept(stream, Origin::client(client.ip(), None), admin.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(stream: TcpStream, origin: Origin, admin: Arc<Admin>) {
    let Some(acceptor) = admin.tls.clone() else { return serve(stream, origin, admin).await };
    match timeout(READ_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, origin, admin).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the admin API failed"),
        Err(_) => tracing::debug!("a TLS handshake with the admin API took too long"),
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, origin: Origin, admin: Arc<Admin>) {
    let stopped = admin.shared.stopped.clone();
    let service = service_fn(move |request| {
        let (admin, origin) = (admin.clone(), origin.clone());
        async move { Ok::<_, Infallible>(answer(&admin, request, &origin).await.map(Full::new)) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ_LIMIT);
    tokio::select! {
        ended = builder.serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection ended early");
            }
        }
        () = stopped.cancelled() => {}
    }
}

async fn answer(admin: &Admin, request: Request<Incoming>, origin: &Origin) -> Response<Bytes> {
    let (parts, body) = request.into_parts();
    if let Err(rejection) = admin.admit(&parts, origin) {
        return Rejection { close: true, ..rejection }.response();
    }
    let bounds = Bounds { bytes: MAX_BODY_BYTES, pause: READ_LIMIT, total: READ_LIMIT, waits: false };
    // Small bodies on few connections need no budget beside the one that clients share.
    let mut share = Budget::new(MAX_BODY_BYTES).share();
    match collect(body, &bounds, &mut share).await {
        Ok(body) => admin.answer(&parts.method, &parts.uri, &body),
        Err(error) => {
            let message = format!("the body cannot be taken: {error:?}");
            Rejection::new(StatusCode::BAD_REQUEST, "bad_body", message).response()
        }
    }
}
