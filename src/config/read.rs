//! Text of a `gorgo.toml` → [`File`], with every problem of spelling, type and range at once.
//!
//! What is wrong is taken out before the rest is read, so that one bad key does not hide what is wrong with the others.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::file::File;
use super::keys::{Key, Kind, SECTIONS, Shape};
use super::problem::Problem;
use crate::model::spelling::{hint, nearest};

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// What it says, without what is wrong.
    pub file: File,
    /// Line of every key path, from 1, e.g. `replica[0].url` → 12.
    pub lines: BTreeMap<String, usize>,
}

/// Reads the text of a file. Problems of syntax are told alone: what stands behind them may be misread.
#[must_use]
pub fn read(text: &str) -> (Document, Vec<Problem>) {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut problems: Vec<_> = errors.iter().map(|error| syntax(text, error)).collect();
        problems.sort_by_key(|problem| problem.line);
        return (Document::default(), problems);
    }
    let mut reader = Reader { text, lines: BTreeMap::new(), problems: Vec::new() };
    reader.sections(table.get_mut());
    let Reader { lines, mut problems, .. } = reader;
    problems.sort_by_key(|problem| problem.line);
    match File::deserialize(Deserializer::from(table)) {
        Ok(file) => (Document { file, lines }, problems),
        Err(error) => {
            problems.push(syntax(text, &error));
            (Document { file: File::default(), lines }, problems)
        }
    }
}

fn syntax(text: &str, error: &Error) -> Problem {
    let line = error.span().map(|span| line_of(text, span.start));
    Problem::new("file", error.message().replace('\n', ", ")).at(line)
}

/// Line of a byte offset, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Keeps the entries that are `right`, given each one's key, the byte offset of the key, and the value.
fn keep<'i>(table: &mut DeTable<'i>, mut right: impl FnMut(&str, usize, &mut Spanned<DeValue<'i>>) -> bool) {
    let entries = std::mem::take(table).into_iter();
    *table = entries
        .filter_map(|(key, mut value)| right(key.get_ref(), key.span().start, &mut value).then_some((key, value)))
        .collect();
}

struct Reader<'t> {
    text: &'t str,
    lines: BTreeMap<String, usize>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn sections(&mut self, table: &mut DeTable<'_>) {
        keep(table, |name, offset, value| {
            let line = line_of(self.text, offset);
            let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
                self.wrong(name, line, unknown(name, SECTIONS.iter().map(|section| section.name)));
                return false;
            };
            match section.shape {
                Shape::One(keys) => self.one(name, line, keys, value),
                Shape::Many(keys) => self.many(name, line, keys, value),
                Shape::Open(kind) => self.open(name, line, kind, value),
            }
        });
    }

    fn one(&mut self, path: &str, line: usize, keys: &[Key], value: &mut Spanned<DeValue<'_>>) -> bool {
        let DeValue::Table(table) = value.get_mut() else {
            self.wrong(path, line, format!("wanted a table, found {}", with_article(value.get_ref())));
            return false;
        };
        self.lines.insert(path.to_owned(), line);
        keep(table, |name, offset, value| {
            let (line, path) = (line_of(self.text, offset), format!("{path}.{name}"));
            match keys.iter().find(|key| key.name == name) {
                Some(key) => self.value(&path, line, key.kind, value.get_mut()),
                None => {
                    self.wrong(&path, line, unknown(name, keys.iter().map(|key| key.name)));
                    false
                }
            }
        });
        true
    }

    fn many(&mut self, path: &str, line: usize, keys: &[Key], value: &mut Spanned<DeValue<'_>>) -> bool {
        let DeValue::Array(entries) = value.get_mut() else {
            self.wrong(path, line, format!("wanted tables `[[{path}]]`, found {}", with_article(value.get_ref())));
            return false;
        };
        self.entries(path, keys, entries)
    }

    fn entries(&mut self, path: &str, keys: &[Key], entries: &mut [Spanned<DeValue<'_>>]) -> bool {
        let mut all = true;
        for (i, entry) in entries.iter_mut().enumerate() {
            let line = line_of(self.text, entry.span().start);
            all &= self.one(&format!("{path}[{i}]"), line, keys, entry);
        }
        all
    }

    fn open(&mut self, path: &str, line: usize, kind: Kind, value: &mut Spanned<DeValue<'_>>) -> bool {
        let DeValue::Table(table) = value.get_mut() else {
            self.wrong(path, line, format!("wanted a table, found {}", with_article(value.get_ref())));
            return false;
        };
        keep(table, |name, offset, value| {
            self.value(&format!("{path}.{name}"), line_of(self.text, offset), kind, value.get_mut())
        });
        true
    }

    /// Notes the line of a value; false, with a problem, if it is not of its kind.
    fn value(&mut self, path: &str, line: usize, kind: Kind, value: &mut DeValue<'_>) -> bool {
        self.lines.insert(path.to_owned(), line);
        if let (Kind::Numbers, DeValue::Table(table)) = (kind, &mut *value) {
            keep(table, |name, offset, value| {
                let any = Kind::Number(f64::MIN, f64::MAX);
                self.value(&format!("{path}.{name}"), line_of(self.text, offset), any, value.get_mut())
            });
            return true;
        }
        if let (Kind::Named(keys), DeValue::Table(table)) = (kind, &mut *value) {
            keep(table, |name, offset, value| {
                self.one(&format!("{path}.{name}"), line_of(self.text, offset), keys, value)
            });
            return true;
        }
        if let (Kind::Tables(keys), DeValue::Array(entries)) = (kind, &mut *value) {
            return self.entries(path, keys, entries);
        }
        match check(kind, value) {
            Ok(()) => true,
            Err(message) => {
                self.wrong(path, line, message);
                false
            }
        }
    }

    fn wrong(&mut self, path: &str, line: usize, message: String) {
        self.problems.push(Problem::new(path, message).at(Some(line)));
    }
}

