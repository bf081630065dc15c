//! A request body, collected whole: routing must see it before it can go anywhere.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::budget::Share;

/// Set aside at once for a body that names its length; what is longer grows as it really comes.
const TRUSTED_BYTES: u64 = 1 << 20;

/// How long, and for how many bytes, a refused body is still read, so that the client gets to read the refusal: closing a
/// connection with unread bytes resets it.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 256 << 20;

/// Why a body is not there.
#[derive(Debug)]
pub(super) enum CollectError {
    /// Longer than allowed.
    TooLarge,
    /// Nothing came for too long, or all of it took too long.
    TimedOut,
    /// No memory is left for it beside the others.
    NoRoom,
    /// The client broke off, or broke HTTP.
    Client(hyper::Error),
}

/// What a body may be like.
pub(super) struct Bounds {
    /// Most bytes.
    pub(super) bytes: usize,
    /// Longest pause between two pieces.
    pub(super) pause: Duration,
    /// Longest time for all of it.
    pub(super) total: Duration,
    /// The client waits to be told to send it (`expect: 100-continue`), so a refused body must not be asked for.
    pub(super) waits: bool,
}

/// Reads a body within its bounds, taking its bytes out of `share` as they come. A body in one piece is not copied.
///
/// # Errors
/// See [`CollectError`].
pub(super) async fn collect(mut body: Incoming, bounds: &Bounds, share: &mut Share) -> Result<Bytes, CollectError> {
    let announced = body.size_hint().lower();
    if announced > bounds.bytes as u64 {
        if !bounds.waits {
            tokio::spawn(linger(body));
        }
        return Err(CollectError::TooLarge);
    }
    let read = timeout(bounds.total, read(&mut body, announced, bounds, share));
    let result = read.await.unwrap_or(Err(CollectError::TimedOut));
    if matches!(result, Err(CollectError::TooLarge | CollectError::NoRoom)) {
        tokio::spawn(linger(body));
    }
    result
}

async fn read(body: &mut Incoming, announced: u64, bounds: &Bounds, share: &mut Share) -> Result<Bytes, CollectError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = timeout(bounds.pause, body.frame()).await.map_err(|_| CollectError::TimedOut)? {
        let Ok(data) = frame.map_err(CollectError::Client)?.into_data() else { continue };
        if !share.take(data.len()) {
            return Err(CollectError::NoRoom);
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(usize::try_from(announced.min(TRUSTED_BYTES)).unwrap_or(0).max(first.len() + data.len()));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        if first.len().max(all.len()) > bounds.bytes {
            return Err(CollectError::TooLarge);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn linger(mut body: Incoming) {
    let drained = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > LINGER_BYTES {
                break;
            }
        }
    };
    // Whether it ended by itself or by the clock, there is nothing left to do.
    let _ = timeout(LINGER_TIME, drained).await;
}
