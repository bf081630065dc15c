//! What a command gives, read to its end or to the limit.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::OUTPUT_LIMIT;

/// All of a stream, if there is one.
///
/// # Errors
/// More than [`OUTPUT_LIMIT`], or a stream that breaks.
pub(super) async fn collect(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(OUTPUT_LIMIT as u64 + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > OUTPUT_LIMIT {
        return Err(io::Error::other(format!("the command gave more than {} MiB of output", OUTPUT_LIMIT >> 20)));
    }
    Ok(bytes)
}
