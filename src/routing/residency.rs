//! Residency: which regions a request may go to, and what of it may be known there. Everything unknown is refused.
//!
//! A request can have several classes: that of the client's key, those that a header names, that of its model. A region has to be
//! allowed by every one of them, so that a further class can only narrow, whoever adds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::features::Features;
use crate::model::Region;

/// Classes by name, each with the regions it allows, and the classes of models. In a pattern `*` stands for any text, e.g. `eu-*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Region patterns by class.
    pub classes: BTreeMap<String, Vec<String>>,
    /// Class by pattern of a model's name. A model that several patterns fit has all of their classes.
    pub models: BTreeMap<String, String>,
}

/// The classes of one request, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes(BTreeSet<Arc<str>>);

impl Classes {
    /// Adds a class.
    pub fn insert(&mut self, class: &str) {
        if !self.0.contains(class) {
            self.0.insert(class.into());
        }
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

impl<'a> FromIterator<&'a str> for Classes {
    fn from_iter<T: IntoIterator<Item = &'a str>>(names: T) -> Self {
        Self(names.into_iter().map(Arc::from).collect())
    }
}

/// `eu-only,medical`
impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, class) in self.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            f.write_str(class)?;
        }
        Ok(())
    }
}

impl Residency {
    /// May a request go to this region?
    #[must_use]
    pub fn allows(&self, features: &Features, region: &Region) -> bool {
        features.residency.iter().all(|class| self.class_allows(class, region))
            && self.of_model(features.model.as_deref()).all(|class| self.class_allows(class, region))
    }

    /// May a router in this region be told that a prompt with these classes is cached somewhere?
    ///
    /// A digest holds hashes, not text; but who knows a prompt can ask whether it was seen, and who is told where it is cached will want
    /// to send the like of it there. So the rule is that of the requests themselves. `classes` is to come from [`Self::classes_of`].
    #[must_use]
    pub fn may_be_told(&self, classes: &Classes, region: &Region) -> bool {
        classes.iter().all(|class| self.class_allows(class, region))
    }

    /// All classes of a request, that of its model among them.
    #[must_use]
    pub fn classes_of(&self, features: &Features) -> Classes {
        let mut classes = features.residency.clone();
        for class in self.of_model(features.model.as_deref()) {
            classes.insert(class);
        }
        classes
    }

    /// A class of these that is not configured.
    #[must_use]
    pub fn unknown<'a>(&self, classes: &'a Classes) -> Option<&'a str> {
        classes.iter().find(|class| !self.classes.contains_key(*class))
    }

    /// The classes of a model. A request that names no model may be meant for any of them, so it has the classes of all.
    fn of_model<'a>(&'a self, model: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let of = self.models.iter().filter(move |(pattern, _)| model.is_none_or(|model| matches(pattern, model)));
        of.map(|(_, class)| class.as_str())
    }

    /// May a request of this one class go there?
    #[must_use]
    pub fn class_allows(&self, class: &str, region: &Region) -> bool {
        let patterns = self.classes.get(class);
        patterns.is_some_and(|patterns| patterns.iter().any(|pattern| matches(pattern, region.as_str())))
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
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::{Classes, Residency, matches};
    use crate::model::Region;
    use crate::routing::Features;

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

    fn residency() -> Residency {
        let classes = [("eu", vec!["eu-*", "ch"]), ("west", vec!["*-west-*"]), ("none", vec![]), ("any", vec!["*"])];
        let models = [("medical-*", "eu"), ("*-secret", "west")];
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        Residency {
            classes: classes.map(|(class, patterns)| (class.to_owned(), owned(patterns))).into(),
            models: models.map(|(model, class)| (model.to_owned(), class.to_owned())).into(),
        }
    }

    fn request(classes: &str, model: Option<&str>) -> Features {
        let residency = classes.split_whitespace().collect();
        Features { residency, model: model.map(Into::into), ..Features::default() }
    }

    #[test]
    fn a_region_is_allowed_by_every_class_or_not_at_all() {
        let free = Some("free");
        let cases = [
            ("", free, "us-east-1", true),
            ("eu", free, "eu-west-3", true),
            ("eu", free, "ch", true),
            ("eu", free, "us-east-1", false),
            ("eu west", free, "eu-west-3", true),
            ("eu west", free, "eu-central-1", false),
            ("eu any", free, "us-east-1", false),
            ("none", free, "us-east-1", false),
            ("EU", free, "eu-west-3", false),
            ("eu moon", free, "eu-west-3", false),
            ("", Some("medical-7b"), "us-east-1", false),
            ("", Some("medical-7b"), "eu-central-1", true),
            ("any", Some("medical-7b"), "us-east-1", false),
            ("west", Some("medical-7b"), "us-west-2", false),
            ("", Some("medical-7b-secret"), "eu-central-1", false),
            ("", Some("medical-7b-secret"), "eu-west-3", true),
            ("", None, "eu-central-1", false),
            ("", None, "eu-west-3", true),
        ];
        for (classes, model, region, expected) in cases {
            let (request, region) = (request(classes, model), Region::new(region));
            assert_eq!(residency().allows(&request, &region), expected, "{classes:?} {model:?} in {region}");
            let all = residency().classes_of(&request);
            assert_eq!(residency().may_be_told(&all, &region), expected, "{classes:?} {model:?} told to {region}");
        }
    }

    #[test]
    fn classes_are_listed_in_order_and_the_unknown_one_is_named() {
        let all = residency().classes_of(&request("west any", Some("medical-1")));
        assert_eq!((all.to_string().as_str(), residency().unknown(&all)), ("any,eu,west", None));
        assert_eq!(residency().unknown(&request("eu moon", None).residency), Some("moon"));
        assert!(Classes::default().is_empty() && Classes::default().to_string().is_empty());
    }

    proptest! {
        #[test]
        fn a_further_class_only_narrows(
            classes in prop::collection::vec("eu|west|none|any|moon", 0..4),
            more in "eu|west|none|any|moon",
            region in "eu-west-1|eu-east-1|us-west-1|ch|",
            model in prop::option::of("medical-x|free|a-secret"),
        ) {
            let region = Region::new(&region);
            let before = request(&classes.join(" "), model.as_deref());
            let mut after = before.clone();
            after.residency.insert(&more);
            prop_assert!(residency().allows(&before, &region) || !residency().allows(&after, &region));
            prop_assert_eq!(residency().allows(&after, &region), residency().may_be_told(&residency().classes_of(&after), &region));
        }
    }
}
