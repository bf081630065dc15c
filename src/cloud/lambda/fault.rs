//! What a refusal means: `error.code` to the branch that a caller takes, with a hint. Texts of the service change, its codes do not.
//!
//! No text made here holds a body: bodies can carry tokens. Only the message and suggestion of an error object are quoted, cleaned.

use serde_json::error::Category;

use super::wire::{ApiError, Failure};
use crate::cloud::{CloudError, CloudErrorKind};
use crate::model::Secret;

/// Longest part of the service's own words that is shown.
const LONGEST_QUOTE_CHARS: usize = 300;

/// An answer that is no success.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal<'a> {
    /// HTTP status.
    pub(super) status: u16,
    /// `Content-Type`, if sent.
    pub(super) content_type: Option<&'a str>,
    /// `Location`, if sent.
    pub(super) location: Option<&'a str>,
    /// Content.
    pub(super) body: &'a [u8],
}

/// The error object in a body, if it is one.
pub(super) fn parse(body: &[u8]) -> Option<ApiError> {
    serde_json::from_slice::<Failure>(body).ok().map(|failure| failure.error)
}

/// The error for a refused call; `call` names it (`GET /instances`), `key` is removed from whatever is quoted.
pub(super) fn refused(call: &str, refusal: &Refusal<'_>, key: &Secret) -> CloudError {
    let Some(error) = parse(refusal.body) else {
        return without_code(call, refusal);
    };
    let kind = kind_of(&error.code, refusal.status);
    let hint = own_hint(&error.code).map(str::to_owned);
    let suggestion = error.suggestion.as_deref().map(|text| quote(text, key)).filter(|text| !text.is_empty());
    let words = match quote(&error.message, key) {
        words if words.is_empty() => "no reason given".to_owned(),
        words => words,
    };
    let code = quote(&error.code, key);
    CloudError {
        kind,
        message: format!("Lambda refused {call}: {words} (`{code}`)"),
        code: Some(code),
        hint: hint.or(suggestion).or_else(|| hint_of(kind).map(str::to_owned)),
    }
}

/// The error for a call whose effect is not known. `why` is a fragment such as `the connection broke`.
pub(super) fn unknown_outcome(call: &str, why: &str) -> CloudError {
    CloudError {
        kind: CloudErrorKind::UnknownOutcome,
        code: None,
        message: format!("the outcome of {call} is unknown: {why}; it may have happened and cost money"),
        hint: Some("list what is there before asking again".to_owned()),
    }
}

/// The error for a call that the user stopped before it was sent.
pub(super) fn stopped(call: &str) -> CloudError {
    CloudError {
        kind: CloudErrorKind::Stopped,
        code: None,
        message: format!("stopped before {call} was sent"),
        hint: None,
    }
}

/// The error for a call that got no usable answer, however often it was made.
pub(super) fn no_answer(call: &str, why: &str) -> CloudError {
    CloudError {
        kind: CloudErrorKind::Transient,
        code: None,
        message: format!("no answer from Lambda to {call}: {why}"),
        hint: Some("check the network, then try again".to_owned()),
    }
}

