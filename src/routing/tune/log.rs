//! The audit log of a tuner: what was tried, what it measured, what became of it.

use std::collections::VecDeque;

use super::trial::Measured;
use crate::model::Time;

/// Entries that are kept.
const KEPT: usize = 64;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The tuner was started.
    Started,
    /// A candidate takes part of the traffic from now on.
    Proposed,
    /// It is the incumbent from now on, and watched.
    Accepted,
    /// It is gone: no gain was proven.
    Rejected,
    /// It is gone before its time: clearly worse.
    RolledBack,
    /// An acceptance stands.
    Confirmed,
    /// An acceptance was taken back: the weights before are in force.
    Reverted,
    /// Somebody stopped proposals.
    Frozen,
    /// Somebody let them go on.
    Resumed,
    /// It is over; the incumbent stays.
    Ended,
}

impl What {
    /// Lower-case name, stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Proposed => "proposed",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Frozen => "frozen",
            Self::Resumed => "resumed",
            Self::Ended => "ended",
        }
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Numbered from 1 over all tuners of a router.
    pub number: u64,
    /// When.
    pub at: Time,
    /// What.
    pub what: What,
    /// Why, in words; empty where nothing has to be said.
    pub why: &'static str,
    /// The weights that it is about.
    pub values: Vec<(&'static str, f64)>,
    /// What was measured.
    pub result: Measured,
    /// Step size after it.
    pub sigma: f64,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Candidates tried.
    pub proposed: u64,
    /// Of these accepted.
    pub accepted: u64,
    /// Without a proven gain.
    pub rejected: u64,
    /// Clearly worse.
    pub rolled_back: u64,
    /// Acceptances taken back.
    pub reverted: u64,
}

/// The newest entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    written: u64,
    pub(super) tally: Tally,
}

impl Log {
    pub(super) fn write(&mut self, entry: Entry) {
        let count = match entry.what {
            What::Proposed => Some(&mut self.tally.proposed),
            What::Accepted => Some(&mut self.tally.accepted),
            What::Rejected => Some(&mut self.tally.rejected),
            What::RolledBack => Some(&mut self.tally.rolled_back),
            What::Reverted => Some(&mut self.tally.reverted),
            What::Started | What::Confirmed | What::Frozen | What::Resumed | What::Ended => None,
        };
        if let Some(count) = count {
            *count += 1;
        }
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.written += 1;
        self.entries.push_back(Entry { number: self.written, ..entry });
    }

    /// Numbers go on after this one.
    pub(super) fn number_after(&mut self, last: u64) {
        self.written += last;
        self.entries.iter_mut().for_each(|entry| entry.number += last);
    }

    /// The number of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.written
    }

    /// Those after this number that are still kept.
    pub(super) fn since(&self, number: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.number > number)
    }
}
