//! From a trace to a plan: which session starts when, with which ids and pauses.
//!
//! Everything random comes from the seed through separate streams (starts, order, pauses, spreading), so that equal options give
//! equal plans and a longer run begins like a shorter one.

use std::sync::Arc;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::LogNormal;

use super::arrivals::{Arrivals, Stream, Window, constant_starts, exponential, generator, poisson_starts};
use super::plan::{Plan, Session, Step};
use super::spread::spread;
use super::trace::{Episode, Form, Row, Trace};

/// Most sessions in a plan; more would be a slip of the keyboard.
const MAX_SESSIONS: f64 = 5e6;

/// Most block ids in the plan of a timed open loop, ids (1 GiB): each session that is played again has ids of its own.
const OPEN_LOOP_IDS: f64 = 134_217_728.0;

/// Room for block ids in the plan of a closed loop with a time limit, ids (128 MiB).
const CLOSED_LOOP_IDS: usize = 1 << 24;

/// Requests per second and slot that the plan of a closed loop provides for.
const CLOSED_LOOP_PER_S: f64 = 10.0;

/// How a plan is made.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// What starts sessions.
    pub arrivals: Arrivals,
    /// Sessions start before this, s. `None`: every session of the trace once.
    pub seconds: Option<f64>,
    /// Seed of order, starts, pauses and spreading.
    pub seed: u64,
    /// Pauses where the trace has none.
    pub pauses: Pauses,
    /// Longer pauses are cut to this, ms.
    pub max_think_ms: Option<f64>,
    /// Longer outputs are cut to this, tokens.
    pub max_output: Option<u32>,
    /// Replay sends every request at its own time, however late the replies before it in its session are: in the plan each is a
    /// session by itself, under its session's name.
    pub open_loop: bool,
}

impl PlanOptions {
    /// The given arrivals and seed, everything else as recorded.
    #[must_use]
    pub fn new(arrivals: Arrivals, seed: u64) -> Self {
        Self {
            arrivals,
            seconds: None,
            seed,
            pauses: Pauses::Recorded,
            max_think_ms: None,
            max_output: None,
            open_loop: false,
        }
    }
}

/// Pauses inside a session where the trace recorded none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pauses {
    /// No pause: the next request follows the reply at once.
    #[default]
    Recorded,
    /// As agents make them: a tool takes 0.3 s (median of a lognormal with sigma 0.8), a user 1 s + an exponential of mean
    /// 4 s; 10 s at most.
    Agents,
}

/// A plan that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// No request is left (all were longer than the limit).
    #[error("no requests: all {dropped} of `{name}` are longer than the limit; try a larger `--max-input`")]
    Empty {
        /// The trace.
        name: String,
        /// How many were dropped.
        dropped: usize,
    },
    /// Replay needs a clock.
    #[error("`{name}` has no timestamps to replay or to scale; give `--rate` or `--concurrency`")]
    NotTimed {
        /// The trace.
        name: String,
    },
    /// Nothing arrives in the window.
    #[error("no request of `{name}` arrives between {from_s} s and {to_s} s; its last one comes at {last_s} s")]
    EmptyWindow {
        /// The trace.
        name: String,
        /// Begin, s.
        from_s: f64,
        /// End, s.
        to_s: f64,
        /// The last arrival, s.
        last_s: f64,
    },
    /// The time is over before the first session starts.
    #[error("no session starts within {seconds} s at this rate and seed; give more `--seconds` or a higher `--rate`")]
    NothingStarts {
        /// The time, s.
        seconds: f64,
    },
    /// A number that makes no sense.
    #[error("{what} is {found}; {wanted} is wanted")]
    BadNumber {
        /// Its meaning.
        what: &'static str,
        /// Its value.
        found: f64,
        /// What would do.
        wanted: &'static str,
    },
}

/// Makes the plan.
///
/// # Errors
/// Options that do not fit the trace, see [`PlanError`].
pub fn build(trace: &Trace, options: &PlanOptions) -> Result<Plan, PlanError> {
    check(trace, options)?;
    if options.open_loop && !trace.is_timed() {
        return Err(PlanError::NotTimed { name: trace.name.clone() });
    }
    let sessions = match options.arrivals {
        Arrivals::Replay { time_scale, window } => replay(trace, options, time_scale, window)?,
        Arrivals::Poisson { per_s } => timed(trace, options, poisson_starts(per_s, options.seed)),
        Arrivals::Constant { per_s } => timed(trace, options, constant_starts(per_s)),
        Arrivals::Concurrent { .. } | Arrivals::Throughput { .. } | Arrivals::Synchronous => closed(trace, options),
    };
    if sessions.is_empty() {
        return Err(PlanError::NothingStarts { seconds: options.seconds.unwrap_or_default() });
    }
    Ok(Plan { block_size: trace.block_size, sessions, concurrency: options.arrivals.concurrency() })
}

