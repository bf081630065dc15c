//! Which process of a cluster needs which certificate, and when it needs a new one. Pure; `authority` makes them.
//!
//! A certificate lives for 90 days and is renewed by `cluster setup` once a third of that is left, so that a cluster that is looked after
//! once a month never stands without. Its life begins an hour early: a node whose clock is behind by less takes it at once. Nothing else
//! is done about clocks; those that differ by more than half a minute are refused before a node is set up.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::desired::{Desired, NodeSpec};
use super::layout::Role;
use crate::model::{Identity, Part, date};

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;
/// A certificate's life: as long as that of the public CA that most are used to.
pub const LIFE_S: u64 = 90 * DAY_S;
/// What is left when it is renewed.
pub const RENEW_LEFT_S: u64 = LIFE_S / 3;
/// How long before its making it is valid already.
pub const EARLY_S: u64 = HOUR_S;

/// What the operator's machine knows of the cluster's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Seconds since 1970.
    pub now: u64,
    /// Checksum of the CA's certificate; `None` = there is no CA yet.
    pub authority: Option<String>,
    /// What was issued last, by identity.
    pub issued: BTreeMap<String, Issued>,
    /// What is worth nothing any more, by serial number.
    pub revoked: BTreeMap<String, Revoked>,
}

/// A certificate that is worth nothing although its life goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Whose it is.
    pub identity: String,
    /// When that was said, in seconds since 1970.
    pub at: u64,
    /// Last second of its life, since 1970; nobody has to know of it afterwards.
    pub not_after: u64,
    /// Checksum of the CA's certificate.
    pub authority: String,
}

impl Revoked {
    /// Has anybody to know of it? Not once its life is over, nor under another CA.
    #[must_use]
    pub fn counts(&self, now: u64, authority: Option<&str>) -> bool {
        self.not_after >= now && authority == Some(&self.authority)
    }
}

/// A certificate that was made. Its key is on its node only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// The addresses that it names.
    pub addresses: BTreeSet<IpAddr>,
    /// Last second of its life, since 1970.
    pub not_after: u64,
    /// Checksum of the CA's certificate.
    pub authority: String,
    /// Checksum of the file with key, certificate and CA.
    pub sha256: String,
    /// Its serial number, hexadecimal; empty = nobody noted it.
    #[serde(default)]
    pub serial: String,
    /// The serial numbers that the list in the file has.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub told: BTreeSet<String>,
    /// Last seconds of those before it, from the same CA, whose life went on when it was made; by serial number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub earlier: BTreeMap<String, u64>,
}

impl Issued {
    /// Last seconds of all certificates of this process that somebody would still take, revoked or not, by serial number: this one and
    /// those before it. A copy of one of those may be what was stolen.
    #[must_use]
    pub fn living(&self, now: u64, authority: Option<&str>) -> BTreeMap<String, u64> {
        if authority != Some(&self.authority) {
            return BTreeMap::new();
        }
        let mut all = self.earlier.clone();
        let end = all.entry(self.serial.clone()).or_default();
        *end = self.not_after.max(*end);
        all.retain(|_, not_after| *not_after >= now);
        all
    }
}

/// A certificate to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who is to show it.
    pub identity: Identity,
    /// The addresses from which it may be shown.
    pub addresses: BTreeSet<IpAddr>,
    /// First second of its life, since 1970.
    pub not_before: u64,
    /// Last second of its life, since 1970.
    pub not_after: u64,
}

/// Why a new one is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The node has none, or one that nobody here knows.
    Missing,
    /// It is from another CA.
    OtherAuthority,
    /// It names other addresses than the node has.
    OtherAddresses,
    /// It has been revoked.
    Revoked,
    /// Others have been revoked that the list in its file does not have.
    OthersRevoked,
    /// A third of its life is left, or less.
    Ending {
        /// Last second of its life, since 1970.
        not_after: u64,
    },
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it has none"),
            Self::OtherAuthority => f.write_str("the one of before is from another CA"),
            Self::OtherAddresses => f.write_str("its addresses have changed"),
            Self::Revoked => f.write_str("the one of before has been revoked"),
            Self::OthersRevoked => f.write_str("others have been revoked"),
            Self::Ending { not_after } => write!(f, "the one of before ends on {}", date::day(*not_after)),
        }
    }
}

