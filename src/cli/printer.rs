//! The one place that writes to the terminal: data to stdout, talk to stderr.
//!
//! Data is what was asked for (tables, JSON, lists) and is never held back. Talk is progress and status lines; `--quiet` drops
//! it. Warnings and errors go to stderr, quiet or not. Colour only where stderr is a terminal and `NO_COLOR` is not set, and
//! never as the only carrier of a meaning.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use comfy_table::Table;
use indicatif::ProgressDrawTarget;
use serde::Serialize;

use super::exit::Failure;

/// Stdout was closed by its reader, e.g. `gorgo … | head`: no error of ours, the command ends quietly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reader of stdout went away")]
pub(crate) struct OutputClosed;

/// Writes what commands have to say.
pub(crate) struct Printer {
    stdout: Mutex<Box<dyn Write + Send>>,
    stderr: Mutex<Box<dyn Write + Send>>,
    quiet: bool,
    colour: bool,
    live: bool,
    width: Option<usize>,
}

impl Printer {
    /// The process's own stdout and stderr.
    pub(crate) fn for_process(quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            stdout: Mutex::new(Box::new(io::stdout())),
            stderr: Mutex::new(Box::new(io::stderr())),
            quiet,
            colour: terminal && !no_colour,
            live: terminal && !quiet,
            width: terminal_width(),
        }
    }

    /// What was asked for: one line or several, a newline is added.
    pub(crate) fn data(&self, text: impl Display) -> Result<(), Failure> {
        let mut out = lock(&self.stdout);
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
            result => result.map_err(|error| anyhow::Error::new(error).context("cannot write to stdout").into()),
        }
    }

    /// What was asked for, as indented JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.data(serde_json::to_string_pretty(value)?)
    }

    /// Progress and status, without a final full stop; dropped by `--quiet`.
    pub(crate) fn talk(&self, text: impl Display) {
        if !self.quiet {
            self.to_stderr(text);
        }
    }

    /// Something that the reader should know although the command goes on.
    pub(crate) fn warn(&self, text: impl Display) {
        self.to_stderr(format_args!("{}: {text}", self.paint("33", "warning")));
    }

    /// A question: as it is, without a newline, quiet or not.
    pub(crate) fn prompt(&self, text: impl Display) {
        let mut err = lock(&self.stderr);
        let _ = write!(err, "{text}").and_then(|()| err.flush());
    }

    /// Why the command ends without success.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = failure.to_string();
        match text.strip_prefix("error:") {
            Some(rest) => self.to_stderr(format_args!("{}:{rest}", self.paint("31", "error"))),
            None => self.to_stderr(text),
        }
    }

    /// True if talk is not wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// True if stderr takes colours.
    pub(crate) fn is_coloured(&self) -> bool {
        self.colour
    }

    /// True if progress may redraw lines: stderr is a terminal and talk is wanted.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Columns of the terminal that stdout is, `None` if it is none: pipes and files get everything.
    pub(crate) fn stdout_width(&self) -> Option<usize> {
        self.width
    }

    /// Where progress bars draw: stderr, or nowhere if it is no terminal or talk is not wanted.
    pub(crate) fn progress_target(&self) -> ProgressDrawTarget {
        if self.live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
    }

    /// A line to stderr. There is nobody to tell if that fails, so it is not an error.
    fn to_stderr(&self, text: impl Display) {
        let mut err = lock(&self.stderr);
        let _ = writeln!(err, "{text}").and_then(|()| err.flush());
    }

    /// `word` in bold and in an ANSI colour, where colour is wanted.
    fn paint(&self, colour: &str, word: &str) -> String {
        if self.colour { format!("\x1b[1;{colour}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// An unknown width counts as no terminal.
fn terminal_width() -> Option<usize> {
    let columns = Table::new().width()?;
    io::stdout().is_terminal().then_some(usize::from(columns))
}

/// A writer whose holder panicked is still a writer.
fn lock(writer: &Mutex<Box<dyn Write + Send>>) -> MutexGuard<'_, Box<dyn Write + Send>> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod capture {
    //! A printer whose output can be read.

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::Printer;

    /// A growing buffer that several owners share.
    #[derive(Clone, Default)]
    pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        /// Everything written so far.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("output is UTF-8")
        }
    }

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A printer with its stdout and stderr.
    pub(crate) fn printer(quiet: bool) -> (Printer, Buffer, Buffer) {
        let (out, err) = (Buffer::default(), Buffer::default());
        (with_stdout(quiet, Box::new(out.clone()), err.clone()), out, err)
    }

    /// A printer with any stdout.
    pub(crate) fn with_stdout(quiet: bool, out: Box<dyn Write + Send>, err: Buffer) -> Printer {
        Printer {
            stdout: Mutex::new(out),
            stderr: Mutex::new(Box::new(err)),
            quiet,
            colour: false,
            live: false,
            width: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use anyhow::anyhow;

    use super::capture::{Buffer, printer, with_stdout};
    use super::{Failure, OutputClosed};

    /// A stdout that fails in one way.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn data_and_talk_go_their_own_ways_and_quiet_drops_only_talk() {
        for (quiet, talk) in [(false, "half way\nwarning: odd\nerror: lost\n"), (true, "warning: odd\nerror: lost\n")] {
            let (printer, out, err) = printer(quiet);
            printer.data("the answer").expect("written");
            printer.talk("half way");
            printer.warn("odd");
            printer.failure(&Failure::from(anyhow!("lost")));
            assert_eq!((out.text().as_str(), err.text().as_str()), ("the answer\n", talk), "quiet: {quiet}");
        }
    }

    #[test]
    fn a_closed_pipe_is_told_apart_from_a_full_disk() {
        for (kind, closed) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let printer = with_stdout(false, Box::new(Failing(kind)), Buffer::default());
            let failure = printer.data("x").expect_err("it cannot be written");
            assert_eq!(failure.error.is::<OutputClosed>(), closed, "{kind}");
        }
    }
}