fn check(trace: &Trace, options: &PlanOptions) -> Result<(), PlanError> {
    if trace.episodes.is_empty() {
        return Err(PlanError::Empty { name: trace.name.clone(), dropped: trace.dropped });
    }
    let positive = |what, found: f64| {
        let wanted = "a positive number";
        if found > 0.0 && found.is_finite() { Ok(()) } else { Err(PlanError::BadNumber { what, found, wanted }) }
    };
    let seconds = options.seconds.unwrap_or(1.0);
    positive("duration in seconds", seconds)?;
    match options.arrivals {
        Arrivals::Replay { time_scale, .. } => positive("time scale", time_scale)?,
        Arrivals::Poisson { per_s } | Arrivals::Constant { per_s } => {
            positive("rate in sessions/s", per_s)?;
            let found = per_s * seconds;
            if found > MAX_SESSIONS {
                let wanted = "at most five million";
                return Err(PlanError::BadNumber { what: "number of sessions (rate × seconds)", found, wanted });
            }
            let ids =
                found * trace.rows().map(|row| row.blocks.len()).sum::<usize>() as f64 / trace.episodes.len() as f64;
            if options.seconds.is_some() && ids > OPEN_LOOP_IDS {
                let wanted = "at most 134 million: less time, a lower rate or shorter prompts";
                let what = "number of prompt blocks (rate × seconds × blocks of a session)";
                return Err(PlanError::BadNumber { what, found: ids.round(), wanted });
            }
        }
        Arrivals::Concurrent { sessions: count } | Arrivals::Throughput { at_most: count } => {
            positive("number of sessions at once", f64::from(count))?;
        }
        Arrivals::Synchronous => {}
    }
    Ok(())
}

/// Sessions at the given starts, until the time is up or (without a limit) each session was played once.
fn timed(trace: &Trace, options: &PlanOptions, starts: impl Iterator<Item = f64>) -> Vec<Session> {
    let count = if options.seconds.is_some() { MAX_SESSIONS as usize } else { trace.episodes.len() };
    let limit_ms = options.seconds.map_or(f64::INFINITY, |s| s * 1000.0);
    let starts = starts.take(count).take_while(|&start_ms| start_ms < limit_ms);
    starts.zip(SessionSource::new(trace, options)).map(|(start_ms, session)| Session { start_ms, ..session }).collect()
}

/// Sessions for a closed loop: each once, or as many as the slots can hardly use up in the time.
fn closed(trace: &Trace, options: &PlanOptions) -> Vec<Session> {
    let episodes = trace.episodes.len();
    let slots = options.arrivals.concurrency().map_or(1.0, f64::from);
    let ids = trace.rows().map(|row| row.blocks.len()).sum::<usize>().max(1);
    let count = options.seconds.map_or(episodes, |seconds| {
        let requests = slots * (1.0 + seconds * CLOSED_LOOP_PER_S);
        let wanted = requests * episodes as f64 / trace.requests() as f64 + slots;
        let room = (CLOSED_LOOP_IDS as f64 / ids as f64) * episodes as f64;
        (wanted.min(room) as usize).max(episodes)
    });
    SessionSource::new(trace, options).take(count).collect()
}

/// The trace as it was: each session at its first timestamp.
fn replay(
    trace: &Trace,
    options: &PlanOptions,
    time_scale: f64,
    window: Option<Window>,
) -> Result<Vec<Session>, PlanError> {
    let Some(times) = trace.rows().map(|row| row.at_ms).collect::<Option<Vec<f64>>>() else {
        return Err(PlanError::NotTimed { name: trace.name.clone() });
    };
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    let mut times: Vec<f64> = spread(&times, options.seed);
    for at in &mut times {
        *at -= first;
    }
    let window = window.unwrap_or(Window { from_ms: 0.0, to_ms: f64::INFINITY });
    let limit_ms = options.seconds.map_or(f64::INFINITY, |s| s * 1000.0);

    let mut sessions = Vec::new();
    let mut rest = times.as_slice();
    for episode in &trace.episodes {
        let (own, others) = rest.split_at(episode.rows.len());
        rest = others;
        let kept: Vec<(&Row, f64)> =
            episode.rows.iter().zip(own.iter().copied()).filter(|(_, at)| window.contains(*at)).collect();
        let parts = if options.open_loop { kept.chunks(1) } else { kept.chunks(kept.len().max(1)) };
        for part in parts {
            let start_ms = (part[0].1 - window.from_ms) * time_scale;
            if start_ms < limit_ms {
                let steps = replayed_steps(part, options, time_scale);
                sessions.push(Session { id: episode.id.clone(), start_ms, steps });
            }
        }
    }
    if sessions.is_empty() {
        let (from_s, to_s) =
            (window.from_ms / 1000.0, window.to_ms.min(limit_ms / time_scale + window.from_ms) / 1000.0);
        let last_s = times.iter().copied().fold(0.0, f64::max) / 1000.0;
        return Err(PlanError::EmptyWindow { name: trace.name.clone(), from_s, to_s, last_s });
    }
    sessions.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
    Ok(sessions)
}

