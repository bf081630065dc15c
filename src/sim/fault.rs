//! What goes wrong and when: a schedule of faults for a simulated fleet.
//!
//! Written as `KIND:TARGET@FROM..TO`, times in seconds from the start of the run:
//!
//! | fault | what happens |
//! |---|---|
//! | `down:NAME@60..120` | the engine's process dies; it comes back with an empty cache. Without an end (`60..`) it stays away |
//! | `restart:NAME@60` | the same with the new process there at once |
//! | `hang:NAME@60..80` | the engine stands still and answers nothing, then goes on as if nothing had been |
//! | `slow:NAME@60..300x3` | every step takes three times as long |
//! | `slow:*@0..x1.3` | the same with every replica, as `*` always means |
//! | `rtt:A/B@60..90x3` | delays between two regions (or between `A` and all others) are three times as long |
//! | `cut:A/B@60..90` | nothing gets through between two regions (or between `A` and all others); TCP delivers it afterwards |
//! | `cut:A>B@60..90` | the same from `A` to `B` only; what `B` sends comes until its TCP stops for want of acknowledgements |

use std::fmt;
use std::str::FromStr;

use crate::workload::Fleet;

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub trouble: Trouble,
    /// From when on, ms from the start of the run.
    pub from_ms: f64,
    /// Until when, ms; infinite for good.
    pub to_ms: f64,
}

/// Stands for every replica.
const EVERY: &str = "*";

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// This replica's process is not there; when it comes back it knows nothing.
    Down(String),
    /// This replica stands still.
    Hang(String),
    /// This replica's steps take so many times as long.
    Slow(String, f64),
    /// Delays between these ends are so many times as long.
    Rtt(Ends, f64),
    /// Nothing gets through between these ends.
    Cut(Ends),
}

/// Which links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Between this region and every other.
    Around(String),
    /// Between these two regions.
    Between(String, String),
    /// From the first of these regions to the second.
    Towards(String, String),
}

impl Ends {
    /// Does a link between these regions belong to them? Links inside a region never do.
    #[must_use]
    pub fn meet(&self, a: &str, b: &str) -> bool {
        a != b
            && match self {
                Self::Around(region) => region == a || region == b,
                Self::Between(one, other) | Self::Towards(one, other) => {
                    (one == a && other == b) || (one == b && other == a)
                }
            }
    }

    /// Does what goes from `a` to `b` belong to them itself, and not only the answers to what does?
    #[must_use]
    pub fn lead(&self, a: &str, b: &str) -> bool {
        self.meet(a, b) && !matches!(self, Self::Towards(from, _) if from != a)
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Around(region) => f.write_str(region),
            Self::Between(a, b) => write!(f, "{a}/{b}"),
            Self::Towards(a, b) => write!(f, "{a}>{b}"),
        }
    }
}

/// A fault that cannot be read or does not fit the fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

impl Trouble {
    /// Whether it befalls this replica.
    #[must_use]
    pub fn befalls(&self, replica: &str) -> bool {
        match self {
            Self::Down(name) | Self::Hang(name) | Self::Slow(name, _) => name == EVERY || name == replica,
            Self::Rtt(..) | Self::Cut(_) => false,
        }
    }
}

