//! From a request to the features that routing decides on. Pure, linear in the body, borrows from it.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;
use xxhash_rust::xxh3::xxh3_64;

use super::headers;
use crate::inference::prompt::{Dialect, Parsed, parse};
use crate::routing::Features;
use crate::routing::features::hash_blocks;
use crate::routing::residency::Classes;

/// What a request is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Extracted {
    /// For the router.
    pub(super) features: Features,
    /// The client wants a stream of events.
    pub(super) stream: bool,
    /// The client asked for usage in the stream itself.
    pub(super) include_usage: bool,
}

/// A header of ours with a value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header `{header}`: {wanted}")]
pub(super) struct BadHeader {
    pub(super) header: &'static str,
    pub(super) wanted: &'static str,
}

/// Reads headers and body.
///
/// # Errors
/// If a header of ours has a value that means nothing: it would be wrong to go on as if it were not there.
pub(super) fn extract(dialect: Dialect, headers: &HeaderMap, body: &[u8]) -> Result<Extracted, BadHeader> {
    let parsed = parse(dialect, body);
    let opaque = parsed.is_err();
    if let Err(error) = &parsed {
        tracing::debug!(%error, "forwarding a body that cannot be read");
    }
    let parsed = parsed.unwrap_or_default();
    let mut features = features_of(&parsed);
    if opaque {
        // The work it means is unknown; its length is the best guess.
        features.prompt_bytes = body.len() as u64;
        features.opaque = true;
    }
    if let Some(key) = session(headers) {
        features.session = Some(xxh3_64(key));
    }
    features.priority = priority(headers)?;
    features.residency = residency(headers)?;
    features.class = class(headers)?;
    Ok(Extracted { features, stream: parsed.stream, include_usage: parsed.include_usage })
}

fn features_of(parsed: &Parsed<'_>) -> Features {
    let model = parsed.model.as_deref();
    let seed = xxh3_64(model.unwrap_or_default().as_bytes());
    Features {
        model: model.map(Arc::from),
        session: parsed.session.as_ref().map(|key| xxh3_64(key.as_bytes())),
        residency: Classes::default(),
        class: None,
        tenant: None,
        place: None,
        priority: 0,
        forwarded: false,
        origin: None,
        blocks: hash_blocks(parsed.canonical(), seed).into(),
        prompt_bytes: parsed.canonical_len(),
        prompt_tokens: None,
        max_tokens: parsed.max_tokens,
        opaque: false,
        unstreamed: !parsed.stream,
    }
}

/// The session key of the headers; an empty one is none.
fn session(headers: &HeaderMap) -> Option<&[u8]> {
    let key = |name: HeaderName| headers.get(name).map(|key| key.as_bytes().trim_ascii()).filter(|key| !key.is_empty());
    key(headers::SESSION).or_else(|| key(headers::SESSION_AFFINITY))
}

fn priority(headers: &HeaderMap) -> Result<i32, BadHeader> {
    let Some(value) = headers.get(&headers::PRIORITY) else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.ok_or(BadHeader { header: "x-gorgo-priority", wanted: "wanted a whole number; larger is more urgent" })
}

/// The class of service; whether it is one here is for those to say who know the classes.
fn class(headers: &HeaderMap) -> Result<Option<Arc<str>>, BadHeader> {
    let bad = BadHeader { header: "x-gorgo-class", wanted: "wanted the name of one class of service" };
    let mut values = headers.get_all(&headers::CLASS).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.to_str().ok().map(str::trim).filter(|name| !name.is_empty() && values.next().is_none());
    name.map(|name| Some(name.into())).ok_or(bad)
}

