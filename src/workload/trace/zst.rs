//! Zstandard over bytes in memory.

use std::borrow::Cow;
use std::io::Read;

use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::TraceError;

/// First bytes of a frame with data.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Most bytes a trace may have when unpacked: 2 GiB; more is taken for a bomb.
const MAX_BYTES: usize = 2 << 30;

/// The plain bytes: unpacked where `bytes` begin like zstd, else as they are.
pub(super) fn plain<'a>(name: &str, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, TraceError> {
    let error = |problem: String| TraceError { name: name.to_owned(), line: None, problem };
    if bytes.starts_with(&MAGIC) {
        decode(bytes).map(Cow::Owned).map_err(error)
    } else if name.ends_with(".zst") {
        Err(error("not zstd data, though the name ends in `.zst`".to_owned()))
    } else {
        Ok(Cow::Borrowed(bytes))
    }
}

/// Unpacks zstd data of one or more frames.
///
/// # Errors
/// Damaged or truncated data, bytes after the last frame that are none, and more than 2 GiB of result.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        match StreamingDecoder::new(&mut bytes) {
            Ok(mut frame) => unpack(&mut frame, &mut out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let rest = bytes.get(length as usize..);
                bytes = rest.ok_or_else(|| damaged(out.len(), "it ends inside a frame"))?;
            }
            Err(error) => return Err(damaged(out.len(), error)),
        }
    }
    Ok(out)
}

fn unpack(frame: &mut impl Read, out: &mut Vec<u8>) -> Result<(), String> {
    let room = (MAX_BYTES - out.len()) as u64;
    frame.take(room).read_to_end(out).map_err(|error| damaged(out.len(), error))?;
    if out.len() == MAX_BYTES {
        return Err(format!("unpacks to more than {MAX_BYTES} bytes; a trace of that size has to be cut"));
    }
    Ok(())
}

fn damaged(unpacked: usize, why: impl std::fmt::Display) -> String {
    format!("damaged or truncated zstd data after {unpacked} unpacked bytes: {why}")
}
