//! `gorgo firewall sync`: the cluster's own rulesets, one per region, attached when a machine is launched.
//!
//! Rules of the whole account and rulesets of others are not touched. What is in a ruleset of the cluster and not needed goes, and is shown
//! before it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::rules::{NOWHERE, SSH, difference, lets_ssh_in, network, network_or_none, shown, sources};
use crate::cli::Context;
use crate::cli::consent::{Consent, Go};
use crate::cli::exit::{Exit, Outcome};
use crate::cli::nodes::{Node, look};
use crate::cli::provider::{Provider, Setup, cloud_failure};
use crate::cloud::lambda::wire::{CreateRuleset, FirewallRule, PatchRuleset, PortRange, Protocol, Ruleset};
use crate::cluster::layout::Ports;
use crate::model::Region;

/// How texts of our own rules begin; a rule with another text was made by somebody else.
const OURS: &str = "gorgo: ";
/// Who sends requests from elsewhere, in texts of rules.
const CLIENTS: &str = "clients";
/// The region in which Lambda has no firewall.
const WITHOUT_FIREWALL: &str = "us-south-1";

/// Arguments of `gorgo firewall sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sync {
    /// Where SSH may come from, an IPv4 network (repeatable) [default: as the cluster's rulesets have it, or 0.0.0.0/0]
    #[arg(long, value_name = "CIDR", value_parser = network)]
    ssh_from: Vec<String>,
    /// Where requests may come from besides the nodes themselves, an IPv4 network (repeatable) or `none`: to agents and to central routers
    /// [default: as the cluster's rulesets have it, or none]
    #[arg(long, value_name = "CIDR", value_parser = network_or_none)]
    requests_from: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

/// What to do with one ruleset.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Create(CreateRuleset),
    Replace { id: String, name: String, now: Vec<FirewallRule>, rules: Vec<FirewallRule> },
}

/// Name of the ruleset of a cluster in a region.
pub(crate) fn ruleset_name(cluster: &str, region: &Region) -> String {
    format!("gorgo-{cluster}-{region}")
}

/// Opens in every region of the cluster what it needs there, and nothing else.
pub(crate) async fn run(args: Sync, setup: &Setup, provider: &Provider, context: &Context) -> Outcome {
    let cloud = provider.lambda("firewall sync")?;
    let nodes = look(setup, provider).await?;
    let regions = regions(setup, &nodes);
    if regions.is_empty() {
        context.printer.talk("the cluster has no region with a firewall yet: neither a node nor a [[node]]");
        return Ok(Exit::NothingSuitable);
    }
    let existing = cloud.rulesets().await.map_err(cloud_failure)?;
    let ssh = ssh_from(args.ssh_from, &setup.fleet.cluster, &existing);
    let requests = requests_from(args.requests_from, &setup.fleet.cluster, &existing);
    let need = Need { peers: peers(setup, &nodes), routers: routers(&nodes), ssh, requests };
    let changes = changes(&setup.fleet.cluster, &regions, &need, &existing);
    warn_unattached(setup, &nodes, &existing, context);
    if changes.is_empty() {
        context.printer.talk("every ruleset is as the cluster needs it");
        return Ok(Exit::Done);
    }
    changes.iter().flat_map(Change::warnings).for_each(|warning| context.printer.warn(warning));
    let plan: Vec<String> = changes.iter().map(Change::shown).collect();
    if args.consent.ask(&context.printer, &plan.join("\n"), "change that?")? == Go::NoFurther {
        return Ok(Exit::Done);
    }
    for change in changes {
        let done = change.made();
        match change {
            Change::Create(body) => cloud.create_ruleset(&body).await,
            Change::Replace { id, rules, .. } => {
                cloud.change_ruleset(&id, &PatchRuleset { name: None, rules: Some(rules) }).await
            }
        }
        .map_err(cloud_failure)?;
        context.printer.talk(done);
    }
    Ok(Exit::Done)
}

