//! Tolerant JSON: values that may be anything, so that one odd field never costs us the whole body.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A scalar of any kind; strings are borrowed from the body unless they hold escapes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Scalar<'a> {
    /// `null`, an array or an object: nothing that we could use.
    #[default]
    Other,
    Bool(bool),
    /// Every integer up to 2^53 is exact.
    Number(f64),
    Text(Cow<'a, str>),
}

impl<'a> Scalar<'a> {
    /// The text, if it is one.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True only for `true`.
    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// A count: negative numbers are none, fractions are cut, what is too large saturates.
    pub(super) fn count(&self) -> Option<u32> {
        match self {
            Self::Number(number) if *number >= 0.0 => Some(*number as u32),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Scalar::Other)
    }
}

/// An object of type `T` where there is one; the first object of an array; `None` for everything else.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object<T>(pub(super) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Object(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Object(item)) = seq.next_element()? {
            found = found.or(item);
        }
        Ok(Object(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Object(Some(value)))
    }
}

/// Whether a value says something: a non-empty string, array or object, or `true`, or any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filled(pub(super) bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FilledVisitor)
    }
}

struct FilledVisitor;

impl<'de> Visitor<'de> for FilledVisitor {
    type Value = Filled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Filled(value))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Filled(true))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Filled(true))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Filled(true))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Filled(!value.is_empty()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Filled(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut filled = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            filled = true;
        }
        Ok(Filled(filled))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut filled = false;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            filled = true;
        }
        Ok(Filled(filled))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Filled, Object, Scalar};

    #[test]
    fn scalars_take_whatever_comes() {
        let cases = [
            ("null", Scalar::Other),
            ("[1,{}]", Scalar::Other),
            (r#"{"a":1}"#, Scalar::Other),
            ("true", Scalar::Bool(true)),
            ("-1", Scalar::Number(-1.0)),
            ("1e3", Scalar::Number(1000.0)),
            (r#""x""#, Scalar::Text("x".into())),
            (r#""x\n""#, Scalar::Text("x\n".into())),
        ];
        for (json, expected) in cases {
            assert_eq!(serde_json::from_str::<Scalar<'_>>(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let scalar: Scalar<'_> = serde_json::from_str(r#""plain""#).unwrap();
        assert!(matches!(scalar.text(), Some(Cow::Borrowed("plain"))));
    }

    #[test]
    fn counts_saturate_and_refuse_negatives() {
        let cases = [(-1.0, None), (0.0, Some(0)), (1.9, Some(1)), (1e12, Some(u32::MAX))];
        for (number, expected) in cases {
            assert_eq!(Scalar::Number(number).count(), expected, "{number}");
        }
        assert_eq!(Scalar::Text("5".into()).count(), None);
    }

    #[test]
    fn the_first_object_is_found() {
        let cases = [("{\"a\":7}", Some(7)), ("[null,{\"a\":1},{\"a\":2}]", Some(1)), ("[]", None), ("\"x\"", None)];
        for (json, expected) in cases {
            let Object(found) = serde_json::from_str::<Object<std::collections::BTreeMap<String, u32>>>(json).unwrap();
            assert_eq!(found.map(|map| map["a"]), expected, "{json}");
        }
    }

    #[test]
    fn empty_values_say_nothing() {
        let cases = [("null", false), ("\"\"", false), ("[]", false), ("{}", false), ("false", false)];
        let filled = [("\" \"", true), ("[0]", true), ("{\"a\":null}", true), ("0", true), ("true", true)];
        for (json, expected) in cases.into_iter().chain(filled) {
            assert_eq!(serde_json::from_str::<Filled>(json).unwrap(), Filled(expected), "{json}");
        }
    }
}
