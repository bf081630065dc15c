//! What passes by in an answer: its first token, its usage, whether it ended well. Looks at bytes, changes none.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::inference::prompt::Dialect;
use crate::inference::sse::{Event, Meaning, Scanner, meaning};
use crate::inference::usage::{self, Usage as EngineUsage};
use crate::routing::Usage;

/// Most bytes of an answer in one piece that are kept until its end, to read the usage in it.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Follows one answer.
#[derive(Debug)]
pub(super) enum Observer {
    /// A stream of events.
    Events(Events),
    /// One JSON document.
    Document(Document),
    /// Something that is not for us: another type, compressed, or an error.
    Nothing,
}

/// A stream of events so far.
#[derive(Debug)]
pub(super) struct Events {
    scanner: Scanner,
    dialect: Dialect,
    first_token: bool,
    usage: Option<EngineUsage>,
    done: bool,
    error: bool,
    /// The last bytes end an event: another one may follow.
    between: bool,
}

/// A document so far.
#[derive(Debug, Default)]
pub(super) struct Document {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Observer {
    /// For an answer of this content type.
    #[must_use]
    pub(super) fn new(dialect: Dialect, content_type: &[u8]) -> Self {
        let starts = |prefix: &[u8]| content_type.get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix));
        if starts(b"text/event-stream") {
            let (scanner, usage) = (Scanner::new(), None);
            return Self::Events(Events {
                scanner,
                dialect,
                first_token: false,
                usage,
                done: false,
                error: false,
                between: true,
            });
        }
        if starts(b"application/json") { Self::Document(Document::default()) } else { Self::Nothing }
    }

    /// Takes the next bytes; true if the first token is among them.
    pub(super) fn take(&mut self, data: &Bytes) -> bool {
        match self {
            Self::Events(events) => events.take(data),
            Self::Document(document) => {
                document.take(data);
                false
            }
            Self::Nothing => false,
        }
    }

    /// What the engine counted.
    #[must_use]
    pub(super) fn usage(&self) -> Usage {
        let usage = match self {
            Self::Events(events) => events.usage,
            Self::Document(document) => document.usage(),
            Self::Nothing => None,
        };
        let EngineUsage { prompt_tokens, cached_tokens, completion_tokens } = usage.unwrap_or_default();
        Usage { prompt_tokens, cached_tokens, completion_tokens }
    }
}

impl Events {
    fn take(&mut self, data: &Bytes) -> bool {
        let had_first = self.first_token;
        let Self { scanner, dialect, first_token, usage, done, error, .. } = self;
        scanner.feed(data, |event| match event {
            Event::Data(json) => {
                // Reading every event's meaning would cost more than forwarding it; after the first token only usage and errors count.
                if !*first_token || memmem::find(json, b"\"error\"").is_some() {
                    match meaning(*dialect, json) {
                        Meaning::Token => *first_token = true,
                        Meaning::Error => *error = true,
                        Meaning::Other => {}
                    }
                }
                *usage = usage::from_json(json).or(*usage);
            }
            Event::Done => *done = true,
            Event::Oversized => *first_token = true,
            Event::Comment => {}
        });
        if !data.is_empty() {
            self.between = data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n");
        }
        self.first_token && !had_first
    }

    /// The engine has ended the stream as its dialect demands.
    #[must_use]
    pub(super) fn complete(&self) -> bool {
        self.done || matches!(self.dialect, Dialect::Embeddings)
    }

    /// An error event came.
    #[must_use]
    pub(super) fn error(&self) -> bool {
        self.error
    }

    /// The stream stands between two events.
    #[must_use]
    pub(super) fn between(&self) -> bool {
        self.between
    }
}

impl Document {
    fn take(&mut self, data: &Bytes) {
        self.bytes += data.len();
        if self.bytes <= MAX_KEPT_BYTES {
            self.pieces.push(data.clone());
        } else {
            self.pieces.clear();
        }
    }

    fn usage(&self) -> Option<EngineUsage> {
        match &self.pieces[..] {
            [] => None,
            [whole] => document_usage(whole),
            pieces => document_usage(&pieces.iter().fold(BytesMut::with_capacity(self.bytes), |mut all, piece| {
                all.extend_from_slice(piece);
                all
            })),
        }
    }
}

/// Engines put the usage last, behind what may be a megabyte of numbers: reading from the last mention on is enough.
fn document_usage(json: &[u8]) -> Option<EngineUsage> {
    let is_object = json.trim_ascii_start().first() == Some(&b'{');
    let last = memmem::rfind(json, b"\"usage\"").max(memmem::rfind(json, b"\"meta_info\""))?;
    if is_object {
        let tail = [b"{", &json[last..]].concat();
        if let Some(usage) = usage::from_json(&tail) {
            return Some(usage);
        }
    }
    usage::from_json(json)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Observer;
    use crate::inference::prompt::Dialect;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn the_first_token_is_the_first_content_and_comes_once() {
        let mut observer = Observer::new(Dialect::Chat, b"text/event-stream; charset=utf-8");
        let chunks = [
            (": ping\n\n", false),
            ("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", false),
            ("data: {\"choices\":[{\"delta\":{\"con", false),
            ("tent\":\"a\"}}]}\n\n", true),
            ("data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n", false),
            (
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
                false,
            ),
        ];
        for (chunk, first) in chunks {
            assert_eq!(observer.take(&bytes(chunk)), first, "{chunk}");
        }
        let usage = observer.usage();
        assert_eq!((usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens), (Some(9), None, Some(2)));
        let Observer::Events(events) = observer else { panic!("events") };
        assert!(events.complete() && events.between() && !events.error());
    }

    #[test]
    fn an_error_event_is_seen_at_any_time() {
        for before in ["", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"] {
            let mut observer = Observer::new(Dialect::Chat, b"text/event-stream");
            observer.take(&bytes(&format!("{before}data: {{\"error\":{{\"message\":\"x\"}}}}\n\ndata: half")));
            let Observer::Events(events) = observer else { panic!("events") };
            assert!(events.error() && !events.complete() && !events.between());
        }
    }

    #[test]
    fn usage_of_a_document_in_any_cut_and_order() {
        let documents = [
            r#"{"choices":[{"message":{"content":"\"usage\""}}],"usage":{"prompt_tokens":9}}"#,
            r#"{"usage":{"prompt_tokens":9},"choices":[],"system_fingerprint":"f"}"#,
            r#"{"text":"a","meta_info":{"prompt_tokens":9}}"#,
            r#"[{"text":"a","meta_info":{"prompt_tokens":4}},{"text":"b","meta_info":{"prompt_tokens":5}}]"#,
        ];
        for document in documents {
            for cut in [1, 10, document.len()] {
                let mut observer = Observer::new(Dialect::Chat, b"application/json");
                for piece in document.as_bytes().chunks(cut) {
                    assert!(!observer.take(&Bytes::copy_from_slice(piece)));
                }
                assert_eq!(observer.usage().prompt_tokens, Some(9), "{document} cut by {cut}");
            }
        }
        assert!(matches!(Observer::new(Dialect::Chat, b"text/html"), Observer::Nothing));
    }
}
