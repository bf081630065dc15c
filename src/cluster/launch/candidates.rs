//! Which type in which region to ask for, in order. Pure.

use crate::cloud::{InstanceType, LaunchRequest};
use crate::model::Region;

/// One way to satisfy a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The whole request, without the tags of the run.
    pub request: LaunchRequest,
    /// Its price, US cents per hour, if known.
    pub price_cents_per_hour: Option<u32>,
}

/// One machine to have. `candidates` is not empty and goes from the first choice to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The node's name in the cluster.
    pub node: String,
    /// What to ask for.
    pub candidates: Vec<Candidate>,
    /// Public half of the host key in the candidates' `user_data`, if there is one. Saved before the machine is asked for.
    pub host_key: Option<String>,
}

/// All ways to get `wish`: its own region with each of `types` in turn, then, with `any_region`, the other regions that claim capacity for
/// one of them now, by name. A claim is advice only: the wished region is tried even without one.
///
/// A wish with firewall rulesets or file systems stays in its region, because those do.
#[must_use]
pub fn candidates(wish: &LaunchRequest, types: &[&str], any_region: bool, offered: &[InstanceType]) -> Vec<Candidate> {
    let bound = !wish.firewall_rulesets.is_empty() || !wish.file_systems.is_empty();
    let mut regions = vec![&wish.region];
    if any_region && !bound {
        regions.extend(elsewhere(&wish.region, types, offered));
    }
    let mut ways = Vec::new();
    for region in regions {
        for name in types {
            let offer = offered.iter().find(|offer| offer.name == *name);
            let claimed = offer.is_some_and(|offer| offer.capacity.contains(region));
            if *region == wish.region || claimed {
                let request =
                    LaunchRequest { instance_type: (*name).to_owned(), region: region.clone(), ..wish.clone() };
                ways.push(Candidate { request, price_cents_per_hour: offer.map(|offer| offer.price_cents_per_hour) });
            }
        }
    }
    ways
}

fn elsewhere<'a>(home: &Region, types: &[&str], offered: &'a [InstanceType]) -> Vec<&'a Region> {
    let wanted = offered.iter().filter(|offer| types.contains(&offer.name.as_str()));
    let mut regions: Vec<&Region> = wanted.flat_map(|offer| &offer.capacity).filter(|region| *region != home).collect();
    regions.sort();
    regions.dedup();
    regions
}
