//! Machines that are folders on this machine: every type and region of the laboratory, always with capacity, for trying gorgo without
//! an account.
//!
//! A node is a folder and the ports that it may listen on. Its services belong to a supervisor process, which this module ends and
//! restarts through the `gorgo` program, never directly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::error::{CloudError, CloudErrorKind};
use super::instance::{Instance, InstanceId, InstanceType, LaunchRequest, Status};
use super::{Cloud, Inventory};
use crate::model::Region;

/// Tags that hold a node's own loopback ports: engine, data and admin of the agent, data and admin of a proxy, peers of the agent.
pub const PORT_TAGS: [&str; 6] = [
    "gorgo-port-engine",
    "gorgo-port-agent",
    "gorgo-port-agent-admin",
    "gorgo-port-proxy",
    "gorgo-port-proxy-admin",
    "gorgo-port-peer",
];
/// Ports for nodes: below the ranges that systems give to outgoing connections (Linux from 32768, macOS from 49152).
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Version of the state file's form.
const SCHEMA: &str = "gorgo.local/1";

/// The provider. All of it is in one folder, so several can live side by side.
pub struct LocalCloud {
    folder: PathBuf,
    types: Vec<InstanceType>,
    regions: Vec<Region>,
    gorgo: PathBuf,
}

/// What the state file holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    schema: String,
    /// Number of the next machine; never used again.
    next: u64,
    machines: Vec<Machine>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    id: InstanceId,
    name: String,
    instance_type: String,
    region: Region,
    price_cents_per_hour: Option<u32>,
    tags: BTreeMap<String, String>,
    /// Its end has begun; a termination that was cut short is taken up again by the next one.
    #[serde(default)]
    terminating: bool,
}

impl LocalCloud {
    /// The provider in this folder (`GORGO_STATE_DIR/local`), with these types and regions. `gorgo` is this program's own path.
    #[must_use]
    pub fn new(folder: PathBuf, mut types: Vec<InstanceType>, mut regions: Vec<Region>, gorgo: PathBuf) -> Self {
        regions.sort();
        regions.dedup();
        for kind in &mut types {
            kind.capacity.clone_from(&regions);
        }
        Self { folder, types, regions, gorgo }
    }