/// Says what is wrong with an answer without quoting it: serde's own text repeats values.
pub(super) fn unreadable(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Eof => "the answer was cut short",
        Category::Syntax => "the answer is not JSON",
        Category::Data => "the answer is JSON of another shape than gorgo knows",
        Category::Io => "the answer could not be read",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

fn without_code(call: &str, refusal: &Refusal<'_>) -> CloudError {
    let status = refusal.status;
    let kind = kind_of_status(status);
    let bytes = refusal.body.len();
    let form = refusal.content_type.map_or_else(|| "unnamed type".to_owned(), |text| clean(text, 60));
    let (message, hint) = match (status, refusal.location) {
        (300..=399, location) => {
            let place = location.map_or_else(String::new, |place| format!(" to {}", origin(place)));
            let hint =
                "the API key is not sent to another place; if this is where the API is now, set `LAMBDA_API_URL`";
            (format!("{call} was redirected{place}, which is not followed (status {status})"), Some(hint.to_owned()))
        }
        _ => (
            format!("Lambda answered {call} with status {status} and no error object ({bytes} bytes of {form})"),
            hint_of(kind).map(str::to_owned),
        ),
    };
    CloudError { kind, code: None, message, hint }
}

/// Scheme and host of an address; path and query may hold tokens.
fn origin(address: &str) -> String {
    reqwest::Url::parse(address)
        .map_or_else(|_| "a path of its own".to_owned(), |url| url.origin().ascii_serialization())
}

/// The codes of version 1.8.3, three older ones, then prefixes and statuses for whatever comes later.
fn kind_of(code: &str, status: u16) -> CloudErrorKind {
    match code {
        "global/invalid-api-key" | "global/account-inactive" | "global/invalid-address" => CloudErrorKind::Credentials,
        "global/object-does-not-exist" => CloudErrorKind::NotFound,
        "global/quota-exceeded" => CloudErrorKind::Quota,
        "instance-operations/launch/insufficient-capacity" => CloudErrorKind::Capacity,
        "global/internal-error" | "global/unknown" => CloudErrorKind::Transient,
        "global/invalid-parameters"
        | "global/duplicate"
        | "instance-operations/launch/file-system-in-wrong-region"
        | "instance-operations/launch/file-systems-not-supported"
        | "filesystems/filesystem-in-use"
        | "firewall-rulesets/firewall-ruleset-in-use"
        | "ssh-keys/key-in-use" => CloudErrorKind::Invalid,
        _ if is_upstream(code) => CloudErrorKind::Transient,
        _ => kind_of_status(status),
    }
}

/// The prefix says that the fault is behind the service.
pub(super) fn is_upstream(code: &str) -> bool {
    code.starts_with("provider/")
}

fn kind_of_status(status: u16) -> CloudErrorKind {
    match status {
        401 | 403 => CloudErrorKind::Credentials,
        404 => CloudErrorKind::NotFound,
        408 | 409 | 429 | 500..=599 => CloudErrorKind::Transient,
        _ => CloudErrorKind::Invalid,
    }
}

/// Hints that know more than the service's own suggestion, because they know this tool.
fn own_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "global/invalid-api-key" => {
            "check `LAMBDA_API_KEY` (or the key file): the key may be mistyped or deleted; the Lambda console makes new ones"
        }
        "instance-operations/launch/insufficient-capacity" => {
            "see `gorgo available` for regions that have this type now, or let `--any-region` try them"
        }
        "global/internal-error" => {
            "somebody else may be changing the same thing: look at its state now, then try again"
        }
        "filesystems/filesystem-in-use" => {
            "terminate the instances that mount it; it can count as in use for some minutes after that"
        }
        "firewall-rulesets/firewall-ruleset-in-use" => {
            "terminate the instances that have it; it can count as in use for some minutes after that"
        }
        _ => return None,
    })
}

fn hint_of(kind: CloudErrorKind) -> Option<&'static str> {
    match kind {
        CloudErrorKind::Credentials => Some("check the API key and the state of the account in the Lambda console"),
        CloudErrorKind::Transient => Some("try again in a minute"),
        CloudErrorKind::NotFound => Some("list what exists: names and ids can be gone or belong to another account"),
        _ => None,
    }
}

/// The service's words on one line, bounded, without the key.
fn quote(text: &str, key: &Secret) -> String {
    let text = if key.reveal().is_empty() { text.to_owned() } else { text.replace(key.reveal(), "[redacted]") };
    clean(&text, LONGEST_QUOTE_CHARS)
}

