//! From bytes as they come to frames.

use super::field::varint;
use super::{Frame, MAX_PAYLOAD_BYTES, Malformed};

/// Cuts a stream into frames, wherever its pieces end. Holds one unfinished frame and what was pushed last, no more: take what is there with
/// [`Self::frame`] after every [`Self::push`].
#[derive(Clone, Debug, Default)]
pub struct FrameDecoder {
    bytes: Vec<u8>,
    /// What of `bytes` has been given out.
    read: usize,
    broken: Option<Malformed>,
}

impl FrameDecoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        if self.broken.is_none() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The next frame of a known kind, if all of it is here.
    ///
    /// # Errors
    /// If the bytes make no sense. Nothing that comes behind them can be told apart any more: the error stays.
    pub fn frame(&mut self) -> Result<Option<Frame>, Malformed> {
        loop {
            match self.cut() {
                Ok(None) => return Ok(None),
                Ok(Some(Some(frame))) => return Ok(Some(frame)),
                // A kind that we don't know.
                Ok(Some(None)) => {}
                Err(malformed) => {
                    self.broken = Some(malformed);
                    self.bytes = Vec::new();
                    self.read = 0;
                    return Err(malformed);
                }
            }
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn cut(&mut self) -> Result<Option<Option<Frame>>, Malformed> {
        if let Some(malformed) = self.broken {
            return Err(malformed);
        }
        let rest = &self.bytes[self.read..];
        let Some((kind, before)) = varint(rest)? else { return Ok(None) };
        let Some((length, after)) = varint(&rest[before..])? else { return Ok(None) };
        if length > MAX_PAYLOAD_BYTES as u64 {
            return Err(Malformed::TooLong(length));
        }
        let (begin, end) = (before + after, before + after + length as usize);
        let Some(payload) = rest.get(begin..end) else { return Ok(None) };
        let frame = Frame::decode(kind, payload)?;
        self.read += end;
        Ok(Some(frame))
    }
}
