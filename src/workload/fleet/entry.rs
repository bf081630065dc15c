//! Which router the clients of each region speak to.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{Clients, Fleet, Router};
use crate::model::Region;
use crate::model::geo::Atlas;
use crate::workload::network::RttMatrix;

/// How a client finds its router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// `rtt`: the one with the shortest round trip, as anycast and latency-based DNS would have it at their best.
    #[default]
    Rtt,
    /// `geo`: the one in the region that is nearest on the globe, as DNS by place has it.
    Geo,
    /// `first`: the first one, wherever clients are, as one address for all has it.
    First,
}

impl Entry {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 3] = [("rtt", Self::Rtt), ("geo", Self::Geo), ("first", Self::First)];
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(_, entry)| entry == self);
        f.pad(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, entry)| *entry).ok_or_else(|| format!("found `{text}`; wanted rtt, geo or first"))
    }
}

/// What there is to choose among, and by.
#[derive(Clone, Copy, Debug)]
pub struct Doors<'a> {
    /// The routers, in the order in which the first of equals is taken.
    pub routers: &'a [Router],
    /// Round trips between regions.
    pub rtt: &'a RttMatrix,
    /// Where regions are.
    pub places: &'a Atlas,
}

/// Why no router can be chosen for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRouter {
    /// There is none.
    #[error("there is no router")]
    None,
    /// The table of round trips has no pair of theirs with a router.
    #[error("no RTT to any router")]
    Unmeasured,
    /// A region is nowhere on the globe.
    #[error("no place is known of {0}")]
    Unplaced(Region),
}

impl Doors<'_> {
    /// The router of clients in a region, as an index, the first of equals.
    ///
    /// # Errors
    /// None can be chosen.
    pub fn pick(&self, region: &Region, entry: Entry) -> Result<usize, NoRouter> {
        match entry {
            Entry::Rtt => {
                let rtt = |at: &Router| self.rtt.rtt_ms(region, &at.region);
                let known = self.routers.iter().enumerate().filter_map(|(index, at)| Some((index, rtt(at)?)));
                let nearest = known.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index);
                nearest.ok_or(NoRouter::Unmeasured)
            }
            Entry::Geo => self.nearest(region),
            Entry::First => self.routers.first().map(|_| 0).ok_or(NoRouter::None),
        }
    }

    fn nearest(&self, region: &Region) -> Result<usize, NoRouter> {
        let unplaced = |region: &Region| NoRouter::Unplaced(region.clone());
        let place = self.places.region(region).ok_or_else(|| unplaced(region))?;
        if let Some(lost) = self.routers.iter().find(|router| self.places.region(&router.region).is_none()) {
            return Err(unplaced(&lost.region));
        }
        let regions = self.routers.iter().map(|router| &router.region);
        self.places.nearest(place, regions).ok_or(NoRouter::None)
    }

    /// The same in a fleet, where there has to be a way to the router as well. Errors tell what to add to its file.
    pub(super) fn choose(&self, region: &Region, entry: Entry) -> Result<usize, String> {
        let index = self.pick(region, entry).map_err(|error| match error {
            NoRouter::None => error.to_string(),
            NoRouter::Unmeasured => format!("{error}; add it to network.rtt_ms"),
            NoRouter::Unplaced(_) => format!("{error}; add it to [places]"),
        })?;
        let router = &self.routers[index].region;
        match (self.rtt.rtt_ms(region, router), entry) {
            (Some(_), _) => Ok(index),
            (None, Entry::Geo) => {
                Err(format!("no RTT to {router}, the router nearest on the globe; add it to network.rtt_ms"))
            }
            (None, _) => Err(format!("no RTT to {router}, their router; add it to network.rtt_ms")),
        }
    }
}

impl Fleet {
    /// The same with clients that find their routers in another way.
    ///
    /// # Errors
    /// Clients for which no router can be chosen, one line each.
    pub fn entered_by(mut self, entry: Entry) -> Result<Self, Vec<String>> {
        let doors = Doors { routers: &self.routers, rtt: &self.rtt, places: &self.places };
        let chosen = |clients: &Clients| {
            let router = doors.choose(&clients.region, entry);
            router.map_err(|problem| format!("clients in {}: {problem}", clients.region))
        };
        let chosen: Vec<Result<usize, String>> = self.clients.iter().map(chosen).collect();
        let problems: Vec<String> = chosen.iter().filter_map(|router| router.clone().err()).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        for (clients, router) in self.clients.iter_mut().zip(chosen.into_iter().flatten()) {
            clients.router = router;
        }
        self.entry = entry;
        Ok(self)
    }

