//! Several ways into a cluster, and which clients take which: for `gorgo bench` against agents, or against routers of several regions.
//!
//! Only the choice is played here. No delay is added between a client and its entry: the requests leave from this machine; a relay of
//! `gorgo emulate wan` before an entry makes it as far away as it is for its clients.

use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::body::BodyFormat;
use super::client::{Client, Target};
use super::doors::{Door, Doors};
use crate::gateway::clock::Clock;
use crate::model::Region;
use crate::model::geo::Atlas;
use crate::workload::fleet::Clients;
use crate::workload::{Plan, homes};

/// One way in.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryPoint {
    /// What the report calls it; unique.
    pub name: String,
    /// Base URL.
    pub url: String,
    /// Where it stands, if that was told.
    pub region: Option<Region>,
}

/// The ways in, and who takes which.
#[derive(Clone, Debug, PartialEq)]
pub struct Entries {
    /// At least one.
    pub points: Vec<EntryPoint>,
    /// Groups of clients, at least one, shares adding up to 1; `router` is an index into `points`.
    pub clients: Vec<Clients>,
    /// How many places the clients' shares move on during the run.
    pub drift: f64,
    /// Where regions are; clients in a known place say so to the router.
    pub places: Arc<Atlas>,
}

impl Entries {
    /// Clients for a run of `plan`, one per group, their connections warm. `like`: what all have in common; its URL is not used.
    ///
    /// # Errors
    /// An entry that does not accept connections.
    pub(super) async fn open(
        &self,
        like: &Target,
        format: &BodyFormat,
        plan: &Plan,
        seed: u64,
        clock: Clock,
    ) -> Result<Doors> {
        let mut doors = Vec::new();
        for group in &self.clients {
            let point = &self.points[group.router];
            let target = Target { url: point.url.clone(), ..like.clone() };
            let client = Client::new(&target, format.clone(), clock)?;
            let client = match self.places.region(&group.region) {
                Some(place) => client.located(place),
                None => client,
            };
            client.warm().await.with_context(|| format!("failed to reach entry `{}`", point.name))?;
            doors.push(Door {
                client: Arc::new(client),
                entry: Some(point.name.as_str().into()),
                home: point.region.as_ref().map(|region| region.as_str().into()),
            });
        }
        Ok(Doors::by_group(doors, homes(&self.clients, plan, seed, self.drift)))
    }
}
