//! The body of an engine's answer: drives its connection and hands it back to the pool at the end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Pool;
use super::link::{Link, poll_incoming};

/// Frames that are already there are joined into one until it holds this many bytes: one write instead of one per token, and no
/// copying to speak of for large answers.
const JOIN_BYTES: usize = 16 * 1024;

/// The answer's bytes as they come. Dropping it before its end closes the connection, which cancels the request at the engine.
pub struct Reply {
    incoming: Incoming,
    link: Option<Box<Link>>,
    pool: Arc<Pool>,
    /// What was waited for and not yet handed out.
    first: Option<Frame<Bytes>>,
    /// What came behind data that had to be handed out first.
    after: Option<hyper::Result<Frame<Bytes>>>,
    ended: bool,
}

impl Reply {
    pub(super) fn new(incoming: Incoming, link: Box<Link>, pool: Arc<Pool>) -> Self {
        let mut reply = Self { incoming, link: Some(link), pool, first: None, after: None, ended: false };
        if reply.incoming.is_end_stream() {
            reply.finish();
        }
        reply
    }

    /// Returns when the first piece of the body is there, or its end.
    ///
    /// # Errors
    /// The connection broke before.
    pub async fn begun(&mut self) -> hyper::Result<()> {
        if self.first.is_none() && !self.is_end_stream() {
            let came = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await;
            self.first = came.transpose()?;
        }
        Ok(())
    }

    /// The answer is complete: the connection goes back if it can carry another request.
    fn finish(&mut self) {
        self.ended = true;
        if let Some(link) = self.link.take() {
            self.pool.park(link);
        }
    }

    /// Reads on for as long as frames are there.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut joined = Joined::default();
        while joined.len() < JOIN_BYTES && !self.ended {
            match poll_incoming(&mut self.link, &mut self.incoming, cx) {
                Poll::Pending if joined.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(None) => self.finish(),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        joined.push(data);
                        if self.incoming.is_end_stream() {
                            self.finish();
                        }
                    }
                    Err(trailers) => {
                        self.after = Some(Ok(trailers));
                        break;
                    }
                },
                Poll::Ready(Some(Err(error))) => {
                    self.link = None;
                    self.after = Some(Err(error));
                    break;
                }
            }
        }
        if joined.is_empty() {
            return Poll::Ready(self.after.take());
        }
        Poll::Ready(Some(Ok(Frame::data(joined.into_bytes()))))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(after) = self.after.take() {
            return Poll::Ready(Some(after));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.read(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.first.is_none() && self.after.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let ready = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let rest = if self.ended { SizeHint::with_exact(0) } else { self.incoming.size_hint() };
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower() + ready);
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper + ready);
        }
        whole
    }
}

/// Data frames in a row; the first is kept as it is and copied only if a second one comes.
#[derive(Default)]
struct Joined {
    first: Bytes,
    all: BytesMut,
}

impl Joined {
    fn len(&self) -> usize {
        if self.all.is_empty() { self.first.len() } else { self.all.len() }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve((self.first.len() + data.len()).max(1024));
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
