//! What agents tell each other: an endless stream of small frames per direction, and a document for whoever asks once.
//!
//! A stream begins with [`Frame::Hello`]; then [`Frame::State`] comes several times a second, with what changed since the one before
//! (nothing: a heartbeat), and [`Frame::Digest`] with what entered and left the sender's prefix cache. Byte by byte:
//!
//! ```text
//! stream  = frame*
//! frame   = kind:varint  length:varint  payload            length at most MAX_PAYLOAD_BYTES
//! payload = field*
//! field   = key:varint  value                              key = number · 2 + (0: value is a varint | 1: a length and so many bytes)
//! varint  = 7 bits a byte, the lowest first, the top bit set on all but the last; at most 10 bytes
//! ```
//!
//! Readers skip kinds and fields that they don't know, so that a newer sender can tell more. What must not be skipped changes
//! [`Hello::oldest`]. No figure is a float: each has an integer unit of its own.

mod decoder;
mod document;
mod field;
mod figures;
mod frame;
#[cfg(test)]
mod tests;

pub use decoder::FrameDecoder;
pub use document::PeerState;
pub use figures::{Change, Figure, Figures};
pub use frame::{Digest, Frame, Hello, State};

/// The version of the stream that is spoken here.
pub const VERSION: u32 = 1;

/// Media type of a stream.
pub const MEDIA_TYPE: &str = "application/vnd.gorgo.peer-stream";

/// Longest payload of a frame: some twenty times what one tick of a busy node needs.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// Longest name of a node or a region, bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Bytes that are no stream of frames. Whoever sent them is not talked to any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A payload longer than [`MAX_PAYLOAD_BYTES`].
    #[error("a frame of {0} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")]
    TooLong(u64),
    /// A varint of more than 10 bytes, or of more than 64 bits.
    #[error("a number of more than 64 bits")]
    Number,
    /// A payload that ends inside a field.
    #[error("a frame that ends inside a field")]
    Short,
    /// A name that is not UTF-8, or longer than [`MAX_NAME_BYTES`].
    #[error("a name that is not UTF-8 or has more than {MAX_NAME_BYTES} bytes")]
    Name,
    /// Hashes are four bytes each.
    #[error("hashes of {0} bytes, wanted a multiple of 4")]
    Hashes(usize),
}
