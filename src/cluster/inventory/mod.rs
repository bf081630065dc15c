//! What a cluster consists of, on disk: `GORGO_STATE_DIR/clusters/NAME/inventory.json`. This file and the run tag say which machines
//! belong to it, never the list of everything in an account.
//!
//! Replaced in one step (temporary file, synced, renamed), 0600, read under a lock. It survives a crash at any moment. A file that cannot
//! be understood is never overwritten: all that is wrong with it is named by key path.

mod document;
mod lock;

pub use document::{FinishedStep, NodeRecord, Problem};
pub use lock::{Busy, Lock, Owner};

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::apply::StepJournal;
use super::balance::BalanceJournal;
use super::desired::Balance;
use super::launch::{LaunchEntry, LaunchJournal};
use document::Document;

/// Finished steps kept per node.
const STEPS_KEPT: usize = 200;

/// The inventory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// Another process works on the cluster.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The file says things that it cannot say.
    #[error("{}", broken(path, problems))]
    Broken {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
    /// The file system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn broken(path: &Path, problems: &[Problem]) -> String {
    let mut text = format!("the inventory {} cannot be understood; nothing was changed", path.display());
    for problem in problems {
        text += &format!("\n  {problem}");
    }
    text + "\n  hint: correct these places, or put back a copy; if all is lost, find the machines by their tag with `gorgo list`"
}

/// One cluster's inventory. Whoever holds it may write it, and nobody else does.
#[derive(Debug)]
pub struct ClusterInventory {
    folder: PathBuf,
    document: Document,
    lock: Option<Lock>,
}

impl ClusterInventory {
    /// Opens the inventory of a cluster in `GORGO_STATE_DIR/clusters/NAME` for changes; a new one has no nodes and is not written yet.
    ///
    /// # Errors
    /// Another process has it; the file is broken; the file system refuses.
    pub fn open(folder: &Path, cluster: &str, provider: &str, owner: &Owner) -> Result<Self, InventoryError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| InventoryError::Io { what: "make", path: folder.to_owned(), source })?;
        let lock = Lock::take(&folder.join("lock"), owner)?;
        let document = read(folder)?.unwrap_or_else(|| Document::new(cluster, provider));
        Ok(Self { folder: folder.to_owned(), document, lock: Some(lock) })
    }

    /// Reads it without a lock: the file is replaced in one step, so what is read was whole at some moment. `None` = there is none.
    ///
    /// # Errors
    /// The file is broken; the file system refuses.
    pub fn look(folder: &Path) -> Result<Option<Self>, InventoryError> {
        Ok(read(folder)?.map(|document| Self { folder: folder.to_owned(), document, lock: None }))
    }

    /// Where it lies, and what else belongs to the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.document.cluster
    }

    /// Its provider: `lambda`, `hosts` or `local`.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.document.provider
    }

    /// Its nodes, in the order in which they came.
    #[must_use]
    pub fn nodes(&self) -> &[NodeRecord] {
        &self.document.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeRecord> {
        self.document.nodes.iter().find(|node| node.name == name)
    }

    /// How the agent of a node was told to balance: by name, or with all others.
    #[must_use]
    pub fn balance(&self, node: &str) -> Option<&Balance> {
        let own = self.node(node).and_then(|node| node.balance.as_ref());
        own.or(self.document.balance.as_ref())
    }

    /// All agents were told to balance like this, those to come as well; `None` = as configured.
    ///
    /// # Errors
    /// It could not be saved.
    pub fn balance_all(&mut self, balance: Option<Balance>) -> anyhow::Result<()> {
        let mut next = self.document.clone();
        next.balance = balance;
        next.nodes.iter_mut().for_each(|node| node.balance = None);
        self.replace(next)
    }

    /// Agents may listen on public addresses, because a set-up was told so.
    #[must_use]
    pub fn allows_public_plaintext(&self) -> bool {
        self.document.allow_public_plaintext
    }

    /// Notes that agents may listen on public addresses.
    ///
    /// # Errors
    /// It could not be saved.
    pub fn allow_public_plaintext(&mut self) -> anyhow::Result<()> {
        let next = Document { allow_public_plaintext: true, ..self.document.clone() };
        self.replace(next)
    }

    /// Changes a node, which is added if it is new, and saves.
    ///
    /// # Errors
    /// It could not be saved; the file is as before.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut NodeRecord)) -> anyhow::Result<()> {
        let mut next = self.document.clone();
        let at = next.nodes.iter().position(|node| node.name == name);
        let at = at.unwrap_or_else(|| {
            next.nodes.push(NodeRecord::new(name));
            next.nodes.len() - 1
        });
        change(&mut next.nodes[at]);
        self.replace(next)
    }

    /// Forgets a node and saves.
    ///
    /// # Errors
    /// It could not be saved.
    pub fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        let mut next = self.document.clone();
        next.nodes.retain(|node| node.name != name);
        self.replace(next)
    }

    fn replace(&mut self, next: Document) -> anyhow::Result<()> {
        anyhow::ensure!(self.lock.is_some(), "the inventory was opened for reading only");
        let problems = next.problems();
        anyhow::ensure!(problems.is_empty(), "the inventory would be broken: {}", problems[0]);
        let path = path(&self.folder);
        save(&self.folder, &next).with_context(|| format!("cannot write {}", path.display()))?;
        self.document = next;
        Ok(())
    }
}

impl LaunchJournal for ClusterInventory {
    fn entry(&self, node: &str) -> Option<LaunchEntry> {
        self.node(node)?.launch_entry()
    }

    fn save(&mut self, entry: &LaunchEntry) -> anyhow::Result<()> {
        self.change(&entry.node, |node| node.set_launch(entry))
    }
}

impl StepJournal for ClusterInventory {
    fn finished(&mut self, node: &str, step: FinishedStep) -> anyhow::Result<()> {
        self.change(node, |node| {
            node.steps.push(step);
            let surplus = node.steps.len().saturating_sub(STEPS_KEPT);
            node.steps.drain(..surplus);
        })
    }
}

impl BalanceJournal for ClusterInventory {
    fn note_balance(&mut self, node: &str, balance: &Balance, configured: &Balance) -> anyhow::Result<()> {
        let usual = self.document.balance.as_ref().unwrap_or(configured);
        let own = (balance != usual).then(|| balance.clone());
        if self.node(node).is_none_or(|node| node.balance.is_none()) && own.is_none() {
            return Ok(());
        }
        self.change(node, |node| node.balance = own)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("inventory.json")
}

fn read(folder: &Path) -> Result<Option<Document>, InventoryError> {
    let path = path(folder);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(InventoryError::Io { what: "read", path, source }),
    };
    document::parse(&bytes).map(Some).map_err(|problems| InventoryError::Broken { path, problems })
}

/// A rename in one folder is one step; the folder is synced too, or the rename could be lost with the power.
fn save(folder: &Path, document: &Document) -> anyhow::Result<()> {
    let new = folder.join("inventory.json.new");
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path(folder))?;
    File::open(folder)?.sync_all().map_err(|error| anyhow!("{}: {error}", folder.display()))
}

#[cfg(test)]
mod tests;