    /// Regions of replicas and clients of which no place is known, in order.
    #[must_use]
    pub fn unplaced(&self) -> BTreeSet<&Region> {
        let replicas = self.replicas.iter().map(|replica| &replica.region);
        let regions = replicas.chain(self.clients.iter().map(|clients| &clients.region));
        regions.filter(|region| self.places.region(region).is_none()).collect()
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::Entry;
    use crate::workload::Fleet;
    use crate::workload::fleet::{FleetError, FleetFile};

    /// Lisbon is nearer to Frankfurt, and its cable goes to Virginia.
    const FLEET: &str = r#"
        [[router]]
        region = "us-east-1"
        [[router]]
        region = "europe-central-1"
        [[clients]]
        region = "lisbon"
        share = 1
        [[clients]]
        region = "us-east-1"
        share = 1
        [[replica]]
        name = "a"
        region = "us-east-1"
        gpu = "a10"
        model = "m"
        [places]
        lisbon = "38.7,-9.1"
        [network]
        rtt_ms = { "lisbon/us-east-1" = 70, "lisbon/europe-central-1" = 90 }
    "#;

    fn fleet(text: &str) -> Result<Fleet, FleetError> {
        FleetFile::parse("fleet.toml", text).and_then(|file| file.resolve(None, &|_, _| Ok(())))
    }

    fn routers(fleet: &Fleet) -> Vec<usize> {
        fleet.clients.iter().map(|clients| clients.router).collect()
    }

    #[test]
    fn clients_enter_by_round_trip_or_by_place() {
        let by_rtt = fleet(FLEET).unwrap();
        assert_eq!((by_rtt.entry, routers(&by_rtt)), (Entry::Rtt, vec![0, 0]));
        let by_place = fleet(&format!("entry = \"geo\"\n{FLEET}")).unwrap();
        assert_eq!((by_place.entry, routers(&by_place)), (Entry::Geo, vec![1, 0]));
        assert_eq!(by_rtt.clone().entered_by(Entry::Geo), Ok(by_place.clone()));
        assert_eq!(by_place.entered_by(Entry::Rtt), Ok(by_rtt));
        let by_order = fleet(&format!("entry = \"first\"\n{FLEET}")).unwrap();
        assert_eq!((by_order.entry, routers(&by_order)), (Entry::First, vec![0, 0]));
    }

    #[test]
    fn who_cannot_be_placed_is_told() {
        let nowhere = FLEET.replace("lisbon = \"38.7,-9.1\"", "");
        let no_way = FLEET.replace(", \"lisbon/europe-central-1\" = 90", "");
        let wrong = FLEET.replace("38.7", "98.7");
        let told =
            [&nowhere, &no_way, &wrong].map(|text| fleet(&format!("entry = \"geo\"\n{text}")).unwrap_err().to_string());
        assert_snapshot!(told.join("\n"), @r#"
        fleet.toml: clients[0].region: no place is known of lisbon; add it to [places]
        fleet.toml: clients[0].region: no RTT to europe-central-1, the router nearest on the globe; add it to network.rtt_ms
        fleet.toml: places."lisbon": found `98.7,-9.1`; wanted degrees north and degrees east, e.g. "48.9,2.4"
        fleet.toml: clients[0].region: no place is known of lisbon; add it to [places]
        "#);
        let no_way = FLEET.replace("\"lisbon/us-east-1\" = 70, ", "");
        let told = fleet(&format!("entry = \"first\"\n{no_way}")).unwrap_err();
        assert_snapshot!(told, @"fleet.toml: clients[0].region: no RTT to us-east-1, their router; add it to network.rtt_ms");
        assert_snapshot!(fleet("entry = \"anycast\"").unwrap_err(), @r"
        fleet.toml: replica: missing; at least one `[[replica]]` is wanted
        fleet.toml: router: missing; at least one `[[router]]` is wanted
        fleet.toml: entry: found `anycast`; wanted rtt, geo or first
        ");
        let fleet = fleet(&nowhere).unwrap();
        assert_eq!(fleet.unplaced().iter().map(ToString::to_string).collect::<Vec<_>>(), ["lisbon"]);
        assert_eq!(
            fleet.entered_by(Entry::Geo),
            Err(vec!["clients in lisbon: no place is known of lisbon; add it to [places]".to_owned()])
        );
    }
}
