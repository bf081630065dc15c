//! The credentials of this process: read at its start, looked at again and again, exchanged while connections go on.
//!
//! A file that is half written, for somebody else or not valid now is refused, and what is there stays. Whoever writes the file
//! should write another one beside it and rename that.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::credentials::{BadCredentials, Credentials};
use super::revocation::Standing;
use crate::gateway::clock::wall_micros;
use crate::model::{BadIdentity, Identity, Part};

/// Longest file that is read, bytes: a key and a few certificates have some 3 kB.
const MOST_BYTES: usize = 256 << 10;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not there, or not for us to read.
    #[error("failed to read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it holds is no use.
    #[error("{} cannot be used: {source}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BadCredentials,
    },
    /// Right in itself, and not for now or not for us.
    #[error("{} cannot be used: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// What a look at the file brought.
#[derive(Debug)]
pub enum Look {
    /// The same as before.
    Unchanged,
    /// New credentials are in use.
    Renewed,
    /// Something new that is no use.
    Refused(IdentityError),
}

/// What is in use, and which content it was read from.
struct Current {
    credentials: Arc<Credentials>,
    digest: [u8; 32],
}

/// Keeps the credentials of a process up to date.
pub struct Keeper {
    path: PathBuf,
    current: RwLock<Current>,
    /// Changes with what is in use.
    news: watch::Sender<()>,
    complaint: Mutex<String>,
}

impl Keeper {
    /// Reads the file. Credentials that are not valid now are taken all the same: new ones may come, and clients can be served without peers.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is no use at any time.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let text = std::fs::read(path).map_err(|source| IdentityError::Unreadable { path: path.to_owned(), source })?;
        let credentials = parse(path, &text)?;
        if let Err(why) = timely(&credentials, seconds()) {
            tracing::error!(identity = %path.display(), "{why}: peers will refuse this process until `gorgo cluster setup` brings a new one");
        }
        let current = Current { credentials: Arc::new(credentials), digest: Sha256::digest(&text).into() };
        let (news, _) = watch::channel(());
        Ok(Self { path: path.to_owned(), current: RwLock::new(current), news, complaint: Mutex::default() })
    }

    /// What is in use now.
    #[must_use]
    pub fn current(&self) -> Arc<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).credentials.clone()
    }

    /// Who this process is; that never changes.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.current().identity().clone()
    }

    /// Changes when other credentials come into use.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Looks at the file once, at `now` in seconds since 1970, and takes what is new and right. A complaint is logged once.
    pub async fn look(&self, now: u64) -> Look {
        let text = match tokio::fs::read(&self.path).await {
            Ok(text) => text,
            Err(source) => {
                return self.refused(IdentityError::Unreadable { path: self.path.clone(), source });
            }
        };
        let digest: [u8; 32] = Sha256::digest(&text).into();
        if digest == self.current.read().unwrap_or_else(PoisonError::into_inner).digest {
            self.complaint().clear();
            return Look::Unchanged;
        }
        match self.fitting(&text, now) {
            Err(error) => self.refused(error),
            Ok(credentials) => {
                tracing::info!(identity = %credentials.identity(), not_after = credentials.not_after(), "certificate renewed");
                let current = Current { credentials: Arc::new(credentials), digest };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                self.news.send_replace(());
                self.complaint().clear();
                Look::Renewed
            }
        }
    }

    /// Looks again and again, for as long as it is polled; `tell` hears what came of it.
    pub async fn watch(&self, every: Duration, tell: impl Fn(&Look)) -> std::convert::Infallible {
        loop {
            sleep(every).await;
            tell(&self.look(seconds()).await);
        }
    }

    /// What the file holds, if it may take the place of what is in use.
    fn fitting(&self, text: &[u8], now: u64) -> Result<Credentials, IdentityError> {
        let credentials = parse(&self.path, text)?;
        let unfit = |why| Err(IdentityError::Unfit { path: self.path.clone(), why });
        let own = self.identity();
        if *credentials.identity() != own {
            return unfit(format!("it is for {}, wanted {own}", credentials.identity()));
        }
        match timely(&credentials, now) {
            Ok(()) => Ok(credentials),
            Err(why) => unfit(why),
        }
    }

    fn refused(&self, error: IdentityError) -> Look {
        let text = error.to_string();
        let mut complaint = self.complaint();
        if *complaint != text {
            tracing::warn!("{text}; the certificate of before stays in use");
            *complaint = text;
        }
        Look::Refused(error)
    }

    fn complaint(&self) -> MutexGuard<'_, String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({})", self.path.display())
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Credentials, IdentityError> {
    let bad = |source| IdentityError::Bad { path: path.to_owned(), source };
    if text.len() > MOST_BYTES {
        return Err(bad(BadCredentials::Unusable(format!("{} bytes are too many", text.len()))));
    }
    Credentials::parse(text).map_err(bad)
}

/// Valid at `now`.
fn timely(credentials: &Credentials, now: u64) -> Result<(), String> {
    if now < credentials.not_before() {
        return Err(format!("its certificate is not valid for another {} s", credentials.not_before() - now));
    }
    if now > credentials.not_after() {
        return Err(format!("its certificate expired {} s ago", now - credentials.not_after()));
    }
    Ok(())
}

fn seconds() -> u64 {
    wall_micros() / 1_000_000
}

/// How to connect to the agent of one node: with what is in use when a connection is opened.
#[derive(Clone, Debug)]
pub struct PeerConnector {
    keeper: Arc<Keeper>,
    wanted: Identity,
}

impl PeerConnector {
    /// Connects to the agent of this node of the own cluster.
    ///
    /// # Errors
    /// A name that no node can have.
    pub fn new(keeper: Arc<Keeper>, node: &str) -> Result<Self, BadIdentity> {
        let wanted = Identity::new(keeper.identity().cluster(), Part::Agent, node)?;
        Ok(Self { keeper, wanted })
    }

    /// For one connection.
    ///
    /// # Errors
    /// See [`Credentials`].
    pub(in crate::gateway) fn connector(&self) -> Result<TlsConnector, rustls::Error> {
        let config = self.keeper.current().client(self.wanted.clone())?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Whether the certificate that the peer has shown is still good.
    pub(in crate::gateway) fn standing(&self, shown: &CertificateDer<'_>) -> Standing {
        Standing::new(self.keeper.clone(), shown.clone().into_owned())
    }
}
