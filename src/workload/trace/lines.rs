//! The lines of a trace, each able to say where it stands when something is wrong with it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{MAX_TOKENS, TraceError};

/// Field names of a JSON object; the values are of no interest.
pub(super) type Fields = BTreeMap<String, IgnoredAny>;

/// A file's lines that are not blank.
pub(super) struct Lines<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

/// One line.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    name: &'a str,
    /// Counted from 1.
    pub(super) number: usize,
    /// Without its line end.
    pub(super) bytes: &'a [u8],
}

impl<'a> Lines<'a> {
    pub(super) fn new(name: &'a str, bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        Self { name, bytes }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        let name = self.name;
        let numbered = self.bytes.split(|&byte| byte == b'\n').zip(1..);
        numbered
            .map(move |(bytes, number)| Line { name, number, bytes: bytes.strip_suffix(b"\r").unwrap_or(bytes) })
            .filter(|line| !line.bytes.trim_ascii().is_empty())
    }

    /// A problem of the file as a whole.
    pub(super) fn error(&self, problem: &str) -> TraceError {
        TraceError { name: self.name.to_owned(), line: None, problem: problem.to_owned() }
    }
}

impl Line<'_> {
    /// A problem of this line.
    pub(super) fn error(&self, problem: impl Into<String>) -> TraceError {
        TraceError { name: self.name.to_owned(), line: Some(self.number), problem: problem.into() }
    }

    /// The line as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, TraceError> {
        serde_json::from_slice(self.bytes).map_err(|error| {
            if let Err(invalid) = std::str::from_utf8(self.bytes) {
                return self
                    .error(format!("byte {} of the line is not UTF-8; a trace is text", invalid.valid_up_to() + 1));
            }
            if error.is_eof() {
                return self.error(format!("the row breaks off after {} bytes (truncated file?)", self.bytes.len()));
            }
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            let what = what.replace("expected u64", "wanted a whole number").replace("expected", "wanted");
            let kind = if error.is_data() { "" } else { "not JSON: " };
            self.error(format!("{kind}{what} (column {})", error.column()))
        })
    }

    pub(super) fn fields(&self) -> Result<Fields, TraceError> {
        self.json()
    }

    /// The error for a row without the fields that would tell its form.
    pub(super) fn missing(&self, fields: &Fields, wanted: &str) -> TraceError {
        let found: Vec<String> = fields.keys().take(12).map(|key| format!("`{key}`")).collect();
        let found = if found.is_empty() { "no fields".to_owned() } else { found.join(", ") };
        self.error(format!("found {found}; wanted {wanted}"))
    }

    /// Checks a prompt length.
    pub(super) fn input_tokens(&self, what: &str, found: u64) -> Result<u32, TraceError> {
        match u32::try_from(found) {
            Ok(tokens @ 1..=MAX_TOKENS) => Ok(tokens),
            _ => Err(self.error(format!("{what} is {found}; 1 to {MAX_TOKENS} tokens are wanted"))),
        }
    }

    /// Checks an output length; 0 becomes 1.
    pub(super) fn output_tokens(&self, field: &str, found: u64) -> Result<u32, TraceError> {
        match u32::try_from(found) {
            Ok(tokens @ 0..=MAX_TOKENS) => Ok(tokens.max(1)),
            _ => Err(self.error(format!("`{field}` is {found}; at most {MAX_TOKENS} tokens are wanted"))),
        }
    }

    /// Checks a time or pause: finite and at least 0, and no more than a thousand years.
    pub(super) fn duration_ms(&self, field: &str, ms: f64) -> Result<f64, TraceError> {
        const THOUSAND_YEARS_MS: f64 = 1000.0 * 366.0 * 86_400_000.0;
        if (0.0..=THOUSAND_YEARS_MS).contains(&ms) {
            Ok(ms)
        } else {
            Err(self.error(format!("`{field}` is {ms} ms; a time of at least 0 is wanted")))
        }
    }
}

/// A session's name: text or a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub(super) enum SessionName {
    Number(u64),
    Text(String),
}

impl SessionName {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}
