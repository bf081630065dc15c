//! The keys that are in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use super::file::{self, KeyFile};
use super::token::{self, Hash};
use crate::gateway::private_file::{Look, follow};
use crate::routing::residency::Classes;

/// One key in force.
#[derive(Debug)]
pub(in crate::gateway) struct Key {
    /// Who has it.
    pub(in crate::gateway) name: Arc<str>,
    /// The residency classes of all requests that come with it.
    pub(in crate::gateway) residency: Classes,
    /// The class of service of all of them, if it fixes one.
    pub(in crate::gateway) class: Option<Arc<str>>,
    hash: Hash,
}

/// The keys of a file, by id.
type Ring = BTreeMap<String, Arc<Key>>;

/// The keys of a file as it was when it last made sense.
#[derive(Debug)]
pub(in crate::gateway) struct Keys {
    path: PathBuf,
    ring: RwLock<Arc<Ring>>,
}

impl Keys {
    /// Reads the keys and follows the file until `stopped`.
    ///
    /// # Errors
    /// The file cannot be read, others can change it, or it is no file of keys.
    pub(in crate::gateway) fn open(path: &Path, stopped: CancellationToken) -> anyhow::Result<Arc<Self>> {
        let paths = vec![path.to_owned()];
        let look = Look::at(&paths);
        let ring = RwLock::new(Arc::new(ring(&file::read(path)?)?));
        let keys = Arc::new(Self { path: path.to_owned(), ring });
        keys.report();
        let followed = keys.clone();
        tokio::spawn(follow(paths, look, stopped, move || followed.reload()));
        Ok(keys)
    }

    /// The key with this text.
    #[must_use]
    pub(in crate::gateway) fn find(&self, text: &str) -> Option<Arc<Key>> {
        let key = self.ring().get(token::id(text)?)?.clone();
        key.hash.matches(&Hash::of(text)).then_some(key)
    }

    /// Takes the file as it is now. One that makes no sense changes nothing: half an edit must not lock everybody out.
    fn reload(&self) {
        match file::read(&self.path).and_then(|file| ring(&file)) {
            Ok(ring) => {
                *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
                self.report();
            }
            Err(error) => tracing::error!("the API keys stay as they were: {error:#}"),
        }
    }

    fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn report(&self) {
        tracing::info!(file = %self.path.display(), keys = self.ring().len(), "API keys read");
    }
}

fn ring(file: &KeyFile) -> anyhow::Result<Ring> {
    let active = file.keys.iter().filter(|entry| entry.revoked.is_none());
    active
        .map(|entry| {
            let residency = entry.residency.iter().map(String::as_str).collect();
            let class = entry.class.as_deref().map(Arc::from);
            let key = Key { name: entry.name.as_str().into(), residency, class, hash: entry.hash()? };
            Ok((entry.id.clone(), Arc::new(key)))
        })
        .collect()
}
