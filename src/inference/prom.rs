//! Prometheus text format, as far as engines' metrics pages need it (docs/models.md 3).
//!
//! Names may hold colons; label values may hold escapes, commas and braces; a timestamp after the value is passed over; a line
//! that cannot be read is passed over too, because one bad series must not hide the others. Histograms are just samples here.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// One line of a metrics page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The full name, suffixes included.
    pub name: &'a str,
    /// What stands between the braces; read it with [`Sample::label`].
    pub(super) labels: &'a str,
    /// The value; may be NaN or infinite.
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        Labels(self.labels).find(|(key, _)| *key == name).map(|(_, value)| unescape(value))
    }
}

/// The samples of a page, in its order.
pub fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => inside.split_at(labels_end(inside)?),
        None => ("", rest),
    };
    let value = rest.trim_start_matches('}').split_ascii_whitespace().next()?;
    (!name.is_empty()).then_some(Sample { name, labels, value: number(value)? })
}

/// Where the closing brace is, quotes respected.
fn labels_end(inside: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    inside.bytes().position(|byte| {
        let escapes = quoted && byte == b'\\' && !escaped;
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = escapes;
        byte == b'}' && !quoted
    })
}

fn number(text: &str) -> Option<f64> {
    match text {
        // Go's and Python's spellings; Rust reads `NaN`, `inf`, `+Inf` and `-Inf` in any case by itself.
        "Nan" => Some(f64::NAN),
        _ => text.parse().ok(),
    }
}

/// Pairs of a label's name and its value as written, without the quotes.
struct Labels<'a>(&'a str);

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_once('=')?;
        let value = rest.trim_start().strip_prefix('"')?;
        let mut escaped = false;
        let end = value.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.0 = &value[end + 1..];
        Some((name.trim_matches([',', ' ', '\t']), &value[..end]))
    }
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (true, 'n') => {
                text.push('\n');
                escaped = false;
            }
            _ => {
                text.push(c);
                escaped = false;
            }
        }
    }
    Cow::Owned(text)
}

/// How the data-parallel shares of an engine add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Across {
    /// Counts.
    Sum,
    /// Shares of something, 0..=1.
    Mean,
}

/// Labels that number data-parallel shares: each holds its own requests (`engine` is vLLM's).
const SHARES: [&str; 3] = ["dp_rank", "dp", "engine"];

/// Labels that number the parts of one share: every part that reports at all reports the same requests.
const PARTS: [&str; 3] = ["tp_rank", "pp_rank", "moe_ep_rank"];

/// Values of [`SHARES`] or [`PARTS`].
type Place<'a> = [Option<Cow<'a, str>>; 3];

/// One figure for the whole engine out of all samples of a series: within one part the label sets add up (such as cached tokens
/// by source), of the parts of a share the largest counts, then the shares are combined. `None` if there is no finite sample.
///
/// With priority scheduling SGLang shows the total under `priority=""` and then each class: only the total counts.
pub(super) fn combine<'a>(samples: impl Iterator<Item = Sample<'a>>, across: Across) -> Option<f64> {
    let mut shares: BTreeMap<Place<'a>, BTreeMap<Place<'a>, f64>> = BTreeMap::new();
    for sample in samples {
        let one_class = sample.label("priority").is_some_and(|priority| !priority.is_empty());
        if sample.value.is_finite() && !one_class {
            let parts = shares.entry(SHARES.map(|name| sample.label(name))).or_default();
            *parts.entry(PARTS.map(|name| sample.label(name))).or_default() += sample.value;
        }
    }
    let largest = |parts: &BTreeMap<_, f64>| parts.values().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = shares.values().map(largest).sum();
    match (shares.len(), across) {
        (0, _) => None,
        (_, Across::Sum) => Some(sum),
        (count, Across::Mean) => Some(sum / count as f64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Across, Sample, combine, samples};

    fn one(line: &str) -> Option<(String, f64)> {
        samples(line).next().map(|sample| (sample.name.to_owned(), sample.value))
    }

    #[test]
    fn lines() {
        let cases = [
            ("a 1", Some(("a", 1.0))),
            ("sglang:num_queue_reqs{model_name=\"m\"} 3.0", Some(("sglang:num_queue_reqs", 3.0))),
            ("  a  { x = \"1\" , }  2e3  1700000000", Some(("a", 2000.0))),
            ("a{} -1", Some(("a", -1.0))),
            ("a{x=\"}\\\"} 7\"} 2", Some(("a", 2.0))),
            ("a +Inf", Some(("a", f64::INFINITY))),
            ("# HELP a b", None),
            ("# TYPE a gauge", None),
            ("", None),
            ("a", None),
            ("a one", None),
            ("a{x=\"1\" 2", None),
            ("{x=\"1\"} 2", None),
        ];
        for (line, expected) in cases {
            assert_eq!(one(line), expected.map(|(name, value)| (name.to_owned(), value)), "{line}");
        }
        for spelling in ["NaN", "Nan", "nan"] {
            assert!(one(&format!("a {spelling}")).unwrap().1.is_nan());
        }
    }

    #[test]
    fn labels_are_found_and_unescaped() {
        let sample: Sample<'_> = samples(r#"a{model_name="x,y=\"z\"", b="p\\q\nr",c=""} 1"#).next().unwrap();
        let cases = [("model_name", Some("x,y=\"z\"")), ("b", Some("p\\q\nr")), ("c", Some("")), ("d", None)];
        for (name, expected) in cases {
            assert_eq!(sample.label(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn ranks_shares_and_classes_combine() {
        let cases = [
            ("", None, None),
            ("g NaN\ng +Inf", None, None),
            ("g 3\ng NaN", Some(3.0), Some(3.0)),
            ("g{tp_rank=\"0\"} 3\ng{tp_rank=\"1\"} 2", Some(3.0), Some(3.0)),
            (
                "g{dp_rank=\"0\",tp_rank=\"0\"} 3\ng{dp_rank=\"0\",tp_rank=\"1\"} 4\ng{dp_rank=\"1\"} 2",
                Some(6.0),
                Some(3.0),
            ),
            ("g{engine=\"0\"} 1\ng{engine=\"1\"} 2", Some(3.0), Some(1.5)),
            ("g{cache_source=\"device\"} 5\ng{cache_source=\"host\"} 2", Some(7.0), Some(7.0)),
            ("g{priority=\"\"} 5\ng{priority=\"1\"} 3\ng{priority=\"2\"} 2", Some(5.0), Some(5.0)),
        ];
        for (page, sum, mean) in cases {
            assert_eq!(combine(samples(page), Across::Sum), sum, "{page}");
            assert_eq!(combine(samples(page), Across::Mean), mean, "{page}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(page in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for page in [page, format!("a{{{}", String::from_utf8_lossy(&bytes))] {
                for sample in samples(&page) {
                    let _ = sample.label("x");
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            name in "[a-z_:][a-z0-9_:]{0,20}",
            labels in proptest::collection::btree_map("[a-z_]{1,8}", "\\PC{0,10}", 0..4),
            value in -1e9..1e9f64,
        ) {
            let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let inside: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let line = format!("{name}{{{}}} {value}", inside.join(","));
            let sample = samples(&line).next().unwrap();
            prop_assert_eq!((sample.name, sample.value), (name.as_str(), value));
            for (key, text) in &labels {
                let read = sample.label(key);
                prop_assert_eq!(read.as_deref(), Some(text.as_str()));
            }
        }
    }
}
