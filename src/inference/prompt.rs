//! A request body read into what routing and the emulated engine need: the canonical prompt and a few settings.
//!
//! The **canonical prompt** is the concatenation, in this order, of: the raw bytes of `tools`; of each message its `content`
//! (a string, or the parts of an array: the text of text parts, the raw JSON of every other part, so that two images differ)
//! and then the raw JSON of its `tool_calls`; `text` or `prompt` or `input` as string, array of strings, array of token ids (4
//! bytes little-endian each, so one id is one token of the emulator) or array of arrays; `input_ids` likewise.
//!
//! Roles, names and the tokens of the chat template are not part of it. So prompts collide that differ only in where one
//! message ends, in who spoke, or in which of two prompts of a batch a text stands: a router then expects a cache hit that the
//! engine does not have, which costs a slower prefill and never a wrong answer. Neither are `reasoning_content` of old
//! messages (most templates drop it) and whitespace outside of strings, except inside the raw JSON named above.
//!
//! Reading is linear in the body, borrows strings without escapes, ignores unknown fields and takes odd values of known ones
//! as absent. Not JSON, invalid UTF-8, one of our fields twice, or a prompt of the wrong shape is a [`ParseError`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Object, Scalar};

/// The form of a request body, given by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// OpenAI `POST /v1/chat/completions`.
    Chat,
    /// OpenAI `POST /v1/completions`.
    Completions,
    /// OpenAI `POST /v1/embeddings`.
    Embeddings,
    /// SGLang `POST /generate`.
    Generate,
}

impl Dialect {
    /// The dialect spoken at a path (no query).
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completions),
            "/v1/embeddings" => Some(Self::Embeddings),
            "/generate" => Some(Self::Generate),
            _ => None,
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Generate => "/generate",
        }
    }
}

/// What we read in a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed<'a> {
    /// `model`.
    pub model: Option<Cow<'a, str>>,
    /// `stream`; false by default.
    pub stream: bool,
    /// Most output tokens: `max_completion_tokens`, else `max_tokens`; `sampling_params.max_new_tokens` of `/generate`.
    pub max_tokens: Option<u32>,
    /// `ignore_eos` (also in `sampling_params`): the output is exactly `max_tokens` long.
    pub ignore_eos: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// The client's own session key: `prompt_cache_key`, else `user`; the first that is not empty.
    pub session: Option<Cow<'a, str>>,
    /// SGLang's request id, by which `/abort_request` knows it.
    pub rid: Option<Cow<'a, str>>,
    /// The canonical prompt in pieces, in order. Outside of chat each piece is one prompt of a batch.
    pub pieces: Vec<Cow<'a, [u8]>>,
}

impl Parsed<'_> {
    /// Length of the canonical prompt, bytes.
    #[must_use]
    pub fn canonical_len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The canonical prompt, piece by piece.
    pub fn canonical(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(AsRef::as_ref)
    }
}

/// The body is not what its path promises.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the body as a request to `{}`: {cause}", dialect.path())]
pub struct ParseError {
    dialect: Dialect,
    cause: serde_json::Error,
}

/// Reads a body.
///
/// # Errors
/// See the module's head: whoever forwards requests can still forward such a body.
pub fn parse(dialect: Dialect, body: &[u8]) -> Result<Parsed<'_>, ParseError> {
    // Derived readers of structs also take arrays, field by field; no engine does.
    let fields = match body.trim_ascii_start().first() {
        Some(b'[') => Err(serde_json::Error::custom("the body is an array: wanted an object")),
        _ => serde_json::from_slice::<Fields<'_>>(body),
    };
    fields.map(|fields| fields.into_parsed(dialect)).map_err(|cause| ParseError { dialect, cause })
}

/// The fields of all dialects; names do not clash, so one pass serves them all.
#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    model: Scalar<'a>,
    #[serde(borrow, default)]
    stream: Scalar<'a>,
    #[serde(borrow, default)]
    max_tokens: Scalar<'a>,
    #[serde(borrow, default)]
    max_completion_tokens: Scalar<'a>,
    #[serde(borrow, default)]
    ignore_eos: Scalar<'a>,
    #[serde(borrow, default)]
    stream_options: Object<StreamOptions<'a>>,
    #[serde(borrow, default)]
    sampling_params: Object<SamplingParams<'a>>,
    #[serde(borrow, default)]
    prompt_cache_key: Scalar<'a>,
    #[serde(borrow, default)]
    user: Scalar<'a>,
    #[serde(borrow, default)]
    rid: Scalar<'a>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    messages: Option<Vec<Object<Message<'a>>>>,
    #[serde(borrow, default)]
    prompt: Prompt<'a>,
    #[serde(borrow, default)]
    text: Prompt<'a>,
    #[serde(borrow, default)]
    input_ids: Prompt<'a>,
    #[serde(borrow, default)]
    input: Prompt<'a>,
}

#[derive(serde::Deserialize)]
struct StreamOptions<'a> {
    #[serde(borrow, default)]
    include_usage: Scalar<'a>,
}

