//! Where `gorgo bench` sends its requests: one target, or several with clients that choose among them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{positive, read_matrix, read_places};
use crate::bench::entries::{Entries, EntryPoint};
use crate::cli::exit::Failure;
use crate::gateway::endpoint::{BadEndpoint, Endpoint};
use crate::model::Region;
use crate::workload::fleet::{Clients, Doors, Entry, NoRouter, Router};
use crate::workload::network::RttMatrix;

/// Options that say where requests go and from where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EntryArgs {
    /// Base URL of the server under test, e.g. `http://127.0.0.1:8000`; of several entries to choose from each is given as
    /// `name=east,url=http://10.0.0.5:8000,region=us-east-1`
    #[arg(long = "target", value_name = "URL", required = true)]
    targets: Vec<Target>,
    /// Clients stand in this region, `REGION` or `REGION=SHARE` (repeatable); no delay is added between them and their target
    /// [default: beside the targets, evenly]
    #[arg(long = "client-region", value_name = "REGION", value_parser = group)]
    clients: Vec<(Region, f64)>,
    /// How clients find their target: rtt (the shortest round trip between the regions), geo (the nearest on the globe) or first
    /// (the first one for all) [default: rtt]
    #[arg(long, value_name = "HOW")]
    entry: Option<Entry>,
    /// Where regions of your own are: a file with `[places]`
    #[arg(long, value_name = "FILE")]
    places: Option<PathBuf>,
    /// Round trips between regions as a CSV matrix, as fleet files name one [default: the built-in table]
    #[arg(long, value_name = "FILE")]
    rtt: Option<PathBuf>,
    /// Move the clients' shares on by so many regions from the first start to the last, as a day does; in open loops
    #[arg(long, value_name = "REGIONS", value_parser = positive)]
    drift: Option<f64>,
}

/// One `--target`.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    name: Option<String>,
    url: String,
    region: Option<Region>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let keyed = ["name=", "url=", "region="].iter().any(|key| text.starts_with(key));
        let mut found: [Option<String>; 3] = [None, None, None];
        for part in text.split(',').filter(|_| keyed) {
            let wanted = || format!("found `{part}`; wanted name=…, url=… or region=…");
            let (key, value) = part.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(wanted)?;
            let place = ["name", "url", "region"].iter().position(|known| *known == key).ok_or_else(wanted)?;
            if found[place].replace(value.to_owned()).is_some() {
                return Err(format!("`{key}` is given twice"));
            }
        }
        let [name, url, region] = found;
        let url = if keyed { url.ok_or("url=… is missing")? } else { text.to_owned() };
        url.parse::<Endpoint>().map_err(|BadEndpoint { url, problem }| {
            format!("`{url}`: {problem}; expected e.g. `http://127.0.0.1:8000`")
        })?;
        Ok(Self { name, url, region: region.as_deref().map(Region::new) })
    }
}

/// `europe-central-1=2`: a region with its share, 1 if none is told.
fn group(text: &str) -> Result<(Region, f64), String> {
    let (region, share) = text.split_once('=').unwrap_or((text, "1"));
    if region.is_empty() {
        return Err("wanted REGION or REGION=SHARE".to_owned());
    }
    let share = positive(share).map_err(|wanted| format!("share `{share}`: {wanted}"))?;
    Ok((Region::new(region), share))
}

impl EntryArgs {
    /// URL of the first target.
    pub(crate) fn first_url(&self) -> &str {
        self.targets.first().map_or("", |target| &target.url)
    }

