//! Reader of the Claude Code form: coding-agent sessions with runs of block ids that mean something only inside the session.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::intern::{Interner, Sessions};
use super::lines::{Line, Lines, SessionName};
use super::{Draft, Form, Openings, ReadOptions, Row, TraceError};

/// Block size of this form, tokens.
const BLOCK_SIZE: u32 = 64;

#[derive(Deserialize)]
struct Fields {
    session_id: SessionName,
    t_s: f64,
    think_s: Option<f64>,
    input_length: u64,
    output_length: u64,
    #[serde(default)]
    tool_tokens: u64,
    #[serde(default)]
    system_tokens: u64,
    hash_id_ranges: Vec<(u64, u64)>,
}

impl Fields {
    /// Full blocks of the tool and system parts.
    fn leading_blocks(&self) -> usize {
        let tokens = self.tool_tokens.saturating_add(self.system_tokens);
        usize::try_from(tokens / u64::from(BLOCK_SIZE)).unwrap_or(usize::MAX)
    }
}

/// What makes a block the same as another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A full block of one session.
    Own { session: usize, id: u64 },
    /// A block of an opening that sessions share: their tool and system tokens, and its place.
    Opening { tool: u64, system: u64, place: usize },
    /// The partly filled last block of one row (by line): the form has no id for it, so nothing else can have it.
    Tail { line: usize },
}

pub(super) fn read(lines: &Lines<'_>, options: &ReadOptions) -> Result<Draft, TraceError> {
    let mut sessions = Sessions::new();
    let mut interner = Interner::new();
    let mut openings: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for line in lines.iter() {
        let fields: Fields = line.json()?;
        let input_tokens = line.input_tokens("`input_length`", fields.input_length)?;
        let ids = expand(&line, input_tokens, &fields.hash_id_ranges)?;
        let at_ms = line.duration_ms("t_s", fields.t_s * 1000.0)?;
        let session = sessions.ordinal(Some(fields.session_id.clone().into_text()));
        let leading = fields.leading_blocks().min(ids.len());
        let first = openings.entry(session).or_insert_with(|| ids[..leading].to_vec());
        let common = match options.openings {
            Openings::Separate => 0,
            Openings::Alike => ids[..leading].iter().zip(first.iter()).take_while(|(a, b)| a == b).count(),
            Openings::EqualSizes => leading,
        };
        let (tool, system) = (fields.tool_tokens, fields.system_tokens);
        let opening = (0..common).map(|place| Key::Opening { tool, system, place });
        let own = ids[common..].iter().map(|&id| Key::Own { session, id });
        let tail = (!input_tokens.is_multiple_of(BLOCK_SIZE)).then_some(Key::Tail { line: line.number });
        let blocks: Arc<[u64]> = opening.chain(own).chain(tail).map(|key| interner.id(key, session)).collect();
        let row = Row {
            at_ms: None,
            think_ms: fields.think_s.map(|s| line.duration_ms("think_s", s * 1000.0)).transpose()?,
            new_turn: false,
            input_tokens,
            output_tokens: line.output_tokens("output_length", fields.output_length)?,
            blocks,
            text: None,
        };
        sessions.push(session, (at_ms, 0), row);
    }
    let shared = interner.flags(|key, _| matches!(key, Key::Opening { .. }));
    Ok(Draft { form: Form::ClaudeCode, block_size: BLOCK_SIZE, episodes: sessions.finish(), shared })
}

/// The ids of the runs; there has to be one per full block.
fn expand(line: &Line<'_>, tokens: u32, runs: &[(u64, u64)]) -> Result<Vec<u64>, TraceError> {
    let wanted = u64::from(tokens / BLOCK_SIZE);
    let found = runs.iter().fold(0_u64, |sum, &(_, count)| sum.saturating_add(count));
    if found != wanted {
        return Err(line.error(format!(
            "`hash_id_ranges` hold {found} ids for {tokens} tokens; wanted {wanted} (full blocks of {BLOCK_SIZE})"
        )));
    }
    if let Some((start, count)) = runs.iter().find(|(start, count)| start.checked_add(*count).is_none()) {
        return Err(line.error(format!("`hash_id_ranges` hold [{start}, {count}], beyond 64 bits")));
    }
    Ok(runs.iter().flat_map(|&(start, count)| start..start + count).collect())
}
