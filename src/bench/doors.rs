//! Which way each session's requests go: one for everybody, or one per group of clients.

use std::sync::Arc;

use super::client::Client;
use crate::workload::Home;

/// The way of a group of clients to the router that takes their requests.
#[derive(Clone)]
pub struct Door {
    /// Sends them.
    pub client: Arc<Client>,
    /// Name of the entry, where there are several.
    pub entry: Option<Arc<str>>,
    /// The router's region: what is served elsewhere crossed regions.
    pub home: Option<Arc<str>>,
}

/// The doors of a run. Clones share them.
#[derive(Clone)]
pub struct Doors {
    doors: Arc<[Door]>,
    homes: Arc<[Home]>,
}

impl Doors {
    /// One for all sessions; `home` is its router's region.
    #[must_use]
    pub fn one(client: Arc<Client>, home: Option<Arc<str>>) -> Self {
        Self { doors: [Door { client, entry: None, home }].into(), homes: Vec::new().into() }
    }

    /// A door per group of clients, and the group of each session of the plan.
    #[must_use]
    pub fn by_group(doors: Vec<Door>, homes: Vec<Home>) -> Self {
        debug_assert!(homes.iter().all(|home| home.0 < doors.len()), "every group has a door");
        Self { doors: doors.into(), homes: homes.into() }
    }

    /// The door of a session of the plan.
    pub(super) fn of(&self, session: usize) -> &Door {
        &self.doors[self.homes.get(session).map_or(0, |home| home.0)]
    }

    /// The strategy that answered, if a target is a gorgo router.
    #[must_use]
    pub fn strategy(&self) -> Option<&Arc<str>> {
        self.doors.iter().find_map(|door| door.client.strategy())
    }
}