    /// The entries and who takes which; `None` = a plain target without anything to choose.
    ///
    /// # Errors
    /// Names given twice, missing regions, clients for which no entry can be chosen, and files that cannot be read.
    pub(crate) fn entries(&self) -> Result<Option<Entries>, Failure> {
        let plain = self.targets.len() == 1 && self.targets[0].name.is_none() && self.targets[0].region.is_none();
        if plain && self.clients.is_empty() {
            let given = [
                ("--entry", self.entry.is_some()),
                ("--places", self.places.is_some()),
                ("--rtt", self.rtt.is_some()),
                ("--drift", self.drift.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((option, _)) => Err(Failure::usage(anyhow!(
                    "`{option}` has nothing to choose: a single `--target` without `--client-region`"
                ))),
                None => Ok(None),
            };
        }
        let points = self.points()?;
        let places = Arc::new(self.places.as_deref().map(read_places).transpose()?.unwrap_or_default());
        let rtt = self.rtt.as_deref().map(read_matrix).transpose()?.unwrap_or_else(RttMatrix::built_in);
        // Where one has no region there is no choice by region: checked with the points.
        let router =
            |point: &EntryPoint| Router { region: point.region.clone().unwrap_or(Region::new("")), share: 1.0 };
        let routers: Vec<Router> = points.iter().map(router).collect();
        let clients = self.choose(&Doors { routers: &routers, rtt: &rtt, places: &places })?;
        Ok(Some(Entries { points, clients, drift: self.drift.unwrap_or(0.0), places }))
    }

    /// The targets with their names.
    fn points(&self) -> Result<Vec<EntryPoint>, Failure> {
        let mut points: Vec<EntryPoint> = Vec::new();
        for target in &self.targets {
            let name = target.name.clone().unwrap_or_else(|| target.url.clone());
            if points.iter().any(|point| point.name == name) {
                return Err(Failure::usage(anyhow!("`--target`: `{name}` is given twice")));
            }
            if self.targets.len() > 1 && target.region.is_none() && self.entry() != Entry::First {
                return Err(Failure::usage(anyhow!(
                    "`--target`: `{name}` has no region; of several entries each is wanted as name=…,url=…,region=…"
                )));
            }
            points.push(EntryPoint { name, url: target.url.clone(), region: target.region.clone() });
        }
        Ok(points)
    }

    /// The groups of clients, each with its entry; shares add up to 1.
    fn choose(&self, doors: &Doors<'_>) -> Result<Vec<Clients>, Failure> {
        let sum: f64 = self.clients.iter().map(|(_, share)| share).sum();
        let entry = if doors.routers.len() == 1 { Entry::First } else { self.entry() };
        if self.clients.is_empty() {
            let beside = |(index, router): (usize, &Router)| Clients {
                region: router.region.clone(),
                share: 1.0 / doors.routers.len() as f64,
                router: if entry == Entry::First { 0 } else { index },
            };
            return Ok(doors.routers.iter().enumerate().map(beside).collect());
        }
        let chosen = self.clients.iter().map(|(region, share)| {
            let router = doors.pick(region, entry).map_err(|error| {
                let add = match error {
                    NoRouter::None => "",
                    NoRouter::Unmeasured => "; give a table that has one with `--rtt`",
                    NoRouter::Unplaced(_) => "; give a map that has it with `--places`",
                };
                Failure::usage(anyhow!("`--client-region {region}`: {error}{add}"))
            })?;
            Ok(Clients { region: region.clone(), share: share / sum, router })
        });
        chosen.collect()
    }

    fn entry(&self) -> Entry {
        self.entry.unwrap_or_default()
    }

    /// What a report says of it.
    pub(crate) fn described(&self, entries: Option<&Entries>) -> [(&'static str, Option<Value>); 5] {
        let points = |entries: &Entries| {
            let point = |it: &EntryPoint| json!({ "name": it.name, "url": it.url, "region": it.region });
            entries.points.iter().map(point).collect::<Value>()
        };
        let clients = |entries: &Entries| {
            let group = |it: &Clients| json!({ "region": it.region, "share": it.share, "entry": entries.points[it.router].name });
            entries.clients.iter().map(group).collect::<Value>()
        };
        [
            ("target", entries.is_none().then(|| json!(self.first_url()))),
            ("entries", entries.map(points)),
            ("clients", entries.map(clients)),
            ("entry", entries.map(|_| json!(self.entry().to_string()))),
            ("drift", self.drift.map(|regions| json!(regions))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use insta::assert_snapshot;

    use super::EntryArgs;
    use crate::bench::entries::Entries;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: EntryArgs,
    }

    const TWO: &str = "--target name=east,url=http://10.0.0.5:8000,region=us-east-1 \
                       --target name=frankfurt,url=http://10.0.1.5:8000,region=europe-central-1";

    fn entries(line: &str) -> Result<Option<Entries>, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.args.entries().map_err(|failure| failure.to_string())
    }

    /// `region share entry` of each group.
    fn ways(line: &str) -> Vec<String> {
        let entries = entries(line).unwrap().unwrap();
        let way = |it: &crate::workload::fleet::Clients| {
            format!("{} {} {}", it.region, it.share, entries.points[it.router].name)
        };
        entries.clients.iter().map(way).collect()
    }

    #[test]
    fn a_plain_target_leaves_nothing_to_choose() {
        assert_eq!(entries("--target http://127.0.0.1:8000"), Ok(None));
        let named = entries("--target name=a,url=http://127.0.0.1:8000").unwrap().unwrap();
        assert_eq!((named.points[0].name.as_str(), named.clients.len()), ("a", 1));
    }

    #[test]
    fn clients_take_the_entry_that_is_nearest_in_their_sense() {
        assert_eq!(ways(TWO), ["us-east-1 0.5 east", "europe-central-1 0.5 frankfurt"]);
        let from = format!("{TWO} --client-region us-south-1=3 --client-region europe-central-1");
        for entry in ["", "--entry rtt", "--entry geo"] {
            assert_eq!(ways(&format!("{from} {entry}")), ["us-south-1 0.75 east", "europe-central-1 0.25 frankfurt"]);
        }
        assert_eq!(ways(&format!("{from} --entry first")), ["us-south-1 0.75 east", "europe-central-1 0.25 east"]);
        assert_eq!(ways(&format!("{TWO} --entry first")), ["us-east-1 0.5 east", "europe-central-1 0.5 east"]);
    }

    #[test]
    fn a_map_and_a_table_of_your_own_can_disagree() {
        let folder = tempfile::tempdir().unwrap();
        let (map, table) = (folder.path().join("map.toml"), folder.path().join("rtt.csv"));
        std::fs::write(&map, "[places]\nlisbon = \"38.7,-9.1\"\n").unwrap();
        std::fs::write(&table, "region,us-east-1,europe-central-1\nlisbon,70,90\n").unwrap();
        let from = format!("{TWO} --client-region lisbon --places {} --rtt {}", map.display(), table.display());
        assert_eq!(ways(&format!("{from} --entry geo")), ["lisbon 1 frankfurt"]);
        assert_eq!(ways(&from), ["lisbon 1 east"]);
    }

    #[test]
    fn what_cannot_be_chosen_is_told() {
        let cases = [
            format!("{TWO} --client-region atlantis"),
            format!("{TWO} --client-region atlantis --entry geo"),
            "--target http://127.0.0.1:8000 --entry geo".to_owned(),
            "--target http://127.0.0.1:8000 --target http://127.0.0.1:8001".to_owned(),
            "--target http://127.0.0.1:8000 --target http://127.0.0.1:8000 --entry first".to_owned(),
        ];
        let told: Vec<String> = cases.iter().map(|case| entries(case).unwrap_err().trim_end().to_owned()).collect();
        assert_snapshot!(told.join("\n"), @r"
        error: `--client-region atlantis`: no RTT to any router; give a table that has one with `--rtt`
        error: `--client-region atlantis`: no place is known of atlantis; give a map that has it with `--places`
        error: `--entry` has nothing to choose: a single `--target` without `--client-region`
        error: `--target`: `http://127.0.0.1:8000` has no region; of several entries each is wanted as name=…,url=…,region=…
        error: `--target`: `http://127.0.0.1:8000` is given twice
        ");
        let unread =
            ["name=a,region=r", "url=ftp://x,name=a", "name=a,url=http://x,zone=b", "name=a,name=b", "localhost"];
        for target in unread {
            let error = entries(&format!("--target {target}")).unwrap_err();
            assert!(error.contains("--target"), "{error}");
        }
        for group in ["r=0", "=1", "r=x"] {
            assert!(entries(&format!("{TWO} --client-region {group}")).is_err(), "{group}");
        }
    }
}
