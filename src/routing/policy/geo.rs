//! `geo`: the region nearest to the client, as DNS or a proxy with a map of the world would choose it. For comparison: it looks at neither
//! cache, queue nor network.
//!
//! ```text
//! score = distance  +  load                  km
//! load  = in_flight / (1 + in_flight)        0..1: it only decides between replicas that are equally near
//! ```
//!
//! distance: along the globe from the client to the replica's region (`model::geo`), km; a region without a known place counts as half the
//! globe away. in_flight: requests there that have not finished, whoever sent them.
//!
//! A client whose place nobody knows is taken to stand beside the router: distance is then what light goes in glass in half of the round trip
//! (100 km per ms: two thirds of its speed in vacuum, there and back), of the region's replica with the shortest one, so that replicas of a
//! region stay equally near. Places and round trips are never compared with each other.
//!
//! Filters come before: the nearest region is the nearest one that is healthy, allowed and has room. A replica of it that failed the request
//! is left out of the next attempt, so that another one of the region is tried first.

use std::collections::BTreeMap;

use super::registry::Entry;
use super::{Policy, Query, View, terms};
use crate::model::Region;
use crate::model::geo::FARTHEST_KM;
use crate::routing::decision::{Terms, Unit};

/// Distance per round trip, km per ms: light goes 200 km per ms in glass (refractive index 1.47: 204), half of it each way.
const KM_PER_RTT_MS: f64 = 100.0;

pub(super) const ENTRY: Entry = Entry {
    name: "geo",
    help: "the region nearest to the client, by `x-gorgo-client-location` or `--places`; there the fewest requests in flight",
    unit: Unit::Km,
    parameters: &[],
    build: |_, _| Box::new(Geo::default()),
};

#[derive(Default)]
struct Geo {
    /// Distance of each region with a candidate, km.
    distances: BTreeMap<Region, f64>,
}

/// Distance of a replica by itself, km.
fn distance_km(query: &Query<'_>, view: &View<'_>) -> f64 {
    match (query.features.place, view.replica.place) {
        (Some(client), Some(place)) => client.distance_km(place),
        (Some(_), None) => FARTHEST_KM,
        (None, _) => view.rtt_ms * KM_PER_RTT_MS,
    }
}

impl Policy for Geo {
    fn prepare(&mut self, query: &Query<'_>, candidates: &[View<'_>]) {
        self.distances.clear();
        for view in candidates {
            let own = distance_km(query, view);
            let shortest = self.distances.entry(view.replica.spec.region.clone()).or_insert(own);
            *shortest = shortest.min(own);
        }
    }

    fn terms(&self, query: &Query<'_>, candidate: &View<'_>) -> Terms {
        let distance = self.distances.get(&candidate.replica.spec.region).copied();
        let in_flight = candidate.in_flight();
        let load = in_flight / (1.0 + in_flight);
        terms([("distance", distance.unwrap_or_else(|| distance_km(query, candidate))), ("load", load)])
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::testing::scores;

    #[test]
    fn cases() {
        let log = scores(
            "geo",
            "",
            "
            # Paris goes to Frankfurt, however far that is by cable, however full and whatever is cached elsewhere
            prompt=6000 place=48.9,2.4
            us region=us-east-1 place=39.0,-77.5 rtt=2 cached=5376
            eu region=europe-central-1 place=50.1,8.7 rtt=300 sent=9000,9000 running=50
            jp region=asia-northeast-2 place=35.7,139.7

            # inside a region the fewest requests in flight, past their first token or not
            prompt=100 place=48.9,2.4
            a region=eu place=50.1,8.7 sent=100 decoding=100
            b region=eu place=50.1,8.7 decoding=9000
            c region=us place=39.0,-77.5

            # load never outweighs a kilometre
            prompt=100 place=50.1,8.7
            a region=x place=50.1,8.7 sent=1,1,1,1,1,1,1,1,1
            b region=y place=50.1,8.72

            # a region that nobody can place is half the globe away
            prompt=100 place=-33.9,151.2
            a region=lab
            b region=us-east-1 place=39.0,-77.5

            # a client without a place stands beside the router; a region is as near as its nearest replica
            prompt=100
            a region=us place=39.0,-77.5 rtt=12 sent=50
            b region=us place=39.0,-77.5 rtt=14
            c region=eu place=50.1,8.7 rtt=95

            # peers are asked like engines, with what others have there
            prompt=100 place=48.9,2.4
            own region=us place=39.0,-77.5
            a peer=1 region=eu place=50.1,8.7 others=9,9,9
            b peer=1 region=eu place=50.1,8.7 sent=5000
            ",
        );
        assert_snapshot!(log, @r"
        # Paris goes to Frankfurt, however far that is by cable, however full and whatever is cached elsewhere
        us      6191.263 = distance 6191.263 + load 0.000
        eu       474.619 = distance 473.952 + load 0.667  <-
        jp      9705.408 = distance 9705.408 + load 0.000

        # inside a region the fewest requests in flight, past their first token or not
        a        474.619 = distance 473.952 + load 0.667
        b        474.452 = distance 473.952 + load 0.500  <-
        c       6191.263 = distance 6191.263 + load 0.000

        # load never outweighs a kilometre
        a          0.900 = distance 0.000 + load 0.900  <-
        b          1.427 = distance 1.427 + load 0.000

        # a region that nobody can place is half the globe away
        a      20015.087 = distance 20015.087 + load 0.000
        b      15674.258 = distance 15674.258 + load 0.000  <-

        # a client without a place stands beside the router; a region is as near as its nearest replica
        a       1200.500 = distance 1200.000 + load 0.500
        b       1200.000 = distance 1200.000 + load 0.000  <-
        c       9500.000 = distance 9500.000 + load 0.000

        # peers are asked like engines, with what others have there
        own     6191.263 = distance 6191.263 + load 0.000
        a        474.702 = distance 473.952 + load 0.750
        b        474.452 = distance 473.952 + load 0.500  <-
        ");
    }
}