impl Fault {
    /// Whether the fleet has what the fault names.
    ///
    /// # Errors
    /// The unknown name, with those there are.
    pub fn check(&self, fleet: &Fleet) -> Result<(), FaultError> {
        let known = |what: &str, name: &str, mut names: Vec<&str>| {
            if names.contains(&name) {
                return Ok(());
            }
            names.sort_unstable();
            names.dedup();
            Err(FaultError(format!("`{self}`: no {what} `{name}` in the fleet; there is {}", names.join(", "))))
        };
        let regions = || {
            let routers = fleet.routers.iter().map(|router| router.region.as_str());
            routers.chain(fleet.replicas.iter().map(|replica| replica.region.as_str())).collect::<Vec<_>>()
        };
        match &self.trouble {
            Trouble::Down(name) | Trouble::Hang(name) | Trouble::Slow(name, _) if name == EVERY => Ok(()),
            Trouble::Down(name) | Trouble::Hang(name) | Trouble::Slow(name, _) => {
                known("replica", name, fleet.replicas.iter().map(|replica| replica.name.as_str()).collect())
            }
            Trouble::Rtt(ends, _) | Trouble::Cut(ends) => match ends {
                Ends::Around(region) => known("region", region, regions()),
                Ends::Between(a, b) | Ends::Towards(a, b) => {
                    known("region", a, regions()).and_then(|()| known("region", b, regions()))
                }
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from_ms / 1000.0;
        match &self.trouble {
            Trouble::Down(name) if self.to_ms <= self.from_ms => return write!(f, "restart:{name}@{from}"),
            Trouble::Down(name) => write!(f, "down:{name}@{from}..")?,
            Trouble::Hang(name) => write!(f, "hang:{name}@{from}..")?,
            Trouble::Slow(name, _) => write!(f, "slow:{name}@{from}..")?,
            Trouble::Rtt(ends, _) => write!(f, "rtt:{ends}@{from}..")?,
            Trouble::Cut(ends) => write!(f, "cut:{ends}@{from}..")?,
        }
        if self.to_ms.is_finite() {
            write!(f, "{}", self.to_ms / 1000.0)?;
        }
        match self.trouble {
            Trouble::Slow(_, factor) | Trouble::Rtt(_, factor) => write!(f, "x{factor}"),
            Trouble::Down(_) | Trouble::Hang(_) | Trouble::Cut(_) => Ok(()),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).ok_or_else(|| {
            FaultError(format!(
                "found `{text}`; wanted KIND:TARGET@FROM..TO in seconds, such as `down:NAME@60..120`, `restart:NAME@60`, \
                 `hang:NAME@60..80`, `slow:NAME@60..300x3`, `rtt:REGION/REGION@60..90x3`, `cut:REGION@60..90` or \
                 `cut:REGION>REGION@60..90`"
            ))
        })
    }
}

fn read(text: &str) -> Option<Fault> {
    let (kind, rest) = text.split_once(':')?;
    let (target, when) = rest.rsplit_once('@').filter(|(target, _)| !target.is_empty())?;
    let ends = || ends(target);
    if kind == "restart" {
        let from_ms = seconds(when)?;
        return Some(Fault { trouble: Trouble::Down(target.to_owned()), from_ms, to_ms: from_ms });
    }
    let (when, factor) = match when.split_once('x') {
        Some((when, factor)) => (when, Some(factor.parse().ok().filter(|x: &f64| (0.01..=1e4).contains(x))?)),
        None => (when, None),
    };
    let (from, to) = when.split_once("..")?;
    let from_ms = seconds(from)?;
    let to_ms = if to.is_empty() { f64::INFINITY } else { seconds(to)? };
    let name = target.to_owned();
    let trouble = match (kind, factor) {
        ("down", None) => Trouble::Down(name),
        // Who never moves again is down.
        ("hang", None) if to_ms.is_finite() => Trouble::Hang(name),
        ("slow", Some(factor)) => Trouble::Slow(name, factor),
        // A round trip has no direction.
        ("rtt", Some(factor)) => Trouble::Rtt(ends().filter(|ends| !matches!(ends, Ends::Towards(..)))?, factor),
        ("cut", None) => Trouble::Cut(ends()?),
        _ => return None,
    };
    (from_ms < to_ms).then_some(Fault { trouble, from_ms, to_ms })
}

fn ends(text: &str) -> Option<Ends> {
    let apart = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    match (text.split_once('/'), text.split_once('>')) {
        (None, None) => Some(Ends::Around(text.to_owned())),
        (Some((a, b)), None) if apart(a, b) => Some(Ends::Between(a.to_owned(), b.to_owned())),
        (None, Some((a, b))) if apart(a, b) => Some(Ends::Towards(a.to_owned(), b.to_owned())),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s)).map(|s| s * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::{Ends, Fault};
    use crate::sim::fleet::spec_of;
    use crate::workload::fleet::FleetFile;

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "down:us-east@60..120",
            "down:us-east@60..",
            "restart:a@0.5",
            "hang:a@1..2",
            "slow:a@1..2x3",
            "slow:*@0..x1.3",
            "rtt:a/b@1..2x0.5",
            "rtt:a@1..x3",
            "cut:a/b@1..2",
            "cut:a>b@1..2",
            "cut:a@1..",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "down",
            "down:a",
            "down:@1..2",
            "down:a@2..1",
            "down:a@1..1",
            "down:a@1..2x3",
            "hang:a@1..",
            "slow:a@1..2",
            "slow:a@1..2x0",
            "slow:a@1..2xnan",
            "rtt:a/@1..2x3",
            "cut:a/a@1..2",
            "cut:a>a@1..2",
            "cut:a>@1..2",
            "cut:a/b>c@1..2",
            "rtt:a>b@1..2x3",
            "cut:a@-1..2",
            "restart:a@1..2",
            "fire:a@1..2",
        ] {
            let error = bad.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("KIND:TARGET"), "{error}");
        }
    }

    #[test]
    fn links_inside_a_region_are_never_met() {
        let around = Ends::Around("a".into());
        let between = Ends::Between("a".into(), "b".into());
        let cases =
            [("a", "a", false, false), ("a", "b", true, true), ("b", "a", true, true), ("b", "c", false, false)];
        for (one, other, all, pair) in cases {
            assert_eq!((around.meet(one, other), between.meet(one, other)), (all, pair), "{one} {other}");
        }
        assert!(around.meet("c", "a") && !between.meet("c", "a"));
        let towards = Ends::Towards("a".into(), "b".into());
        assert!(towards.meet("a", "b") && towards.meet("b", "a") && !towards.meet("a", "c"));
        assert!(towards.lead("a", "b") && !towards.lead("b", "a") && !towards.lead("a", "c"));
        assert!(between.lead("b", "a") && around.lead("c", "a"));
    }

    #[test]
    fn names_that_the_fleet_does_not_have_are_told() {
        let text = r#"
            router = [{ region = "us-east-1" }]
            [[replica]]
            name = "far"
            region = "europe-central-1"
            gpu = "a100-80"
            model = "mistral-7b"
        "#;
        let file = FleetFile::parse("f", text).unwrap();
        let fleet = file.resolve(None, &|gpu, model| spec_of(gpu, model).map(drop).map_err(|e| e.to_string())).unwrap();
        let check = |text: &str| text.parse::<Fault>().unwrap().check(&fleet).map_err(|error| error.to_string());
        assert_eq!(check("down:far@1..2"), Ok(()));
        assert_eq!(check("slow:*@0..x1.3"), Ok(()));
        assert_eq!(check("cut:us-east-1/europe-central-1@1..2"), Ok(()));
        assert_eq!(
            check("hang:near@1..2"),
            Err("`hang:near@1..2`: no replica `near` in the fleet; there is far".to_owned())
        );
        assert_eq!(
            check("cut:mars@1..2"),
            Err("`cut:mars@1..2`: no region `mars` in the fleet; there is europe-central-1, us-east-1".to_owned())
        );
    }
}
