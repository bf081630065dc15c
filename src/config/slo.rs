//! `[slo]`: what is promised to requests, by class of service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::resolve::Resolver;
use crate::routing::admission::{predicting, predicts};
use crate::routing::policy::registry;
use crate::routing::{Class, Late, Slo};

/// Longest name of a class, bytes.
const MAX_NAME: usize = 64;

/// `[slo]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct SloSection {
    pub ttft_ms: Option<u64>,
    pub itl_ms: Option<u64>,
    pub late: Option<String>,
    pub class: BTreeMap<String, ClassEntry>,
}

/// `[slo.class.NAME]`; the meaning of each key stands in [`super::keys::SECTIONS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the table of keys documents each; a test keeps the two equal")]
pub struct ClassEntry {
    pub ttft_ms: Option<u64>,
    pub weight: Option<f64>,
    pub late: Option<String>,
}

/// `--slo`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SloFlags {
    /// `ttft=…`, ms.
    pub ttft_ms: Option<u64>,
    /// `itl=…`, ms.
    pub itl_ms: Option<u64>,
}

impl Resolver<'_> {
    /// What applies, and whether the strategy is one that can tell who will be late.
    pub(super) fn slo(&mut self, flags: &SloFlags, strategy: &str) -> Slo {
        let section = self.document.file.slo.clone();
        let ttft_ms = self.pick("slo.ttft_ms", flags.ttft_ms, section.ttft_ms);
        let itl_ms = self.pick("slo.itl_ms", flags.itl_ms, section.itl_ms);
        let late = self.pick("slo.late", None, section.late);
        let late = late.as_deref().and_then(Late::parse).unwrap_or_default();
        let default = Class { ttft_ms: ttft_ms.map(|ms| ms as f64), weight: 1.0, late };
        let classes = section.class.into_iter().map(|(name, entry)| {
            let class = self.class(&name, entry, &default);
            (name, class)
        });
        let classes = classes.collect();
        let slo = Slo { default, classes, itl_ms: itl_ms.map(|ms| ms as f64) };
        let predicts = registry::find(strategy).map_or(true, predicts);
        if slo.has_limits() && !predicts {
            let names = predicting().collect::<Vec<_>>().join(", ");
            let message =
                format!("strategy `{strategy}` predicts no times, so nobody could be told late; wanted one of {names}");
            let path = if ttft_ms.is_some() { "slo.ttft_ms" } else { "slo" };
            self.wrong(path, "--slo", &message);
        }
        slo
    }

    fn class(&mut self, name: &str, entry: ClassEntry, default: &Class) -> Class {
        let path = |key: &str| format!("slo.class.{name}.{key}");
        let ttft_ms = self.pick_given(&path("ttft_ms"), entry.ttft_ms).map(|ms| ms as f64);
        let weight = self.pick_given(&path("weight"), entry.weight);
        let late = self.pick_given(&path("late"), entry.late);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            let path = format!("slo.class.{name}");
            let line = self.document.lines.get(&path).copied();
            let message = "is no name of a class; wanted up to 64 letters, digits, `-`, `_` and `.`";
            self.problems.push(Problem::new(path, message).at(line));
        }
        Class {
            ttft_ms: ttft_ms.or(default.ttft_ms),
            weight: weight.unwrap_or(1.0),
            late: late.as_deref().and_then(Late::parse).unwrap_or(default.late),
        }
    }

    /// Notes a value of the file, if it is there.
    fn pick_given<T: Serialize>(&mut self, path: &str, value: Option<T>) -> Option<T> {
        value.and_then(|value| self.pick(path, None, Some(value)))
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::SloFlags;
    use crate::config::{Flags, read, resolve};
    use crate::routing::{Class, Late, Slo};

    fn slo(text: &str, flags: Flags) -> (Slo, String) {
        let (document, mut problems) = read(text);
        let (resolved, more) = resolve(&document, &flags);
        problems.extend(more);
        (resolved.proxy.slo, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn classes_take_what_they_do_not_say_from_the_section() {
        let text = "[slo]\nttft_ms = 10000\nitl_ms = 50\n[slo.class.batch]\nlate = \"defer\"\nttft_ms = 60000\n\
                    [slo.class.gold]\nweight = 3\n";
        let (found, problems) = slo(text, Flags::default());
        assert_eq!(problems, "");
        let default = Class { ttft_ms: Some(10_000.0), weight: 1.0, late: Late::Refuse };
        assert_eq!(found.default, default);
        assert_eq!(found.itl_ms, Some(50.0));
        let batch = Class { ttft_ms: Some(60_000.0), late: Late::Defer, ..default };
        let gold = Class { weight: 3.0, ..default };
        assert_eq!(found.classes.into_iter().collect::<Vec<_>>(), [("batch".into(), batch), ("gold".into(), gold)]);
        let flags = Flags { slo: SloFlags { ttft_ms: Some(500), itl_ms: None }, ..Flags::default() };
        assert_eq!(slo(text, flags).0.default.ttft_ms, Some(500.0), "a flag goes before the file");
        assert_eq!(slo("", Flags::default()), (Slo::default(), String::new()), "off by default");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let text = "[slo]\nttft_ms = 0\nlate = \"drop\"\ncolour = 1\n[slo.class.\"a b\"]\nttft_ms = 5\n\
                    [slo.class.x]\nweight = 0\nitl_ms = 5\n[slo.class]\ny = 3\n";
        assert_snapshot!(slo(text, Flags::default()).1, @r"
        line 2: slo.ttft_ms: 0 is out of range, wanted a whole number from 1 to 86400000
        line 3: slo.late: unknown value `drop`, wanted one of refuse, defer
        line 4: slo.colour: unknown key; known here: ttft_ms, itl_ms, late, class
        line 8: slo.class.x.weight: out of range, wanted a number from 0.001 to 1000
        line 9: slo.class.x.itl_ms: unknown key; known here: ttft_ms, weight, late
        line 11: slo.class.y: wanted a table, found a whole number
        line 5: slo.class.a b: is no name of a class; wanted up to 64 letters, digits, `-`, `_` and `.`
        ");
        let plain = |strategy: &str| Flags { strategy: Some(strategy.to_owned()), ..Flags::default() };
        assert_snapshot!(slo("[slo]\nttft_ms = 5000\n", plain("least-load")).1, @"line 2: slo.ttft_ms: strategy `least-load` predicts no times, so nobody could be told late; wanted one of predictive, gorgo, gorgo-score, gorgo-v1, gorgo-proxy");
        assert_snapshot!(slo("[slo.class.x]\nttft_ms = 5000\n", plain("random")).1, @"slo: strategy `random` predicts no times, so nobody could be told late; wanted one of predictive, gorgo, gorgo-score, gorgo-v1, gorgo-proxy");
        assert_eq!(slo("[slo]\nitl_ms = 50\n", plain("random")).1, "", "counting needs no prediction");
        assert_eq!(slo("[slo]\nttft_ms = 5000\n", plain("gorgo")).1, "");
    }
}
