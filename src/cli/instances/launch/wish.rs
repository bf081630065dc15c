//! Which machines a launch is to get: names, types and regions from the command line and from `[[node]]`.

use std::collections::BTreeSet;

use anyhow::anyhow;

use crate::cli::exit::Failure;
use crate::config::fleet::wrong_name;
use crate::config::{Fleet, NodeEntry};
use crate::model::Region;

/// One machine to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) name: String,
    pub(super) instance_type: String,
    pub(super) region: Region,
}

/// Regions go with names by position, or one for all; what is not said comes from the `[[node]]` of that name.
pub(super) fn wishes(
    names: &[String],
    instance_type: Option<&str>,
    regions: &[String],
    fleet: &Fleet,
) -> Result<Vec<Wish>, Failure> {
    let of_file: Vec<String> = fleet.nodes.iter().filter_map(|node| node.name.clone()).collect();
    let names = if names.is_empty() { &of_file } else { names };
    if names.is_empty() {
        let error = anyhow!("no node is named");
        return Err(Failure::usage(error)
            .with_hint("name some, e.g. `gorgo launch east --type gpu_1x_a10 --region us-east-1`, or add a [[node]] for each to gorgo.toml"));
    }
    let mut seen = BTreeSet::new();
    for name in names {
        if let Some(message) = wrong_name(name) {
            return Err(Failure::usage(anyhow!(message)));
        }
        if !seen.insert(name) {
            return Err(Failure::usage(anyhow!("`{name}` is named twice")));
        }
    }
    if regions.len() > 1 && regions.len() != names.len() {
        let error = anyhow!("{} names and {} regions", names.len(), regions.len());
        return Err(
            Failure::usage(error).with_hint("wanted one region for each name, in the same order, or one for all")
        );
    }
    let one = |(i, name): (usize, &String)| wish(name, instance_type, regions.get(i).or(regions.first()), fleet);
    names.iter().enumerate().map(one).collect()
}

fn wish(name: &str, instance_type: Option<&str>, region: Option<&String>, fleet: &Fleet) -> Result<Wish, Failure> {
    let entry = fleet.nodes.iter().find(|node| node.name.as_deref() == Some(name));
    let of_file = |key: fn(&NodeEntry) -> Option<&str>| entry.and_then(key);
    let instance_type = instance_type.or_else(|| of_file(|node| node.instance_type.as_deref()));
    let region = region.map(String::as_str).or_else(|| of_file(|node| node.region.as_deref()));
    let missing = |what: &str| {
        let error = anyhow!("no {what} for `{name}`: neither `--{what}` nor a [[node]] of that name says one");
        Failure::usage(error).with_hint("`gorgo available` shows types and regions")
    };
    Ok(Wish {
        name: name.to_owned(),
        instance_type: instance_type.ok_or_else(|| missing("type"))?.to_owned(),
        region: Region::new(region.ok_or_else(|| missing("region"))?),
    })
}

#[cfg(test)]
mod tests {
    use super::wishes;
    use crate::config::{fleet, read};

    fn wished(names: &[&str], kind: Option<&str>, regions: &[&str]) -> String {
        let text = "[[node]]\nname = \"east\"\ntype = \"a10\"\nregion = \"us-east-1\"\n[[node]]\nname = \"eu\"\ntype = \"h100\"\nregion = \"eu-1\"\n";
        let owned = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let fleet = fleet(&read(text).0, None).0;
        match wishes(&owned(names), kind, &owned(regions), &fleet) {
            Ok(wishes) => {
                let line = |it: &super::Wish| format!("{}={}@{}", it.name, it.instance_type, it.region);
                wishes.iter().map(line).collect::<Vec<_>>().join(" ")
            }
            Err(failure) => failure.error.to_string(),
        }
    }

    #[test]
    fn flags_come_before_the_file_and_regions_go_by_position() {
        type Case<'a> = (&'a [&'a str], Option<&'a str>, &'a [&'a str], &'a str);
        let cases: [Case<'_>; 10] = [
            (&[], None, &[], "east=a10@us-east-1 eu=h100@eu-1"),
            (&["eu"], None, &[], "eu=h100@eu-1"),
            (&["eu"], Some("a10"), &["us-1"], "eu=a10@us-1"),
            (&["a", "b"], Some("t"), &["r"], "a=t@r b=t@r"),
            (&["a", "b"], Some("t"), &["r", "s"], "a=t@r b=t@s"),
            (&["a", "b", "c"], Some("t"), &["r", "s"], "3 names and 2 regions"),
            (&["a"], Some("t"), &[], "no region for `a`: neither `--region` nor a [[node]] of that name says one"),
            (&["a"], None, &["r"], "no type for `a`: neither `--type` nor a [[node]] of that name says one"),
            (&["a", "a"], Some("t"), &["r"], "`a` is named twice"),
            (
                &["-a"],
                Some("t"),
                &["r"],
                "`-a` cannot be a name; wanted up to 40 letters, digits, `-`, `_` and `.`, the first a letter or digit",
            ),
        ];
        for (names, kind, regions, expected) in cases {
            assert_eq!(wished(names, kind, regions), expected, "{names:?}");
        }
    }

    #[test]
    fn nothing_at_all_is_told() {
        let fleet = fleet(&read("").0, None).0;
        assert_eq!(wishes(&[], None, &[], &fleet).expect_err("nothing").error.to_string(), "no node is named");
    }
}
