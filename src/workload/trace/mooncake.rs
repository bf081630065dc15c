//! Reader of the Mooncake form: one row per request, one id per started block, ids global to the file.

use std::sync::Arc;

use serde::Deserialize;

use super::intern::{Interner, Sessions};
use super::lines::{Line, Lines, SessionName};
use super::{Draft, Form, ReadOptions, Row, TraceError};

/// Block size of the published Mooncake traces, tokens.
const DEFAULT_BLOCK_SIZE: u32 = 512;

#[derive(Deserialize)]
struct Fields {
    timestamp: Option<f64>,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
    session_id: Option<SessionName>,
    turn: Option<u32>,
    step: Option<u32>,
    think_ms: Option<f64>,
}

pub(super) fn read(lines: &Lines<'_>, options: &ReadOptions) -> Result<Draft, TraceError> {
    if options.block_size == Some(0) {
        return Err(lines.error("`--block-size` is 0; at least 1 token is wanted"));
    }
    let mut sizes = BlockSizes::new(options.block_size);
    let mut sessions = Sessions::new();
    let mut interner = Interner::new();
    let mut timed = None;
    for line in lines.iter() {
        let fields: Fields = line.json()?;
        let input_tokens = line.input_tokens("`input_length`", fields.input_length)?;
        sizes.narrow(&line, input_tokens, fields.hash_ids.len())?;
        check_clock(&line, &mut timed, fields.timestamp)?;
        let at_ms = fields.timestamp.map(|ms| line.duration_ms("timestamp", ms)).transpose()?;
        let session = sessions.ordinal(fields.session_id.map(SessionName::into_text));
        let blocks: Arc<[u64]> = fields.hash_ids.into_iter().map(|id| interner.id(id, session)).collect();
        let (turn, step) = (fields.turn.unwrap_or(0), fields.step.unwrap_or(0));
        let row = Row {
            at_ms,
            think_ms: fields.think_ms.map(|ms| line.duration_ms("think_ms", ms)).transpose()?,
            new_turn: step == 0,
            input_tokens,
            output_tokens: line.output_tokens("output_length", fields.output_length)?,
            blocks,
            text: None,
        };
        sessions.push(session, (f64::from(turn), u64::from(step)), row);
    }
    let shared = interner.flags(|_, by_several_sessions| by_several_sessions);
    Ok(Draft { form: Form::Mooncake, block_size: sizes.choose(), episodes: sessions.finish(), shared })
}

/// Either all rows have a timestamp or none has.
fn check_clock(line: &Line<'_>, timed: &mut Option<bool>, timestamp: Option<f64>) -> Result<(), TraceError> {
    match (*timed.get_or_insert(timestamp.is_some()), timestamp) {
        (true, None) => Err(line.error("no `timestamp`, but the rows before have one")),
        (false, Some(_)) => Err(line.error("a `timestamp`, but the rows before have none")),
        _ => Ok(()),
    }
}

/// The block sizes that all rows so far allow: n ids for L tokens mean ceil(L / size) = n, so L/n ≤ size < L/(n − 1).
struct BlockSizes {
    given: Option<u32>,
    from: u32,
    to: u32,
}

impl BlockSizes {
    fn new(given: Option<u32>) -> Self {
        Self { given, from: 1, to: u32::MAX }
    }

    fn narrow(&mut self, line: &Line<'_>, tokens: u32, ids: usize) -> Result<(), TraceError> {
        let found = format!("{ids} `hash_ids` for {tokens} tokens");
        if let Some(size) = self.given {
            let wanted = tokens.div_ceil(size) as usize;
            let hint = "; try another `--block-size`";
            return if ids == wanted {
                Ok(())
            } else {
                Err(line.error(format!("{found}; blocks of {size} tokens want {wanted}{hint}")))
            };
        }
        let Some(n) = u32::try_from(ids).ok().filter(|n| (1..=tokens).contains(n)) else {
            return Err(line.error(format!("{found}; one id per started block is wanted")));
        };
        let from = tokens.div_ceil(n);
        let to = if n == 1 { u32::MAX } else { tokens.div_ceil(n - 1) - 1 };
        let before = (self.from, self.to);
        (self.from, self.to) = (before.0.max(from), before.1.min(to));
        if self.from <= self.to {
            return Ok(());
        }
        let here = if from > to {
            "which no block size gives".to_owned()
        } else {
            format!("so blocks of {}", range(from, to))
        };
        let rows = if before == (1, u32::MAX) {
            String::new()
        } else {
            format!("; the rows before want {}", range(before.0, before.1))
        };
        Err(line.error(format!("{found}, {here}{rows}")))
    }

    /// The given size, else 512 if it fits, else the largest power of two that fits, else the smallest size that fits.
    fn choose(&self) -> u32 {
        let fits = |size: u32| (self.from..=self.to).contains(&size);
        if let Some(size) = self.given {
            size
        } else if fits(DEFAULT_BLOCK_SIZE) {
            DEFAULT_BLOCK_SIZE
        } else {
            (0..16).rev().map(|power| 1 << power).find(|&size| fits(size)).unwrap_or(self.from)
        }
    }
}

fn range(from: u32, to: u32) -> String {
    match to {
        _ if from == to => format!("{from} tokens"),
        u32::MAX => format!("at least {from} tokens"),
        _ => format!("{from} to {to} tokens"),
    }
}