fn clean(text: &str, longest: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let line = line.trim_end_matches('.');
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Refusal, refused, unreadable};
    use crate::cloud::{CloudError, CloudErrorKind};
    use crate::model::Secret;

    fn refuse(status: u16, body: &str) -> CloudError {
        let refusal = Refusal { status, content_type: Some("text/html"), location: None, body: body.as_bytes() };
        refused("GET /instances", &refusal, &Secret::new("sekrit".into()))
    }

    fn coded(status: u16, code: &str) -> CloudError {
        refuse(status, &format!(r#"{{"error":{{"code":"{code}","message":"No."}}}}"#))
    }

    #[test]
    fn every_code_has_its_branch() {
        use CloudErrorKind::{Capacity, Credentials, Invalid, NotFound, Quota, Transient};
        let cases = [
            (401, "global/invalid-api-key", Credentials),
            (403, "global/account-inactive", Credentials),
            (403, "global/invalid-address", Credentials),
            (400, "global/invalid-parameters", Invalid),
            (400, "global/object-does-not-exist", NotFound),
            (404, "global/object-does-not-exist", NotFound),
            (400, "global/quota-exceeded", Quota),
            (400, "global/duplicate", Invalid),
            (409, "global/internal-error", Transient),
            (400, "instance-operations/launch/insufficient-capacity", Capacity),
            (400, "instance-operations/launch/file-system-in-wrong-region", Invalid),
            (400, "filesystems/filesystem-in-use", Invalid),
            (400, "firewall-rulesets/firewall-ruleset-in-use", Invalid),
            (500, "global/unknown", Transient),
            (400, "instance-operations/launch/file-systems-not-supported", Invalid),
            (400, "ssh-keys/key-in-use", Invalid),
            (400, "provider/internal-unavailable", Transient),
            (429, "rate/whatever", Transient),
            (403, "came/later", Credentials),
            (404, "came/later", NotFound),
            (418, "came/later", Invalid),
            (503, "came/later", Transient),
        ];
        for (status, code, kind) in cases {
            let error = coded(status, code);
            assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)), "{status} {code}");
        }
    }

    #[test]
    fn messages_say_which_call_and_what_to_do() {
        insta::assert_debug_snapshot!(coded(401, "global/invalid-api-key"), @r#"
        CloudError {
            kind: Credentials,
            code: Some(
                "global/invalid-api-key",
            ),
            message: "Lambda refused GET /instances: No (`global/invalid-api-key`)",
            hint: Some(
                "check `LAMBDA_API_KEY` (or the key file): the key may be mistyped or deleted; the Lambda console makes new ones",
            ),
        }
        "#);
        let suggested =
            refuse(400, r#"{"error":{"code":"a/b","message":"","suggestion":"Sleep on it."},"field_errors":{}}"#);
        assert_eq!(suggested.message, "Lambda refused GET /instances: no reason given (`a/b`)");
        assert_eq!(suggested.hint.as_deref(), Some("Sleep on it"));
    }

    #[test]
    fn bodies_and_keys_are_never_repeated() {
        let html = refuse(502, "<html>token=sekrit</html>");
        assert_eq!(
            html.message,
            "Lambda answered GET /instances with status 502 and no error object (25 bytes of text/html)"
        );
        assert_eq!(html.kind, CloudErrorKind::Transient);
        let echo = refuse(
            401,
            r#"{"error":{"code":"x/sekrit","message":"key sekrit\n\u001b[31m is bad","suggestion":"drop sekrit"}}"#,
        );
        assert!(!format!("{echo:?}").contains("sekrit"), "{echo:?}");
        assert_eq!(echo.message, "Lambda refused GET /instances: key [redacted] [31m is bad (`x/[redacted]`)");
        let long = refuse(400, &format!(r#"{{"error":{{"code":"a/b","message":"{}"}}}}"#, "ü".repeat(1000)));
        assert!(long.message.chars().count() < 400 && long.message.contains('…'));
    }

    #[test]
    fn redirects_name_the_place_without_its_path() {
        let location = Some("https://evil.example/steal?token=sekrit");
        let refusal = Refusal { status: 301, content_type: None, location, body: b"" };
        let error = refused("GET /instances", &refusal, &Secret::new("k".into()));
        assert_eq!(
            error.message,
            "GET /instances was redirected to https://evil.example, which is not followed (status 301)"
        );
        assert!(error.hint.is_some_and(|hint| hint.contains("LAMBDA_API_URL")));
    }

    #[test]
    fn unreadable_answers_are_described_not_quoted() {
        let cases = [
            (r#"{"a": "sekrit"}"#, "the answer is JSON of another shape than gorgo knows (line 1, column 14)"),
            (r#"{"a": 1"#, "the answer was cut short (line 1, column 7)"),
            ("<html>", "the answer is not JSON (line 1, column 1)"),
        ];
        for (text, expected) in cases {
            let error = serde_json::from_str::<std::collections::BTreeMap<String, u32>>(text).unwrap_err();
            assert_eq!(unreadable(&error), expected);
        }
    }
}
