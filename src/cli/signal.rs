//! Ctrl-C and SIGTERM.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Outcome};

/// Why a process was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, e.g. from a supervisor.
    Terminate,
}

/// Requests to end, one after the other, for commands that run until they are stopped.
pub(crate) struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    /// Listens from now on; the default action (to die at once) is off for the rest of the process.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

/// Runs a command to its end or to the first Ctrl-C or SIGTERM, which drops it where it stands (exit code 130).
pub(crate) async fn or_interrupted(command: impl Future<Output = Outcome>) -> Outcome {
    let mut stops = Stops::listen()?;
    tokio::select! {
        outcome = command => outcome,
        _ = stops.next() => Ok(Exit::Interrupted),
    }
}
