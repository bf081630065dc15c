//! `KEY=VALUE` as `--set` takes it.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::anyhow;

use super::exit::Failure;

/// A weight or rate and its value. Which keys exist is for the strategy to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    /// The key, e.g. `w_rtt`.
    pub(crate) key: String,
    /// A finite number.
    pub(crate) value: f64,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("wanted KEY=VALUE, e.g. w_queue=0.1")?;
        if key.is_empty() {
            return Err("the key before `=` is empty; wanted e.g. w_queue=0.1".to_owned());
        }
        match value.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Self { key: key.to_owned(), value: number }),
            _ => Err(format!("`{value}` is not a number")),
        }
    }
}

/// The assignments by key. A key given twice is an error: nobody can tell which one was meant.
pub(crate) fn by_key(assignments: &[Assignment]) -> Result<BTreeMap<String, f64>, Failure> {
    let mut map = BTreeMap::new();
    for Assignment { key, value } in assignments {
        if map.insert(key.clone(), *value).is_some() {
            return Err(Failure::usage(anyhow!("`--set {key}=…` is given twice")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::{Assignment, by_key};
    use crate::cli::Exit;

    #[test]
    fn assignments_are_a_key_and_a_finite_number() {
        let cases = [
            ("w_rtt=0.5", Ok(("w_rtt", 0.5))),
            ("w_rtt=1e-3", Ok(("w_rtt", 0.001))),
            ("w_rtt", Err("wanted KEY=VALUE, e.g. w_queue=0.1")),
            ("=1", Err("the key before `=` is empty; wanted e.g. w_queue=0.1")),
            ("w_rtt=fast", Err("`fast` is not a number")),
            ("w_rtt=NaN", Err("`NaN` is not a number")),
            ("w_rtt=inf", Err("`inf` is not a number")),
        ];
        for (text, wanted) in cases {
            let wanted = wanted.map(|(key, value)| Assignment { key: key.into(), value }).map_err(str::to_owned);
            assert_eq!(text.parse::<Assignment>(), wanted, "{text}");
        }
    }

    #[test]
    fn a_key_given_twice_is_bad_usage() {
        let twice = ["a=1", "b=2", "a=3"].map(|text| text.parse().expect("an assignment"));
        let failure = by_key(&twice).expect_err("`a` is there twice");
        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Usage, "error: `--set a=…` is given twice"));
    }
}
