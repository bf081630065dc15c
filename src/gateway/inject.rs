//! Usage for streams whose clients did not ask for it: asked for in the request, taken out of the answer again.
//!
//! Only with `inject_usage`. The request grows by one field and is otherwise byte for byte the client's; of the answer exactly the
//! extra event is missing.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An event longer than this is handed on without being looked at.
const MAX_EVENT_BYTES: usize = 1 << 20;

const OPTIONS: &[u8] = br#""stream_options":{"include_usage":true},"#;

/// The body with `stream_options.include_usage` set; `None` if the client has said something about it itself, its options are neither
/// an object nor `null`, or the body is not an object that has a field already (`stream` is one).
#[must_use]
pub(super) fn ask_for_usage(body: &Bytes) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        /// `null` too: a plain `Option` would take it for absent.
        #[serde(borrow, default, deserialize_with = "present")]
        stream_options: Option<&'a RawValue>,
    }
    fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
        <&RawValue>::deserialize(value).map(Some)
    }
    let named = memmem::find(body, b"\"stream_options\"").is_some();
    // The field's name may stand deeper in the body, or in a text.
    let options = if named { serde_json::from_slice::<Fields<'_>>(body).ok()?.stream_options } else { None };
    let Some(options) = options.map(RawValue::get) else {
        let open = body.iter().position(|byte| *byte == b'{')? + 1;
        return Some(splice(body, open, open, OPTIONS));
    };
    if options == "null" {
        let at = options.as_ptr() as usize - body.as_ptr() as usize;
        return Some(splice(body, at, at + options.len(), br#"{"include_usage":true}"#));
    }
    let inside = options.strip_prefix('{')?;
    if options.contains("\"include_usage\"") {
        return None;
    }
    let at = inside.as_ptr() as usize - body.as_ptr() as usize;
    let empty = inside.trim_start().starts_with('}');
    let field: &[u8] = if empty { br#""include_usage":true"# } else { br#""include_usage":true,"# };
    Some(splice(body, at, at, field))
}

fn splice(body: &Bytes, from: usize, to: usize, inserted: &[u8]) -> Bytes {
    let mut spliced = BytesMut::with_capacity(body.len() + inserted.len());
    spliced.extend_from_slice(&body[..from]);
    spliced.extend_from_slice(inserted);
    spliced.extend_from_slice(&body[to..]);
    spliced.freeze()
}

/// Takes the extra event out of a stream. Bytes that cannot belong to it pass untouched and uncopied.
#[derive(Debug, Default)]
pub(super) struct Strip {
    /// The beginning of an event whose end has not come.
    held: BytesMut,
    /// Inside an event that is too long to be held.
    passing: bool,
}

impl Strip {
    /// Takes the next bytes and gives those that may go on.
    pub(super) fn feed(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() && !self.passing && ends_event(&chunk) && memmem::find(&chunk, b"\"usage\"").is_none() {
            return chunk;
        }
        self.held.extend_from_slice(&chunk);
        let mut out = BytesMut::new();
        while let Some(end) = event_end(&self.held) {
            let event = self.held.split_to(end);
            if self.passing || !is_extra(&event) {
                out.extend_from_slice(&event);
            }
            self.passing = false;
        }
        if self.held.len() > MAX_EVENT_BYTES || self.passing {
            self.passing = true;
            // A line end that may be half of a blank line stays, so that the end of the event is still seen.
            let keep = self.held.iter().rev().take(3).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let going = self.held.len() - keep;
            out.extend_from_slice(&self.held.split_to(going));
        }
        out.freeze()
    }

    /// The stream ended: what was held goes on, unless it is the extra event without its blank line.
    pub(super) fn finish(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.held);
        if !self.passing && is_extra(&rest) { Bytes::new() } else { rest.freeze() }
    }
}

fn ends_event(chunk: &[u8]) -> bool {
    chunk.ends_with(b"\n\n") || chunk.ends_with(b"\r\n\r\n")
}

/// Length of the first whole event, its blank line included.
fn event_end(bytes: &[u8]) -> Option<usize> {
    let lf = memmem::find(bytes, b"\n\n").map(|at| at + 2);
    let crlf = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    match (lf, crlf) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A chunk with usage and no choices: what `include_usage` adds, and nothing else looks like it.
fn is_extra(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Chunk {
        choices: Vec<IgnoredAny>,
        usage: Option<IgnoredAny>,
    }
    let Some(data) = event.strip_prefix(b"data:") else { return false };
    memmem::find(data, b"\"usage\"").is_some()
        && serde_json::from_slice::<Chunk>(data.trim_ascii())
            .is_ok_and(|chunk| chunk.choices.is_empty() && chunk.usage.is_some())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, proptest};

    use super::{Strip, ask_for_usage};

    #[test]
    fn the_field_is_added_where_the_client_said_nothing() {
        let cases = [
            (r#"{"stream":true}"#, Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#)),
            (r#" { "stream": true }"#, Some(r#" {"stream_options":{"include_usage":true}, "stream": true }"#)),
            (
                r#"{"stream":true,"stream_options":{}}"#,
                Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"stream_options": { "continuous": 1 }, "stream":true}"#,
                Some(r#"{"stream_options": {"include_usage":true, "continuous": 1 }, "stream":true}"#),
            ),
            (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, None),
            (
                r#"{"stream":true,"stream_options": null }"#,
                Some(r#"{"stream":true,"stream_options": {"include_usage":true} }"#),
            ),
            (
                r#"{"stream":true,"metadata":{"stream_options":1}}"#,
                Some(r#"{"stream_options":{"include_usage":true},"stream":true,"metadata":{"stream_options":1}}"#),
            ),
            (r#"{"stream":true,"stream_options":7}"#, None),
            (
                r#"{"stream":true,"prompt":"\"stream_options\""}"#,
                Some(r#"{"stream_options":{"include_usage":true},"stream":true,"prompt":"\"stream_options\""}"#),
            ),
            ("nonsense", None),
        ];
        for (body, expected) in cases {
            let asked = ask_for_usage(&Bytes::from_static(body.as_bytes()));
            assert_eq!(asked.as_deref(), expected.map(str::as_bytes), "{body}");
        }
    }

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n: ping\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\"\"}}],\"usage\":null}\r\n\r\n\
        data: {\"id\":1,\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\ndata: [DONE]\n\n";
    const STRIPPED: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n: ping\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\"\"}}],\"usage\":null}\r\n\r\ndata: [DONE]\n\n";

    fn strip(chunks: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
        let mut strip = Strip::default();
        let mut out: Vec<u8> = chunks.into_iter().flat_map(|chunk| strip.feed(chunk)).collect();
        out.extend(strip.finish());
        out
    }

    #[test]
    fn a_chunk_of_whole_events_passes_uncopied() {
        let chunk = Bytes::from_static(b"data: {\"a\":1}\n\n");
        let out = Strip::default().feed(chunk.clone());
        assert_eq!(out.as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn long_events_pass_and_what_follows_is_still_looked_at() {
        let long = format!("data: {}\n\n", "x".repeat(3 << 20));
        let whole = long.clone() + STREAM;
        let chunks: Vec<Bytes> = whole.as_bytes().chunks(65_536).map(Bytes::copy_from_slice).collect();
        assert_eq!(strip(chunks), (long + STRIPPED).into_bytes());
    }

    proptest! {
        #[test]
        fn exactly_the_extra_event_goes_however_the_stream_is_cut(cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12)) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(STREAM.len())).collect();
            at.extend([0, STREAM.len()]);
            at.sort_unstable();
            let chunks = at.windows(2).map(|ends| Bytes::copy_from_slice(&STREAM.as_bytes()[ends[0]..ends[1]]));
            assert_eq!(strip(chunks), STRIPPED.as_bytes());
        }
    }
}
