//! Token counts that an engine reports, out of a whole JSON reply or one event of a stream.
//!
//! OpenAI form: `usage.{prompt_tokens, completion_tokens, prompt_tokens_details.cached_tokens}`; in a stream it comes in a
//! last event of its own, if the client asked for it, and is `null` in the others. SGLang's `/generate`:
//! `meta_info.{prompt_tokens, completion_tokens, cached_tokens}`, in every event. Cached tokens need `--enable-cache-report`
//! (SGLang) or `--enable-prompt-tokens-details` (vLLM); docs/models.md 3.

use std::ops::AddAssign;

use memchr::memmem;
use serde::Deserialize;

use super::json::{Object, Scalar};

/// What the engine counted for one request; `None` = not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt length, tokens.
    pub prompt_tokens: Option<u32>,
    /// Of these found in the engine's prefix cache, tokens. `None` also when the engine leaves out a zero.
    pub cached_tokens: Option<u32>,
    /// Output length, tokens (so far, in a `/generate` stream).
    pub completion_tokens: Option<u32>,
}

impl Usage {
    /// Whether anything is reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Usage {
    /// Sums the replies of a batch; a count that only one of them reports is kept.
    fn add_assign(&mut self, other: Self) {
        let add = |own: &mut Option<u32>, other: Option<u32>| {
            *own = own.zip(other).map(|(a, b)| a.saturating_add(b)).or(*own).or(other);
        };
        add(&mut self.prompt_tokens, other.prompt_tokens);
        add(&mut self.cached_tokens, other.cached_tokens);
        add(&mut self.completion_tokens, other.completion_tokens);
    }
}

/// Reads the usage in a JSON reply or in the data of one event; `None` when there is none, whatever the bytes are.
///
/// A batch of `/generate` answers with an array: its counts are summed. Text without the words costs one scan, no parsing.
#[must_use]
pub fn from_json(json: &[u8]) -> Option<Usage> {
    if memmem::find(json, b"\"usage\"").is_none() && memmem::find(json, b"\"meta_info\"").is_none() {
        return None;
    }
    let replies: Vec<Object<Reply<'_>>> = match json.trim_ascii_start().first()? {
        b'[' => serde_json::from_slice(json).ok()?,
        _ => vec![serde_json::from_slice(json).ok()?],
    };
    let mut total = Usage::default();
    for reply in replies.into_iter().filter_map(|reply| reply.0) {
        total += reply.usage.0.or(reply.meta_info.0).map(Counts::usage).unwrap_or_default();
    }
    (!total.is_empty()).then_some(total)
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    usage: Object<Counts<'a>>,
    #[serde(borrow, default)]
    meta_info: Object<Counts<'a>>,
}

#[derive(Deserialize)]
struct Counts<'a> {
    #[serde(borrow, default)]
    prompt_tokens: Scalar<'a>,
    #[serde(borrow, default)]
    completion_tokens: Scalar<'a>,
    #[serde(borrow, default)]
    cached_tokens: Scalar<'a>,
    #[serde(borrow, default)]
    prompt_tokens_details: Object<Details<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow, default)]
    cached_tokens: Scalar<'a>,
}

impl Counts<'_> {
    fn usage(self) -> Usage {
        let detailed = self.prompt_tokens_details.0.and_then(|details| details.cached_tokens.count());
        Usage {
            prompt_tokens: self.prompt_tokens.count(),
            cached_tokens: detailed.or(self.cached_tokens.count()),
            completion_tokens: self.completion_tokens.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Usage, from_json};

    fn usage(prompt: Option<u32>, cached: Option<u32>, completion: Option<u32>) -> Usage {
        Usage { prompt_tokens: prompt, cached_tokens: cached, completion_tokens: completion }
    }

    #[test]
    fn usage_is_found_in_every_form() {
        let cases = [
            (
                r#"{"choices":[],"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens":3,
                   "prompt_tokens_details":{"cached_tokens":4}}}"#,
                usage(Some(9), Some(4), Some(3)),
            ),
            (
                r#"{"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":null}}"#,
                usage(Some(9), None, Some(3)),
            ),
            (r#"{"object":"list","usage":{"prompt_tokens":9,"total_tokens":9}}"#, usage(Some(9), None, None)),
            (
                r#"{"text":"a","meta_info":{"id":"x","prompt_tokens":9,"completion_tokens":1,"cached_tokens":0}}"#,
                usage(Some(9), Some(0), Some(1)),
            ),
            (
                r#" [{"meta_info":{"prompt_tokens":1,"cached_tokens":1}},{"meta_info":{"prompt_tokens":2}}]"#,
                usage(Some(3), Some(1), None),
            ),
            (
                r#"{"usage":{"prompt_tokens":"nine","completion_tokens":-1,"cached_tokens":2}}"#,
                usage(None, Some(2), None),
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(from_json(json.as_bytes()), Some(expected), "{json}");
        }
    }

    #[test]
    fn no_usage_is_none() {
        let cases = [
            "",
            "[DONE]",
            "{}",
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":7}"#,
            r#"{"a":"\"usage\""#,
            "\"usage\"",
        ];
        for json in cases {
            assert_eq!(from_json(json.as_bytes()), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut json = br#"{"usage""#.to_vec();
            json.append(&mut tail);
            let _ = from_json(&json);
        }
    }
}
