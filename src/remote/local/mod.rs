//! A node that is a folder on this machine: commands run in it, services run under a supervisor process of the node's own.
//!
//! For trying gorgo without machines and for its tests. Nothing is isolated: the node is this machine, seen through a folder. Needs Linux.

mod control;
mod file;
mod folder;
mod logs;
mod process;
mod put;
mod store;
mod supervisor;
mod unit;

pub use supervisor::supervise;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::command::{Output, RemoteCommand};
use super::error::{RemoteError, RemoteErrorKind, disk_full, tells_disk_full};
use super::output::collect;
use super::service::{ServiceAction, ServiceState, unit_name};
use super::{Forward, Remote, Source, Upload, check_path};
use control::{Reply, Request, ask};
use folder::Folder;

/// Longest start of a supervisor, with the end of leftovers of one that was killed.
const BOOT_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// Longest answer: a stop takes at most 10 s, and a service may be in the midst of another.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// After SIGTERM at a command's time limit, this long until SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Variables that commands and services get from us. Not the rest: API keys stay on the operator's side of the seam.
const ENVIRONMENT: [&str; 6] = ["HOME", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"];

/// Gives a command the environment that a login on a node would have.
fn keep_environment(command: &mut Command) {
    command.env_clear();
    command.envs(ENVIRONMENT.iter().filter_map(|key| Some((key, std::env::var_os(key)?))));
    command.env("LC_ALL", "C.UTF-8");
}

/// A node in a folder of this machine.
pub struct LocalRemote {
    node: String,
    folder: Folder,
    /// The program whose `supervise` keeps the services running.
    gorgo: PathBuf,
}

impl LocalRemote {
    /// The node whose folder this is; `gorgo` is this program's own path. The folder is made when it is first needed.
    ///
    /// # Errors
    /// A path that cannot be the folder of a node.
    pub fn new(node: &str, folder: &Path, gorgo: &Path) -> Result<Self, RemoteError> {
        Ok(Self { node: node.to_owned(), folder: Folder::new(node, folder)?, gorgo: gorgo.to_owned() })
    }

    /// Where a path of the node lies on this machine.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.map_path(path)
    }

    /// Starts the node's supervisor, if it does not run, and with it the services that ran when the last one ended.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn boot(&self) -> Result<(), RemoteError> {
        let local =
            |error: io::Error| RemoteError::failed(&self.node, format_args!("cannot start the supervisor: {error}"));
        fs::create_dir_all(self.folder.control()).map_err(local)?;
        let log = logs::open(&self.folder.supervisor_log()).map_err(local)?;
        let mut command = Command::new(&self.gorgo);
        keep_environment(&mut command);
        command.arg("supervise").arg("--dir").arg(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(local)?).stderr(log);
        let mut child = command.spawn().map_err(local)?;
        let up = timeout(BOOT_LIMIT, async {
            while !self.is_up().await {
                sleep(LOOK).await;
                match child.try_wait().map_err(local)? {
                    None => {}
                    // It found the lock taken: by one at work, or by one that was killed and is not quite gone.
                    Some(status) if status.success() => child = command.spawn().map_err(local)?,
                    Some(status) => {
                        let log = self.folder.supervisor_log();
                        return Err(local(io::Error::other(format!("it ended with {status}; see {}", log.display()))));
                    }
                }
            }
            Ok(())
        });
        up.await.unwrap_or_else(|_| {
            Err(RemoteError::new(RemoteErrorKind::Timeout, &self.node, "the supervisor does not answer"))
        })
    }

    async fn is_up(&self) -> bool {
        ask(&self.folder, &Request::Hello).await.is_ok()
    }

    /// Stops all services and the supervisor. They count as wanted: [`LocalRemote::boot`] brings them back. No supervisor is success,
    /// once what a killed one left behind is ended.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn shut_down(&self) -> Result<(), RemoteError> {
        if !self.folder.control().exists() {
            return Ok(());
        }
        match self.tell(&Request::Shutdown).await? {
            Reply::Stopped => self.wait_for_end().await,
            other => Err(self.surprise(&other)),
        }
    }

    /// The answer comes just before the process ends; the lock says when it has.
    async fn wait_for_end(&self) -> Result<(), RemoteError> {
        let free = timeout(BOOT_LIMIT, async {
            loop {
                match file::try_lock(&self.folder.lock()) {
                    Ok(Some(_)) => return Ok(()),
                    Ok(None) => sleep(LOOK).await,
                    Err(error) => return Err(RemoteError::failed(&self.node, error)),
                }
            }
        });
        free.await.unwrap_or_else(|_| {
            Err(RemoteError::new(RemoteErrorKind::Timeout, &self.node, "the supervisor does not end"))
        })
    }

    /// Asks the supervisor, after starting one if none runs. A request is never sent twice.
    async fn tell(&self, request: &Request) -> Result<Reply, RemoteError> {
        let mut answer = self.ask(request).await?;
        if let Err(error) = &answer
            && control::was_not_read(error)
        {
            self.boot().await?;
            answer = self.ask(request).await?;
        }
        answer.map_err(|error| RemoteError::failed(&self.node, format_args!("the supervisor: {error}")))
    }

    async fn ask(&self, request: &Request) -> Result<io::Result<Reply>, RemoteError> {
        let late = |_| RemoteError::new(RemoteErrorKind::Timeout, &self.node, "the supervisor does not answer");
        timeout(ANSWER_LIMIT, ask(&self.folder, request)).await.map_err(late)
    }

    fn surprise(&self, reply: &Reply) -> RemoteError {
        match reply {
            Reply::Refused(why) => RemoteError::failed(&self.node, why),
            other => RemoteError::failed(
                &self.node,
                format_args!("the supervisor gave another answer than was asked for: {other:?}"),
            ),
        }
    }

    fn command(&self, wanted: &RemoteCommand) -> Result<Command, RemoteError> {
        let mut words = wanted.argv.iter().map(|word| self.folder.map_text(word));
        let program = words.next().ok_or_else(|| RemoteError::failed(&self.node, "there is no command to run"))?;
        if wanted.argv.iter().any(|word| word.contains('\0')) {
            return Err(RemoteError::failed(&self.node, "an argument holds a NUL byte, which no command line can"));
        }
        fs::create_dir_all(self.folder.path()).map_err(|error| RemoteError::failed(&self.node, error))?;
        let mut command = Command::new(program);
        keep_environment(&mut command);
        command.args(words).current_dir(self.folder.path()).process_group(0).kill_on_drop(true);
        command.stdin(if wanted.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

#[async_trait]
impl Remote for LocalRemote {
    async fn run(&self, command: &RemoteCommand) -> Result<Output, RemoteError> {
        let mut child = match self.command(command)?.spawn() {
            Ok(child) => child,
            Err(error) => return not_started(&self.node, &command.argv[0], &error),
        };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let whole = async {
            let (fed, stdout, stderr) = tokio::join!(feed(stdin, &command.stdin), collect(stdout), collect(stderr));
            fed?;
            let status = child.wait().await?;
            Ok::<_, io::Error>(Output { status: status.code(), stdout: stdout?, stderr: stderr? })
        };
        let limit = Duration::from_secs(command.timeout_s.max(1).into());
        if let Ok(output) = timeout(limit, whole).await {
            return output.map_err(|error| RemoteError::failed(&self.node, error));
        }
        end(&mut child).await;
        let what = format_args!("the command did not end within {} s and was stopped", command.timeout_s);
        Err(RemoteError::new(RemoteErrorKind::Timeout, &self.node, what))
    }

    async fn put(&self, upload: &Upload<'_>) -> Result<(), RemoteError> {
        check_path(&self.node, upload.path)?;
        let target = self.path(upload.path);
        let content: Box<dyn io::Read + Send> = match upload.source {
            Source::Bytes(bytes) => Box::new(io::Cursor::new(bytes.to_vec())),
            Source::File(path) => Box::new(fs::File::open(path).map_err(|error| {
                RemoteError::failed(&self.node, format_args!("cannot read {} here: {error}", path.display()))
            })?),
        };
        let (mode, keep_old) = (upload.mode, upload.keep_old);
        let done = tokio::task::spawn_blocking(move || put::put(content, &target, mode, keep_old)).await;
        let done = done.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        done.map_err(|error| {
            if tells_disk_full(&error.to_string()) {
                return disk_full(&self.node, upload.path);
            }
            RemoteError::failed(&self.node, format_args!("cannot write {}: {error}", upload.path))
        })
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, RemoteError> {
        check_path(&self.node, path)?;
        let read = tokio::fs::read(self.path(path)).await;
        read.map_err(|error| RemoteError::failed(&self.node, format_args!("cannot read {path}: {error}")))
    }

    async fn forward(&self, port: u16) -> Result<Forward, RemoteError> {
        Ok(Forward { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), guard: Box::new(()) })
    }

    async fn service(&self, unit: &str, action: &ServiceAction) -> Result<ServiceState, RemoteError> {
        let unit = unit_name(&self.node, unit)?;
        if *action == ServiceAction::Status {
            return self.folder.state(&unit).map_err(|error| RemoteError::failed(&self.node, error));
        }
        match self.tell(&Request::Service { unit, action: action.clone() }).await? {
            Reply::State(state) => Ok(state),
            other => Err(self.surprise(&other)),
        }
    }

    async fn logs(&self, unit: &str, lines: u32, follow: bool) -> Result<mpsc::Receiver<String>, RemoteError> {
        let unit = unit_name(&self.node, unit)?;
        let log = self.folder.log(&unit);
        logs::read(log, lines, follow)
            .map_err(|error| RemoteError::failed(&self.node, format_args!("cannot read the log: {error}")))
    }
}

/// Ends a command that took too long, with what it started.
async fn end(child: &mut Child) {
    let Some(pid) = child.id() else { return };
    process::signal_group(pid, Signal::TERM);
    let ended = timeout(KILL_AFTER, child.wait()).await;
    process::signal_group(pid, Signal::KILL);
    if ended.is_err() {
        let _ = child.wait().await;
    }
}

/// The status that a shell would give.
fn not_started(node: &str, program: &str, error: &io::Error) -> Result<Output, RemoteError> {
    let status = match error.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::PermissionDenied => 126,
        _ => return Err(RemoteError::failed(node, format_args!("cannot run {program}: {error}"))),
    };
    Ok(Output { status: Some(status), stdout: Vec::new(), stderr: format!("{program}: {error}\n").into_bytes() })
}

/// Gives it all of the input, or as much as it wants to read.
async fn feed(stdin: Option<tokio::process::ChildStdin>, bytes: &[u8]) -> io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match stdin.write_all(bytes).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
