//! The frames of a stream, as values and as bytes.

use super::field::{Reader, Value, Writer, hashes};
use super::figures::Change;
use super::{MAX_NAME_BYTES, Malformed};
use crate::model::Region;

const HELLO: u32 = 1;
const STATE: u32 = 2;
const DIGEST: u32 = 3;

/// Field of [`State::sent_us`]; every other number of a state is a figure's.
const SENT_US: u32 = 1;

/// What opens a digest's snapshot, and what ends it, in the field of flags.
const BEGINS: u64 = 1;
const ENDS: u64 = 2;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who speaks; the first frame of every stream and no other.
    Hello(Hello),
    /// How it is doing.
    State(State),
    /// What entered and left its cache.
    Digest(Digest),
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the stream that the sender speaks.
    pub version: u32,
    /// The oldest version whose readers understand this stream.
    pub oldest: u32,
    /// The sender's name.
    pub name: String,
    /// Where it stands.
    pub region: Region,
    /// Differs from that of every other start of the node: after a restart nothing holds that was believed of it.
    pub epoch: u64,
    /// A state comes this often, ms; 0 = it does not say.
    pub every_ms: u64,
    /// Bytes of prompt per block of its digests, and every how many blocks a hash is told. Who counts otherwise leaves its digests
    /// alone; 0 = there are none.
    pub block_bytes: u64,
    /// See `block_bytes`.
    pub sample_every: u64,
}

/// How the sender is doing: what changed since the state before, all of it the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The sender's own clock when it wrote this, µs since whenever. Only differences between two of them mean something.
    pub sent_us: u64,
    /// Figures that changed.
    pub changes: Vec<Change>,
}

/// Changes of the sender's cache: the upper halves of chained block hashes, of every so-many-th block only.
///
/// A snapshot is told in parts between which changes may come; between its beginning and its end the reader keeps what it knew before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// A snapshot begins with this part.
    pub begins: bool,
    /// It ends with this part: what was not told since its beginning is not there.
    pub ends: bool,
    /// Held now.
    pub held: Vec<u32>,
    /// No longer held. None of them stands in `held`.
    pub gone: Vec<u32>,
}

impl Frame {
    /// Writes it behind what is in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut payload = Writer::default();
        let kind = match self {
            Self::Hello(hello) => {
                hello.write(&mut payload);
                HELLO
            }
            Self::State(state) => {
                payload.number(SENT_US, state.sent_us);
                for change in &state.changes {
                    payload.number(change.number, change.value.map_or(0, |value| value.saturating_add(1)));
                }
                STATE
            }
            Self::Digest(digest) => {
                payload.number(1, u64::from(digest.begins) * BEGINS + u64::from(digest.ends) * ENDS);
                payload.hashes(2, &digest.held);
                payload.hashes(3, &digest.gone);
                DIGEST
            }
        };
        payload.close(kind, out);
    }

    /// The frame of this kind with this payload; `None` for a kind that we don't know.
    pub(super) fn decode(kind: u64, payload: &[u8]) -> Result<Option<Self>, Malformed> {
        let fields = Reader::new(payload);
        Ok(Some(match u32::try_from(kind) {
            Ok(HELLO) => Self::Hello(Hello::read(fields)?),
            Ok(STATE) => Self::State(State::read(fields)?),
            Ok(DIGEST) => Self::Digest(Digest::read(fields)?),
            _ => return Ok(None),
        }))
    }
}

impl Hello {
    fn write(&self, payload: &mut Writer) {
        payload.number(1, u64::from(self.version));
        payload.number(2, u64::from(self.oldest));
        payload.bytes(3, self.name.as_bytes());
        payload.bytes(4, self.region.as_str().as_bytes());
        payload.number(5, self.epoch);
        payload.number(6, self.every_ms);
        payload.number(7, self.block_bytes);
        payload.number(8, self.sample_every);
    }

    fn read(mut fields: Reader<'_>) -> Result<Self, Malformed> {
        let mut hello = Self {
            version: 0,
            oldest: 0,
            name: String::new(),
            region: Region::new(""),
            epoch: 0,
            every_ms: 0,
            block_bytes: 0,
            sample_every: 0,
        };
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(version)) => hello.version = u32::try_from(version).unwrap_or(u32::MAX),
                (2, Value::Number(version)) => hello.oldest = u32::try_from(version).unwrap_or(u32::MAX),
                (3, Value::Bytes(bytes)) => hello.name = text(bytes)?.to_owned(),
                (4, Value::Bytes(bytes)) => hello.region = Region::new(text(bytes)?),
                (5, Value::Number(epoch)) => hello.epoch = epoch,
                (6, Value::Number(every_ms)) => hello.every_ms = every_ms,
                (7, Value::Number(bytes)) => hello.block_bytes = bytes,
                (8, Value::Number(blocks)) => hello.sample_every = blocks,
                _ => {}
            }
        }
        Ok(hello)
    }
}

impl State {
    fn read(mut fields: Reader<'_>) -> Result<Self, Malformed> {
        let mut state = Self::default();
        while let Some(field) = fields.next()? {
            match field {
                (SENT_US, Value::Number(sent_us)) => state.sent_us = sent_us,
                (number, Value::Number(value)) => state.changes.push(Change { number, value: value.checked_sub(1) }),
                (_, Value::Bytes(_)) => {}
            }
        }
        Ok(state)
    }
}

impl Digest {
    fn read(mut fields: Reader<'_>) -> Result<Self, Malformed> {
        let mut digest = Self::default();
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Number(flags)) => {
                    (digest.begins, digest.ends) = (flags & BEGINS != 0, flags & ENDS != 0);
                }
                (2, Value::Bytes(bytes)) => digest.held = hashes(bytes)?,
                (3, Value::Bytes(bytes)) => digest.gone = hashes(bytes)?,
                _ => {}
            }
        }
        Ok(digest)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(Malformed::Name);
    }
    std::str::from_utf8(bytes).map_err(|_| Malformed::Name)
}
