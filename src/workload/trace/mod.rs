//! Recorded traffic: which prompts came, how long they were and which blocks they shared.
//!
//! [`Trace::read`] takes bytes (plain or zstd) and picks the reader by the fields of the first row. Whatever the bytes are, the
//! result is a trace or one [`TraceError`] that names file and line; nothing panics and nothing is skipped in silence.

mod claude;
mod intern;
mod lines;
mod mooncake;
mod prompts;
mod zst;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use lines::Lines;
pub use zst::decode as decode_zst;

/// The longest prompt or output that a row may ask for, tokens (2^24: its text is 64 MiB). More is taken for a damaged row.
pub const MAX_TOKENS: u32 = 1 << 24;

/// Output length of a prompt file's row that names none, tokens.
pub const DEFAULT_OUTPUT_TOKENS: u32 = 128;

/// The bundled trace: 1,142 requests in 200 tool-calling episodes (lengths and block ids; see NOTICE).
pub const BUNDLED_NAME: &str = "bfcl_multi_turn.jsonl.zst";
const BUNDLED: &[u8] = include_bytes!("../../../data/bfcl_multi_turn.jsonl.zst");

/// How the rows were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `input_length`, `output_length`, `hash_ids`, perhaps `timestamp`, `session_id`, `turn`, `step`, `think_ms`.
    Mooncake,
    /// `t_s`, `think_s`, `hash_id_ranges`: coding-agent sessions, each with its own clock and ids.
    ClaudeCode,
    /// Literal prompts.
    Prompts,
}

/// How the leading (tool and system) parts of Claude Code sessions are shared; their ids are local to the session, so
/// sharing between sessions can only be assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Openings {
    /// Nothing is shared between sessions.
    Separate,
    /// Sessions with equal (tool_tokens, system_tokens) share the leading floor((tool + system) / 64) blocks of their first
    /// prompts; other prompts of the session share as far as they begin like the first.
    #[default]
    Alike,
    /// The same for every prompt of the session, however it begins: the upper end, which sub-agents with other tools contradict.
    EqualSizes,
}

/// What the bytes alone do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Tokens per block of a Mooncake trace; `None`: found from the lengths, 512 where they allow several sizes.
    pub block_size: Option<u32>,
    /// Field that holds the prompt; `None`: the first of [`PROMPT_COLUMNS`] that is there.
    pub prompt_column: Option<String>,
    /// Output length of prompts that name none, tokens.
    pub output_tokens: u32,
    /// Sharing between Claude Code sessions.
    pub openings: Openings,
}

pub use prompts::{OUTPUT_COLUMNS, PREFIX_COLUMNS, PROMPT_COLUMNS};

impl Default for ReadOptions {
    fn default() -> Self {
        let output_tokens = DEFAULT_OUTPUT_TOKENS;
        Self { block_size: None, prompt_column: None, output_tokens, openings: Openings::default() }
    }
}

/// One request as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Arrival on the trace's clock, ms (at least 0).
    pub at_ms: Option<f64>,
    /// Recorded pause before the request, ms (at least 0).
    pub think_ms: Option<f64>,
    /// True for the first request of a user's turn, false for a further step inside it (a tool's result goes back).
    pub new_turn: bool,
    /// Prompt length, tokens: 1 to [`MAX_TOKENS`].
    pub input_tokens: u32,
    /// Output length, tokens: 1 to [`MAX_TOKENS`]; a recorded 0 counts as 1, for an engine has to give a first token.
    pub output_tokens: u32,
    /// One id per started block. Ids are dense: 0, 1, … in order of first appearance in the file.
    pub blocks: Arc<[u64]>,
    /// Literal text of prompt files.
    pub text: Option<Arc<str>>,
}

/// The requests of one session in their order; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Unique in the trace; visible ASCII without `#`, so that it can stand in a header.
    pub id: Arc<str>,
    /// In order of (turn, step), or of the session's clock.
    pub rows: Vec<Row>,
}

/// A whole trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Name of the file as given.
    pub name: String,
    /// SHA-256 of the file as given (compressed, if it was), lower-case hex.
    pub sha256: String,
    /// How it was written.
    pub form: Form,
    /// Tokens per block id.
    pub block_size: u32,
    /// Sessions in order of first appearance; never empty as read.
    pub episodes: Vec<Episode>,
    /// Rows left out by [`Self::drop_longer_than`].
    pub dropped: usize,
    /// By block id: whether the block is common to several sessions and keeps its id when a session is played again.
    pub(super) shared: Vec<bool>,
}

