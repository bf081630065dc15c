//! Firewall rules as people write them, compare them, and must not lock themselves out with.

use std::net::Ipv4Addr;

use crate::cloud::lambda::wire::{FirewallRule, PortRange, Protocol};

/// Port of sshd.
pub(super) const SSH: u16 = 22;
/// Longest description that Lambda takes, characters.
const LONGEST_TEXT: usize = 128;

/// Reads `PROTOCOL:PORTS:SOURCE[:TEXT]`, e.g. `tcp:22:0.0.0.0/0:ssh`, `tcp:8000-8010:10.0.0.0/8` or `icmp::0.0.0.0/0`.
pub(super) fn rule(text: &str) -> Result<FirewallRule, String> {
    let mut parts = text.splitn(4, ':');
    let mut part = || parts.next().map(str::trim);
    let (Some(protocol), Some(ports), Some(source)) = (part(), part(), part()) else {
        return Err("wanted PROTOCOL:PORTS:SOURCE[:TEXT], e.g. tcp:22:0.0.0.0/0:ssh".to_owned());
    };
    let description = part().unwrap_or_default().to_owned();
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "all" => Protocol::All,
        other => return Err(format!("unknown protocol `{other}`, wanted tcp, udp, icmp or all")),
    };
    let port_range = port_range(&protocol, ports)?;
    if description.chars().count() > LONGEST_TEXT {
        return Err(format!("the text has more than {LONGEST_TEXT} characters"));
    }
    Ok(FirewallRule { protocol, port_range, source_network: network(source)?, description })
}

fn port_range(protocol: &Protocol, ports: &str) -> Result<Option<PortRange>, String> {
    if *protocol == Protocol::Icmp {
        return if ports.is_empty() { Ok(None) } else { Err(format!("icmp has no ports, found `{ports}`")) };
    }
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    match (low.parse::<u16>(), high.parse::<u16>()) {
        (Ok(low), Ok(high)) if 0 < low && low <= high => Ok(Some(PortRange { low, high })),
        _ => Err(format!("`{ports}` is no port or range of ports, wanted e.g. 22 or 8000-8010")),
    }
}

/// An IPv4 network; a bare address means that one only.
pub(super) fn network(text: &str) -> Result<String, String> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    match (address.parse::<Ipv4Addr>(), bits.parse::<u8>()) {
        (Ok(address), Ok(bits)) if bits <= 32 => Ok(format!("{address}/{bits}")),
        _ => Err(format!("`{text}` is no IPv4 network, wanted e.g. 0.0.0.0/0 or 198.51.100.7/32")),
    }
}

/// Stands for "from nowhere" where networks are asked for.
pub(super) const NOWHERE: &str = "none";

/// A network as [`network`] reads it, or [`NOWHERE`].
pub(super) fn network_or_none(text: &str) -> Result<String, String> {
    if text == NOWHERE { Ok(text.to_owned()) } else { network(text).map_err(|error| format!("{error}, or {NOWHERE}")) }
}

/// Where the rules with this text that `counts` let something in from, each once, in their order.
pub(super) fn sources<'a>(
    rules: impl IntoIterator<Item = &'a FirewallRule>,
    text: &str,
    counts: impl Fn(&FirewallRule) -> bool,
) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for rule in rules.into_iter().filter(|rule| rule.description == text && counts(rule)) {
        if !sources.contains(&rule.source_network) {
            sources.push(rule.source_network.clone());
        }
    }
    sources
}

/// A rule on one line, as [`rule`] reads it.
pub(super) fn shown(rule: &FirewallRule) -> String {
    let ports = rule.port_range.map_or_else(String::new, |range| range.to_string());
    let text = if rule.description.is_empty() { String::new() } else { format!(":{}", rule.description) };
    format!("{}:{ports}:{}{text}", rule.protocol, rule.source_network)
}

/// What would change: `- rule` for each that goes, `+ rule` for each that comes, `  rule` for those that stay.
pub(super) fn difference(now: &[FirewallRule], then: &[FirewallRule]) -> Vec<String> {
    let stays = |rule: &&FirewallRule| then.contains(rule);
    let mut lines: Vec<String> = now.iter().filter(stays).map(|rule| format!("  {}", shown(rule))).collect();
    lines.extend(now.iter().filter(|rule| !stays(rule)).map(|rule| format!("- {}", shown(rule))));
    lines.extend(then.iter().filter(|rule| !now.contains(rule)).map(|rule| format!("+ {}", shown(rule))));
    lines
}

