//! Reads the keys of one TOML table and notes everything that is wrong with them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use toml::{Table, Value};

/// A table on its way to a struct. A key that is missing or wrong is noted and read as `None`.
pub(super) struct Keys<'a> {
    path: String,
    table: &'a Table,
    known: BTreeSet<&'static str>,
    problems: &'a mut Vec<String>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(path: &str, table: &'a Table, problems: &'a mut Vec<String>) -> Self {
        Self { path: path.to_owned(), table, known: BTreeSet::new(), problems }
    }

    /// Notes a problem of `key`.
    pub(super) fn problem(&mut self, key: &str, what: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.problems.push(format!("{}{dot}{key}: {what}", self.path));
    }

    /// Notes a problem of the table as a whole; the keys that belong to it are not told again as unknown.
    pub(super) fn problem_of(&mut self, keys: &[&'static str], what: &str) {
        self.known.extend(keys);
        self.problems.push(format!("{}: {what}", self.path));
    }

    /// Whether the table has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a key that may be missing.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.insert(key);
        self.table.get(key)
    }

    /// Text that is not empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
            other => self.wrong(key, other, "text that is not empty"),
        }
    }

    /// One of the given words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let value = self.value(key)?;
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        if found.is_none() {
            let wanted: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            return self.wrong(key, value, &format!("one of {}", wanted.join(", ")));
        }
        found.map(|&(_, meaning)| meaning)
    }

    /// A number in the range.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?;
        match as_number(value).filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong(key, value, &format!("a number from {} to {}", range.start(), range.end())),
        }
    }

    /// A whole number in the range.
    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.value(key)?;
        let found = value.as_integer().and_then(|number| u32::try_from(number).ok());
        match found.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.wrong(key, value, &format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// Notes a key that has to be there but is not; lets the value through otherwise.
    pub(super) fn required<T>(&mut self, key: &'static str, value: Option<T>) -> Option<T> {
        if !self.has(key) {
            self.problem(key, "missing");
        }
        value
    }

    /// Notes all keys that nobody asked for.
    pub(super) fn finish(mut self) {
        let unknown: Vec<&String> = self.table.keys().filter(|key| !self.known.contains(key.as_str())).collect();
        let known: Vec<&str> = self.known.iter().copied().collect();
        let known = known.join(", ");
        for key in unknown {
            self.problem(key, &format!("unknown key; known are {known}"));
        }
    }

    fn wrong<T>(&mut self, key: &str, found: &Value, wanted: &str) -> Option<T> {
        self.problem(key, &format!("found {found}; wanted {wanted}"));
        None
    }
}

/// A float, or a whole number as one.
pub(super) fn as_number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

/// The tables of an array of tables `[[key]]`, each with its key path; notes it if the key holds something else.
pub(super) fn tables<'a>(file: &'a Table, key: &str, problems: &mut Vec<String>) -> Vec<(String, &'a Table)> {
    let Some(value) = file.get(key) else { return Vec::new() };
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let tables: Vec<&Table> = items.iter().filter_map(Value::as_table).collect();
    if tables.len() != items.len() || !value.is_array() {
        problems.push(format!("{key}: found {}; wanted tables `[[{key}]]`", value.type_str()));
    }
    tables.into_iter().zip(0_usize..).map(|(table, place)| (format!("{key}[{place}]"), table)).collect()
}
