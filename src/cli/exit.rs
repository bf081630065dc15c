//! How a command ends: exit codes that scripts may rely on, and errors that say what to do next.

use std::fmt;
use std::process::ExitCode;

/// Exit code of every command. The numbers are a public contract (README.md lists them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: what was asked for is done.
    Done,
    /// 1: it failed.
    Failed,
    /// 2: bad usage or configuration; nothing was started.
    Usage,
    /// 3: partly done; the summary names what failed.
    Partly,
    /// 4: nothing suitable was found, e.g. no replica or no decision by that name.
    NothingSuitable,
    /// 130: interrupted by Ctrl-C before it was done.
    Interrupted,
    /// The code of the one command that `gorgo run` ran on one node; never 0.
    Remote(u8),
}

impl Exit {
    /// All of gorgo's own, for documents and their tests.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Failed, Self::Usage, Self::Partly, Self::NothingSuitable, Self::Interrupted];

    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partly => 3,
            Self::NothingSuitable => 4,
            Self::Interrupted => 130,
            Self::Remote(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

/// An error with the exit code that it deserves and, where there is one, the next thing to try.
///
/// Any `anyhow`-compatible error becomes one with [`Exit::Failed`] through `?`.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code to end with.
    pub(crate) exit: Exit,
    /// What went wrong, with its causes.
    pub(crate) error: anyhow::Error,
    /// What to try, on a line of its own.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Bad usage or configuration (exit code 2).
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into(), hint: None }
    }

    /// The same failure with a hint.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, error: error.into(), hint: None }
    }
}

/// `error: …`, one line per cause, then the hint.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.error)?;
        for cause in self.error.chain().skip(1) {
            write!(f, "\n  caused by: {cause}")?;
        }
        self.hint.iter().try_for_each(|hint| write!(f, "\n\nhint: {hint}"))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use insta::assert_snapshot;

    use super::{Exit, Failure};

    #[test]
    fn codes_are_the_documented_ones() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4, 130]);
    }

    #[test]
    fn a_failure_tells_its_causes_and_a_hint() {
        let error = Err::<(), _>(anyhow!("connection refused"))
            .context("cannot reach the proxy at http://127.0.0.1:8001")
            .expect_err("made to fail");
        let failure = Failure::from(error).with_hint("start one with `gorgo proxy start`");
        assert_snapshot!(failure, @r"
        error: cannot reach the proxy at http://127.0.0.1:8001
          caused by: connection refused

        hint: start one with `gorgo proxy start`
        ");
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(Failure::usage(anyhow!("x")).exit, Exit::Usage);
    }
}
