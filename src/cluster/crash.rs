//! For tests of crash safety: ends the process, as `kill -9` would, at a numbered step boundary.

use std::sync::atomic::{AtomicU32, Ordering};

/// Variable with the number of the boundary, from 1. Builds for users ignore it.
pub const VARIABLE: &str = "GORGO_CRASH_AT";

/// Counts boundaries.
#[derive(Debug, Default)]
pub struct CrashHook {
    at: Option<u32>,
    passed: AtomicU32,
}

impl CrashHook {
    /// The boundary that the environment names, in builds with debug assertions only.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = if cfg!(debug_assertions) { std::env::var(VARIABLE).ok() } else { None };
        Self { at: text.and_then(|text| text.parse().ok()), passed: AtomicU32::new(0) }
    }

    /// A step begins or has ended.
    pub fn boundary(&self) {
        let number = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if self.at == Some(number) {
            std::process::abort();
        }
    }
}
