//! The bytes of replies. What stays the same in all events of a stream is written once per request, so that a token costs a
//! copy instead of a JSON serializer.

use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};

use super::ticket::{Ending, Progress};
use super::tokens::{Output, Prompt};
use crate::inference::Dialect;

/// One prompt of a request with what the engine makes of it.
#[derive(Debug)]
pub(super) struct Choice {
    /// Prompt length, tokens.
    pub(super) prompt_tokens: u32,
    /// What it says.
    pub(super) output: Output,
}

impl Choice {
    /// A choice that has not begun.
    pub(super) fn new(prompt: &Prompt, output: Output) -> Self {
        Self { prompt_tokens: prompt.tokens, output }
    }

    /// OpenAI's finish reason of an ended choice.
    fn finish_reason(&self, ending: Ending) -> &'static str {
        match (ending, self.output.cut) {
            (Ending::Complete, true) => "length",
            (Ending::Complete, false) => "stop",
            (Ending::TooLarge | Ending::Aborted | Ending::Gone, _) => "abort",
        }
    }
}

/// Token counts of a whole request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    prompt: u64,
    cached: u64,
    completion: u64,
}

impl Totals {
    /// The sums over all choices.
    pub(super) fn of(choices: &[Choice], progress: &[Progress]) -> Self {
        let mut totals = Self::default();
        for (choice, progress) in choices.iter().zip(progress) {
            totals.prompt += u64::from(choice.prompt_tokens);
            totals.cached += u64::from(progress.cached_tokens);
            totals.completion += u64::from(progress.tokens);
        }
        totals
    }

    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// What all parts of one reply have in common.
#[derive(Debug)]
pub(super) struct Envelope {
    dialect: Dialect,
    id: String,
    model: String,
    created: u64,
    /// The beginning of every event, up to the number of the choice.
    head: Vec<u8>,
}

impl Envelope {
    /// The envelope of the request `number` for `model`, which arrived `created` seconds after 1970.
    pub(super) fn new(dialect: Dialect, number: u64, model: &str, created: u64) -> Self {
        let (prefix, object) = match dialect {
            Dialect::Chat => ("chatcmpl-", "chat.completion.chunk"),
            Dialect::Completions => ("cmpl-", "text_completion"),
            Dialect::Embeddings | Dialect::Generate => ("", ""),
        };
        let id = format!("{prefix}{number:016x}");
        let model_json = Value::from(model);
        let head = format!(
            r#"data: {{"id":"{id}","object":"{object}","created":{created},"model":{model_json},"choices":[{{"index":"#
        );
        Self { dialect, id, model: model.to_owned(), created, head: head.into_bytes() }
    }