/// Rows of one session with their times. Where no pause was recorded the gap between the timestamps is taken for it, so a
/// slow fleet falls behind the recorded times, as it would with real users.
fn replayed_steps(rows: &[(&Row, f64)], options: &PlanOptions, time_scale: f64) -> Vec<Step> {
    let mut before: Option<f64> = None;
    let steps = rows.iter().map(|&(row, at)| {
        let gap = before.replace(at).map(|before| (at - before).max(0.0) * time_scale);
        let think_ms = gap.map_or(0.0, |gap| row.think_ms.unwrap_or(gap));
        step(row, cut(think_ms, options), options, row.blocks.clone())
    });
    steps.collect()
}

/// The sessions of a trace one after the other, without end: shuffled by the seed where nothing orders them, in file order where
/// there are timestamps or literal prompts; used up, the trace is played again.
///
/// A session that is played again has a new id and new ids for all blocks that belong to it alone, so that nothing but shared
/// blocks can be found in a cache. Literal prompts cannot be renamed: played again they are the same prompts.
#[derive(Clone, Debug)]
pub struct SessionSource<'a> {
    trace: &'a Trace,
    options: &'a PlanOptions,
    order: Vec<usize>,
    place: usize,
    pass: u64,
    shuffle: Option<ChaCha8Rng>,
    pauses: ChaCha8Rng,
}

impl<'a> SessionSource<'a> {
    /// The sessions of `trace`, in the order and with the pauses of `options`.
    #[must_use]
    pub fn new(trace: &'a Trace, options: &'a PlanOptions) -> Self {
        let free = trace.form != Form::Prompts && !trace.is_timed();
        let mut source = Self {
            trace,
            options,
            order: (0..trace.episodes.len()).collect(),
            place: 0,
            pass: 0,
            shuffle: free.then(|| generator(options.seed, Stream::Order)),
            pauses: generator(options.seed, Stream::Pauses),
        };
        source.mix();
        source
    }

    fn mix(&mut self) {
        if let Some(rng) = &mut self.shuffle {
            self.order.shuffle(rng);
        }
    }

    fn session(&mut self, episode: &Episode) -> Session {
        let pass = self.pass;
        let id = if pass == 0 { episode.id.clone() } else { format!("{}#{pass}", episode.id).into() };
        let steps = episode.rows.iter().enumerate().map(|(place, row)| {
            let think_ms = if place == 0 { 0.0 } else { cut(self.think_ms(row), self.options) };
            step(row, think_ms, self.options, renamed(&row.blocks, &self.trace.shared, pass))
        });
        let steps = steps.collect();
        Session { id, start_ms: 0.0, steps }
    }

    fn think_ms(&mut self, row: &Row) -> f64 {
        match (row.think_ms, self.options.pauses) {
            (Some(recorded), _) => recorded,
            (None, Pauses::Recorded) => 0.0,
            (None, Pauses::Agents) => agents_pause_ms(row.new_turn, &mut self.pauses),
        }
    }
}

impl Iterator for SessionSource<'_> {
    type Item = Session;

    fn next(&mut self) -> Option<Session> {
        if self.place == self.order.len() {
            self.place = 0;
            self.pass += 1;
            self.mix();
        }
        let trace = self.trace;
        let episode = trace.episodes.get(*self.order.get(self.place)?)?;
        self.place += 1;
        Some(self.session(episode))
    }
}

/// Block ids for one more pass over the trace. Ids are dense and small, so the pass fits into the upper bits.
fn renamed(blocks: &Arc<[u64]>, shared: &[bool], pass: u64) -> Arc<[u64]> {
    const PASS_SHIFT: u32 = 40;
    if pass == 0 {
        return blocks.clone();
    }
    let is_shared = |id: u64| shared.get(id as usize).copied().unwrap_or(false);
    blocks.iter().map(|&id| if is_shared(id) { id } else { id | pass << PASS_SHIFT }).collect()
}

fn agents_pause_ms(new_turn: bool, rng: &mut ChaCha8Rng) -> f64 {
    const LONGEST_MS: f64 = 10_000.0;
    let ms = if new_turn {
        1000.0 + 4000.0 * exponential(rng)
    } else {
        let tool = LogNormal::new(300.0_f64.ln(), 0.8).expect("0.8 is a valid deviation");
        rng.sample(tool)
    };
    ms.min(LONGEST_MS)
}

fn cut(think_ms: f64, options: &PlanOptions) -> f64 {
    options.max_think_ms.map_or(think_ms, |longest| think_ms.min(longest))
}

fn step(row: &Row, think_ms: f64, options: &PlanOptions, blocks: Arc<[u64]>) -> Step {
    Step {
        think_ms,
        input_tokens: row.input_tokens,
        output_tokens: options.max_output.map_or(row.output_tokens, |most| row.output_tokens.min(most.max(1))),
        blocks,
        text: row.text.clone(),
    }
}

#[cfg(test)]
mod tests;
