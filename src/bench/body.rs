//! Request bodies as a client of OpenAI's API writes them, prompts synthesised from the plan.

use bytes::Bytes;

use crate::inference::Dialect;
use crate::workload::Step;
use crate::workload::text::{prompt_bytes, write_prompt};

/// What all bodies of a run have in common.
#[derive(Clone, Debug)]
pub struct BodyFormat {
    /// [`Dialect::Chat`] or [`Dialect::Completions`].
    pub dialect: Dialect,
    /// Value of `model`.
    pub model: String,
    /// Tokens per block id of the plan.
    pub block_size: u32,
    /// Seed of the text.
    pub seed: u64,
}

/// Room for everything beside the prompt, bytes.
const FRAME_BYTES: usize = 256;

/// The body of one request: streaming, with usage, and exactly as many output tokens as the plan wants (`ignore_eos` is an
/// extension that SGLang, vLLM and our emulator know; strict servers refuse it, see `send_ignore_eos`).
///
/// # Errors
/// None in practice: strings always serialise into memory.
pub fn body(format: &BodyFormat, step: &Step, send_ignore_eos: bool) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(prompt_bytes(step) + FRAME_BYTES);
    out.extend_from_slice(b"{\"model\":");
    serde_json::to_writer(&mut out, &format.model)?;
    let end: &[u8] = match format.dialect {
        Dialect::Completions => {
            out.extend_from_slice(b",\"prompt\":");
            b""
        }
        _ => {
            out.extend_from_slice(b",\"messages\":[{\"role\":\"user\",\"content\":");
            b"}]"
        }
    };
    match &step.text {
        Some(text) => serde_json::to_writer(&mut out, text.as_ref())?,
        // Synthesised text has nothing to escape: no second pass over it.
        None => {
            out.push(b'"');
            write_prompt(step, format.block_size, format.seed, &mut out);
            out.push(b'"');
        }
    }
    out.extend_from_slice(end);
    out.extend_from_slice(b",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":");
    out.extend_from_slice(step.output_tokens.to_string().as_bytes());
    if send_ignore_eos {
        out.extend_from_slice(b",\"ignore_eos\":true");
    }
    out.push(b'}');
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::{BodyFormat, body};
    use crate::inference::{Dialect, prompt};
    use crate::workload::Step;

    fn step(text: Option<&str>) -> Step {
        Step { think_ms: 0.0, input_tokens: 9, output_tokens: 3, blocks: [1, 2, 3].into(), text: text.map(Into::into) }
    }

    #[test]
    fn bodies_are_read_back_as_they_were_meant() {
        for dialect in [Dialect::Chat, Dialect::Completions] {
            for text in [None, Some("say \"hi\"\n\u{1f600}")] {
                let format = BodyFormat { dialect, model: "m/\"1\"".into(), block_size: 4, seed: 7 };
                let bytes = body(&format, &step(text), true).unwrap();
                let parsed = prompt::parse(dialect, &bytes).unwrap();
                assert_eq!(parsed.model.as_deref(), Some("m/\"1\""));
                assert!(parsed.stream && parsed.include_usage && parsed.ignore_eos);
                assert_eq!(parsed.max_tokens, Some(3));
                let canonical: Vec<u8> = parsed.canonical().flatten().copied().collect();
                match text {
                    Some(text) => assert_eq!(canonical, text.as_bytes()),
                    None => assert_eq!(canonical.len(), 36, "9 tokens of 4 bytes"),
                }
            }
        }
    }

    #[test]
    fn strict_servers_are_spared_the_extension() {
        let format = BodyFormat { dialect: Dialect::Chat, model: "m".into(), block_size: 4, seed: 7 };
        let bytes = body(&format, &step(None), false).unwrap();
        assert!(!prompt::parse(Dialect::Chat, &bytes).unwrap().ignore_eos);
    }
}
