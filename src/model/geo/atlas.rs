//! A map: where regions are, where clients are, and which region is nearest to whom.
//!
//! ```toml
//! [places]                              # regions and places of your own; built-in regions can be placed anew
//! lab = "48.9,2.4"                      # degrees north, degrees east
//!
//! [clients]                             # network, address or API key (`key:NAME`) = coordinates or the name of a place
//! "10.1.0.0/16" = "europe-central-1"
//! "key:acme"    = "lab"
//! ```

use std::collections::BTreeMap;
// The type only; sockets are opened elsewhere.
use core::net::IpAddr;

use toml::{Table, Value};

use super::network::Network;
use super::{Coordinates, regions};
use crate::model::Region;

/// Longest part of a text that is shown again, characters.
const SHOWN: usize = 100;

/// Where regions and clients are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Atlas {
    /// Besides the built-in regions, and before them.
    places: BTreeMap<String, Coordinates>,
    /// Clients by where they come from; the longest prefixes first.
    networks: BTreeMap<Network, Coordinates>,
    /// Clients by the name of their API key.
    keys: BTreeMap<String, Coordinates>,
}

/// What is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither coordinates nor the name of a known place; wanted e.g. 48.9,2.4 (degrees north, degrees east)"
)]
pub struct NoPlace(String);

/// All that is wrong with a map, one line each, beginning with the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(pub Vec<String>);

impl Atlas {
    /// Reads a map.
    ///
    /// # Errors
    /// Text that is no TOML, or everything in it that makes no sense.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let file: Table = text.parse().map_err(|error: toml::de::Error| Problems(vec![error.to_string()]))?;
        let (mut atlas, mut problems) = (Self::default(), Vec::new());
        for key in file.keys().filter(|key| !["places", "clients"].contains(&key.as_str())) {
            problems.push(format!("{key}: unknown key; known are places, clients"));
        }
        atlas.add_places(file.get("places"), &mut problems);
        for (who, place) in entries(file.get("clients"), "clients", &mut problems) {
            if let Err(problem) = atlas.add_client(who, place) {
                problems.push(format!("clients.\"{who}\": {problem}"));
            }
        }
        if problems.is_empty() { Ok(atlas) } else { Err(Problems(problems)) }
    }

    /// Takes over a table of places, as a map and a fleet file have it. Everything wrong with it is added to `problems`.
    pub fn add_places(&mut self, table: Option<&Value>, problems: &mut Vec<String>) {
        for (name, place) in entries(table, "places", problems) {
            let wanted = match Coordinates::parse(place) {
                None => {
                    format!("found `{place}`; wanted degrees north and degrees east, e.g. \"48.9,2.4\"")
                }
                Some(_) if name.contains(',') => "a name with a comma would be read as coordinates".to_owned(),
                Some(place) => {
                    self.places.insert(name.to_owned(), place);
                    continue;
                }
            };
            problems.push(format!("places.\"{name}\": {wanted}"));
        }
    }

    fn add_client(&mut self, who: &str, place: &str) -> Result<(), String> {
        let place = self.place(place).map_err(|error| error.to_string())?;
        let known = match who.strip_prefix("key:") {
            Some(key) => self.keys.insert(key.to_owned(), place).is_some(),
            None => self.networks.insert(who.parse()?, place).is_some(),
        };
        if known { Err("the second line for this network".to_owned()) } else { Ok(()) }
    }

    /// The place of these coordinates, or of this name.
    ///
    /// # Errors
    /// It is neither.
    pub fn place(&self, text: &str) -> Result<Coordinates, NoPlace> {
        let place = Coordinates::parse(text).or_else(|| self.named(text.trim()));
        place.ok_or_else(|| NoPlace(text.chars().take(SHOWN).collect()))
    }

    /// Where a client is: by the name of its API key, else by its address (the longest network that has it).
    #[must_use]
    pub fn client(&self, key: Option<&str>, address: IpAddr) -> Option<Coordinates> {
        let by_key = key.and_then(|key| self.keys.get(key));
        let network = || self.networks.iter().find(|(network, _)| network.contains(address)).map(|(_, place)| place);
        by_key.or_else(network).copied()
    }

    /// Where a region is, if that is known.
    #[must_use]
    pub fn region(&self, region: &Region) -> Option<Coordinates> {
        self.named(region.as_str())
    }

    fn named(&self, name: &str) -> Option<Coordinates> {
        self.places.get(name).copied().or_else(|| regions::place(name))
    }

    /// The position of the region that is nearest to a client; the first of equally near ones. `None` if no place of theirs is known.
    #[must_use]
    pub fn nearest<'a>(&self, client: Coordinates, regions: impl IntoIterator<Item = &'a Region>) -> Option<usize> {
        let far = |region: &Region| Some(self.region(region)?.distance_km(client));
        let placed = regions.into_iter().enumerate().filter_map(|(i, region)| Some((i, far(region)?)));
        placed.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(i, _)| i)
    }
}