    /// The next token of a choice as one event. The first one of a chat also names the role: nothing comes before it.
    pub(super) fn token(&self, out: &mut BytesMut, choice: usize, first: bool, text: &[u8]) {
        let (before, after): (&[u8], &[u8]) = match (self.dialect, first) {
            (Dialect::Chat, true) => (br#","delta":{"role":"assistant","content":""#, br#""},"logprobs":null"#),
            (Dialect::Chat, false) => (br#","delta":{"content":""#, br#""},"logprobs":null"#),
            _ => (br#","text":""#, br#"","logprobs":null"#),
        };
        self.head(out, choice);
        out.put_slice(before);
        out.put_slice(text);
        out.put_slice(after);
        out.put_slice(b",\"finish_reason\":null}]}\n\n");
    }

    /// The end of a choice as one event.
    pub(super) fn finish(&self, out: &mut BytesMut, index: usize, choice: &Choice, ending: Ending) {
        let nothing: &[u8] = match self.dialect {
            Dialect::Chat => br#","delta":{}"#,
            _ => br#","text":"""#,
        };
        self.head(out, index);
        out.put_slice(nothing);
        out.put_slice(br#","logprobs":null,"finish_reason":""#);
        out.put_slice(choice.finish_reason(ending).as_bytes());
        out.put_slice(b"\"}]}\n\n");
    }

    /// The usage as an event of its own, without choices.
    pub(super) fn usage(&self, out: &mut BytesMut, totals: Totals) {
        let without_choice = self.head.len() - br#"{"index":"#.len();
        out.put_slice(&self.head[..without_choice]);
        out.put_slice(format!("],\"usage\":{}}}\n\n", totals.json()).as_bytes());
    }

    fn head(&self, out: &mut BytesMut, choice: usize) {
        out.put_slice(&self.head);
        match u8::try_from(choice) {
            Ok(digit @ 0..=9) => out.put_u8(b'0' + digit),
            _ => out.put_slice(choice.to_string().as_bytes()),
        }
    }

    /// One event of a `/generate` stream: all text so far.
    pub(super) fn generated(&self, out: &mut BytesMut, index: usize, choice: &Choice, text: &str, progress: &Progress) {
        let mut event = self.generate_json(choice, text, progress);
        event["index"] = index.into();
        out.put_slice(format!("data: {event}\n\n").as_bytes());
    }

    fn generate_json(&self, choice: &Choice, text: &str, progress: &Progress) -> Value {
        let finish_reason = progress.ending.map(|ending| match choice.finish_reason(ending) {
            "length" => json!({"type": "length", "length": progress.tokens}),
            reason => json!({"type": reason}),
        });
        json!({
            "text": text,
            "meta_info": {
                "id": self.id,
                "finish_reason": finish_reason,
                "prompt_tokens": choice.prompt_tokens,
                "completion_tokens": progress.tokens,
                "cached_tokens": progress.cached_tokens,
            },
        })
    }

    /// The whole reply of a request that does not stream. `texts` are the outputs of its choices.
    pub(super) fn whole(&self, choices: &[Choice], progress: &[Progress], texts: &[String]) -> Value {
        let parts =
            || choices.iter().zip(progress).zip(texts).map(|((choice, progress), text)| (choice, progress, text));
        if self.dialect == Dialect::Generate {
            let mut replies: Vec<Value> =
                parts().map(|(choice, progress, text)| self.generate_json(choice, text, progress)).collect();
            return if replies.len() == 1 { replies.remove(0) } else { replies.into() };
        }
        let listed = parts().enumerate().map(|(index, (choice, progress, text))| {
            let reason = choice.finish_reason(progress.ending.unwrap_or(Ending::Complete));
            match self.dialect {
                Dialect::Chat => json!({"index": index, "message": {"role": "assistant", "content": text},
                    "logprobs": null, "finish_reason": reason}),
                _ => json!({"index": index, "text": text, "logprobs": null, "finish_reason": reason}),
            }
        });
        let object = if self.dialect == Dialect::Chat { "chat.completion" } else { "text_completion" };
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": listed.collect::<Vec<_>>(), "usage": Totals::of(choices, progress).json()})
    }

    /// The reply to `/v1/embeddings`: made-up vectors with 16 dimensions.
    pub(super) fn embeddings(&self, choices: &mut [Choice], progress: &[Progress]) -> Value {
        // The engine has to generate one token to run the prompt; it is not part of the answer.
        let totals = Totals { completion: 0, ..Totals::of(choices, progress) };
        let data: Vec<Value> = choices
            .iter_mut()
            .enumerate()
            .map(|(index, choice)| json!({"object": "embedding", "index": index, "embedding": choice.output.embedding()}))
            .collect();
        json!({"object": "list", "data": data, "model": self.model, "usage": totals.json()})
    }
}

/// The end of a stream.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use insta::assert_snapshot;

    use super::{Choice, Dialect, Ending, Envelope, Progress, Totals};
    use crate::emulator::engine::tokens::{Output, Prompt};

    fn choice(cut: bool) -> Choice {
        let prompt = Prompt::of([b"12345".as_slice()].into_iter(), 16, 0);
        let mut output = Output::to(&prompt, Some(3), true, 0);
        output.cut = cut;
        Choice::new(&prompt, output)
    }

    fn progress(tokens: u32, ending: Option<Ending>) -> Progress {
        Progress { accepted: true, tokens, first_at: None, cached_tokens: 1, ending }
    }

    /// Events are written by hand, so each one is read back as JSON here.
    fn stream(dialect: Dialect) -> String {
        let envelope = Envelope::new(dialect, 7, "a \"model\"", 1000);
        let mut out = BytesMut::new();
        envelope.token(&mut out, 0, true, b" abc");
        envelope.token(&mut out, 12, false, b" def");
        envelope.finish(&mut out, 0, &choice(true), Ending::Complete);
        envelope.finish(&mut out, 0, &choice(false), Ending::Complete);
        envelope.finish(&mut out, 0, &choice(true), Ending::Aborted);
        envelope.usage(&mut out, Totals::of(&[choice(true)], &[progress(3, None)]));
        let text = String::from_utf8(out.to_vec()).unwrap();
        for event in text.split_terminator("\n\n") {
            serde_json::from_str::<serde_json::Value>(event.strip_prefix("data: ").unwrap()).unwrap();
        }
        text
    }

    /// The events without what they all begin with.
    fn tails(dialect: Dialect, head: &str) -> String {
        let events = stream(dialect);
        let tails = events.split_terminator("\n\n").map(|event| event.strip_prefix(head).unwrap_or(event));
        tails.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn chat_events() {
        let head = r#"data: {"id":"chatcmpl-0000000000000007","object":"chat.completion.chunk","created":1000,"model":"a \"model\"","choices":["#;
        assert_snapshot!(tails(Dialect::Chat, head), @r#"
        {"index":0,"delta":{"role":"assistant","content":" abc"},"logprobs":null,"finish_reason":null}]}
        {"index":12,"delta":{"content":" def"},"logprobs":null,"finish_reason":null}]}
        {"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}
        {"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}
        {"index":0,"delta":{},"logprobs":null,"finish_reason":"abort"}]}
        ],"usage":{"completion_tokens":3,"prompt_tokens":2,"prompt_tokens_details":{"cached_tokens":1},"total_tokens":5}}
        "#);
    }

