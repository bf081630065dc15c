//! What requests must look like, beyond what their types say: lengths, patterns and the firewall rules.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::Refusal;
use crate::cloud::lambda::wire::{FirewallRule, Mount, Protocol, Tag};

/// Longest name of a machine, a key and a ruleset, characters.
pub(super) const LONGEST_NAME: usize = 64;
const LONGEST_HOSTNAME: usize = 63;
const LONGEST_TAG_KEY: usize = 55;
const LONGEST_TAG_VALUE: usize = 128;
const LONGEST_MOUNT_POINT: usize = 256;
const LONGEST_DESCRIPTION: usize = 128;
const LONGEST_FILESYSTEM_NAME: usize = 60;

type Checked<T = ()> = Result<T, Refusal>;

/// The body as JSON and as what it should be: an object in which no field is null and no list holds lists. (Types made by serde would take a
/// list of values for an object.)
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Checked<(Value, T)> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Refusal::invalid("The body is not JSON."))?;
    let fields = value.as_object().ok_or_else(|| Refusal::invalid("The body is not an object."))?;
    let nested = |field: &Value| field.as_array().is_some_and(|list| list.iter().any(Value::is_array));
    if let Some((name, _)) = fields.iter().find(|(_, field)| field.is_null() || nested(field)) {
        return Err(Refusal::invalid(format!("{name} has the wrong type.")));
    }
    let read = serde_json::from_value(value.clone()).map_err(|error| Refusal::invalid(format!("{error}.")))?;
    Ok((value, read))
}

/// At most so many characters.
pub(super) fn length(what: &str, text: &str, longest: usize) -> Checked {
    wanted(text.chars().count() <= longest, || format!("{what} must have at most {longest} characters."))
}

pub(super) fn wanted(holds: bool, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Refusal::invalid(message())) }
}

pub(super) fn hostname(text: &str) -> Checked {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let fits = !text.is_empty() && text.len() <= LONGEST_HOSTNAME && plain && !text.starts_with('-');
    wanted(fits, || "hostname must match ^[a-z0-9][0-9a-z-]{0,62}$.".to_owned())
}

pub(super) fn tag(tag: &Tag) -> Checked {
    let key = tag.key.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-:".contains(byte);
    let fits = (2..=LONGEST_TAG_KEY).contains(&key.len()) && key[0].is_ascii_lowercase() && key.iter().all(plain);
    wanted(fits, || format!("The tag key {} must match ^[a-z][a-z0-9-:]+$ with at most 55 characters.", tag.key))?;
    length("A tag value", &tag.value, LONGEST_TAG_VALUE)
}

pub(super) fn mount(mount: &Mount) -> Checked {
    let point = &mount.mount_point;
    let rest = ["/home", "/lambda/nfs", "/data"].iter().find_map(|root| point.strip_prefix(root));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-".contains(&byte);
    let fits = rest.is_some_and(|rest| rest.bytes().all(plain)) && point.len() <= LONGEST_MOUNT_POINT;
    wanted(fits, || format!("{point} cannot be a mount point."))
}

pub(super) fn filesystem_name(text: &str) -> Checked {
    let letters_first = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let fits = letters_first && plain && text.len() <= LONGEST_FILESYSTEM_NAME;
    wanted(fits, || "name must match ^[a-zA-Z]+[0-9a-zA-Z-]*$ with at most 60 characters.".to_owned())
}

/// The list of rules at `field`, a bare address written out as `/32`. `None` = the field is absent.
pub(super) fn firewall(body: &Value, field: &str) -> Checked<Option<Vec<FirewallRule>>> {
    let Some(list) = body.get(field) else { return Ok(None) };
    let list = list.as_array().ok_or_else(|| Refusal::invalid(format!("{field} must be a list.")))?;
    list.iter().map(rule).collect::<Checked<Vec<_>>>().map(Some)
}