/// The texts of a table `name`; everything else in its place is a problem.
fn entries<'a>(table: Option<&'a Value>, name: &str, problems: &mut Vec<String>) -> Vec<(&'a str, &'a str)> {
    let Some(value) = table else { return Vec::new() };
    let Value::Table(table) = value else {
        problems.push(format!("{name}: found {}; wanted a table", value.type_str()));
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (key, value) in table {
        match value {
            Value::String(text) => entries.push((key.as_str(), text.as_str())),
            other => problems.push(format!("{name}.\"{key}\": found {other}; wanted text")),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Atlas, Coordinates};
    use crate::model::Region;

    fn at(north: f64, east: f64) -> Coordinates {
        Coordinates::new(north, east).unwrap()
    }

    #[test]
    fn the_nearest_region_of_a_client() {
        let all = ["us-east-1", "us-west-1", "europe-central-1", "asia-northeast-2", "somewhere"].map(Region::new);
        let cases = [
            ("48.9,2.4", Some("europe-central-1")),
            ("40.7,-74.0", Some("us-east-1")),
            ("47.6,-122.3", Some("us-west-1")),
            ("-33.9,151.2", Some("asia-northeast-2")),
            ("us-south-1", Some("us-east-1")),
            ("europe-south-1", Some("europe-central-1")),
        ];
        let atlas = Atlas::default();
        for (client, wanted) in cases {
            let nearest = atlas.nearest(atlas.place(client).unwrap(), &all).map(|i| all[i].as_str());
            assert_eq!(nearest, wanted, "{client}");
        }
        assert_eq!(atlas.nearest(at(0.0, 0.0), &[Region::new("somewhere")]), None);
        let twins = ["us-east-3", "us-east-2"].map(Region::new);
        assert_eq!(atlas.nearest(at(0.0, 0.0), &twins), Some(0), "the first of equals");
    }

    const MAP: &str = r#"
        [places]
        lab = "48.9, 2.4"
        us-west-3 = "1,2"
        [clients]
        "10.0.0.0/8" = "us-east-1"
        "10.1.0.0/16" = "lab"
        "10.1.2.3" = "35.7,139.7"
        "2001:db8::/32" = "us-west-3"
        "key:acme" = "lab"
    "#;

    #[test]
    fn a_map_knows_clients_and_places_of_its_own() {
        let atlas = Atlas::parse(MAP).unwrap();
        let lab = at(48.9, 2.4);
        let cases = [
            (None, "10.9.9.9", atlas.place("us-east-1").ok()),
            (None, "10.1.9.9", Some(lab)),
            (None, "10.1.2.3", Some(at(35.7, 139.7))),
            (None, "::ffff:10.1.9.9", Some(lab)),
            (None, "2001:db8:1::5", Some(at(1.0, 2.0))),
            (None, "11.0.0.1", None),
            (Some("acme"), "11.0.0.1", Some(lab)),
            (Some("acme"), "10.1.2.3", Some(lab)),
            (Some("other"), "10.1.9.9", Some(lab)),
        ];
        for (key, address, place) in cases {
            assert_eq!(atlas.client(key, address.parse().unwrap()), place, "{key:?} {address}");
        }
        assert_eq!((atlas.place(" lab "), atlas.region(&Region::new("lab"))), (Ok(lab), Some(lab)));
    }

    #[test]
    fn everything_that_makes_no_sense_is_told_at_once() {
        let text = r#"
            regions = 1
            [places]
            a = "91,0"
            b = 7
            "c,d" = "1,1"
            [clients]
            "10.0.0.0/33" = "us-east-1"
            "10.0.0.0/8" = "moon"
            "x" = "1,1"
            "2001:db8::/32" = "1,1"
            "2001:0db8::/32" = "1,2"
        "#;
        assert_snapshot!(Atlas::parse(text).unwrap_err(), @r#"
        regions: unknown key; known are places, clients
        places."b": found 7; wanted text
        places."a": found `91,0`; wanted degrees north and degrees east, e.g. "48.9,2.4"
        places."c,d": a name with a comma would be read as coordinates
        clients."10.0.0.0/33": `10.0.0.0/33` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        clients."10.0.0.0/8": `moon` is neither coordinates nor the name of a known place; wanted e.g. 48.9,2.4 (degrees north, degrees east)
        clients."2001:db8::/32": the second line for this network
        clients."x": `x` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        "#);
        assert_snapshot!(Atlas::parse("places = 1\nclients = \"x\"").unwrap_err(), @r"
        places: found integer; wanted a table
        clients: found string; wanted a table
        ");
        assert!(Atlas::parse("places").unwrap_err().to_string().contains("line 1"));
        assert_eq!(Atlas::parse(""), Ok(Atlas::default()));
    }
}
