//! The port for peers: whoever comes shows a certificate, or goes.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::keeper::{Keeper, Look};
use super::refusals::{Cause, Line, Refusals};
use super::revocation::Standing;
use super::verify::{identity_of, names_address};
use crate::gateway::origin::Origin;
use crate::gateway::serve::{Shared, serve};

/// Longest handshake: three round trips around the world, and a lost packet.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait of a peer for a place among the connections of all: it comes again by itself.
const ROOM_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes at once. More wait in the kernel's backlog, so that strangers cost a bounded amount of memory and computing.
const HANDSHAKES: usize = 256;
/// Pause after an accept that failed, e.g. for want of file descriptors: trying again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks for refusals that are due to be told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The port for peers of one gateway.
pub(in crate::gateway) struct Door {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    refusals: Mutex<Refusals>,
    hands: Arc<Semaphore>,
}

impl Door {
    /// Lets in whom the keeper's CAs vouch for and the gateway knows.
    #[must_use]
    pub(in crate::gateway) fn new(shared: Arc<Shared>, keeper: Arc<Keeper>) -> Arc<Self> {
        Arc::new(Self { shared, keeper, refusals: Mutex::default(), hands: Arc::new(Semaphore::new(HANDSHAKES)) })
    }

    /// Accepts until the gateway stops.
    pub(in crate::gateway) async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let next = async {
                let hand = self.hands.clone().acquire_owned().await;
                (hand, listener.accept().await)
            };
            let (hand, accepted) = tokio::select! {
                next = next => next,
                () = self.shared.stopping.cancelled() => return,
            };
            match (hand, accepted) {
                (Ok(hand), Ok((stream, address))) => _ = tokio::spawn(self.clone().welcome(stream, address, hand)),
                (_, Err(error)) => {
                    tracing::warn!(%error, "failed to accept a peer's connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                (Err(_), _) => return,
            }
        }
    }

    /// Tells what was refused meanwhile, until the gateway stops.
    pub(in crate::gateway) async fn tell(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = sleep(TELL_EVERY) => {}
                () = self.shared.stopping.cancelled() => return,
            }
            let now = self.shared.brain.clock().now();
            let lines = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).due(now);
            lines.into_iter().for_each(log);
        }
    }

    async fn welcome(self: Arc<Self>, stream: TcpStream, address: SocketAddr, hand: OwnedSemaphorePermit) {
        let greeted = timeout(HANDSHAKE_LIMIT, self.greet(stream, address.ip())).await.unwrap_or(Err(Cause::TimedOut));
        drop(hand);
        match greeted {
            Err(cause) => self.refuse(cause, address.ip().to_canonical()),
            Ok((stream, origin, standing)) => {
                let room = tokio::select! {
                    biased;
                    () = self.shared.stopping.cancelled() => return,
                    room = timeout(ROOM_LIMIT, self.shared.peer_room.clone().acquire_owned()) => room,
                };
                match room {
                    // In this order: nothing more is read once it is lost.
                    Ok(Ok(permit)) => tokio::select! {
                        biased;
                        () = standing.lost() => self.refuse(Cause::Revoked, address.ip().to_canonical()),
                        () = serve(stream, origin, self.shared.clone(), permit) => {}
                    },
                    // It is never closed.
                    Ok(Err(_)) => {}
                    Err(_) => self.refuse(Cause::NoRoom, address.ip().to_canonical()),
                }
            }
        }
    }

    /// The handshake, and whether the certificate is the one for this node at this address.
    async fn greet(
        &self,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<(TlsStream<TcpStream>, Origin, Standing), Cause> {
        stream.set_nodelay(true).map_err(|error| Cause::of(&error))?;
        let credentials = self.keeper.current();
        let accepted = TlsAcceptor::from(credentials.server()).accept(stream).await;
        let stream = accepted.map_err(|error| Cause::of(&error))?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
        let certificate = certificate.ok_or(Cause::NoCertificate)?;
        let identity = identity_of(certificate).ok_or(Cause::NoIdentity)?;
        if identity.cluster() != credentials.identity().cluster() {
            return Err(Cause::NoIdentity);
        }
        if !names_address(certificate, address) {
            return Err(Cause::WrongAddress);
        }
        let mut standing = Standing::new(self.keeper.clone(), certificate.clone().into_owned());
        standing.check().map_err(|_| Cause::Revoked)?;
        let origin = Origin::member(address, identity);
        if self.shared.is_ours(&origin) { Ok((stream, origin, standing)) } else { Err(Cause::UnknownPeer) }
    }

    fn refuse(&self, cause: Cause, address: IpAddr) {
        self.shared.brain.metrics().peer_refused(cause.label());
        let now = self.shared.brain.clock().now();
        let line = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).note(now, cause, address);
        line.into_iter().for_each(log);
    }
}

/// Looks after the file, and counts what comes of it, until the gateway stops.
pub(in crate::gateway) async fn keep_fresh(shared: Arc<Shared>, keeper: Arc<Keeper>, every: Duration) {
    let metrics = shared.brain.metrics().clone();
    metrics.certificate_expires(keeper.current().not_after());
    let watching = keeper.watch(every, |look| match look {
        Look::Unchanged => {}
        Look::Renewed => {
            metrics.certificate_renewed("ok");
            metrics.certificate_expires(keeper.current().not_after());
        }
        Look::Refused(_) => metrics.certificate_renewed("refused"),
    });
    tokio::select! {
        never = watching => match never {},
        () = shared.stopped.cancelled() => {}
    }
}

fn log(line: Line) {
    let from = line.address.map_or_else(|| "more addresses".to_owned(), |address| address.to_string());
    let (why, count) = (line.cause, line.count);
    tracing::warn!(%from, count, "refused on the port for peers: {why}");
}
