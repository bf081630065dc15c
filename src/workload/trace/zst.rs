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
pub fn decode(whole: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = whole;
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let unpacked = match StreamingDecoder::new(&mut bytes) {
            Ok(mut frame) => unpack(&mut frame, &mut out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                bytes.get(length as usize..).map(|rest| bytes = rest).is_some()
            }
            Err(_) => false,
        };
        if !unpacked {
            return Err(damaged(whole.len() - bytes.len(), whole.len(), &out));
        }
    }
    Ok(out)
}

/// Appends what a frame holds; false if it is damaged or breaks off, with what came before that in `out`.
fn unpack(frame: &mut impl Read, out: &mut Vec<u8>) -> Result<bool, String> {
    let room = (MAX_BYTES - out.len()) as u64;
    let whole = frame.take(room).read_to_end(out).is_ok();
    if out.len() == MAX_BYTES {
        return Err(format!("unpacks to more than {MAX_BYTES} bytes; a trace of that size has to be cut"));
    }
    Ok(whole)
}

/// Where it went wrong, in terms of the file and of its text. The decoder's own words name its internals and are left out.
fn damaged(read: usize, total: usize, out: &[u8]) -> String {
    let lines = out.iter().filter(|byte| **byte == b'\n').count();
    let what = if read == total { "the zstd data breaks off" } else { "the zstd data is damaged" };
    let text =
        if lines == 0 { "no line is complete".to_owned() } else { format!("line {lines} is the last complete one") };
    format!("{what}: {read} of {total} compressed bytes read, {text}; is the file a whole copy?")
}
