//! Server-sent events read from chunks of any shape: where events end, which of them carry tokens, and the usage.
//!
//! The bytes are only looked at; whoever forwards them forwards them as they came. Lines may end in LF, CR LF or CR (WHATWG
//! HTML, "Parsing an event stream"). An event that lies within one chunk is borrowed from it; only what crosses a chunk's end
//! is copied, up to [`MAX_EVENT_BYTES`]: a longer event is passed over as a whole and reported as [`Event::Oversized`].

use memchr::memchr2;

use super::json::{Filled, Object};
use super::prompt::Dialect;
use super::usage::{self, Usage};

/// Most bytes of one event that we keep. Events of LLM engines have a few hundred; `/generate` repeats all text so far.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// One event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Its `data`, lines joined by LF.
    Data(&'a [u8]),
    /// `data: [DONE]`, with which OpenAI-like streams end.
    Done,
    /// A comment line (starts with a colon), such as a keep-alive: never a token.
    Comment,
    /// Longer than [`MAX_EVENT_BYTES`].
    Oversized,
}

/// Finds the events of one stream.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Data of the current event that had to be copied.
    data: Vec<u8>,
    /// Whether the current event has a data line (it may be empty).
    has_data: bool,
    /// Whether the current event is too long to keep.
    oversized: bool,
    /// The last chunk ended in CR: an LF at the start of the next belongs to it.
    after_cr: bool,
}

impl Scanner {
    /// A scanner at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and calls `on_event` for each event that they complete, in order.
    pub fn feed(&mut self, chunk: &[u8], mut on_event: impl FnMut(Event<'_>)) {
        let mut rest = chunk;
        // Data of the current event as long as it is one line within this chunk.
        let mut borrowed: Option<&[u8]> = None;
        if let [first, after @ ..] = rest
            && std::mem::take(&mut self.after_cr)
            && *first == b'\n'
        {
            rest = after;
        }
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (line, ending) = rest.split_at(end);
            rest = match ending {
                [b'\r', b'\n', after @ ..] | [_, after @ ..] => after,
                [] => ending,
            };
            self.after_cr = ending == b"\r";
            if self.line.is_empty() {
                self.take_line(line, &mut borrowed, &mut on_event);
            } else {
                self.keep_partial(line);
                let whole = std::mem::take(&mut self.line);
                self.take_copied_line(&whole, &mut on_event);
                self.line = whole;
                self.line.clear();
            }
        }
        self.spill(&mut borrowed);
        self.keep_partial(rest);
    }

    /// The stream ended. An event without its empty line still counts: some servers leave out the last one.
    pub fn finish(&mut self, mut on_event: impl FnMut(Event<'_>)) {
        let last = std::mem::take(&mut self.line);
        if !last.is_empty() {
            self.take_copied_line(&last, &mut on_event);
        }
        self.end_event(None, &mut on_event);
    }

    fn take_line<'c>(&mut self, line: &'c [u8], borrowed: &mut Option<&'c [u8]>, on_event: &mut impl FnMut(Event<'_>)) {
        match field(line) {
            Line::Empty => self.end_event(borrowed.take(), on_event),
            Line::Comment => on_event(Event::Comment),
            Line::Data(data) if !self.has_data => {
                self.has_data = true;
                *borrowed = Some(data);
            }
            Line::Data(data) => {
                self.spill(borrowed);
                self.append_data(data);
            }
            Line::Other => {}
        }
    }

    /// A line that was put together from several chunks: its data cannot be borrowed.
    fn take_copied_line(&mut self, line: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        match field(line) {
            Line::Empty => self.end_event(None, on_event),
            Line::Comment => on_event(Event::Comment),
            Line::Data(data) => self.append_data(data),
            Line::Other => {}
        }
    }

    fn end_event(&mut self, borrowed: Option<&[u8]>, on_event: &mut impl FnMut(Event<'_>)) {
        let data = borrowed.unwrap_or(&self.data);
        if self.oversized || data.len() > MAX_EVENT_BYTES {
            on_event(Event::Oversized);
        } else if data == b"[DONE]" {
            on_event(Event::Done);
        } else if self.has_data {
            on_event(Event::Data(data));
        }
        self.data.clear();
        self.has_data = false;
        self.oversized = false;
    }

    /// Copies data that so far was borrowed from a chunk.
    fn spill(&mut self, borrowed: &mut Option<&[u8]>) {
        if let Some(data) = borrowed.take() {
            self.has_data = false;
            self.append_data(data);
        }
    }

    fn append_data(&mut self, data: &[u8]) {
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        if self.oversized || self.data.len() + data.len() > MAX_EVENT_BYTES {
            self.oversized = true;
            self.data.clear();
        } else {
            self.data.extend_from_slice(data);
        }
    }

    fn keep_partial(&mut self, part: &[u8]) {
        if self.line.len() + part.len() <= MAX_EVENT_BYTES + b"data: ".len() {
            self.line.extend_from_slice(part);
        } else {
            // The kept beginning still tells data from comment; the rest of the line only has to be passed over.
            self.line.truncate(b"data: ".len());
            self.oversized |= matches!(field(&self.line), Line::Data(_));
        }
    }
}

