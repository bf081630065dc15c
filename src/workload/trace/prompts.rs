//! Reader of literal prompts: guidellm-style JSON Lines, or one prompt per line.

use std::sync::Arc;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::intern::{Interner, Sessions};
use super::lines::{Line, Lines};
use super::{Draft, Form, ReadOptions, Row, TraceError};
use crate::workload::text::BYTES_PER_TOKEN;

/// Fields taken for the prompt, in this order (guidellm's default names).
pub const PROMPT_COLUMNS: [&str; 7] = ["prompt", "instruction", "question", "input", "context", "content", "text"];
/// Fields taken for a prefix of the prompt; it is put before it, on lines of its own.
pub const PREFIX_COLUMNS: [&str; 3] = ["system_prompt", "system", "prefix"];
/// Fields taken for the output length, tokens.
pub const OUTPUT_COLUMNS: [&str; 2] = ["output_tokens_count", "output_tokens"];

/// Tokens per block: 256 bytes, as the router's own blocks.
const BLOCK_SIZE: u32 = 64;

pub(super) fn read(lines: &Lines<'_>, options: &ReadOptions) -> Result<Draft, TraceError> {
    let is_json = lines.iter().next().is_some_and(|line| line.bytes.trim_ascii_start().first() == Some(&b'{'));
    let mut sessions = Sessions::new();
    let mut interner = Interner::new();
    for line in lines.iter() {
        let (text, output) = if is_json { from_json(&line, options)? } else { (plain(&line)?, None) };
        let session = sessions.ordinal(None);
        let blocks: Arc<[u64]> = chain(text.as_bytes()).into_iter().map(|key| interner.id(key, session)).collect();
        let row = Row {
            at_ms: None,
            think_ms: None,
            new_turn: true,
            input_tokens: line
                .input_tokens("the prompt's length in tokens", text.len().div_ceil(BYTES_PER_TOKEN) as u64)?,
            output_tokens: output.unwrap_or(options.output_tokens.max(1)),
            blocks,
            text: Some(text.into()),
        };
        sessions.push(session, (0.0, 0), row);
    }
    let shared = interner.flags(|_, _| true); // literal text cannot be renamed, so every block keeps its id
    Ok(Draft { form: Form::Prompts, block_size: BLOCK_SIZE, episodes: sessions.finish(), shared })
}

/// One key per started block: equal keys mean an equal text up to and including the block.
fn chain(text: &[u8]) -> Vec<u64> {
    let block_bytes = BLOCK_SIZE as usize * BYTES_PER_TOKEN;
    let mut hash = 0;
    let blocks = text.chunks(block_bytes);
    blocks
        .map(|block| {
            hash = xxh3_64_with_seed(block, hash);
            hash
        })
        .collect()
}

fn plain(line: &Line<'_>) -> Result<String, TraceError> {
    let text = std::str::from_utf8(line.bytes).map_err(|error| {
        line.error(format!("byte {} of the line is not UTF-8; a prompt is text", error.valid_up_to() + 1))
    })?;
    if text.contains('\0') {
        return Err(line.error("the line holds a zero byte; a prompt is text"));
    }
    Ok(text.to_owned())
}

/// Prompt and output length of one row.
fn from_json(line: &Line<'_>, options: &ReadOptions) -> Result<(String, Option<u32>), TraceError> {
    let fields: Map<String, Value> = line.json()?;
    let column = options.prompt_column.as_deref();
    let names = column.map_or_else(|| PROMPT_COLUMNS.to_vec(), |column| vec![column]);
    let Some((name, value)) = first_of(&fields, &names) else {
        return Err(
            line.error(format!("no prompt: one of `{}` is wanted (`--prompt-column NAME`)", names.join("`, `")))
        );
    };
    let prompt = as_text(line, name, value)?;
    let text = match first_of(&fields, &PREFIX_COLUMNS).filter(|(prefix, _)| *prefix != name) {
        Some((name, value)) => format!("{}\n{prompt}", as_text(line, name, value)?),
        None => prompt.to_owned(),
    };
    let output = match first_of(&fields, &OUTPUT_COLUMNS) {
        Some((name, value)) => {
            let count =
                value.as_u64().ok_or_else(|| line.error(format!("`{name}` is {value}; a whole number is wanted")))?;
            Some(line.output_tokens(name, count)?)
        }
        None => None,
    };
    Ok((text, output))
}

/// The first of the fields that is there and not null.
fn first_of<'n, 'm>(fields: &'m Map<String, Value>, names: &[&'n str]) -> Option<(&'n str, &'m Value)> {
    names.iter().find_map(|&name| fields.get(name).filter(|value| !value.is_null()).map(|value| (name, value)))
}

fn as_text<'v>(line: &Line<'_>, name: &str, value: &'v Value) -> Result<&'v str, TraceError> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        Value::String(_) => Err(line.error(format!("`{name}` is empty; a prompt is wanted"))),
        other => Err(line.error(format!("`{name}` is {}; text is wanted", kind(other)))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