/// Where the cluster has machines or is to have some, as far as there is a firewall.
fn regions(setup: &Setup, nodes: &[Node]) -> BTreeSet<Region> {
    let there = nodes.iter().filter_map(|node| node.instance.as_ref()).map(|it| it.region.clone());
    let wanted = setup.fleet.nodes.iter().filter_map(|node| node.region.as_deref()).map(Region::new);
    there.chain(wanted).filter(|region| region.as_str() != WITHOUT_FIREWALL).collect()
}

/// IPv4 addresses that the nodes' connections come from, with their names; the firewall knows no others.
fn peers(setup: &Setup, nodes: &[Node]) -> BTreeSet<(String, Ipv4Addr)> {
    let there = nodes.iter().filter(|node| node.is_there());
    let addresses = there.flat_map(|node| {
        let own = node.instance.as_ref().and_then(|instance| instance.address);
        let more = setup.fleet.addresses.get(&node.name).into_iter().flatten().copied();
        own.into_iter().chain(more).map(|address| (node.name.clone(), address))
    });
    let v4 = |(name, address)| match address {
        IpAddr::V4(address) => Some((name, address)),
        IpAddr::V6(_) => None,
    };
    addresses.filter_map(v4).collect()
}

/// Ports of the central routers by region, as far as they take requests from elsewhere.
fn routers(nodes: &[Node]) -> BTreeMap<Region, BTreeSet<u16>> {
    let mut routers: BTreeMap<Region, BTreeSet<u16>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.is_there()) {
        let wish = node.record.as_ref().and_then(|record| record.proxy.as_ref());
        let (Some(wish), Some(instance)) = (wish, &node.instance) else { continue };
        match wish.listen {
            Some(listen) if listen.ip().is_loopback() => {}
            listen => {
                let port = listen.map_or(Ports::default().proxy, |listen| listen.port());
                routers.entry(instance.region.clone()).or_default().insert(port);
            }
        }
    }
    routers
}

/// Where SSH may come from: as asked for, else as it is. A second run, which opens the ports of new nodes, must not open SSH to everybody.
fn ssh_from(asked: Vec<String>, cluster: &str, existing: &[Ruleset]) -> Vec<String> {
    if !asked.is_empty() {
        return asked;
    }
    let kept =
        sources(own_rules(cluster, existing), &format!("{OURS}ssh"), |rule| lets_ssh_in(std::slice::from_ref(rule)));
    if kept.is_empty() { vec!["0.0.0.0/0".to_owned()] } else { kept }
}

/// Where requests may come from: as asked for, else as it is, for the same reason: a second run must not shut clients out.
fn requests_from(asked: Vec<String>, cluster: &str, existing: &[Ruleset]) -> Vec<String> {
    if asked.is_empty() {
        return sources(own_rules(cluster, existing), &format!("{OURS}agent for {CLIENTS}"), |_| true);
    }
    asked.into_iter().filter(|network| network != NOWHERE).collect()
}

/// All rules of the cluster's rulesets.
fn own_rules<'a>(cluster: &'a str, existing: &'a [Ruleset]) -> impl Iterator<Item = &'a FirewallRule> {
    existing.iter().filter(move |it| it.name == ruleset_name(cluster, &it.region.name)).flat_map(|it| &it.rules)
}

/// What a cluster has to let in.
#[derive(Debug, Default)]
struct Need {
    /// Its nodes, with the addresses that their connections come from.
    peers: BTreeSet<(String, Ipv4Addr)>,
    /// Ports of central routers, by the region where they stand.
    routers: BTreeMap<Region, BTreeSet<u16>>,
    /// Where SSH may come from.
    ssh: Vec<String>,
    /// Where requests may come from besides the nodes.
    requests: Vec<String>,
}