/// The file with key, certificate and CA of a service; the engine has none.
#[must_use]
pub fn file(role: Role) -> Option<String> {
    part(role).map(|part| format!("{}/{}.pem", super::layout::CONFIGURATION, part.name()))
}

const fn part(role: Role) -> Option<Part> {
    match role {
        Role::Engine => None,
        Role::Agent => Some(Part::Agent),
        Role::Proxy => Some(Part::Proxy),
    }
}

/// What a service of a node needs now, and why. `installed`: checksum of the file that is there.
///
/// `None` also for a name that cannot stand in a certificate, which the checks of the configuration have seen to.
#[must_use]
pub fn needed(desired: &Desired, node: &NodeSpec, role: Role, installed: Option<&str>) -> Option<(Request, Need)> {
    let identity = Identity::new(&desired.cluster, part(role)?, &node.name).ok()?;
    let known = &desired.certificates;
    let mut addresses: BTreeSet<IpAddr> = node.addresses.iter().map(IpAddr::to_canonical).collect();
    // A central router reaches the agent beside it over loopback; nobody else's agent can be reached that way.
    if role == Role::Proxy {
        addresses.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    }
    let need = need(known, known.issued.get(&identity.to_string()), &addresses, installed)?;
    let request =
        Request { identity, addresses, not_before: known.now.saturating_sub(EARLY_S), not_after: known.now + LIFE_S };
    Some((request, need))
}