/// Every class of every such field: each narrows, so none may be overlooked.
fn residency(headers: &HeaderMap) -> Result<Classes, BadHeader> {
    let bad = BadHeader { header: "x-gorgo-residency", wanted: "wanted residency classes, separated by commas" };
    let mut classes = Classes::default();
    for value in headers.get_all(&headers::RESIDENCY) {
        for class in value.to_str().map_err(|_| bad.clone())?.split(',').map(str::trim) {
            if class.is_empty() {
                return Err(bad);
            }
            classes.insert(class);
        }
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Extracted, extract};
    use crate::inference::prompt::Dialect;

    fn of(headers: &[(&'static str, &'static str)], body: &str) -> Extracted {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        extract(Dialect::Chat, &map, body.as_bytes()).unwrap()
    }

    fn chat(model: &str, text: &str) -> String {
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}],"user":"u"}}"#)
    }

    #[test]
    fn equal_prompts_share_blocks_and_models_do_not() {
        let text = "x".repeat(600);
        let a = of(&[], &chat("m", &text));
        let b = of(&[], &chat("m", &(text.clone() + "y")));
        let other = of(&[], &chat("n", &text));
        assert_eq!(a.features.blocks.len(), 2);
        assert_eq!(a.features.blocks, b.features.blocks);
        assert_ne!(a.features.blocks[0], other.features.blocks[0]);
        assert_eq!((a.features.prompt_bytes, b.features.prompt_bytes), (600, 601));
    }

    #[test]
    fn the_session_header_goes_before_the_body() {
        let body = of(&[], &chat("m", "t")).features.session;
        let gorgo = of(&[("x-gorgo-session", "a"), ("x-session-affinity", "b")], &chat("m", "t")).features.session;
        let other = of(&[("x-session-affinity", "b")], &chat("m", "t")).features.session;
        let same_key = of(&[("x-gorgo-session", "u")], &chat("m", "t")).features.session;
        assert!(body.is_some() && gorgo.is_some() && other.is_some());
        assert!(gorgo != other && gorgo != body);
        assert_eq!(body, same_key, "a key is a key, wherever it stands");
    }

    #[test]
    fn an_empty_key_is_no_key() {
        let body = |key: &str, user: &str| format!(r#"{{"prompt_cache_key":"{key}","user":"{user}","messages":[]}}"#);
        let none: &[(&str, &str)] = &[];
        let cases = [
            (none, body("", ""), None),
            (none, body(" ", ""), None),
            (none, body("", "ann"), Some("ann")),
            (none, body("bob", "ann"), Some("bob")),
            (&[("x-gorgo-session", "")], body("", "ann"), Some("ann")),
            (&[("x-gorgo-session", " "), ("x-session-affinity", "eve")], body("bob", ""), Some("eve")),
            (&[("x-session-affinity", "")], body("", ""), None),
        ];
        for (headers, body, key) in cases {
            let session = of(headers, &body).features.session;
            assert_eq!(session, key.map(|key| xxhash_rust::xxh3::xxh3_64(key.as_bytes())), "{headers:?} {body}");
        }
    }

    #[test]
    fn what_cannot_be_read_has_no_prompt_but_goes_on() {
        for body in ["", "not json", "{\"messages\":", "[1,2]"] {
            let extracted = of(&[("x-gorgo-priority", "-3"), ("x-gorgo-residency", "eu")], body);
            assert!(extracted.features.opaque, "{body}");
            assert!(extracted.features.blocks.is_empty());
            assert_eq!(extracted.features.prompt_bytes, body.len() as u64);
            assert_eq!((extracted.features.priority, extracted.features.residency.to_string()), (-3, "eu".to_owned()));
        }
    }

    #[test]
    fn every_residency_class_of_every_line_counts() {
        let headers = [("x-gorgo-residency", "medical, eu"), ("x-gorgo-residency", "any"), ("x-gorgo-residency", "eu")];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        let extracted = extract(Dialect::Chat, &map, b"{}").unwrap();
        assert_eq!(extracted.features.residency.to_string(), "any,eu,medical");
    }

    #[test]
    fn a_request_has_one_class_of_service() {
        assert_eq!(of(&[("x-gorgo-class", " batch ")], "{}").features.class.as_deref(), Some("batch"));
        assert_eq!(of(&[], "{}").features.class, None);
        let mut map = HeaderMap::new();
        for class in ["batch", "gold"] {
            map.append("x-gorgo-class", class.parse().unwrap());
        }
        assert!(extract(Dialect::Chat, &map, b"{}").is_err(), "nobody knows which one is meant");
    }

    #[test]
    fn headers_of_ours_that_mean_nothing_are_refused() {
        for (name, value) in [
            ("x-gorgo-priority", "high"),
            ("x-gorgo-priority", "1.5"),
            ("x-gorgo-residency", " "),
            ("x-gorgo-residency", "eu,"),
            ("x-gorgo-residency", ",eu"),
            ("x-gorgo-class", " "),
        ] {
            let mut map = HeaderMap::new();
            map.insert(name, value.parse().unwrap());
            let error = extract(Dialect::Chat, &map, b"{}").unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
