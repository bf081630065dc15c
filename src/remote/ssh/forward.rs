//! Tunnels to a node's loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use openssh::{ForwardType, Session, Socket};
use tokio::runtime::Handle;

use super::super::Forward;
use super::super::error::RemoteError;
use super::connection::Connection;

/// Another program may take the free port between our look and ssh's use of it.
const ATTEMPTS: usize = 5;

/// Closes the tunnel when dropped, and keeps the connection until then. Outside of a runtime the tunnel ends with the connection.
struct Guard {
    session: Arc<Session>,
    here: SocketAddr,
    there: SocketAddr,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let (session, here, there) = (Arc::clone(&self.session), self.here, self.there);
        runtime.spawn(async move {
            // Fails only if the connection is gone, and the tunnel with it.
            let _ = session.close_port_forward(ForwardType::Local, Socket::from(here), Socket::from(there)).await;
        });
    }
}

pub(super) async fn open(connection: &Connection, port: u16) -> Result<Forward, RemoteError> {
    let session = connection.session().await?;
    let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut refusal = String::new();
    for _ in 0..ATTEMPTS {
        let here = free_port().map_err(|error| {
            RemoteError::failed(
                &connection.target.node,
                format_args!("no free port on this machine for a tunnel: {error}"),
            )
        })?;
        match session.request_port_forward(ForwardType::Local, Socket::from(here), Socket::from(there)).await {
            Ok(()) => return Ok(Forward { address: here, guard: Box::new(Guard { session, here, there }) }),
            Err(error @ openssh::Error::SshMux(_)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                refusal = format!("{error}: {cause}");
            }
            Err(error) => return Err(connection.lost(&error)),
        }
    }
    Err(RemoteError::failed(&connection.target.node, format_args!("cannot open a tunnel to port {port}: {refusal}")))
}

fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