fn need(
    known: &Certificates,
    issued: Option<&Issued>,
    addresses: &BTreeSet<IpAddr>,
    installed: Option<&str>,
) -> Option<Need> {
    let Some(issued) = issued.filter(|issued| installed == Some(&issued.sha256)) else { return Some(Need::Missing) };
    if known.authority.as_ref() != Some(&issued.authority) {
        return Some(Need::OtherAuthority);
    }
    if known.revoked.contains_key(&issued.serial) {
        return Some(Need::Revoked);
    }
    if issued.addresses != *addresses {
        return Some(Need::OtherAddresses);
    }
    if known.revoked.keys().any(|serial| !issued.told.contains(serial)) {
        return Some(Need::OthersRevoked);
    }
    let ending = issued.not_after.saturating_sub(known.now) <= RENEW_LEFT_S;
    ending.then_some(Need::Ending { not_after: issued.not_after })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use super::{Certificates, DAY_S, Issued, LIFE_S, Need, Revoked, file, needed};
    use crate::cluster::desired::Desired;
    use crate::cluster::layout::Role;
    use crate::cluster::testing::{desired, emulator, node};

    const NOW: u64 = 1_800_000_000;

    fn cluster() -> Desired {
        let mut desired = desired(vec![node(1, "us-east-1", emulator())]);
        let issued = Issued {
            addresses: [IpAddr::from([10, 0, 0, 1])].into(),
            not_after: NOW + LIFE_S,
            authority: "ca".into(),
            sha256: "file".into(),
            serial: "01".into(),
            told: ["99".to_owned()].into(),
            earlier: BTreeMap::new(),
        };
        let issued = [("gorgo://lab/agent/node1".to_owned(), issued)].into();
        desired.certificates = Certificates { now: NOW, authority: Some("ca".into()), issued, revoked: revoked("99") };
        desired
    }

    fn revoked(serial: &str) -> BTreeMap<String, Revoked> {
        let identity = "gorgo://lab/agent/node9".to_owned();
        let entry = Revoked { identity, at: NOW, not_after: NOW + DAY_S, authority: "ca".into() };
        [(serial.to_owned(), entry)].into()
    }

    fn why(desired: &Desired, installed: Option<&str>) -> Option<Need> {
        needed(desired, &desired.nodes[0], Role::Agent, installed).map(|(_, need)| need)
    }

    #[test]
    fn a_certificate_that_is_right_is_left_alone() {
        assert_eq!(why(&cluster(), Some("file")), None);
    }

    #[test]
    fn each_reason_for_a_new_one() {
        assert_eq!(why(&cluster(), None), Some(Need::Missing));
        assert_eq!(why(&cluster(), Some("another file")), Some(Need::Missing));
        let mut other = cluster();
        other.certificates.authority = Some("another CA".into());
        assert_eq!(why(&other, Some("file")), Some(Need::OtherAuthority));
        let mut lost = cluster();
        lost.certificates.authority = None;
        assert_eq!(why(&lost, Some("file")), Some(Need::OtherAuthority));
        let mut moved = cluster();
        moved.nodes[0].addresses.push([198, 51, 100, 7].into());
        assert_eq!(why(&moved, Some("file")), Some(Need::OtherAddresses));
        let mut gone = cluster();
        gone.certificates.revoked = revoked("01");
        assert_eq!(why(&gone, Some("file")), Some(Need::Revoked));
        let mut others = cluster();
        others.certificates.revoked.extend(revoked("02"));
        assert_eq!(why(&others, Some("file")), Some(Need::OthersRevoked));
        let mut past = cluster();
        past.certificates.revoked.clear();
        assert_eq!(why(&past, Some("file")), None, "a list that has more than it has to");
        for (days, needed) in [(0, false), (59, false), (60, true), (90, true), (400, true)] {
            let mut later = cluster();
            later.certificates.now += days * DAY_S;
            assert_eq!(why(&later, Some("file")), needed.then_some(Need::Ending { not_after: NOW + LIFE_S }), "{days}");
        }
    }

    #[test]
    fn those_before_it_are_known_until_their_life_is_over() {
        let mut issued = cluster().certificates.issued.into_values().next().unwrap();
        issued.earlier = [("02".to_owned(), NOW + DAY_S), (String::new(), NOW - 1)].into();
        let known = |issued: &Issued, now, authority| issued.living(now, authority).into_keys().collect::<Vec<_>>();
        assert_eq!(known(&issued, NOW, Some("ca")), ["01", "02"]);
        assert_eq!(known(&issued, NOW + DAY_S, Some("ca")), ["01", "02"], "their last second");
        assert_eq!(known(&issued, NOW + DAY_S + 1, Some("ca")), ["01"]);
        assert_eq!(known(&issued, NOW + LIFE_S + 1, Some("ca")), [""; 0]);
        assert_eq!(known(&issued, NOW, Some("another CA")), [""; 0]);
        assert_eq!(known(&issued, NOW, None), [""; 0]);
        issued.serial.clear();
        assert_eq!(issued.living(NOW, Some("ca"))[""], NOW + LIFE_S, "the last of those that nobody noted");
    }

    #[test]
    fn what_is_asked_for_names_node_addresses_and_life() {
        let mut desired = cluster();
        desired.nodes[0].addresses.push("::ffff:198.51.100.7".parse().unwrap());
        let (request, _) = needed(&desired, &desired.nodes[0], Role::Agent, None).unwrap();
        assert_eq!(request.identity.to_string(), "gorgo://lab/agent/node1");
        assert_eq!(request.addresses, [[10, 0, 0, 1], [198, 51, 100, 7]].map(IpAddr::from).into());
        assert_eq!((request.not_before, request.not_after), (NOW - 3_600, NOW + 90 * 86_400));
        let (request, _) = needed(&desired, &desired.nodes[0], Role::Proxy, None).unwrap();
        assert_eq!(request.identity.to_string(), "gorgo://lab/proxy/node1");
        assert!(request.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "the agent beside it");
        assert_eq!(needed(&desired, &desired.nodes[0], Role::Engine, None), None);
        assert_eq!(file(Role::Agent).as_deref(), Some("/etc/gorgo/agent.pem"));
    }
}
