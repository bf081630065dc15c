//! What a supervisor leaves on disk, so that the next one and the command line can go on from it.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::super::service::{ServiceState, ServiceUnit};
use super::file::{read_json, remove, write_json};
use super::folder::Folder;
use super::process::Process;

/// An installed unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Installed {
    pub(super) unit: ServiceUnit,
    /// To be kept running: started and not stopped since. A supervisor that starts makes it so again.
    pub(super) wanted: bool,
}

/// The process of a unit, written before the program in it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) restarts: u32,
}

impl Folder {
    /// Names of the installed units, in order.
    pub(super) fn installed_units(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.units()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    pub(super) fn load_unit(&self, unit: &str) -> io::Result<Option<Installed>> {
        read_json(&self.unit(unit))
    }

    pub(super) fn save_unit(&self, unit: &str, installed: &Installed) -> io::Result<()> {
        write_json(&self.unit(unit), installed)
    }

    pub(super) fn forget_unit(&self, unit: &str) -> io::Result<()> {
        remove(&self.unit(unit))?;
        remove(&self.process(unit))
    }

    pub(super) fn load_process(&self, unit: &str) -> io::Result<Option<Running>> {
        read_json(&self.process(unit))
    }

    pub(super) fn save_process(&self, unit: &str, running: &Running) -> io::Result<()> {
        write_json(&self.process(unit), running)
    }

    pub(super) fn forget_process(&self, unit: &str) -> io::Result<()> {
        remove(&self.process(unit))
    }

    /// How a unit is, by the files alone: right at any time, whether or not a supervisor runs.
    pub(super) fn state(&self, unit: &str) -> io::Result<ServiceState> {
        let installed: Option<Installed> = self.load_unit(unit)?;
        let running = self.load_process(unit)?;
        let pid = running.as_ref().filter(|running| running.process.is_alive()).map(|running| running.process.pid);
        Ok(ServiceState {
            installed: installed.is_some(),
            running: pid.is_some(),
            pid,
            restarts: running.map_or(0, |running| running.restarts),
            definition_sha256: installed.map(|installed| installed.unit.definition_sha256()),
        })
    }
}
