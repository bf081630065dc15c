//! One thing to do on a node, as a value. Its text is the line of the dry run. Pure.

use std::fmt;
use std::path::PathBuf;

use super::certificate::Request;
use super::desired::NodeSpec;
use super::facts::{Answer, is_completion};
use super::http;
use super::layout::Role;
use crate::model::Secret;
use crate::remote::{RemoteCommand, ServiceAction};
use crate::wire::{Status, paths};

/// What a file is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file of this machine.
    File(PathBuf),
    /// Text that anybody may see.
    Text(String),
    /// Text that nobody may see.
    Secret(Secret),
    /// A certificate with its key; made before the plan is carried out.
    Certificate(Request),
}

/// What has to answer before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The service.
    pub role: Role,
    /// Its port on loopback.
    pub port: u16,
    /// The question.
    pub request: http::Request,
}

impl Probe {
    /// The engine completes something; agent and proxy take requests and have a replica that can serve.
    #[must_use]
    pub fn new(role: Role, node: &NodeSpec) -> Self {
        let request = match role {
            Role::Engine => http::Request::completion(node.engine.model()),
            Role::Agent | Role::Proxy => http::Request::get(paths::STATUS),
        };
        Self { role, port: node.ports.control(role), request }
    }

    /// Whether the answer is the one that is waited for.
    ///
    /// # Errors
    /// What is missing.
    pub fn judge(&self, answer: &Answer) -> Result<(), String> {
        if self.role == Role::Engine {
            let start: String = answer.body.chars().take(200).collect();
            return if is_completion(answer.status, &answer.body) {
                Ok(())
            } else {
                Err(format!("it answers {} without a completion: {start}", answer.status))
            };
        }
        let status: Status =
            serde_json::from_str(&answer.body).map_err(|_| format!("it answers {} without a status", answer.status))?;
        serves(&status)
    }
}

/// A router takes requests and has somebody to give them to.
///
/// # Errors
/// Why not.
pub fn serves(status: &Status) -> Result<(), String> {
    match (status.draining, status.replicas.healthy) {
        (true, _) => Err("it drains".to_owned()),
        (false, 0) => Err(format!("none of its {} replicas is healthy", status.replicas.total)),
        (false, _) => Ok(()),
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a command; a status other than 0 is a failure.
    Run(RemoteCommand),
    /// Write a file, root's.
    Put {
        /// What it holds.
        content: Content,
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The one before stays as `.old`.
        keep_old: bool,
    },
    /// Act on a service.
    Service(Role, ServiceAction),
    /// Ask until the answer is right.
    Wait(Probe),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Stable name, e.g. `engine start`: it stands in the journal.
    pub name: String,
    /// What it does, for people.
    pub text: String,
    /// What is done.
    pub action: Action,
    /// Longest duration, s; of a command its own limit counts as well.
    pub limit_s: u32,
    /// Folder whose disk fills up meanwhile: shown as progress.
    pub fills: Option<&'static str>,
}

impl Step {
    pub(super) fn run(name: &str, text: impl Into<String>, command: RemoteCommand) -> Self {
        let limit_s = command.timeout_s + 30;
        Self { name: name.to_owned(), text: text.into(), action: Action::Run(command), limit_s, fills: None }
    }

    pub(super) fn put(name: &str, text: impl Into<String>, path: &str, content: Content) -> Self {
        let action = Action::Put { content, path: path.to_owned(), mode: 0o600, keep_old: false };
        Self { name: name.to_owned(), text: text.into(), action, limit_s: 7200, fills: None }
    }

    pub(super) fn service(role: Role, what: &str, text: impl Into<String>, action: ServiceAction) -> Self {
        let name = format!("{role} {what}");
        Self { name, text: text.into(), action: Action::Service(role, action), limit_s: 300, fills: None }
    }

    pub(super) fn wait(probe: Probe, text: impl Into<String>, limit_s: u32) -> Self {
        let name = format!("{} wait", probe.role);
        Self { name, text: text.into(), action: Action::Wait(probe), limit_s, fills: None }
    }

    pub(super) fn filling(mut self, folder: &'static str) -> Self {
        self.fills = Some(folder);
        self
    }

    pub(super) fn with_mode(mut self, wanted: u32, keep: bool) -> Self {
        if let Action::Put { mode, keep_old, .. } = &mut self.action {
            (*mode, *keep_old) = (wanted, keep);
        }
        self
    }

    /// Giving up in the middle does no harm: it goes on, or is done again.
    #[must_use]
    pub fn can_be_left(&self) -> bool {
        self.fills.is_some() || matches!(self.action, Action::Wait(_))
    }

    /// What exactly is done, for a person who checks: the command, the file, the unit.
    #[must_use]
    pub fn detail(&self) -> String {
        match &self.action {
            Action::Run(command) => command.to_string(),
            Action::Put { content, path, mode, keep_old } => {
                let from = match content {
                    Content::File(file) => file.display().to_string(),
                    Content::Text(text) => format!("{} bytes", text.len()),
                    Content::Secret(_) => "a secret".to_owned(),
                    Content::Certificate(request) => certificate(request),
                };
                let kept = if *keep_old { ", the one before as .old" } else { "" };
                format!("{from} -> {path} ({mode:04o}{kept})")
            }
            Action::Service(role, action) => format!("{} {}", verb(action), role.unit()),
            Action::Wait(Probe { port, request, .. }) => {
                format!("{} http://127.0.0.1:{port}{} for at most {} s", request.method, request.path, self.limit_s)
            }
        }
    }
}

/// Who shows it, and from where.
fn certificate(request: &Request) -> String {
    let addresses: Vec<String> = request.addresses.iter().map(ToString::to_string).collect();
    format!("a new key and a certificate of {} for {}", request.identity, addresses.join(", "))
}

fn verb(action: &ServiceAction) -> &'static str {
    match action {
        ServiceAction::Install(_) => "install",
        ServiceAction::Start => "start",
        ServiceAction::Stop => "stop",
        ServiceAction::Restart => "restart",
        ServiceAction::Remove => "remove",
        ServiceAction::Status => "look at",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
