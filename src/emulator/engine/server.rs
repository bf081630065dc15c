//! Accepts connections and serves each in a task of its own, until told to stop.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::face::Face;

/// Pause after a failed accept (out of file descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What the server is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes requests.
    Serving,
    /// Takes no more, finishes what runs.
    Draining,
    /// Cuts everything.
    Killed,
}

/// Serves until the phase says otherwise. Whoever drops the sender of the phase kills the server.
pub(super) async fn serve(listener: TcpListener, face: Arc<Face>, mut phases: watch::Receiver<Phase>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&face), phases.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            changed = phases.changed() => {
                if changed.is_err() || *phases.borrow() != Phase::Serving {
                    break;
                }
            }
        }
    }
    drop(listener);
    // Connections see the phase themselves. Should this task be dropped, the set drops them.
    while connections.join_next().await.is_some() {}
}

/// One connection, until it ends or is cut.
async fn converse(stream: TcpStream, face: Arc<Face>, mut phases: watch::Receiver<Phase>) {
    // Without this an event could wait for the acknowledgement of the one before, up to 40 ms.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| {
        let face = Arc::clone(&face);
        async move { face.answer(request).await }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            // Errors are the client's going away or our own cut: nobody is left to be told.
            _ = connection.as_mut() => return,
            changed = phases.changed() => match (changed, *phases.borrow_and_update()) {
                (Err(_), _) | (_, Phase::Killed) => return,
                (Ok(()), Phase::Draining) => connection.as_mut().graceful_shutdown(),
                (Ok(()), Phase::Serving) => {}
            },
        }
    }
}
