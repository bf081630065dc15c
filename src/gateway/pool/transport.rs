//! The byte stream to an engine or an agent: TCP, with TLS where the URL says so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::endpoint::Endpoint;
use crate::gateway::mutual::PeerConnector;
use crate::gateway::mutual::revocation::Standing;

/// A connection on which nothing has come or gone for so long is asked whether its other end still knows it. One that was started anew
/// says no at once, and whoever waits there for the rest of an answer learns that it will not come.
const ASK_AFTER: Duration = Duration::from_secs(15);
/// Between two such questions without an answer, and how many there are: together with [`ASK_AFTER`] a minute, as long as a stream may
/// pause ([`crate::gateway::settings::Limits::stream_timeout`]), so that a line that comes back before then goes on where it was.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const ASK_TIMES: u32 = 9;
/// Longest time that what was sent stays without an acknowledgement, or waits for room at the other end: as long as [`ASK_AFTER`] and its
/// questions take, which are not asked while something is on its way. Linux alone has it.
#[cfg(target_os = "linux")]
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// How a connection is protected.
#[derive(Clone)]
pub(super) enum Security {
    /// Not at all.
    Plain,
    /// By TLS; the server shows a certificate.
    Tls(TlsConnector),
    /// By mutual TLS with the certificates of the cluster.
    Mutual(PeerConnector),
}

/// A connected stream. The TLS state is boxed: it is large and rare.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// By mutual TLS, while the peer's certificate is good.
    Mutual(Box<(TlsStream<TcpStream>, Standing)>),
}

impl Transport {
    /// Connects, with `TCP_NODELAY` and `SO_KEEPALIVE` on.
    pub(super) async fn connect(endpoint: &Endpoint, security: &Security) -> io::Result<Self> {
        let tcp = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
        tcp.set_nodelay(true)?;
        keep_alive(&tcp)?;
        let connector = match security {
            Security::Plain => return Ok(Self::Plain(tcp)),
            Security::Tls(connector) => connector.clone(),
            Security::Mutual(peer) => peer.connector().map_err(io::Error::other)?,
        };
        let name = ServerName::try_from(endpoint.host().to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = connector.connect(name, tcp).await?;
        let Security::Mutual(peer) = security else { return Ok(Self::Tls(Box::new(stream))) };
        let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
        let mut standing = peer.standing(shown.ok_or_else(|| io::Error::other("the peer showed no certificate"))?);
        standing.check()?;
        Ok(Self::Mutual(Box::new((stream, standing))))
    }
}

fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    set_socket_keepalive(tcp, true)?;
    set_tcp_keepidle(tcp, ASK_AFTER)?;
    set_tcp_keepintvl(tcp, ASK_AGAIN)?;
    set_tcp_keepcnt(tcp, ASK_TIMES)?;
    #[cfg(target_os = "linux")]
    set_tcp_user_timeout(tcp, TAKEN_WITHIN.as_millis() as u32)?;
    Ok(())
}

/// TLS as the operating system trusts it, HTTP/1.1 only.
pub(super) fn platform_tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Self::Mutual(secured) => {
                let (stream, standing) = secured.as_mut();
                standing.check()?;
                Pin::new(stream).poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::Mutual(secured) => {
                let (stream, standing) = secured.as_mut();
                standing.check()?;
                Pin::new(stream).poll_write(cx, buf)
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
            Self::Mutual(secured) => {
                let (stream, standing) = secured.as_mut();
                standing.check()?;
                Pin::new(stream).poll_write_vectored(cx, bufs)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Mutual(secured) => secured.0.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Mutual(secured) => Pin::new(&mut secured.0).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Mutual(secured) => Pin::new(&mut secured.0).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
    use tokio::net::TcpListener;

    use super::{ASK_AFTER, ASK_AGAIN, ASK_TIMES, Endpoint, Security, Transport};
    use crate::gateway::settings::Limits;

    #[tokio::test]
    async fn every_connection_asks_now_and_then_whether_the_other_end_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let Transport::Plain(tcp) = Transport::connect(&endpoint, &Security::Plain).await.unwrap() else {
            panic!("no TLS was asked for")
        };
        assert!(socket_keepalive(&tcp).unwrap());
        let set = (tcp_keepidle(&tcp).unwrap(), tcp_keepintvl(&tcp).unwrap(), tcp_keepcnt(&tcp).unwrap());
        assert_eq!(set, (ASK_AFTER, ASK_AGAIN, ASK_TIMES));
        assert_eq!(ASK_AFTER + ASK_AGAIN * ASK_TIMES, Limits::default().stream_timeout);
        #[cfg(target_os = "linux")]
        {
            let taken_ms = rustix::net::sockopt::tcp_user_timeout(&tcp).unwrap();
            assert_eq!(std::time::Duration::from_millis(taken_ms.into()), Limits::default().stream_timeout);
        }
    }
}