/// Is the value of its kind? The message says what was found and what was wanted.
fn check(kind: Kind, value: &DeValue<'_>) -> Result<(), String> {
    match (kind, value) {
        (Kind::Text, DeValue::String(_)) | (Kind::Switch, DeValue::Boolean(_)) => Ok(()),
        (Kind::OneOf(words), DeValue::String(text)) if words.contains(&text.as_ref()) => Ok(()),
        (Kind::OneOf(words), DeValue::String(text)) => Err(format!(
            "unknown value `{text}`, wanted one of {}{}",
            words.join(", "),
            hint(text, words.iter().copied())
        )),
        (Kind::Whole(min, max), DeValue::Integer(it)) => match i128::from_str_radix(it.as_str(), it.radix()) {
            Ok(number) if (i128::from(min)..=i128::from(max)).contains(&number) => Ok(()),
            _ => Err(format!("{it} is out of range, wanted {}", wanted(kind))),
        },
        (Kind::Number(min, max), DeValue::Integer(_) | DeValue::Float(_)) => match number(value) {
            Some(number) if (min..=max).contains(&number) => Ok(()),
            _ => Err(format!("out of range, wanted {}", wanted(kind))),
        },
        (Kind::Texts, DeValue::Array(items)) if items.iter().all(|item| item.get_ref().is_str()) => Ok(()),
        _ => Err(format!("found {}, wanted {}", with_article(value), wanted(kind))),
    }
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(it) => i128::from_str_radix(it.as_str(), it.radix()).ok().map(|whole| whole as f64),
        DeValue::Float(it) => it.as_str().parse().ok(),
        _ => None,
    }
}

/// A kind in words.
pub(super) fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Text => "text in quotes".to_owned(),
        Kind::OneOf(words) => format!("one of {}", words.join(", ")),
        Kind::Switch => "true or false".to_owned(),
        // Nobody is helped by the largest number that TOML can write.
        Kind::Whole(min, max) if max == i64::MAX as u64 => format!("a whole number, {min} or more"),
        Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Number(min, max) if (min, max) == (f64::MIN, f64::MAX) => "a number".to_owned(),
        Kind::Number(min, max) => format!("a number from {min} to {max}"),
        Kind::Texts => "a list of texts, e.g. [\"a\", \"b\"]".to_owned(),
        Kind::Numbers => "a table of numbers, e.g. { w_rtt = 1.0 }".to_owned(),
        Kind::Tables(_) => "tables in double brackets".to_owned(),
        Kind::Named(_) => "a table of tables".to_owned(),
    }
}

fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => format!("unknown key; known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::{ProptestConfig, proptest};

    use super::{Problem, read};

    fn problems(text: &str) -> String {
        read(text).1.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_right_is_read_with_its_lines() {
        let text = "[cluster]\nstrategy = \"gorgo\"\n\n[[replica]]\nname = \"a\"\nmodels = [\"m\"]\n\n[routing]\nweights = { w_rtt = 1 }\n\
                    queue_limit = 0x10\n\n[residency]\neu = [\"europe-*\"]\n";
        let (document, problems) = read(text);
        assert_eq!(problems, vec![]);
        assert_eq!(document.file.cluster.strategy.as_deref(), Some("gorgo"));
        assert_eq!(document.file.replica[0].models.as_deref(), Some(&["m".to_owned()][..]));
        assert_eq!(document.file.routing.weights["w_rtt"], 1.0);
        assert_eq!(document.file.routing.queue_limit, Some(16));
        assert_eq!(document.file.residency["eu"], ["europe-*"]);
        let lines = ["cluster.strategy", "replica[0]", "replica[0].models", "routing.weights.w_rtt", "residency.eu"];
        assert_eq!(lines.map(|path| document.lines[path]), [2, 4, 6, 9, 13]);
    }

    #[test]
    fn every_problem_is_told_at_once_and_the_rest_is_still_read() {
        let text = r#"
clutser = 1
[cluster]
strategy = 5
engine = "sglnag"
[[replica]]
name = "a"
urll = "http://a"
kv_tokens = -1
[[replica]]
models = "m"
kv_tokens = 1.5
[routing]
queue_limit = 99999999999
inject_usage = "yes"
[routing.weights]
w_rtt = "big"
w_queue = 0.5
[residency]
eu = "europe-*"
[proxy]
colour = "red"
max_body_bytes = 1000
"#;
        assert_snapshot!(problems(text), @r#"
        line 2: clutser: unknown key; did you mean `cluster`?
        line 4: cluster.strategy: found a whole number, wanted text in quotes
        line 5: cluster.engine: unknown value `sglnag`, wanted one of sglang, vllm, emulator; did you mean `sglang`?
        line 8: replica[0].urll: unknown key; did you mean `url`?
        line 9: replica[0].kv_tokens: -1 is out of range, wanted a whole number, 1 or more
        line 11: replica[1].models: found text, wanted a list of texts, e.g. ["a", "b"]
        line 12: replica[1].kv_tokens: found a number, wanted a whole number, 1 or more
        line 14: routing.queue_limit: 99999999999 is out of range, wanted a whole number from 0 to 10000000
        line 15: routing.inject_usage: found text, wanted true or false
        line 17: routing.weights.w_rtt: found text, wanted a number
        line 20: residency.eu: found text, wanted a list of texts, e.g. ["a", "b"]
        line 22: proxy.colour: unknown key; known here: listen, admin, admin_token_file, region, tls_certificate, tls_key, api_keys, places, audit, max_connections, max_body_bytes, max_bodies_bytes, max_header_bytes, header_timeout_ms, body_timeout_ms, body_total_timeout_ms, keep_alive_ms, write_timeout_ms, upstream_timeout_ms, stream_timeout_ms, drain_timeout_ms, rtt_every_ms, gauges_every_ms, decisions_kept
        "#);
        let file = read(text).0.file;
        assert_eq!((file.replica.len(), file.proxy.max_body_bytes), (2, Some(1000)));
        assert_eq!(file.routing.weights.into_iter().collect::<Vec<_>>(), [("w_queue".to_owned(), 0.5)]);
    }

    #[test]
    fn tables_of_the_wrong_shape_are_named() {
        assert_snapshot!(problems("cluster = \"lab\"\nreplica = \"a\"\nresidency = []\nrouting = { weights = 3 }\n"), @"
        line 1: cluster: wanted a table, found text
        line 2: replica: wanted tables `[[replica]]`, found text
        line 3: residency: wanted a table, found a list
        line 4: routing.weights: found a whole number, wanted a table of numbers, e.g. { w_rtt = 1.0 }
        ");
        assert_snapshot!(problems("replica = [1, { name = \"a\" }]\n"), @"line 1: replica[0]: wanted a table, found a whole number");
    }

    #[test]
    fn broken_syntax_is_told_with_its_line() {
        assert_snapshot!(problems("[cluster]\nstrategy = \"gorgo\n[routing]\nseed = = 1\n"), @r#"
        line 2: file: invalid basic string, expected `"`
        line 4: file: extra `=`, expected nothing
        line 4: file: unexpected key or value, expected newline, `#`
        "#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\[{0,2}(cluster|replica|routing|residency|proxy|x)\\]{0,2}\n|(name|weights|seed|listen) ?= ?(1|-1|\"a\"|\\[\\]|\\{\\}|1979-05-27|nan)\n){0,6}") {
            let _ = read(&text);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(text in "\\PC{0,60}") {
            let _ = read(&text);
        }
    }
}