    #[test]
    fn completion_events() {
        let head = r#"data: {"id":"cmpl-0000000000000007","object":"text_completion","created":1000,"model":"a \"model\"","choices":["#;
        assert_snapshot!(tails(Dialect::Completions, head), @r#"
        {"index":0,"text":" abc","logprobs":null,"finish_reason":null}]}
        {"index":12,"text":" def","logprobs":null,"finish_reason":null}]}
        {"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}
        {"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}
        {"index":0,"text":"","logprobs":null,"finish_reason":"abort"}]}
        ],"usage":{"completion_tokens":3,"prompt_tokens":2,"prompt_tokens_details":{"cached_tokens":1},"total_tokens":5}}
        "#);
    }

    #[test]
    fn generate_events() {
        let envelope = Envelope::new(Dialect::Generate, 7, "m", 1000);
        let mut out = BytesMut::new();
        envelope.generated(&mut out, 0, &choice(true), " abc", &progress(1, None));
        envelope.generated(&mut out, 1, &choice(true), " abc def", &progress(2, Some(Ending::Complete)));
        assert_snapshot!(std::str::from_utf8(&out).unwrap(), @r#"
        data: {"index":0,"meta_info":{"cached_tokens":1,"completion_tokens":1,"finish_reason":null,"id":"0000000000000007","prompt_tokens":2},"text":" abc"}

        data: {"index":1,"meta_info":{"cached_tokens":1,"completion_tokens":2,"finish_reason":{"length":2,"type":"length"},"id":"0000000000000007","prompt_tokens":2},"text":" abc def"}
        "#);
    }

    #[test]
    fn whole_replies() {
        let done = [progress(2, Some(Ending::Complete))];
        let show = |dialect| {
            let envelope = Envelope::new(dialect, 7, "m", 1000);
            envelope.whole(&[choice(false)], &done, &[" abc def".to_owned()]).to_string()
        };
        assert_snapshot!(show(Dialect::Chat), @r#"{"choices":[{"finish_reason":"stop","index":0,"logprobs":null,"message":{"content":" abc def","role":"assistant"}}],"created":1000,"id":"chatcmpl-0000000000000007","model":"m","object":"chat.completion","usage":{"completion_tokens":2,"prompt_tokens":2,"prompt_tokens_details":{"cached_tokens":1},"total_tokens":4}}"#);
        assert_snapshot!(show(Dialect::Completions), @r#"{"choices":[{"finish_reason":"stop","index":0,"logprobs":null,"text":" abc def"}],"created":1000,"id":"cmpl-0000000000000007","model":"m","object":"text_completion","usage":{"completion_tokens":2,"prompt_tokens":2,"prompt_tokens_details":{"cached_tokens":1},"total_tokens":4}}"#);
        assert_snapshot!(show(Dialect::Generate), @r#"{"meta_info":{"cached_tokens":1,"completion_tokens":2,"finish_reason":{"type":"stop"},"id":"0000000000000007","prompt_tokens":2},"text":" abc def"}"#);
        let two = Envelope::new(Dialect::Generate, 7, "m", 0).whole(
            &[choice(true), choice(true)],
            &[done[0], done[0]],
            &["a".to_owned(), "b".to_owned()],
        );
        assert_eq!(two.as_array().unwrap().len(), 2);
    }

    #[test]
    fn embeddings_count_no_output() {
        let envelope = Envelope::new(Dialect::Embeddings, 7, "m", 1000);
        let reply = envelope.embeddings(&mut [choice(true), choice(true)], &[progress(1, None), progress(1, None)]);
        assert_eq!(reply["data"].as_array().unwrap().len(), 2);
        assert_eq!(reply["data"][1]["embedding"].as_array().unwrap().len(), 16);
        assert_eq!(reply["usage"]["prompt_tokens"], 4);
        assert_eq!(reply["usage"]["total_tokens"], 4);
    }
}
