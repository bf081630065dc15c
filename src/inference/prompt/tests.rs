//! Tables of bodies and what is read in them.

use std::borrow::Cow;

use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use serde_json::json;

use super::{Dialect, Parsed, parse};

/// The canonical prompt as text.
fn canonical(dialect: Dialect, body: &str) -> String {
    let parsed = parse(dialect, body.as_bytes()).unwrap();
    let bytes: Vec<u8> = parsed.canonical().flatten().copied().collect();
    assert_eq!(bytes.len() as u64, parsed.canonical_len());
    String::from_utf8(bytes).unwrap()
}

fn ids(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

#[test]
fn chat_prompts() {
    let cases = [
        (r#"{}"#, ""),
        (r#"{"messages":[]}"#, ""),
        (r#"{"messages":null,"tools":null}"#, ""),
        (r#"{"messages":[{"role":"system","content":"ab"},{"role":"user","content":"cd"}]}"#, "abcd"),
        (r#"{"messages":[{"content":null},{"role":"user"},{"content":"x\u00e9\n\"y\""}]}"#, "xé\n\"y\""),
        // Tools come first wherever they stand, raw, inner whitespace kept.
        (r#"{"messages":[{"content":"hi"}],"tools":[ {"a": 1} ]}"#, r#"[ {"a": 1} ]hi"#),
        // Parts: text of text parts, raw JSON of the others, bare strings as text.
        (
            r#"{"messages":[{"content":[{"type":"text","text":"see\t"},{"type":"image_url","image_url":{"url":"u1"}},"!"]}]}"#,
            "see\t{\"type\":\"image_url\",\"image_url\":{\"url\":\"u1\"}}!",
        ),
        // A part with text of another type, a text part without text and a part that names nothing stay raw.
        (
            r#"{"messages":[{"content":[{"type":"x","text":"t"},{"type":"text"},7,{"text":"bare"}]}]}"#,
            r#"{"type":"x","text":"t"}{"type":"text"}7bare"#,
        ),
        (
            r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"1"}],"content":"thinking"},{"role":"tool","content":"42"}]}"#,
            r#"thinking[{"id":"1"}]42"#,
        ),
        // Fields of the other dialects are none of chat's business.
        (r#"{"prompt":"p","input":"i","text":"t","messages":[{"content":"c"}]}"#, "c"),
    ];
    for (body, expected) in cases {
        assert_eq!(canonical(Dialect::Chat, body), expected, "{body}");
    }
}

#[test]
fn two_images_give_two_prompts() {
    let body =
        |url: &str| json!({"messages": [{"content": [{"type": "image_url", "image_url": {"url": url}}]}]}).to_string();
    assert_ne!(canonical(Dialect::Chat, &body("a")), canonical(Dialect::Chat, &body("b")));
}

#[test]
fn prompts_of_the_other_dialects() {
    let text = |text: &str| vec![text.as_bytes().to_vec()];
    let cases = [
        (Dialect::Completions, r#"{"prompt":"once"}"#, text("once")),
        (Dialect::Completions, r#"{"prompt":["a","b\n"]}"#, vec![b"a".to_vec(), b"b\n".to_vec()]),
        (Dialect::Completions, r#"{"prompt":[1,2,70000]}"#, vec![ids(&[1, 2, 70000])]),
        (Dialect::Completions, r#"{"prompt":[[1,2],[3]]}"#, vec![ids(&[1, 2]), ids(&[3])]),
        (Dialect::Completions, r#"{"prompt":[]}"#, vec![]),
        (Dialect::Completions, r#"{"prompt":null}"#, vec![]),
        (Dialect::Completions, r#"{"prompt":[1,"a",2]}"#, vec![ids(&[1]), b"a".to_vec(), ids(&[2])]),
        (Dialect::Completions, r#"{"prompt":[-1,4294967296]}"#, vec![ids(&[u32::MAX, 0])]),
        (Dialect::Generate, r#"{"text":"t"}"#, text("t")),
        (Dialect::Generate, r#"{"input_ids":[9]}"#, vec![ids(&[9])]),
        (Dialect::Generate, r#"{"input_ids":[5],"text":["a"]}"#, vec![b"a".to_vec(), ids(&[5])]),
        (Dialect::Embeddings, r#"{"input":["a","b"]}"#, vec![b"a".to_vec(), b"b".to_vec()]),
        (Dialect::Embeddings, r#"{"input":[{"text":"t","image":"i"}]}"#, text(r#"text"t"image"i""#)),
    ];
    for (dialect, body, expected) in cases {
        let parsed = parse(dialect, body.as_bytes()).unwrap();
        let pieces: Vec<Vec<u8>> = parsed.canonical().map(<[u8]>::to_vec).collect();
        assert_eq!(pieces, expected, "{body}");
    }
}

#[test]
fn settings_are_read_where_each_dialect_has_them() {
    let chat = r#"{"model":"m","stream":true,"max_tokens":7,"ignore_eos":true,"stream_options":{"include_usage":true},
        "prompt_cache_key":"k","user":"u","rid":"r","messages":[]}"#;
    let expected = Parsed {
        model: Some("m".into()),
        stream: true,
        max_tokens: Some(7),
        ignore_eos: true,
        include_usage: true,
        session: Some("k".into()),
        rid: Some("r".into()),
        pieces: Vec::new(),
    };
    assert_eq!(parse(Dialect::Chat, chat.as_bytes()).unwrap(), expected);

    let generate =
        r#"{"sampling_params":{"max_new_tokens":5,"ignore_eos":true},"max_tokens":9,"user":"u","model":"m"}"#;
    let expected = Parsed { max_tokens: Some(5), ignore_eos: true, session: Some("u".into()), ..Parsed::default() };
    assert_eq!(parse(Dialect::Generate, generate.as_bytes()).unwrap(), expected);
    let other = parse(Dialect::Completions, generate.as_bytes()).unwrap();
    assert_eq!((other.max_tokens, other.ignore_eos, other.model.as_deref()), (Some(9), false, Some("m")));

    let both = parse(Dialect::Chat, br#"{"max_tokens":1,"max_completion_tokens":2}"#).unwrap();
    assert_eq!(both.max_tokens, Some(2));
}

#[test]
fn odd_values_of_known_fields_count_as_absent() {
    let body = r#"{"model":5,"stream":"yes","max_tokens":"many","ignore_eos":null,"stream_options":true,"user":{"a":[1]},
        "sampling_params":[null],"messages":[{"content":"kept"}],"unknown":{"deep":[[[]]]}}"#;
    let parsed = parse(Dialect::Chat, body.as_bytes()).unwrap();
    assert_eq!(parsed, Parsed { pieces: vec![b"kept".into()], ..Parsed::default() });
}

#[test]
fn strings_without_escapes_are_borrowed() {
    let body = br#"{"messages":[{"content":"plain"},{"content":"esc\naped"}]}"#;
    let parsed = parse(Dialect::Chat, body).unwrap();
    assert!(matches!(parsed.pieces[..], [Cow::Borrowed(b"plain"), Cow::Owned(_)]));
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_path() {
    let deep = "[".repeat(100_000);
    let deep_prompt = format!("{{\"prompt\":{deep}");
    let cases: [(Dialect, &[u8]); 10] = [
        (Dialect::Chat, b""),
        (Dialect::Chat, b"not json"),
        (Dialect::Chat, br#" ["m",true]"#),
        (Dialect::Chat, b"{\"messages\":[{\"content\":\"\xff\"}]}"),
        (Dialect::Chat, br#"{"messages":"hello"}"#),
        (Dialect::Chat, br#"{"messages":[{"content":7}]}"#),
        (Dialect::Chat, br#"{"messages":[],"messages":[]}"#),
        (Dialect::Completions, br#"{"prompt":7}"#),
        (Dialect::Completions, br#"{"prompt":[1.5]}"#),
        (Dialect::Completions, deep_prompt.as_bytes()),
    ];
    for (dialect, body) in cases {
        let message = parse(dialect, body).unwrap_err().to_string();
        let start = format!("cannot read the body as a request to `{}`: ", dialect.path());
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn paths_and_dialects_name_each_other() {
    for dialect in [Dialect::Chat, Dialect::Completions, Dialect::Embeddings, Dialect::Generate] {
        assert_eq!(Dialect::of_path(dialect.path()), Some(dialect));
    }
    assert_eq!(Dialect::of_path("/v1/models"), None);
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    (0..4usize).prop_map(|i| [Dialect::Chat, Dialect::Completions, Dialect::Embeddings, Dialect::Generate][i])
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(dialect in any_dialect(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(dialect, &body);
    }

    /// Damaged real bodies reach deeper than noise does.
    #[test]
    fn no_damage_makes_it_panic(dialect in any_dialect(), at in 0..400usize, byte in any::<u8>(), cut in 0..400usize) {
        let mut body = json!({
            "model": "m", "tools": [{"f": {}}], "stream_options": {"include_usage": true}, "prompt": [[1, 2], "x"],
            "text": ["t"], "input_ids": [[1], [2]], "input": [{"text": "t"}], "sampling_params": [{"max_new_tokens": 3}],
            "messages": [{"content": [{"type": "text", "text": "\u{1f600}\n"}, {"type": "image_url"}]}, {"content": "c"}],
        }).to_string().into_bytes();
        let at = at % body.len();
        body[at] = byte;
        let cut = cut % (body.len() + 1);
        let _ = parse(dialect, &body[..cut]);
        let _ = parse(dialect, &body);
    }

    #[test]
    fn the_canonical_prompt_is_the_concatenation(texts in proptest::collection::vec(".{0,20}", 0..8)) {
        let messages: Vec<_> = texts.iter().map(|text| json!({"role": "user", "content": text})).collect();
        prop_assert_eq!(canonical(Dialect::Chat, &json!({"messages": messages}).to_string()), texts.concat());
        prop_assert_eq!(canonical(Dialect::Completions, &json!({"prompt": texts}).to_string()), texts.concat());
    }

    #[test]
    fn one_token_id_is_four_bytes(tokens in proptest::collection::vec(any::<u32>(), 0..50)) {
        let body = json!({"prompt": tokens}).to_string();
        let parsed = parse(Dialect::Completions, body.as_bytes()).unwrap();
        prop_assert_eq!(parsed.canonical_len(), 4 * tokens.len() as u64);
    }
}
