//! A request body, collected whole: routing must see it before it can go anywhere.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

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
    /// Nothing came for too long.
    TimedOut,
    /// The client broke off, or broke HTTP.
    Client(hyper::Error),
}

/// Reads a body of at most `limit` bytes whose pieces are at most `pause` apart. A body in one piece is not copied.
///
/// `waits`: the client waits to be told to send it (`expect: 100-continue`), so a refused body must not be asked for.
///
/// # Errors
/// See [`CollectError`].
pub(super) async fn collect(
    mut body: Incoming,
    limit: usize,
    pause: Duration,
    waits: bool,
) -> Result<Bytes, CollectError> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        if !waits {
            tokio::spawn(linger(body));
        }
        return Err(CollectError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = timeout(pause, body.frame()).await.map_err(|_| CollectError::TimedOut)? {
        let Ok(data) = frame.map_err(CollectError::Client)?.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(usize::try_from(announced.min(TRUSTED_BYTES)).unwrap_or(0).max(first.len() + data.len()));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        if first.len().max(all.len()) > limit {
            tokio::spawn(linger(body));
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