/// Somebody somewhere can reach sshd.
pub(super) fn lets_ssh_in(rules: &[FirewallRule]) -> bool {
    rules.iter().any(|rule| {
        let any_port = rule.protocol == Protocol::All && rule.port_range.is_none();
        let protocol = matches!(rule.protocol, Protocol::Tcp | Protocol::All);
        let port = rule.port_range.is_some_and(|range| (range.low..=range.high).contains(&SSH));
        any_port || (protocol && port)
    })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::{prop_assert_eq, proptest};

    use super::{difference, lets_ssh_in, rule, shown};
    use crate::cloud::lambda::wire::FirewallRule;

    fn rules(texts: &[&str]) -> Vec<FirewallRule> {
        texts.iter().map(|text| rule(text).expect(text)).collect()
    }

    #[test]
    fn rules_are_read_and_written_alike() {
        let cases = [
            ("tcp:22:0.0.0.0/0:ssh", Ok("tcp:22:0.0.0.0/0:ssh")),
            ("udp:8000-8010:10.0.0.0/8", Ok("udp:8000-8010:10.0.0.0/8")),
            ("icmp::198.51.100.7:ping: all of it", Ok("icmp::198.51.100.7/32:ping: all of it")),
            ("all:1-65535:0.0.0.0/0", Ok("all:1-65535:0.0.0.0/0")),
            ("tcp:22", Err("wanted PROTOCOL:PORTS:SOURCE")),
            ("tpc:22:0.0.0.0/0", Err("unknown protocol `tpc`")),
            ("tcp::0.0.0.0/0", Err("`` is no port")),
            ("tcp:0:0.0.0.0/0", Err("`0` is no port")),
            ("tcp:9-8:0.0.0.0/0", Err("`9-8` is no port")),
            ("tcp:70000:0.0.0.0/0", Err("`70000` is no port")),
            ("icmp:1:0.0.0.0/0", Err("icmp has no ports")),
            ("tcp:22:0.0.0.0/33", Err("no IPv4 network")),
            ("tcp:22:fd00::1", Err("no IPv4 network")),
            ("tcp:22:everywhere", Err("no IPv4 network")),
        ];
        for (text, expected) in cases {
            match (rule(text), expected) {
                (Ok(rule), Ok(written)) => assert_eq!(shown(&rule), written),
                (Err(error), Err(reason)) => assert!(error.contains(reason), "{text}: {error}"),
                (found, expected) => panic!("{text}: found {found:?}, wanted {expected:?}"),
            }
        }
    }

    #[test]
    fn a_difference_shows_what_stays_goes_and_comes() {
        let now = rules(&["tcp:22:0.0.0.0/0", "tcp:80:0.0.0.0/0:web", "icmp::0.0.0.0/0"]);
        let then = rules(&["icmp::0.0.0.0/0", "tcp:22:198.51.100.7"]);
        assert_snapshot!(difference(&now, &then).join("\n"), @"
          icmp::0.0.0.0/0
        - tcp:22:0.0.0.0/0
        - tcp:80:0.0.0.0/0:web
        + tcp:22:198.51.100.7/32
        ");
        assert!(difference(&[], &[]).is_empty());
    }

    #[test]
    fn it_is_known_which_rules_let_ssh_in() {
        let cases = [
            ("tcp:22:198.51.100.7", true),
            ("tcp:1-1024:0.0.0.0/0", true),
            ("all:1-65535:0.0.0.0/0", true),
            ("udp:22:0.0.0.0/0", false),
            ("tcp:23-80:0.0.0.0/0", false),
            ("icmp::0.0.0.0/0", false),
        ];
        for (text, expected) in cases {
            assert_eq!(lets_ssh_in(&rules(&[text])), expected, "{text}");
        }
        assert!(!lets_ssh_in(&[]));
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_read_again(text in "(tcp|udp|icmp|all|x):[0-9]{0,5}(-[0-9]{1,5})?:[0-9]{1,3}\\.[0-9]{1,3}\\.0\\.1(/[0-9]{1,2})?(:[a-z: ]{0,9})?") {
            if let Ok(read) = rule(&text) {
                prop_assert_eq!(rule(&shown(&read)), Ok(read));
            }
        }
    }
}