fn rule(value: &Value) -> Checked<FirewallRule> {
    let mut rule: FirewallRule =
        serde_json::from_value(value.clone()).map_err(|error| Refusal::invalid(format!("{error}.")))?;
    let description = value["description"].as_str();
    wanted(description.is_some(), || "A rule needs a description; it may be empty.".to_owned())?;
    length("description", &rule.description, LONGEST_DESCRIPTION)?;
    let written = value.get("port_range").map(|range| range.as_array().map_or(0, Vec::len));
    match (&rule.protocol, written) {
        (Protocol::Other(word), _) => return Err(Refusal::invalid(format!("{word} is no protocol."))),
        (Protocol::Icmp, None) | (Protocol::Tcp | Protocol::Udp | Protocol::All, Some(2)) => {}
        (Protocol::Icmp, Some(_)) => return Err(Refusal::invalid("port_range is not allowed for icmp.")),
        _ => return Err(Refusal::invalid("port_range must be a list of two ports.")),
    }
    let in_order = rule.port_range.is_none_or(|range| range.low >= 1 && range.low <= range.high);
    wanted(in_order, || "port_range must be [min, max] within 1 and 65535.".to_owned())?;
    rule.source_network = network(&rule.source_network)?;
    Ok(rule)
}

fn network(text: &str) -> Checked<String> {
    let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
    let fits = address.parse::<std::net::Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32);
    wanted(fits, || format!("{text} is no IPv4 network."))?;
    Ok(format!("{address}/{bits}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{firewall, hostname, mount, tag};
    use crate::cloud::lambda::wire::{Mount, Tag};

    #[test]
    fn firewall_rules_follow_the_prose() {
        let rule = |change: &dyn Fn(&mut Value)| {
            let mut rule =
                json!({"protocol": "tcp", "port_range": [22, 22], "source_network": "192.0.2.1", "description": ""});
            change(&mut rule);
            firewall(&json!({"rules": [rule]}), "rules")
                .map(|rules| rules.unwrap().remove(0).source_network)
                .map_err(drop)
        };
        assert_eq!(rule(&|_| ()), Ok("192.0.2.1/32".to_owned()));
        assert_eq!(rule(&|r| r["source_network"] = json!("0.0.0.0/0")), Ok("0.0.0.0/0".to_owned()));
        let icmp = |r: &mut Value| {
            r["protocol"] = json!("icmp");
            r.as_object_mut().unwrap().remove("port_range");
        };
        assert!(rule(&icmp).is_ok());
        let wrong: [&dyn Fn(&mut Value); 10] = [
            &|r| r["protocol"] = json!("icmp"),
            &|r| r["protocol"] = json!("gre"),
            &|r| r["port_range"] = json!([22]),
            &|r| r["port_range"] = json!([0, 22]),
            &|r| r["port_range"] = json!([23, 22]),
            &|r| r["port_range"] = json!([1, 70000]),
            &|r| r["source_network"] = json!("::1"),
            &|r| r["source_network"] = json!("10.0.0.0/33"),
            &|r| r["description"] = json!("x".repeat(129)),
            &|r| drop(r.as_object_mut().unwrap().remove("description")),
        ];
        for (index, change) in wrong.into_iter().enumerate() {
            assert_eq!(rule(change), Err(()), "case {index}");
        }
    }

    #[test]
    fn words_have_their_patterns() {
        let tagged = |key: &str| tag(&Tag { key: key.into(), value: String::new() }).is_ok();
        assert_eq!(
            ["gorgo:run", "g", "g_x", "Gx", "1x", &"g".repeat(56)].map(tagged),
            [true, false, false, false, false, false]
        );
        let mounted = |point: &str| mount(&Mount { mount_point: point.into(), file_system_id: "i".into() }).is_ok();
        assert_eq!(
            ["/data", "/lambda/nfs/a-1", "/home/x", "/mnt/x", "/data/a_b"].map(mounted),
            [true, true, true, false, false]
        );
        assert_eq!(
            ["a", "head-1", "-a", "A", ""].map(|name| hostname(name).is_ok()),
            [true, true, false, false, false]
        );
    }
}
