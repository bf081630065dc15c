//! Streams cut at every place, and what their events mean.

use proptest::prelude::{any, prop_assert_eq, proptest};

use super::{Event, MAX_EVENT_BYTES, Meaning, Scanner, Seen, Watch, meaning};
use crate::inference::prompt::Dialect;
use crate::inference::usage::Usage;

/// The events of a stream that comes in the given chunks, as text.
fn events<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<String> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new();
    let mut note = |event: Event<'_>| {
        found.push(match event {
            Event::Data(data) => String::from_utf8_lossy(data).into_owned(),
            Event::Done => "DONE".into(),
            Event::Comment => ":".into(),
            Event::Oversized => "OVERSIZED".into(),
        });
    };
    for chunk in chunks {
        scanner.feed(chunk, &mut note);
    }
    scanner.finish(&mut note);
    found
}

const CASES: &[(&str, &[&str])] = &[
    ("", &[]),
    ("\n\n\n", &[]),
    ("data: a\n\n", &["a"]),
    ("data:a\n\ndata:  b\n\n", &["a", " b"]),
    ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
    ("data: a\r\rdata: b\r\r", &["a", "b"]),
    ("data: a\ndata: b\n\ndata: c\n\n", &["a\nb", "c"]),
    ("data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", &["a\nb", "c"]),
    ("data\n\ndata:\n\n", &["", ""]),
    (": keep-alive\n\ndata: a\n\n:\n\n", &[":", "a", ":"]),
    ("event: x\nid: 7\nretry: 1\ndata: a\n\nevent: y\n\n", &["a"]),
    ("database: a\n\ndat: b\n\n", &[]),
    ("data: a\n\ndata: [DONE]\n\n", &["a", "DONE"]),
    ("data: a\n\ndata: [DONE]", &["a", "DONE"]),
    ("data: a\n: c\ndata: b", &[":", "a\nb"]),
];

#[test]
fn events_are_found_wherever_the_chunks_end() {
    for (stream, expected) in CASES {
        assert_eq!(events([stream.as_bytes()]), *expected, "{stream:?} as a whole");
        assert_eq!(events(stream.as_bytes().chunks(1)), *expected, "{stream:?} byte by byte");
        for cut in 0..=stream.len() {
            let (first, second) = stream.as_bytes().split_at(cut);
            assert_eq!(events([first, b"", second]), *expected, "{stream:?} cut at {cut}");
        }
    }
}

#[test]
fn events_within_a_chunk_are_not_copied() {
    let mut scanner = Scanner::new();
    scanner.feed(b"data: a\n\ndata: b\r\n\r\n: c\n", |_| {});
    assert_eq!((scanner.line.capacity(), scanner.data.capacity()), (0, 0));
}

#[test]
fn memory_is_bounded_and_the_stream_goes_on_after_a_giant() {
    let giant = [b"data: ".as_slice(), &vec![b'x'; 3 * MAX_EVENT_BYTES], b"\n\ndata: after\n\n"].concat();
    let many_lines = [b"data: 1234567\n".repeat(MAX_EVENT_BYTES / 4).as_slice(), b"\ndata: after\n\n"].concat();
    let comment = [b":".as_slice(), &vec![b'x'; 3 * MAX_EVENT_BYTES], b"\n\ndata: after\n\n"].concat();
    for size in [1 << 16, usize::MAX] {
        assert_eq!(events(giant.chunks(size)), ["OVERSIZED", "after"]);
        assert_eq!(events(many_lines.chunks(size)), ["OVERSIZED", "after"]);
        assert_eq!(events(comment.chunks(size)), [":", "after"]);
    }
    let mut scanner = Scanner::new();
    for chunk in giant.chunks(1 << 12) {
        scanner.feed(chunk, |_| {});
        assert!(scanner.line.len() + scanner.data.len() <= MAX_EVENT_BYTES + 6);
    }
}