/// A trace that cannot be used: where, what was found, what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}{}: {problem}", .line.map_or(String::new(), |n| format!(":{n}")))]
pub struct TraceError {
    /// Name of the file.
    pub name: String,
    /// Line, counted from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

impl Trace {
    /// Reads a trace of any known form. `name` is used for messages and for the endings `.zst`, `.json` and `.jsonl`.
    ///
    /// # Errors
    /// The first row that is unreadable or makes no sense, damaged or truncated compression, or a file without rows.
    pub fn read(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Self, TraceError> {
        let plain = zst::plain(name, bytes)?;
        let lines = Lines::new(name, &plain);
        let draft = match detect(name, &lines, options)? {
            Form::Mooncake => mooncake::read(&lines, options)?,
            Form::ClaudeCode => claude::read(&lines, options)?,
            Form::Prompts => prompts::read(&lines, options)?,
        };
        Ok(Self {
            name: name.to_owned(),
            sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            form: draft.form,
            block_size: draft.block_size,
            episodes: draft.episodes,
            dropped: 0,
            shared: draft.shared,
        })
    }

    /// The trace that comes with the program.
    ///
    /// # Errors
    /// Only if the program was built from a damaged copy of the file; a test reads it.
    pub fn bundled() -> Result<Self, TraceError> {
        Self::read(BUNDLED_NAME, BUNDLED, &ReadOptions::default())
    }

    /// Leaves out requests whose prompt is longer than `max_input` tokens, and sessions that have none left; counts them in
    /// [`Self::dropped`]. The other requests of a session stay.
    pub fn drop_longer_than(&mut self, max_input: u32) {
        let before = self.requests();
        for episode in &mut self.episodes {
            episode.rows.retain(|row| row.input_tokens <= max_input);
        }
        self.episodes.retain(|episode| !episode.rows.is_empty());
        self.dropped += before - self.requests();
    }

    /// Number of requests (without the dropped).
    #[must_use]
    pub fn requests(&self) -> usize {
        self.episodes.iter().map(|episode| episode.rows.len()).sum()
    }

    /// The requests in order, session by session (which is file order where sessions are not interleaved in the file).
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.episodes.iter().flat_map(|episode| &episode.rows)
    }

    /// Whether the rows have arrival times, so that the trace can be replayed as it was.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.rows().next().is_some_and(|row| row.at_ms.is_some())
    }

    /// Whether rows belong together (a session with several requests).
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.episodes.iter().any(|episode| episode.rows.len() > 1)
    }
}

/// What a reader makes of the lines.
struct Draft {
    form: Form,
    block_size: u32,
    episodes: Vec<Episode>,
    shared: Vec<bool>,
}

/// Chooses the reader by the first row.
fn detect(name: &str, lines: &Lines<'_>, options: &ReadOptions) -> Result<Form, TraceError> {
    let Some(first) = lines.iter().next() else {
        return Err(lines.error("no rows: the file is empty"));
    };
    if first.bytes.trim_ascii_start().first() != Some(&b'{') {
        let stem = name.strip_suffix(".zst").unwrap_or(name);
        if stem.ends_with(".json") || stem.ends_with(".jsonl") || options.prompt_column.is_some() {
            return Err(first.error("found no JSON object; one `{…}` per line is wanted"));
        }
        return Ok(Form::Prompts);
    }
    let fields = first.fields()?;
    let has = |field: &str| fields.contains_key(field);
    if let Some(column) = &options.prompt_column {
        return if has(column) { Ok(Form::Prompts) } else { Err(first.missing(&fields, &format!("`{column}`"))) };
    }
    if has("hash_id_ranges") {
        Ok(Form::ClaudeCode)
    } else if has("hash_ids") {
        Ok(Form::Mooncake)
    } else if PROMPT_COLUMNS.iter().any(|column| has(column)) {
        Ok(Form::Prompts)
    } else {
        let wanted = "`hash_ids` (Mooncake), `hash_id_ranges` (Claude Code) or a prompt (`--prompt-column NAME`)";
        Err(first.missing(&fields, wanted))
    }
}

#[cfg(test)]
mod tests;