#[derive(serde::Deserialize)]
struct SamplingParams<'a> {
    #[serde(borrow, default)]
    max_new_tokens: Scalar<'a>,
    #[serde(borrow, default)]
    ignore_eos: Scalar<'a>,
}

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn into_parsed(self, dialect: Dialect) -> Parsed<'a> {
        let sampling = self.sampling_params.0.filter(|_| dialect == Dialect::Generate);
        let (max_tokens, sampled_past_eos) = match &sampling {
            Some(sampling) => (sampling.max_new_tokens.count(), sampling.ignore_eos.is_true()),
            None => (self.max_completion_tokens.count().or(self.max_tokens.count()), false),
        };
        let pieces = match dialect {
            Dialect::Chat => chat_pieces(self.tools, self.messages.unwrap_or_default()),
            Dialect::Completions => self.prompt.0,
            Dialect::Embeddings => self.input.0,
            Dialect::Generate => self.text.0.into_iter().chain(self.input_ids.0).collect(),
        };
        Parsed {
            // SGLang's own call has no such field, so a name in it would choose nothing and only pretend to.
            model: self.model.text().filter(|_| dialect != Dialect::Generate),
            stream: self.stream.is_true(),
            max_tokens,
            ignore_eos: self.ignore_eos.is_true() || sampled_past_eos,
            include_usage: self.stream_options.0.is_some_and(|options| options.include_usage.is_true()),
            session: named(self.prompt_cache_key).or(named(self.user)),
            rid: self.rid.text(),
            pieces,
        }
    }
}

/// A session key; an empty one names nobody, and all who send it would share one session.
fn named(key: Scalar<'_>) -> Option<Cow<'_, str>> {
    key.text().filter(|key| !key.trim().is_empty())
}

fn chat_pieces<'a>(tools: Option<&'a RawValue>, messages: Vec<Object<Message<'a>>>) -> Vec<Cow<'a, [u8]>> {
    let mut pieces = Vec::with_capacity(messages.len() + 1);
    pieces.extend(tools.map(raw_bytes));
    for message in messages.into_iter().filter_map(|message| message.0) {
        match message.content {
            Content::None => {}
            Content::Text(text) => pieces.push(text_bytes(text)),
            Content::Parts(parts) => pieces.extend(parts),
        }
        pieces.extend(message.tool_calls.map(raw_bytes));
    }
    pieces
}

fn raw_bytes(raw: &RawValue) -> Cow<'_, [u8]> {
    Cow::Borrowed(raw.get().as_bytes())
}

fn text_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// A message's `content`.
#[derive(Default)]
enum Content<'a> {
    #[default]
    None,
    Text(Cow<'a, str>),
    Parts(Vec<Cow<'a, [u8]>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of parts or null")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Content::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Content::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Content::None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element::<&RawValue>()? {
            parts.push(part_bytes(part));
        }
        Ok(Content::Parts(parts))
    }
}

/// The text of a text part, the raw JSON of any other.
fn part_bytes(raw: &RawValue) -> Cow<'_, [u8]> {
    #[derive(serde::Deserialize)]
    struct Part<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Scalar<'a>,
        #[serde(borrow, default)]
        text: Scalar<'a>,
    }
    let text = match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Scalar<'_>>(raw.get()).ok().and_then(Scalar::text),
        Some(b'{') => serde_json::from_str::<Part<'_>>(raw.get())
            .ok()
            .filter(|part| matches!(&part.kind, Scalar::Other) || part.kind == Scalar::Text("text".into()))
            .and_then(|part| part.text.text()),
        _ => None,
    };
    text.map_or_else(|| raw_bytes(raw), text_bytes)
}

/// `prompt`, `text`, `input` or `input_ids`: one piece per prompt of the batch.
#[derive(Default)]
struct Prompt<'a>(Vec<Cow<'a, [u8]>>);

impl<'de: 'a, 'a> Deserialize<'de> for Prompt<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pieces = match deserializer.deserialize_any(ItemVisitor)? {
            Item::Null => Vec::new(),
            Item::Piece(piece) => vec![piece],
            Item::Pieces(pieces) => pieces,
            Item::Id(_) => return Err(D::Error::custom("a single number is no prompt: wanted a string or an array")),
        };
        Ok(Self(pieces))
    }
}

/// A prompt or an element of one.
enum Item<'a> {
    Null,
    Piece(Cow<'a, [u8]>),
    Pieces(Vec<Cow<'a, [u8]>>),
    Id(u32),
}

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, token ids, or an array of these")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Item::Piece(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Item::Piece(Cow::Owned(text.as_bytes().to_vec())))
    }

    /// No vocabulary is larger than 32 bits; what is larger is no id and may as well be cut.
    fn visit_u64<E>(self, id: u64) -> Result<Self::Value, E> {
        Ok(Item::Id(id as u32))
    }

    fn visit_i64<E>(self, id: i64) -> Result<Self::Value, E> {
        Ok(Item::Id(id as u32))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Item::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut pieces = Vec::new();
        let mut ids: Vec<u8> = Vec::new();
        while let Some(item) = seq.next_element()? {
            if !matches!(item, Item::Id(_)) && !ids.is_empty() {
                pieces.push(Cow::Owned(std::mem::take(&mut ids)));
            }
            match item {
                Item::Null => {}
                Item::Id(id) => ids.extend_from_slice(&id.to_le_bytes()),
                Item::Piece(piece) => pieces.push(piece),
                Item::Pieces(inner) => pieces.extend(inner),
            }
        }
        if !ids.is_empty() {
            pieces.push(Cow::Owned(ids));
        }
        Ok(Item::Pieces(pieces))
    }

    /// Multimodal `input` of embedding models: every key and the raw JSON of every value.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some((key, value)) = map.next_entry::<Scalar<'de>, &RawValue>()? {
            bytes.extend(key.text().map(text_bytes).unwrap_or_default().iter());
            bytes.extend_from_slice(value.get().as_bytes());
        }
        Ok(Item::Piece(Cow::Owned(bytes)))
    }
}

#[cfg(test)]
mod tests;
