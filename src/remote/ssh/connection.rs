//! One multiplexed connection to a node, made when it is first needed and made again when it is lost.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openssh::{ControlPersist, Session, SessionBuilder};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::super::error::{RemoteError, RemoteErrorKind};
use super::target::{self, SshSettings, SshTarget};
use super::{failure, known_hosts};

/// Sessions at once on one connection. sshd's default `MaxSessions` is 10 and refuses the 11th; two stay free for the user's own.
const SESSIONS: usize = 8;
/// Longest wait for a sign of life of the local ssh process.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Beyond ssh's own connect limit, for the login.
const LOGIN_SLACK: Duration = Duration::from_secs(10);

pub(super) struct Connection {
    pub(super) target: SshTarget,
    pub(super) settings: SshSettings,
    sessions: Semaphore,
    /// Held while connecting, so that many commands at once make one connection, not many.
    session: Mutex<Option<Arc<Session>>>,
}

impl Connection {
    pub(super) fn new(target: SshTarget, settings: SshSettings) -> Self {
        Self { target, settings, sessions: Semaphore::new(SESSIONS), session: Mutex::new(None) }
    }

    /// Waits for a free session.
    pub(super) async fn permit(&self) -> SemaphorePermit<'_> {
        self.sessions.acquire().await.expect("the semaphore is never closed")
    }

    /// The live connection. Checked before each use: an idle one ends itself, and a command is sent at most once.
    pub(super) async fn session(&self) -> Result<Arc<Session>, RemoteError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = &*slot
            && self.is_alive(session).await
        {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.connect().await?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    pub(super) async fn is_alive(&self, session: &Session) -> bool {
        matches!(timeout(CHECK_LIMIT, session.check()).await, Ok(Ok(())))
    }

    async fn connect(&self) -> Result<Session, RemoteError> {
        target::check(&self.target, &self.settings)?;
        self.check_key()?;
        let local = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| RemoteError::failed(&self.target.node, format_args!("{what}: {error}"))
        };
        private_folder(&self.settings.control_dir).map_err(local("the folder for control sockets is unusable"))?;
        let file = &self.settings.known_hosts;
        if let Some(key) = &self.target.host_key {
            known_hosts::preset(file, &self.target.host_key_alias, key)
                .map_err(local("cannot write the host key down"))?;
        }
        let check = known_hosts::check_for(file, &self.target.host_key_alias)
            .map_err(local("cannot read the known host keys"))?;
        let config =
            ConfigFile::write(&self.target, &self.settings).map_err(local("cannot write the configuration for ssh"))?;
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(check)
            .config_file(&config.0)
            .control_directory(&self.settings.control_dir)
            .control_persist(ControlPersist::IdleFor(whole_seconds(self.settings.idle_limit)));
        if let Some(port) = self.target.port {
            builder.port(port);
        }
        if let Some(user) = &self.target.user {
            builder.user(user.clone());
        }
        if let Some(key) = &self.target.key {
            builder.keyfile(key);
        }
        let limit = self.settings.connect_timeout + LOGIN_SLACK;
        match timeout(limit, builder.connect_mux(&self.target.address)).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => {
                let what = format_args!("no login to {} within {} s", self.target.address, limit.as_secs());
                Err(RemoteError::new(RemoteErrorKind::Unreachable, &self.target.node, what)
                    .with_hint("does `ssh` to it work by hand, without asking anything?"))
            }
        }
    }

    /// ssh itself would only say that the login was refused.
    fn check_key(&self) -> Result<(), RemoteError> {
        let Some(key) = self.target.key.as_deref().filter(|key| !key.exists()) else { return Ok(()) };
        let what = format_args!("there is no key file {}", key.display());
        Err(RemoteError::new(RemoteErrorKind::Denied, &self.target.node, what)
            .with_hint("correct its path, or leave it out to use the keys of your ssh agent and configuration"))
    }

    fn explain(&self, error: &openssh::Error) -> RemoteError {
        match error {
            openssh::Error::Connect(error) if error.kind() == io::ErrorKind::NotFound => {
                RemoteError::failed(&self.target.node, "there is no `ssh` program on this machine")
                    .with_hint("install the OpenSSH client")
            }
            openssh::Error::Connect(error) => failure::connect(&self.target, &self.settings, &error.to_string()),
            other => self.lost(other),
        }
    }

    /// A connection that ended while it was used.
    pub(super) fn lost(&self, error: &dyn std::error::Error) -> RemoteError {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        RemoteError::new(
            RemoteErrorKind::Unreachable,
            &self.target.node,
            format_args!("the connection was lost: {error}{cause}"),
        )
        .with_hint("what ran on the node may have gone on; look at its state before repeating")
    }
}

fn whole_seconds(duration: Duration) -> NonZeroUsize {
    usize::try_from(duration.as_secs()).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

/// Makes the folder, or makes sure that it is ours alone: who can write there can take over connections.
fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() && found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} belongs to somebody else or is open to others (wanted: a folder of yours, mode 0700)",
        path.display()
    )))
}

/// The configuration of one connection attempt, removed when ssh has read it.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn write(target: &SshTarget, settings: &SshSettings) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}.conf", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = settings.control_dir.join(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(target::config_text(target, settings).as_bytes())?;
        Ok(Self(path))
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
