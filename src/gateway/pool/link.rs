//! One HTTP/1.1 connection to an engine, driven by whoever uses it.
//!
//! Hyper's client wants its connection polled; the usual way is a task per connection, which costs a wake-up and a channel hop
//! per chunk. Here the request that uses a connection polls it in place, so a forwarded chunk crosses no task. While idle nobody
//! polls it: a close by the engine is noticed at the next use.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::transport::Transport;

/// A connection that carries one request at a time.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<Transport>, Full<Bytes>>,
    /// Time that it took to connect, ms.
    pub(super) dialed_ms: f64,
    /// The connection's future has ended and must not be polled again.
    ended: bool,
}

impl Link {
    /// Speaks HTTP/1.1 over a fresh stream that took this long to connect.
    pub(super) async fn open(stream: Transport, dialed_ms: f64) -> hyper::Result<Box<Self>> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        Ok(Box::new(Self { sender, connection, dialed_ms, ended: false }))
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    /// Whether a request can be sent now: open as far as the kernel knows, and nothing in flight.
    pub(super) fn usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let sender = &mut self.sender;
        let answer = sender.send_request(request);
        let mut answer = pin!(answer);
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        poll_fn(|cx| {
            if !*ended {
                *ended = Pin::new(&mut *connection).poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// Drives the link and reads the next frame of its answer, in that order: the connection fills what the body then yields.
pub(super) fn poll_incoming(
    link: &mut Option<Box<Link>>,
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<http_body::Frame<Bytes>>>> {
    if let Some(link) = link {
        link.drive(cx);
    }
    http_body::Body::poll_frame(Pin::new(incoming), cx)
}