#[test]
fn only_output_is_a_token() {
    use Dialect::{Chat, Completions, Embeddings, Generate};
    use Meaning::{Error, Other, Token};
    let cases = [
        (Chat, r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#, Other),
        (Chat, r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, Other),
        (Chat, r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":null}}]}"#, Other),
        (Chat, r#"{"choices":[{"delta":{"role":"assistant","content":"Hi"}}]}"#, Token),
        (Chat, r#"{"choices":[{"delta":{"content":"\n"}}]}"#, Token),
        (Chat, r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, Token),
        (Chat, r#"{"choices":[{"delta":{"reasoning":"hm"}}]}"#, Token),
        (Chat, r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}"#, Token),
        (Chat, r#"{"choices":[{"delta":{"tool_calls":[]}}]}"#, Other),
        (Chat, r#"{"choices":[{"delta":{}},{"delta":{"content":"second choice"}}]}"#, Token),
        (Chat, r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, Other),
        (Chat, r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, Other),
        (Chat, r#"{"choices":[{"text":"not chat"}]}"#, Other),
        (Chat, r#"{"error":{"message":"gone"}}"#, Error),
        (Chat, r#"{"error":null,"choices":[{"delta":{"content":"x"}}]}"#, Token),
        (Chat, "[1]", Other),
        (Chat, "not json", Other),
        (Completions, r#"{"choices":[{"text":""}]}"#, Other),
        (Completions, r#"{"choices":[{"text":"a"}]}"#, Token),
        (Generate, r#"{"text":"","meta_info":{}}"#, Other),
        (Generate, r#"{"text":"a"}"#, Token),
        (Generate, r#"{"output_ids":[5]}"#, Token),
        (Generate, r#"{"error":{"message":"aborted"},"text":"a"}"#, Error),
        (Embeddings, r#"{"choices":[{"text":"a"}]}"#, Other),
    ];
    for (dialect, data, expected) in cases {
        assert_eq!(meaning(dialect, data.as_bytes()), expected, "{dialect:?} {data}");
    }
}

#[test]
fn a_watch_follows_a_whole_stream() {
    let mut watch = Watch::new(Dialect::Chat);
    let seen = watch.feed(b": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n");
    assert_eq!(seen, Seen::default());
    assert_eq!(watch.feed(b"data: {\"choices\":[{\"delta\":{\"content\":\"a").token_events, 0);
    assert_eq!(watch.feed(b"\"}}]}\n\n").token_events, 1);
    watch.feed(b"data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n");
    watch.feed(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]");
    let usage = Usage { prompt_tokens: Some(5), cached_tokens: None, completion_tokens: Some(2) };
    assert_eq!(watch.finish(), Seen { token_events: 2, usage: Some(usage), done: true, error: false });
}

#[test]
fn a_watch_tells_a_broken_stream_from_a_complete_one() {
    let mut broken = Watch::new(Dialect::Generate);
    broken.feed(b"data: {\"text\":\"a\"}\n\n");
    assert!(!broken.finish().done);
    let mut failed = Watch::new(Dialect::Generate);
    failed.feed(b"data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n");
    assert_eq!(failed.finish(), Seen { token_events: 0, usage: None, done: true, error: true });
}

proptest! {
    #[test]
    fn where_chunks_end_changes_nothing(
        pieces in proptest::collection::vec(0..9usize, 0..40),
        cuts in proptest::collection::vec(0..200usize, 0..10),
    ) {
        let alphabet = ["data: ", "data:", "\n", "\r\n", "\r", ":", "x", "[DONE]", "id: 1"];
        let stream: Vec<u8> = pieces.iter().flat_map(|&piece| alphabet[piece].bytes()).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert_eq!(events(chunks), events([stream.as_slice()]));
    }

    #[test]
    fn no_bytes_make_it_panic(stream in proptest::collection::vec(any::<u8>(), 0..200)) {
        events(stream.chunks(7));
        let _ = meaning(Dialect::Chat, &stream);
    }
}
