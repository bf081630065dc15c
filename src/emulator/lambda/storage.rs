//! SSH keys and file systems of the account.

use super::fault::Name;
use super::machine::Machine;
use super::refusal::Refusal;
use super::rules::{LONGEST_NAME, body, filesystem_name, length, wanted};
use super::world::World;
use crate::cloud::lambda::wire::{
    AddSshKey, AddedSshKey, CreateFilesystem, DeletedFilesystems, Filesystem, RegionInfo, SshKey, User,
};
use crate::model::date;
use crate::model::{Secret, Time};

/// Longest public key, characters.
const LONGEST_KEY: usize = 4096;
/// Most file systems of an account.
const MOST_FILESYSTEMS: u64 = 24;

/// A file system as it is kept.
pub(super) struct Store {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) region: RegionInfo,
    created_us: u64,
}

impl Store {
    /// Its usual place on a machine.
    pub(super) fn mount_point(&self) -> String {
        format!("/lambda/nfs/{}", self.name)
    }
}

impl World {
    /// A missing public half means that the service makes the pair. This one makes words that have the shape of one and open nothing.
    pub(super) fn add_key(&mut self, now: Time, bytes: &[u8]) -> Result<AddedSshKey, Refusal> {
        let (_, request) = body::<AddSshKey>(bytes)?;
        length("name", &request.name, LONGEST_NAME)?;
        wanted(!request.name.is_empty(), || "name must not be empty.".to_owned())?;
        let taken = self.keys.iter().any(|key| key.name == request.name);
        wanted(!taken, || format!("The name {} is taken.", request.name))?;
        let (public_key, private_key) = match request.public_key {
            Some(text) => (text, None),
            None => self.made_up_pair(),
        };
        length("public_key", &public_key, LONGEST_KEY)?;
        let mut words = public_key.split_whitespace();
        let typed = words.next().is_some_and(|word| word.contains("ssh-") || word.contains("ecdsa-"));
        wanted(typed && words.next().is_some(), || "public_key is no public key in OpenSSH's form.".to_owned())?;
        let key = SshKey { id: self.id(), name: request.name, public_key };
        self.record(now, "ssh_key", "created", &key.id);
        self.keys.push(key.clone());
        Ok(AddedSshKey { key, private_key })
    }

    /// Machines keep keys that are forgotten. The document has no 404 here.
    pub(super) fn delete_key(&mut self, now: Time, id: &str) -> Result<(), Refusal> {
        let found = self.keys.iter().position(|key| key.id == id);
        let index = found.ok_or_else(|| Refusal::invalid(format!("SSH key {id} does not exist.")))?;
        self.keys.remove(index);
        self.record(now, "ssh_key", "deleted", id);
        Ok(())
    }

    pub(super) fn list_filesystems(&self, now: Time) -> Vec<Filesystem> {
        self.filesystems.iter().map(|store| self.filesystem(now, store)).collect()
    }

    pub(super) fn create_filesystem(&mut self, now: Time, bytes: &[u8]) -> Result<Filesystem, Refusal> {
        let (_, request) = body::<CreateFilesystem>(bytes)?;
        filesystem_name(&request.name)?;
        let region = self.region(request.region.as_str())?;
        if self.faults.has(Name::NoAddress) {
            return Err(Refusal::no_address());
        }
        if self.filesystems.iter().any(|store| store.name == request.name) {
            return Err(Refusal::duplicate(&request.name));
        }
        if self.filesystems.len() as u64 >= self.faults.number(Name::Quota).unwrap_or(MOST_FILESYSTEMS) {
            return Err(Refusal::quota());
        }
        let store = Store { id: self.id(), name: request.name, region, created_us: self.date_us(now) };
        self.record(now, "filesystem", "created", &store.id);
        let shown = self.filesystem(now, &store);
        self.filesystems.push(store);
        Ok(shown)
    }

    pub(super) fn delete_filesystem(&mut self, now: Time, id: &str) -> Result<DeletedFilesystems, Refusal> {
        let found = self.filesystems.iter().position(|store| store.id == id);
        let index = found.ok_or_else(|| Refusal::missing("Filesystem"))?;
        if self.mounted(now, id) {
            return Err(Refusal::filesystem_in_use());
        }
        self.filesystems.remove(index);
        self.record(now, "filesystem", "deleted", id);
        Ok(DeletedFilesystems { deleted_ids: vec![id.to_owned()] })
    }

    fn filesystem(&self, now: Time, store: &Store) -> Filesystem {
        Filesystem {
            id: store.id.clone(),
            name: store.name.clone(),
            mount_point: store.mount_point(),
            created: date::iso(store.created_us),
            created_by: Some(User {
                id: self.account.clone(),
                email: "me@example.com".to_owned(),
                status: "active".to_owned(),
            }),
            is_in_use: self.mounted(now, &store.id),
            region: store.region.clone(),
            bytes_used: Some(0),
        }
    }

    fn mounted(&self, now: Time, id: &str) -> bool {
        let lag_s = self.faults.number(Name::FilesystemInUse).unwrap_or(0);
        let has = |machine: &Machine| machine.mounts.iter().any(|(_, mount)| mount.file_system_id == id);
        self.machines.iter().any(|machine| has(machine) && machine.life.holds(now, lag_s))
    }

    fn made_up_pair(&mut self) -> (String, Option<Secret>) {
        let (public, private) = (self.id(), self.id());
        let text = format!("-----BEGIN RSA PRIVATE KEY-----\nmade-up/{private}\n-----END RSA PRIVATE KEY-----\n");
        (format!("ssh-rsa AAAAB3NzaC1yc2E{public} made-up"), Some(Secret::new(text)))
    }
}