impl Need {
    /// SSH from where it is wanted; the agents' port for peers from every node of the cluster, that for requests from where they are wanted,
    /// and central routers, where there are some, from both.
    fn rules(&self, region: &Region) -> Vec<FirewallRule> {
        let rule = |port, source_network: String, description: String| FirewallRule {
            protocol: Protocol::Tcp,
            port_range: Some(PortRange::single(port)),
            source_network,
            description,
        };
        let mut rules: Vec<FirewallRule> =
            self.ssh.iter().map(|network| rule(SSH, network.clone(), format!("{OURS}ssh"))).collect();
        let nodes = || self.peers.iter().map(|(name, address)| (format!("{address}/32"), name.as_str()));
        let clients = || self.requests.iter().map(|network| (network.clone(), CLIENTS));
        let ports = Ports::default();
        rules.extend(nodes().map(|(from, who)| rule(ports.peer, from, format!("{OURS}agent for {who}"))));
        rules.extend(clients().map(|(from, who)| rule(ports.agent, from, format!("{OURS}agent for {who}"))));
        for port in self.routers.get(region).into_iter().flatten() {
            let all = nodes().chain(clients());
            rules.extend(all.map(|(from, who)| rule(*port, from, format!("{OURS}router for {who}"))));
        }
        rules
    }
}

fn changes(cluster: &str, regions: &BTreeSet<Region>, need: &Need, existing: &[Ruleset]) -> Vec<Change> {
    let change = |region: &Region| {
        let rules = need.rules(region);
        let name = ruleset_name(cluster, region);
        let Some(ruleset) = existing.iter().find(|it| it.name == name && it.region.name == *region) else {
            return Some(Change::Create(CreateRuleset { name, region: region.clone(), rules }));
        };
        let now = ruleset.rules.clone();
        let differs = difference(&now, &rules).iter().any(|line| !line.starts_with("  "));
        differs.then(|| Change::Replace { id: ruleset.id.clone(), name, now, rules })
    };
    regions.iter().filter_map(change).collect()
}

impl Change {
    fn shown(&self) -> String {
        match self {
            Self::Create(body) => {
                let lines = difference(&[], &body.rules);
                format!("make the ruleset {}, for machines launched from now on:\n{}", body.name, lines.join("\n"))
            }
            Self::Replace { name, now, rules, .. } => {
                format!("change the ruleset {name}:\n{}", difference(now, rules).join("\n"))
            }
        }
    }

    /// What nobody should overlook, even with `--quiet --yes`: SSH that ends, and rules of others that go.
    fn warnings(&self) -> Vec<String> {
        let Self::Replace { name, now, rules, .. } = self else { return Vec::new() };
        let going = now.iter().filter(|rule| !rules.contains(rule));
        let warning = |rule: &FirewallRule| {
            if !rule.description.starts_with(OURS) {
                Some(format!("{name}: the rule {} is not gorgo's, and goes", shown(rule)))
            } else if lets_ssh_in(std::slice::from_ref(rule)) {
                Some(format!("{name}: SSH from {} ends", rule.source_network))
            } else {
                None
            }
        };
        going.filter_map(warning).collect()
    }

    fn made(&self) -> String {
        match self {
            Self::Create(body) => format!("made {}", body.name),
            Self::Replace { name, .. } => format!("changed {name}"),
        }
    }
}

