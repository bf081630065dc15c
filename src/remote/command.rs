//! A command before it runs: built by pure code, quoted once, asserted as text in tests.

use std::fmt;

use super::quote::quoted_line;

/// What to run on a node.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteCommand {
    /// Program and arguments; quoted exactly once, when it is sent.
    pub argv: Vec<String>,
    /// Run as root.
    pub sudo: bool,
    /// Bytes for standard input; never logged.
    pub stdin: Vec<u8>,
    /// Longest run, seconds; 0 counts as 1. Enforced on the node, so that it holds even when the connection is lost.
    pub timeout_s: u32,
}

/// The line as a person would type it; of the input only its size.
impl fmt::Display for RemoteCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.sudo { "sudo " } else { "" })?;
        f.write_str(&quoted_line(&self.argv))?;
        match self.stdin.len() {
            0 => Ok(()),
            bytes => write!(f, " < {bytes} bytes"),
        }
    }
}

/// Hides the input.
impl fmt::Debug for RemoteCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteCommand({self}, {} s)", self.timeout_s)
    }
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

impl Output {
    /// Ended with status 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// Standard error as text, without white space around it.
    #[must_use]
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::RemoteCommand;

    #[test]
    fn shows_the_line_and_hides_the_input() {
        let argv = ["tee", "/etc/gorgo/hf token"].map(str::to_owned).to_vec();
        let command = RemoteCommand { argv, sudo: true, stdin: b"hf_secret".to_vec(), timeout_s: 5 };
        assert_eq!(command.to_string(), "sudo tee '/etc/gorgo/hf token' < 9 bytes");
        assert_eq!(format!("{command:?}"), "RemoteCommand(sudo tee '/etc/gorgo/hf token' < 9 bytes, 5 s)");
    }
}
