//! One supervised service: an actor that owns its process, restarts it when it dies, and does what it is told in between.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::service::{ServiceAction, ServiceState};
use super::folder::Folder;
use super::process::{Process, signal_group};
use super::store::{Installed, Running};
use super::{keep_environment, logs};

/// After SIGTERM, this long until SIGKILL.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Pause before the first restart; doubles with each that follows soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A service that ran this long was healthy: the next pause is the first again.
const HEALTHY: Duration = Duration::from_secs(10);

/// Waits for a word before it becomes the program. The supervisor says it when the pid is on disk; should it die before, the input
/// ends and so does this: there is no process that nobody knows.
const GATE: &str = r#"IFS= read -r go || exit 1; exec "$@" </dev/null"#;

/// What an actor can be told.
pub(super) enum Order {
    Act(ServiceAction, oneshot::Sender<Result<ServiceState, String>>),
    /// Stop the process and end; the service stays wanted.
    End(oneshot::Sender<()>),
}

pub(super) struct Unit {
    folder: Folder,
    name: String,
    installed: Option<Installed>,
    child: Option<Child>,
    restarts: u32,
    pause: Duration,
    /// When the process began, or when it is to begin again.
    at: Instant,
}

#[expect(clippy::disallowed_methods, reason = "a supervisor is an edge: pauses between restarts are real time")]
fn now() -> Instant {
    Instant::now()
}

impl Unit {
    pub(super) fn load(folder: Folder, name: String) -> io::Result<Self> {
        let installed = folder.load_unit(&name)?;
        Ok(Self { folder, name, installed, child: None, restarts: 0, pause: FIRST_PAUSE, at: now() })
    }

    /// Lives until told to end or until nobody can tell it anything.
    pub(super) async fn live(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let wanted = self.is_wanted();
            let order = match &mut self.child {
                Some(child) => tokio::select! {
                    _ = child.wait() => { self.ended(); continue; }
                    order = orders.recv() => order,
                },
                None if wanted => tokio::select! {
                    () = sleep_until(self.at) => { self.begin_again().await; continue; }
                    order = orders.recv() => order,
                },
                None => orders.recv().await,
            };
            match order {
                Some(Order::Act(action, answer)) => {
                    let result = self.act(action).await.map_err(|error| error.to_string());
                    let _ = answer.send(result);
                }
                Some(Order::End(done)) => {
                    self.stop().await;
                    let _ = done.send(());
                    return;
                }
                None => return self.stop().await,
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.installed.as_ref().is_some_and(|installed| installed.wanted)
    }

    async fn act(&mut self, action: ServiceAction) -> io::Result<ServiceState> {
        match action {
            ServiceAction::Install(unit) => {
                let installed = Installed { unit, wanted: self.is_wanted() };
                self.folder.save_unit(&self.name, &installed)?;
                self.installed = Some(installed);
            }
            ServiceAction::Start if self.child.is_some() => {}
            ServiceAction::Start => self.start().await?,
            ServiceAction::Restart => {
                self.check_installed()?;
                self.stop().await;
                self.start().await?;
            }
            ServiceAction::Stop => {
                self.check_installed()?;
                self.want(false)?;
                self.stop().await;
            }
            ServiceAction::Remove => {
                self.installed = None;
                self.stop().await;
                self.folder.forget_unit(&self.name)?;
            }
            ServiceAction::Status => {}
        }
        self.folder.state(&self.name)
    }

    fn check_installed(&self) -> io::Result<&Installed> {
        self.installed.as_ref().ok_or_else(|| io::Error::other(format!("{} is not installed", self.name)))
    }

    fn want(&mut self, wanted: bool) -> io::Result<()> {
        let Some(installed) = &mut self.installed else { return Ok(()) };
        installed.wanted = wanted;
        self.folder.save_unit(&self.name, installed)
    }

    async fn start(&mut self) -> io::Result<()> {
        let argv = &self.check_installed()?.unit.argv;
        let program = argv.first().map(|program| self.folder.map_text(program)).unwrap_or_default();
        if !std::path::Path::new(&program).is_file() {
            return Err(io::Error::other(format!("cannot start {}: there is no program {program:?}", self.name)));
        }
        self.want(true)?;
        (self.restarts, self.pause) = (0, FIRST_PAUSE);
        self.spawn().await
    }

    /// After a death. A failure to start counts as one more.
    async fn begin_again(&mut self) {
        if self.folder.load_process(&self.name).is_ok_and(|process| process.is_some()) {
            self.restarts = self.restarts.saturating_add(1);
        }
        if let Err(error) = self.spawn().await {
            tracing::error!(unit = %self.name, %error, "cannot start the service");
            self.back_off();
        }
    }

    async fn spawn(&mut self) -> io::Result<()> {
        let unit = &self.check_installed()?.unit;
        // As systemd makes the folder of `StateDirectory=`.
        if let Some(state) = unit.environment.get("GORGO_STATE_DIR") {
            tokio::fs::create_dir_all(self.folder.map_text(state)).await?;
        }
        let log = logs::open(&self.folder.log(&self.name))?;
        let mut command = Command::new("sh");
        command.args(["-c", GATE, "sh"]).args(unit.argv.iter().map(|word| self.folder.map_text(word)));
        keep_environment(&mut command);
        command
            .envs(unit.environment.iter().map(|(key, value)| (key, self.folder.map_text(value))))
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut gate = child.stdin.take().ok_or_else(|| io::Error::other("the input was asked to be a pipe"))?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended before it began"))?;
        let running = Running { process: Process::of(pid)?, restarts: self.restarts };
        self.folder.save_process(&self.name, &running)?;
        gate.write_all(b"go\n").await?;
        self.child = Some(child);
        self.at = now();
        Ok(())
    }

    /// The process died by itself. What it had started goes with it, as with systemd.
    fn ended(&mut self) {
        if let Some(pid) = self.last_pid() {
            signal_group(pid, Signal::KILL);
        }
        self.child = None;
        if self.at.elapsed() >= HEALTHY {
            self.pause = FIRST_PAUSE;
        }
        self.back_off();
    }

    fn back_off(&mut self) {
        self.at = now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The pid on disk: tokio forgets it when the process has been waited for.
    fn last_pid(&self) -> Option<u32> {
        self.folder.load_process(&self.name).ok().flatten().map(|running| running.process.pid)
    }

    async fn stop(&mut self) {
        if let Some(mut child) = self.child.take()
            && let Some(pid) = child.id()
        {
            signal_group(pid, Signal::TERM);
            let ended = timeout(STOP_LIMIT, child.wait()).await;
            // Also what a program that ended left behind in its group.
            signal_group(pid, Signal::KILL);
            if ended.is_err() {
                let _ = child.wait().await;
            }
        }
        if let Err(error) = self.folder.forget_process(&self.name) {
            tracing::error!(unit = %self.name, %error, "cannot forget the process");
        }
    }
}