/// A ruleset cannot be attached to a machine that runs.
fn warn_unattached(setup: &Setup, nodes: &[Node], existing: &[Ruleset], context: &Context) {
    for node in nodes.iter().filter(|node| node.is_there()) {
        let Some(instance) = &node.instance else { continue };
        let name = ruleset_name(&setup.fleet.cluster, &instance.region);
        let attached = existing.iter().any(|it| it.name == name && it.instance_ids.contains(&instance.id.0));
        if !attached {
            let why = if instance.region.as_str() == WITHOUT_FIREWALL {
                "has no firewall there"
            } else {
                "was launched without it"
            };
            context.printer.warn(format_args!("{} is not covered by a ruleset of the cluster: it {why}", node.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use std::collections::BTreeMap;

    use super::super::rules::rule;
    use super::{Change, Need, changes, requests_from, routers, ssh_from};
    use crate::cli::nodes::Node;
    use crate::cloud::lambda::wire::{FirewallRule, RegionInfo, Ruleset};
    use crate::cloud::{Instance, InstanceId, Status};
    use crate::cluster::desired::ProxyWish;
    use crate::cluster::inventory::NodeRecord;
    use crate::model::Region;

    /// One node, and SSH from anywhere.
    fn need() -> Need {
        let peers = [("east".to_owned(), [198, 51, 100, 7].into())].into();
        Need { peers, ssh: vec!["0.0.0.0/0".to_owned()], ..Need::default() }
    }

    fn plan(need: &Need, existing: &[Ruleset]) -> String {
        let regions = ["us-east-1", "us-west-1"].map(Region::new).into();
        let changes = changes("lab", &regions, need, existing);
        changes.iter().map(Change::shown).collect::<Vec<_>>().join("\n")
    }

    fn ruleset(name: &str, region: &str, rules: Vec<FirewallRule>) -> Ruleset {
        Ruleset {
            id: name.into(),
            name: name.into(),
            region: RegionInfo { name: Region::new(region), description: String::new() },
            rules,
            created: String::new(),
            instance_ids: Vec::new(),
        }
    }

    #[test]
    fn each_region_gets_what_the_cluster_needs_and_others_are_left_alone() {
        let right = need().rules(&Region::new("us-east-1"));
        let mut odd = right.clone();
        odd[1].source_network = "203.0.113.9/32".into();
        let existing = [ruleset("mine", "us-east-1", vec![]), ruleset("gorgo-lab-us-west-1", "us-west-1", odd)];
        assert_snapshot!(plan(&need(), &existing), @"
        make the ruleset gorgo-lab-us-east-1, for machines launched from now on:
        + tcp:22:0.0.0.0/0:gorgo: ssh
        + tcp:8443:198.51.100.7/32:gorgo: agent for east
        change the ruleset gorgo-lab-us-west-1:
          tcp:22:0.0.0.0/0:gorgo: ssh
        - tcp:8443:203.0.113.9/32:gorgo: agent for east
        + tcp:8443:198.51.100.7/32:gorgo: agent for east
        ");
        let all = ["us-east-1", "us-west-1"].map(|it| ruleset(&format!("gorgo-lab-{it}"), it, right.clone()));
        assert_eq!(plan(&need(), &all), "");
    }

    #[test]
    fn a_router_is_let_in_to_where_it_stands_and_as_long_as_it_does() {
        let with_router = Need { routers: [(Region::new("us-west-1"), [8080].into())].into(), ..need() };
        let before = ["us-east-1", "us-west-1"]
            .map(|region| ruleset(&format!("gorgo-lab-{region}"), region, need().rules(&Region::new(region))));
        assert_snapshot!(plan(&with_router, &before), @"
        change the ruleset gorgo-lab-us-west-1:
          tcp:22:0.0.0.0/0:gorgo: ssh
          tcp:8443:198.51.100.7/32:gorgo: agent for east
        + tcp:8080:198.51.100.7/32:gorgo: router for east
        ");
        let open = Need { requests: vec!["203.0.113.0/24".to_owned()], ..with_router };
        assert_snapshot!(plan(&open, &before), @"
        change the ruleset gorgo-lab-us-east-1:
          tcp:22:0.0.0.0/0:gorgo: ssh
          tcp:8443:198.51.100.7/32:gorgo: agent for east
        + tcp:8000:203.0.113.0/24:gorgo: agent for clients
        change the ruleset gorgo-lab-us-west-1:
          tcp:22:0.0.0.0/0:gorgo: ssh
          tcp:8443:198.51.100.7/32:gorgo: agent for east
        + tcp:8000:203.0.113.0/24:gorgo: agent for clients
        + tcp:8080:198.51.100.7/32:gorgo: router for east
        + tcp:8080:203.0.113.0/24:gorgo: router for clients
        ");
    }

    #[test]
    fn routers_are_those_that_are_deployed_and_listen_beyond_loopback() {
        let node = |name: &str, region: &str, listen: Option<Option<&str>>| {
            let instance = Instance {
                id: InstanceId(name.to_owned()),
                name: Some(name.to_owned()),
                status: Status::Active,
                address: None,
                private_address: None,
                region: Region::new(region),
                instance_type: String::new(),
                price_cents_per_hour: None,
                tags: BTreeMap::new(),
            };
            let proxy = listen.map(|listen| ProxyWish {
                listen: listen.map(|text| text.parse().expect("an address")),
                ..ProxyWish::default()
            });
            let record = NodeRecord { proxy, ..NodeRecord::new(name) };
            Node { name: name.to_owned(), record: Some(record), instance: Some(instance) }
        };
        let nodes = [
            node("east", "us-east-1", Some(None)),
            node("second", "us-east-1", Some(Some("0.0.0.0:9000"))),
            node("inside", "us-west-1", Some(Some("127.0.0.1:8080"))),
            node("none", "us-west-1", None),
            Node { instance: None, ..node("gone", "us-west-2", Some(None)) },
        ];
        assert_eq!(routers(&nodes), [(Region::new("us-east-1"), [8080, 9000].into())].into());
    }

    #[test]
    fn ssh_comes_from_where_it_was_told_even_when_it_is_not_told_again() {
        let rules = |texts: &[&str]| texts.iter().map(|text| rule(text).expect(text)).collect::<Vec<_>>();
        let told = ruleset(
            "gorgo-lab-us-east-1",
            "us-east-1",
            rules(&["tcp:22:198.51.100.7:gorgo: ssh", "tcp:22:0.0.0.0/0:mine"]),
        );
        let foreign = ruleset("gorgo-other-us-east-1", "us-east-1", rules(&["tcp:22:203.0.113.0/24:gorgo: ssh"]));
        let both = [told, foreign];
        let cases: [(&[&str], &[Ruleset], &[&str]); 4] = [
            (&[], &both, &["198.51.100.7/32"]),
            (&["10.0.0.0/8"], &both, &["10.0.0.0/8"]),
            (&[], &both[1..], &["0.0.0.0/0"]),
            (&[], &[], &["0.0.0.0/0"]),
        ];
        for (asked, existing, wanted) in cases {
            assert_eq!(ssh_from(asked.iter().map(|it| (*it).to_owned()).collect(), "lab", existing), wanted);
        }
    }

    #[test]
    fn requests_come_from_where_it_was_told_until_it_is_told_otherwise() {
        let rules = |texts: &[&str]| texts.iter().map(|text| rule(text).expect(text)).collect::<Vec<_>>();
        let told = [ruleset(
            "gorgo-lab-us-east-1",
            "us-east-1",
            rules(&[
                "tcp:8000:203.0.113.0/24:gorgo: agent for clients",
                "tcp:8080:203.0.113.0/24:gorgo: router for clients",
                "tcp:8443:198.51.100.7/32:gorgo: agent for east",
                "tcp:8000:192.0.2.0/24:mine",
            ]),
        )];
        let cases: [(&[&str], &str, &[&str]); 5] = [
            (&[], "lab", &["203.0.113.0/24"]),
            (&[], "other", &[]),
            (&["10.0.0.0/8"], "lab", &["10.0.0.0/8"]),
            (&["none"], "lab", &[]),
            (&["none", "10.0.0.0/8"], "lab", &["10.0.0.0/8"]),
        ];
        for (asked, cluster, wanted) in cases {
            let asked = asked.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(requests_from(asked, cluster, &told), wanted, "{cluster}");
        }
    }

    #[test]
    fn rules_of_others_and_an_end_of_ssh_are_warned_of() {
        let rules = |texts: &[&str]| texts.iter().map(|text| rule(text).expect(text)).collect::<Vec<_>>();
        let now = rules(&[
            "tcp:22:0.0.0.0/0:gorgo: ssh",
            "tcp:443:0.0.0.0/0:web",
            "tcp:8000:198.51.100.9:gorgo: agent for old",
        ]);
        let regions = ["us-east-1"].map(Region::new).into();
        let existing = [ruleset("gorgo-lab-us-east-1", "us-east-1", now)];
        let need = Need { ssh: vec!["198.51.100.7/32".to_owned()], ..Need::default() };
        let changes = changes("lab", &regions, &need, &existing);
        let warnings: Vec<String> = changes.iter().flat_map(Change::warnings).collect();
        assert_snapshot!(warnings.join("\n"), @"
        gorgo-lab-us-east-1: SSH from 0.0.0.0/0 ends
        gorgo-lab-us-east-1: the rule tcp:443:0.0.0.0/0:web is not gorgo's, and goes
        ");
    }
}
