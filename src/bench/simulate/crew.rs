//! Threads that take runs from a list until none is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::SimulateConfig;
use super::lot::Lot;
use crate::bench::{Board, Tally};
use crate::report::{Run, Sample};
use crate::routing::Settings;
use crate::sim::world::{self, Events, Observer};

/// Everything the threads share.
pub(super) struct Crew<'a> {
    pub(super) config: &'a SimulateConfig,
    pub(super) lots: &'a [Lot],
    pub(super) board: &'a Board,
    pub(super) stop: &'a CancellationToken,
}

/// A finished run.
pub(super) struct Done {
    /// Index of its seed.
    pub(super) seed: usize,
    /// Index of its contender.
    pub(super) contender: usize,
    pub(super) run: Run,
    pub(super) events: Events,
}

/// One run to do.
#[derive(Clone, Copy)]
struct Job {
    seed: usize,
    contender: usize,
}

impl Crew<'_> {
    /// Does all runs, in the order seed by seed, and returns them in that order. After a stop those under way end early: with a single
    /// seed they count as far as they got, with several only whole ones do.
    pub(super) fn work(&self) -> Result<Vec<Done>> {
        let contenders = self.config.contenders.len();
        let jobs: Vec<Job> = (0..self.lots.len())
            .flat_map(|seed| (0..contenders).map(move |contender| Job { seed, contender }))
            .collect();
        let tallies = self.tallies();
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(jobs.len());
        let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done = Mutex::new(Vec::new());
        self.say(0, jobs.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((index, job)) = take(&next, &jobs) {
                        if self.stop.is_cancelled() {
                            break;
                        }
                        let result = self.play(job, &tallies[job.contender]);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                        self.say(finished.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().filter_map(|(_, result)| result.transpose()).collect()
    }

    fn say(&self, finished: usize, all: usize) {
        self.board.phase(format!("{finished} of {all} runs done"));
    }

    /// A line per contender, for all of its seeds.
    fn tallies(&self) -> Vec<Arc<Tally>> {
        let planned: u64 = self.lots.iter().map(|lot| lot.plan.requests() as u64).sum();
        let planned = self.lots.iter().all(|lot| lot.plan.concurrency.is_none()).then_some(planned);
        self.config.contenders.iter().map(|contender| self.board.line(&contender.name, planned)).collect()
    }

    fn play(&self, job: Job, tally: &Arc<Tally>) -> Result<Option<Done>> {
        let (lot, contender) = (&self.lots[job.seed], &self.config.contenders[job.contender]);
        let routing = Settings { seed: lot.seed, ..contender.routing.clone() };
        let mut watcher = Watcher { tally, stop: self.stop };
        let played = world::run(&lot.scenario(self.config, &routing, contender.edge), &mut watcher)
            .with_context(|| format!("strategy `{}`", contender.name))?;
        if played.stopped && self.lots.len() > 1 {
            return Ok(None);
        }
        let run = lot.judge(self.config, &contender.name, &played);
        Ok(Some(Done { seed: job.seed, contender: job.contender, run, events: played.events }))
    }
}

fn take(next: &AtomicUsize, jobs: &[Job]) -> Option<(usize, Job)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(index).map(|job| (index, *job))
}

/// Feeds a progress line.
struct Watcher<'a> {
    tally: &'a Tally,
    stop: &'a CancellationToken,
}

impl Observer for Watcher<'_> {
    fn sent(&mut self) {
        self.tally.sent();
    }

    fn ended(&mut self, sample: &Sample, home: &str) {
        self.tally.ended(sample, Some(home));
    }

    fn goes_on(&mut self) -> bool {
        !self.stop.is_cancelled()
    }
}
