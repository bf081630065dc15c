//! What can be made to go wrong, by name. The table is the help text, the parser and the list of what the core asks for.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    CapacityLoss,
    NoCapacityIn,
    LateIp,
    SlowBoot,
    Unhealthy,
    Flapping,
    Preempted,
    LateList,
    SlowTerminate,
    Storm,
    StormShape,
    RetryAfter,
    LostAnswer,
    LostRequest,
    StalledAnswer,
    ErrorAfterLaunch,
    Error500,
    Error502,
    Error503,
    Truncated,
    NoIp,
    NoPrivateIp,
    Nameless,
    UnknownStatus,
    UnknownRegion,
    ExtraFields,
    FilesystemInUse,
    RulesetInUse,
    ConcurrentEdit,
    ReusedIp,
    AccountInactive,
    NoAddress,
    Quota,
    NotFoundAs400,
}

/// What a fault's value is, with the one that counts when none is given.
#[derive(Clone, Copy, Debug)]
enum Form {
    Flag,
    /// A number: of events, or one in so many.
    Count(u64),
    /// Seconds of the stand-in's clock.
    Seconds(u64),
    /// A word; empty = must be given.
    Word(&'static str),
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
}

struct Row {
    name: Name,
    word: &'static str,
    form: Form,
    what: &'static str,
}

const fn row(name: Name, word: &'static str, form: Form, what: &'static str) -> Row {
    Row { name, word, form, what }
}

/// Bodies of a 429: nobody has published one.
const SHAPES: &[&str] = &["json", "empty", "html"];

#[rustfmt::skip]
const TABLE: [Row; 34] = [
    row(Name::CapacityLoss, "capacity-loss", Form::Count(1), "the first N launches are refused for lack of capacity, though it is listed"),
    row(Name::NoCapacityIn, "no-capacity-in", Form::Word(""), "launches in this region are refused for lack of capacity, though it is listed"),
    row(Name::LateIp, "late-ip", Form::Seconds(300), "addresses appear so long after the launch, instead of 22 to 31 s"),
    row(Name::SlowBoot, "slow-boot", Form::Count(1), "one machine in N takes 857 s to become active, instead of one in 12"),
    row(Name::Unhealthy, "unhealthy", Form::Count(1), "the first N machines turn unhealthy instead of active"),
    row(Name::Flapping, "flapping", Form::Flag, "active machines are unhealthy for 30 s of every 120 s"),
    row(Name::Preempted, "preempted", Form::Seconds(600), "machines are taken away so long after they became active"),
    row(Name::LateList, "late-list", Form::Seconds(30), "lists show a machine only so long after its launch"),
    row(Name::SlowTerminate, "slow-terminate", Form::Seconds(300), "terminating takes so long, instead of 20 to 60 s"),
    row(Name::Storm, "429-storm", Form::Count(5), "the first N calls are answered with 429"),
    row(Name::StormShape, "429-shape", Form::Choice(SHAPES), "body of every 429: json, empty or html"),
    row(Name::RetryAfter, "429-retry-after", Form::Seconds(1), "every 429 asks for this pause (of real seconds)"),
    row(Name::LostAnswer, "lost-answer", Form::Count(1), "the first N launches happen, but the connection drops before the answer"),
    row(Name::LostRequest, "lost-request", Form::Count(1), "the first N launches do not happen, and the connection drops"),
    row(Name::StalledAnswer, "stalled-answer", Form::Count(1), "the first N launches happen, but the answer never comes"),
    row(Name::ErrorAfterLaunch, "error-after-launch", Form::Count(1), "the first N launches happen, but are answered with 500"),
    row(Name::Error500, "error-500", Form::Count(3), "the first N calls do nothing and are answered with 500"),
    row(Name::Error502, "error-502", Form::Count(3), "the first N calls do nothing and are answered with 502 and a page of HTML"),
    row(Name::Error503, "error-503", Form::Count(3), "the first N calls do nothing and are answered with 503 and a code of the provider's"),
    row(Name::Truncated, "truncated", Form::Count(3), "the first N reads are answered with half of their JSON"),
    row(Name::NoIp, "no-ip", Form::Flag, "machines never show an address"),
    row(Name::NoPrivateIp, "no-private-ip", Form::Flag, "machines never show a private address"),
    row(Name::Nameless, "no-name", Form::Flag, "machines never show a name"),
    row(Name::UnknownStatus, "unknown-status", Form::Word("alert"), "active machines show this status instead"),
    row(Name::UnknownRegion, "unknown-region", Form::Word("us-southeast-1"), "this region exists too, and has one machine of each type"),
    row(Name::ExtraFields, "extra-fields", Form::Flag, "objects carry fields that version 1.8.3 does not know"),
    row(Name::FilesystemInUse, "filesystem-in-use", Form::Seconds(300), "file systems stay in use so long after their machine has ended"),
    row(Name::RulesetInUse, "ruleset-in-use", Form::Seconds(300), "rulesets stay in use so long after their machine has ended"),
    row(Name::ConcurrentEdit, "concurrent-edit", Form::Count(2), "one change of rulesets in N collides with somebody else's: 409"),
    row(Name::ReusedIp, "reused-ip", Form::Flag, "a new machine gets the address of the one that ended last"),
    row(Name::AccountInactive, "account-inactive", Form::Flag, "every call is answered with 403"),
    row(Name::NoAddress, "no-address", Form::Flag, "launches and new file systems are refused: no billing address"),
    row(Name::Quota, "quota", Form::Count(0), "the account may have N machines, N file systems and N rulesets at once"),
    row(Name::NotFoundAs400, "not-found-as-400", Form::Flag, "launches that name what does not exist get 400 instead of 404"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Flag,
    Number(u64),
    Word(String),
}

/// One fault with its value; reads `NAME` or `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    name: Name,
    value: Value,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, value) = text.split_once('=').map_or((text, None), |(word, value)| (word, Some(value)));
        let unknown = || format!("no fault is named `{word}`; `--fault help` lists them");
        let row = TABLE.iter().find(|row| row.word == word).ok_or_else(unknown)?;
        let number = |default: u64, unit: &str| match value {
            None => Ok(Value::Number(default)),
            Some(text) => {
                text.parse().map(Value::Number).map_err(|_| format!("`{word}`: `{text}` is no number {unit}"))
            }
        };
        let value = match (row.form, value) {
            (Form::Flag, None) => Value::Flag,
            (Form::Flag, Some(_)) => return Err(format!("`{word}` takes no value")),
            (Form::Count(default), _) => number(default, "of events")?,
            (Form::Seconds(default), _) => number(default, "of seconds")?,
            (Form::Word(""), None | Some("")) => return Err(format!("`{word}` needs a value: `{word}=REGION`")),
            (Form::Word(default), value) => Value::Word(value.unwrap_or(default).to_owned()),
            (Form::Choice(words), value) => {
                let chosen = value.unwrap_or(words[0]);
                let wrong = || format!("`{word}`: wanted one of {}", words.join(", "));
                Value::Word(words.iter().find(|one| **one == chosen).ok_or_else(wrong)?.to_string())
            }
        };
        Ok(Self { name: row.name, value })
    }
}

