//! Residency classes: which regions a request may go to. Everything unknown is refused.

use std::collections::BTreeMap;

use crate::model::Region;

/// Classes by name, each with the regions it allows. In a region pattern `*` stands for any text, e.g. `eu-*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Region patterns by class.
    pub classes: BTreeMap<String, Vec<String>>,
}

impl Residency {
    /// May a request of this class go to this region? No class: anywhere. A class that is not configured: nowhere.
    #[must_use]
    pub fn allows(&self, class: Option<&str>, region: &Region) -> bool {
        let Some(class) = class else { return true };
        let Some(patterns) = self.classes.get(class) else { return false };
        patterns.iter().any(|pattern| matches(pattern, region.as_str()))
    }
}

/// Does `text` match `pattern`, where `*` stands for any text, also none?
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)).any(|cut| matches(rest, &text[cut..]))
}

#[cfg(test)]
mod tests {
    use super::{Residency, matches};
    use crate::model::Region;

    #[test]
    fn patterns() {
        let cases = [
            ("us-east-1", "us-east-1", true),
            ("us-east-1", "us-east-10", false),
            ("eu-*", "eu-central-1", true),
            ("eu-*", "us-east-1", false),
            ("*", "anything", true),
            ("", "us-east-1", false),
            ("*-1", "us-east-1", true),
            ("*east*", "us-east-1", true),
            ("*west*", "us-east-1", false),
            ("a*ü*", "aäü", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn an_unknown_class_is_refused_everywhere() {
        let classes = [("eu".to_owned(), vec!["eu-*".to_owned(), "ch".to_owned()]), ("none".to_owned(), vec![])];
        let residency = Residency { classes: classes.into() };
        let cases = [
            (None, "us-east-1", true),
            (Some("eu"), "eu-west-3", true),
            (Some("eu"), "ch", true),
            (Some("eu"), "us-east-1", false),
            (Some("none"), "us-east-1", false),
            (Some("EU"), "eu-west-3", false),
            (Some(""), "eu-west-3", false),
        ];
        for (class, region, expected) in cases {
            assert_eq!(residency.allows(class, &Region::new(region)), expected, "{class:?} in {region}");
        }
    }
}
