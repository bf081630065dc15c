//! A long-running program on a node, whoever supervises it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::RemoteError;

/// What a service is; `ssh` makes a systemd unit of it, `local` a supervised process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl ServiceUnit {
    /// What [`ServiceState::definition_sha256`] is when exactly this is installed: the hash of the unit text, which is rendered from
    /// the other fields and so stands for them, on every kind of node.
    #[must_use]
    pub fn definition_sha256(&self) -> String {
        hex(&Sha256::digest(self.unit_text.as_bytes()))
    }
}

/// What to do with a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// `gorgo-agent` and `gorgo-agent.service` are the same unit: the full name.
///
/// # Errors
/// Names that systemd, a file system or a shell could read as something else.
pub(super) fn unit_name(node: &str, unit: &str) -> Result<String, RemoteError> {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    let tame = stem.starts_with(|c: char| c.is_ascii_alphanumeric())
        && stem.len() <= 200
        && stem.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    if tame {
        return Ok(format!("{stem}.service"));
    }
    Err(RemoteError::failed(node, format_args!("{unit:?} is not a service name (letters, digits, `-`, `_`, `.`, `@`)")))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{ServiceUnit, unit_name};

    #[test]
    fn unit_names_have_one_form() {
        for (given, wanted) in [
            ("gorgo-agent", Some("gorgo-agent.service")),
            ("gorgo-agent.service", Some("gorgo-agent.service")),
            ("a@1", Some("a@1.service")),
            ("", None),
            (".service", None),
            ("-x", None),
            ("../x", None),
            ("a b", None),
            ("a;b", None),
        ] {
            assert_eq!(unit_name("n", given).ok().as_deref(), wanted, "{given:?}");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_text() {
        let unit = ServiceUnit {
            description: "x".into(),
            argv: vec!["/bin/true".into()],
            environment: BTreeMap::new(),
            unit_text: "abc".into(),
        };
        // FIPS 180-2, appendix B.1.
        assert_eq!(unit.definition_sha256(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
