//! A long-running program on a node, whoever supervises it.

use std::collections::BTreeMap;

/// What a service is; `ssh` makes a systemd unit of it, `local` a supervised process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUnit {
    /// One line for `systemctl status`.
    pub description: String,
    /// Absolute program path and arguments.
    pub argv: Vec<String>,
    /// Plain environment; secrets go into files.
    pub environment: BTreeMap<String, String>,
    /// The systemd unit text, rendered from `templates/`; the local supervisor uses the fields above.
    pub unit_text: String,
}

/// What to do with a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAction {
    /// Write or replace its definition and enable it at boot; does not start it.
    Install(ServiceUnit),
    /// Start if not running.
    Start,
    /// Stop in order (SIGTERM, bounded wait).
    Stop,
    /// Stop and start.
    Restart,
    /// Stop, disable and forget.
    Remove,
    /// Only look.
    Status,
}

/// How a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// A definition exists.
    pub installed: bool,
    /// Runs now.
    pub running: bool,
    /// Main process, if it runs.
    pub pid: Option<u32>,
    /// Restarts by the supervisor since it was started.
    pub restarts: u32,
    /// Hash of the installed definition, to see whether it is the wanted one.
    pub definition_sha256: Option<String>,
}
