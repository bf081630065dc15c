//! A command before it runs: built by pure code, quoted once, asserted as text in tests.

/// What to run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommand {
    /// Program and arguments; quoted exactly once, when it is sent.
    pub argv: Vec<String>,
    /// Run as root.
    pub sudo: bool,
    /// Bytes for standard input; never logged.
    pub stdin: Vec<u8>,
    /// Longest run, seconds.
    pub timeout_s: u32,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status; `None` = killed by a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}