/// One line per fault: what to type, what it does.
#[must_use]
pub fn list() -> String {
    let typed = |row: &Row| match row.form {
        Form::Flag => row.word.to_owned(),
        Form::Count(default) => format!("{}[=N], N={default}", row.word),
        Form::Seconds(default) => format!("{}[=SECONDS], {default} s", row.word),
        Form::Word("") => format!("{}=REGION", row.word),
        Form::Word(default) => format!("{}[=WORD], {default}", row.word),
        Form::Choice(words) => format!("{}[=WORD], {}", row.word, words[0]),
    };
    let width = TABLE.iter().map(|row| typed(row).len()).max().unwrap_or(0);
    TABLE.iter().map(|row| format!("{:width$}  {}", typed(row), row.what)).collect::<Vec<_>>().join("\n")
}

/// The faults of one stand-in; those that strike a number of times count down.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(BTreeMap<Name, Value>);

impl Faults {
    pub(super) fn new(faults: Vec<Fault>) -> Self {
        Self(faults.into_iter().map(|fault| (fault.name, fault.value)).collect())
    }

    pub(super) fn has(&self, name: Name) -> bool {
        self.0.contains_key(&name)
    }

    /// It strikes now, once less from here on.
    pub(super) fn strikes(&mut self, name: Name) -> bool {
        match self.0.get_mut(&name) {
            Some(Value::Number(left)) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    pub(super) fn number(&self, name: Name) -> Option<u64> {
        match self.0.get(&name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn word(&self, name: Name) -> Option<&str> {
        match self.0.get(&name) {
            Some(Value::Word(word)) => Some(word),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Fault, Faults, Form, Name, TABLE, list};

    #[test]
    fn the_table_names_each_fault_once() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        let words: BTreeSet<_> = TABLE.iter().map(|row| row.word).collect();
        assert_eq!((names.len(), words.len(), list().lines().count()), (TABLE.len(), TABLE.len(), TABLE.len()));
        for row in &TABLE {
            let bare = row.word.parse::<Fault>();
            assert_eq!(bare.is_err(), matches!(row.form, Form::Word("")), "{}", row.word);
        }
    }

    #[test]
    fn wrong_ones_are_told() {
        let cases = [
            ("gremlins", "no fault is named `gremlins`; `--fault help` lists them"),
            ("no-ip=1", "`no-ip` takes no value"),
            ("quota=many", "`quota`: `many` is no number of events"),
            ("late-ip=-1", "`late-ip`: `-1` is no number of seconds"),
            ("no-capacity-in", "`no-capacity-in` needs a value: `no-capacity-in=REGION`"),
            ("429-shape=round", "`429-shape`: wanted one of json, empty, html"),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<Fault>().unwrap_err(), message);
        }
    }

    #[test]
    fn counted_faults_strike_as_often_as_told_and_later_ones_replace_earlier() {
        let given = ["lost-answer=9", "lost-answer=2", "unknown-status"].map(|text| text.parse().unwrap());
        let mut faults = Faults::new(given.to_vec());
        let strikes = [(); 4].map(|()| faults.strikes(Name::LostAnswer));
        assert_eq!(strikes, [true, true, false, false]);
        assert_eq!((faults.word(Name::UnknownStatus), faults.number(Name::Quota)), (Some("alert"), None));
        assert!(!faults.strikes(Name::Storm) && !faults.has(Name::Storm));
    }
}