    /// The folder of the node with this name.
    #[must_use]
    pub fn node_folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Changes the state under the lock; what `change` returns is written before anybody else can look.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, CloudError>) -> Result<T, CloudError> {
        let _lock = self.lock().map_err(|error| self.broken(&error))?;
        let mut state = self.load()?;
        let result = change(&mut state)?;
        self.save(&state).map_err(|error| self.broken(&error))?;
        Ok(result)
    }

    fn state_file(&self) -> PathBuf {
        self.folder.join("instances.json")
    }

    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(".lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn load(&self) -> Result<State, CloudError> {
        let bytes = match fs::read(self.state_file()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(State { schema: SCHEMA.to_owned(), next: 1, machines: Vec::new() });
            }
            Err(error) => return Err(self.broken(&error)),
        };
        let parsed: Result<State, _> = serde_json::from_slice(&bytes);
        let state = parsed.map_err(|error| self.broken(&io::Error::other(error)))?;
        if state.schema != SCHEMA {
            return Err(self.broken(&io::Error::other(format!("its form is {:?}, wanted {SCHEMA:?}", state.schema))));
        }
        Ok(state)
    }

    fn save(&self, state: &State) -> io::Result<()> {
        let new = self.folder.join("instances.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(state)?)?;
        file.sync_all()?;
        fs::rename(&new, self.state_file())
    }

    fn broken(&self, error: &io::Error) -> CloudError {
        let message = format!("the list of local machines, {}: {error}", self.state_file().display());
        let hint = "repair the file, or remove the folder it is in after stopping what runs there";
        CloudError { kind: CloudErrorKind::Invalid, code: None, message, hint: Some(hint.to_owned()) }
    }

    fn check(&self, request: &LaunchRequest) -> Result<&InstanceType, CloudError> {
        if !is_name(&request.name) {
            let message = format!("{:?} cannot be the name of a local machine", request.name);
            return Err(invalid(message, "letters, digits, `-` and `_`, at most 64, beginning with a letter or digit"));
        }
        if !self.regions.contains(&request.region) {
            let known = self.regions.iter().map(Region::as_str).collect::<Vec<_>>().join(", ");
            return Err(invalid(format!("unknown region {:?}", request.region.as_str()), &format!("known: {known}")));
        }
        let found = self.types.iter().find(|kind| kind.name == request.instance_type);
        found.ok_or_else(|| {
            let known = self.types.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>().join(", ");
            invalid(format!("unknown type {:?}", request.instance_type), &format!("known: {known}"))
        })
    }

    fn instance(&self, machine: &Machine) -> Instance {
        let status = if machine.terminating {
            Status::Terminating
        } else if self.node_folder(&machine.name).is_dir() {
            Status::Active
        } else {
            Status::Unhealthy
        };
        Instance {
            id: machine.id.clone(),
            name: Some(machine.name.clone()),
            status,
            address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            private_address: None,
            region: machine.region.clone(),
            instance_type: machine.instance_type.clone(),
            price_cents_per_hour: machine.price_cents_per_hour,
            tags: machine.tags.clone(),
        }
    }

    /// Runs `gorgo supervise --dir FOLDER …` to its end.
    async fn supervisor(&self, name: &str, what: &str) -> Result<(), CloudError> {
        let folder = self.node_folder(name);
        if !folder.is_dir() {
            return Ok(());
        }
        let failed = |why: String| CloudError {
            kind: CloudErrorKind::Transient,
            code: None,
            message: format!("cannot stop the services of local machine {name}: {why}"),
            hint: Some(format!("see {}", folder.join(".supervisor/log").display())),
        };
        let output = Command::new(&self.gorgo).arg("supervise").arg("--dir").arg(&folder).arg(what).output().await;
        let output = output.map_err(|error| failed(format!("{}: {error}", self.gorgo.display())))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Ends one machine. The folder changes its name first, so that a half-removed one is never taken for a node.
    async fn end(&self, name: &str, id: &InstanceId) -> Result<(), CloudError> {
        self.supervisor(name, "--stop").await?;
        let (folder, gone) = (self.node_folder(name), self.folder.join(format!(".gone-{}", id.0)));
        let moved = match fs::rename(&folder, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let removed = moved.and_then(|()| match fs::remove_dir_all(&gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        removed.map_err(|error| self.broken(&error))?;
        self.change(|state| {
            state.machines.retain(|machine| machine.id != *id);
            Ok(())
        })
    }
}

#[async_trait]
impl Inventory for LocalCloud {
    async fn list(&self) -> Result<Vec<Instance>, CloudError> {
        // Without the lock: the file is replaced in one step.
        Ok(self.load()?.machines.iter().map(|machine| self.instance(machine)).collect())
    }
}

#[async_trait]
impl Cloud for LocalCloud {
    async fn types(&self) -> Result<Vec<InstanceType>, CloudError> {
        Ok(self.types.clone())
    }

    async fn launch(&self, request: &LaunchRequest, _stop: &CancellationToken) -> Result<InstanceId, CloudError> {
        let kind = self.check(request)?;
        self.change(|state| {
            if state.machines.iter().any(|machine| machine.name == request.name) {
                let message = format!("a local machine named {:?} exists", request.name);
                return Err(invalid(message, "choose another name, or terminate it"));
            }
            let mut tags = request.tags.clone();
            tags.extend(self.free_ports(state)?);
            let id = InstanceId(format!("local-{}-{}", state.next, request.name));
            fs::create_dir_all(self.node_folder(&request.name)).map_err(|error| self.broken(&error))?;
            state.next += 1;
            state.machines.push(Machine {
                id: id.clone(),
                name: request.name.clone(),
                instance_type: request.instance_type.clone(),
                region: request.region.clone(),
                price_cents_per_hour: Some(kind.price_cents_per_hour),
                tags,
                terminating: false,
            });
            Ok(id)
        })
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        let doomed: Vec<(String, InstanceId)> = self.change(|state| {
            let chosen = state.machines.iter_mut().filter(|machine| ids.contains(&machine.id));
            Ok(chosen
                .map(|machine| {
                    machine.terminating = true;
                    (machine.name.clone(), machine.id.clone())
                })
                .collect())
        })?;
        for (name, id) in &doomed {
            self.end(name, id).await?;
        }
        Ok(())
    }

    async fn restart(&self, ids: &[InstanceId]) -> Result<(), CloudError> {
        let machines = self.load()?.machines;
        for id in ids {
            let Some(machine) = machines.iter().find(|machine| machine.id == *id && !machine.terminating) else {
                let message = format!("there is no local machine {id}");
                return Err(CloudError { kind: CloudErrorKind::NotFound, code: None, message, hint: None });
            };
            self.supervisor(&machine.name, "--restart").await?;
        }
        Ok(())
    }
}

impl LocalCloud {
    /// Ports that no machine here has and nobody listens on now. Where the search begins depends on the folder, so that several
    /// folders, e.g. of tests at the same time, rarely meet.
    fn free_ports(&self, state: &State) -> Result<BTreeMap<String, String>, CloudError> {
        let given = |tag: &&str| {
            state.machines.iter().filter_map(|machine| machine.tags.get(*tag)?.parse().ok()).collect::<Vec<u16>>()
        };
        let taken: BTreeSet<u16> = PORT_TAGS.iter().flat_map(given).collect();
        let begin = fnv1a(self.folder.as_os_str().as_bytes()) % u64::from(PORTS.end - PORTS.start);
        let begin = PORTS.start + u16::try_from(begin).expect("less than the length of a range of u16");
        let free = |port: &u16| !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let ports: Vec<u16> = (begin..PORTS.end).chain(PORTS.start..begin).filter(free).take(PORT_TAGS.len()).collect();
        if ports.len() < PORT_TAGS.len() {
            let message = format!("no {} free ports between {} and {}", PORT_TAGS.len(), PORTS.start, PORTS.end);
            let hint = Some("terminate local machines that are not needed".to_owned());
            return Err(CloudError { kind: CloudErrorKind::Quota, code: None, message, hint });
        }
        Ok(PORT_TAGS.iter().zip(ports).map(|(tag, port)| ((*tag).to_owned(), port.to_string())).collect())
    }
}

fn invalid(message: String, hint: &str) -> CloudError {
    CloudError { kind: CloudErrorKind::Invalid, code: None, message, hint: Some(hint.to_owned()) }
}

/// A name that is also a folder's, not hidden and nothing else's here.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// FNV-1a, 64 bits: the same for the same folder in every build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