enum Line<'a> {
    Empty,
    Comment,
    Data(&'a [u8]),
    /// `event`, `id`, `retry` and unknown fields: nothing that engines use.
    Other,
}

fn field(line: &[u8]) -> Line<'_> {
    match line {
        [] => Line::Empty,
        [b':', ..] => Line::Comment,
        [b'd', b'a', b't', b'a', b':', b' ', data @ ..] | [b'd', b'a', b't', b'a', b':', data @ ..] => Line::Data(data),
        b"data" => Line::Data(b""),
        _ => Line::Other,
    }
}

/// What an event's data means to whoever times a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Output for the user: text, reasoning text or (part of) a tool call. The first one ends the time to first token.
    Token,
    /// An error object: the stream failed although its status was 200.
    Error,
    /// Anything else: a chunk that only names the role, a finish reason, usage, something unknown.
    Other,
}

/// Reads the meaning of one event's data.
///
/// The definition of the first token is guidellm's and aiperf's (docs/models.md 3): chunks with a role and no content do not count.
#[must_use]
pub fn meaning(dialect: Dialect, data: &[u8]) -> Meaning {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Chunk {
        error: Filled,
        choices: Vec<Choice>,
        text: Filled,
        output_ids: Filled,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Choice {
        delta: Option<Delta>,
        text: Filled,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Delta {
        content: Filled,
        reasoning_content: Filled,
        reasoning: Filled,
        tool_calls: Filled,
        function_call: Filled,
    }
    let has_output = |delta: &Delta| {
        let Delta { content, reasoning_content, reasoning, tool_calls, function_call } = delta;
        [content, reasoning_content, reasoning, tool_calls, function_call].iter().any(|field| field.0)
    };
    let Ok(Object(Some(chunk))) = serde_json::from_slice::<Object<Chunk>>(data) else { return Meaning::Other };
    let token = match dialect {
        Dialect::Chat => chunk.choices.iter().any(|choice| choice.delta.as_ref().is_some_and(has_output)),
        Dialect::Completions => chunk.choices.iter().any(|choice| choice.text.0),
        Dialect::Generate => chunk.text.0 || chunk.output_ids.0,
        Dialect::Embeddings => false,
    };
    match (chunk.error.0, token) {
        (true, _) => Meaning::Error,
        (false, true) => Meaning::Token,
        (false, false) => Meaning::Other,
    }
}

/// Follows one stream: counts its token events, keeps the last usage, notices its proper end and errors inside it.
#[derive(Debug)]
pub struct Watch {
    scanner: Scanner,
    dialect: Dialect,
    seen: Seen,
}

/// What a [`Watch`] has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events with output (a server may put several tokens into one).
    pub token_events: u64,
    /// The last usage reported.
    pub usage: Option<Usage>,
    /// `[DONE]` came: without it a stream that ends was cut.
    pub done: bool,
    /// An error event came.
    pub error: bool,
}

impl Watch {
    /// A watch at the beginning of a stream.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { scanner: Scanner::new(), dialect, seen: Seen::default() }
    }

    /// Takes the next bytes. The first token is in the call after which `token_events` is no longer 0.
    pub fn feed(&mut self, chunk: &[u8]) -> Seen {
        let Self { scanner, dialect, seen } = self;
        scanner.feed(chunk, |event| seen.take(*dialect, event));
        *seen
    }

    /// The stream ended.
    pub fn finish(&mut self) -> Seen {
        let Self { scanner, dialect, seen } = self;
        scanner.finish(|event| seen.take(*dialect, event));
        *seen
    }
}

impl Seen {
    fn take(&mut self, dialect: Dialect, event: Event<'_>) {
        match event {
            Event::Data(data) => {
                match meaning(dialect, data) {
                    Meaning::Token => self.token_events += 1,
                    Meaning::Error => self.error = true,
                    Meaning::Other => {}
                }
                self.usage = usage::from_json(data).or(self.usage);
            }
            Event::Done => self.done = true,
            // A million bytes in one event are output, whatever else they are.
            Event::Oversized => self.token_events += 1,
            Event::Comment => {}
        }
    }
}

#[cfg(test)]
mod tests;
