//! The admin listener: one document per request, made from memory, and one request per connection.

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
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
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
/// Longest life of a connection, whose one answer has 48 MiB at most: a trace, over a line of 4 Mbit/s, with time for the request.
const LIFE_LIMIT: Duration = Duration::from_secs(120);
/// Connections at once, more than a few operators and collectors of metrics have; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 64;
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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = admin.shared.stopped.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                let (origin, admin) = (Origin::client(client.ip(), None), admin.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    accept(stream, origin, admin).await;
                });
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
    tokio::select! {
        () = carry(stream, service, LIFE_LIMIT) => {}
        () = stopped.cancelled() => {}
    }
}

/// One request and its answer, within `limit` in all.
///
/// A second request would need a limit of its own: that of the library for its head runs while the first answer is still being read.
async fn carry<S>(stream: impl AsyncRead + AsyncWrite + Unpin, service: S, limit: Duration)
where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ_LIMIT).keep_alive(false);
    match timeout(limit, builder.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended early"),
        Err(_) => tracing::debug!("an admin connection took too long"),
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::carry;

    /// No test waits longer than this for anything.
    const BOUND: Duration = Duration::from_secs(10);
    /// More than the buffers of a connection take.
    const LARGE: usize = 32 << 20;

    #[tokio::test]
    async fn a_reader_gets_one_answer_whole_and_one_that_takes_nothing_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (reads, limit) in [(true, BOUND), (false, Duration::from_millis(200))] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; LARGE])))) });
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let carried = timeout(BOUND, carry(stream, service, limit));
            let mut got = Vec::new();
            if reads {
                let (carried, read) = tokio::join!(carried, timeout(BOUND, client.read_to_end(&mut got)));
                assert!(carried.is_ok() && read.is_ok());
            } else {
                carried.await.expect("cut in time");
                assert!(timeout(BOUND, client.read_to_end(&mut got)).await.is_ok());
            }
            let complete = got.len() > LARGE;
            assert_eq!(complete, reads, "{} bytes", got.len());
        }
    }
}
