//! Who may send requests, where theirs may go, and what is written down about both.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, StatusCode};

use super::audit::Audit;
use super::keys::{Key, Keys, token};
use super::origin::Origin;
use super::reject::Rejection;
use super::replica::Replica;
use crate::model::{Region, RequestId};
use crate::routing::residency::{Classes, Residency};
use crate::routing::{Features, Refusal, Slo};
use crate::wire::AuditEvent;

/// Where some clients put their key instead of `authorization`.
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Codes of the refusals that are audited.
const AUDITED: [&str; 6] =
    ["residency", "unknown_residency", "missing_api_key", "invalid_api_key", "invalid_token", "deadline"];
/// Longest part of a client's text that is shown to it again, characters.
const SHOWN: usize = 100;

/// The rules of one gateway.
pub(super) struct Access {
    /// Clients' keys; `None` = everybody may send.
    pub(super) keys: Option<Arc<Keys>>,
    /// Which regions each class allows.
    pub(super) residency: Residency,
    /// What is promised to which class.
    pub(super) slo: Slo,
    /// Where this router stands, if it was told.
    pub(super) region: Option<Region>,
    /// The audit log.
    pub(super) audit: Audit,
}

/// Who sent a request.
#[derive(Clone)]
pub(super) struct Caller<'a> {
    /// The other end of the connection.
    pub(super) origin: &'a Origin,
    /// The key that it came with, where keys are wanted.
    pub(super) key: Option<Arc<Key>>,
}

impl Access {
    /// Lets a request in, or not.
    ///
    /// # Errors
    /// Keys are wanted, and it has none, or one that is not in force.
    pub(super) fn admit<'a>(&self, headers: &HeaderMap, origin: &'a Origin) -> Result<Caller<'a>, Rejection> {
        let Some(keys) = &self.keys else { return Ok(Caller { origin, key: None }) };
        let refused = |code, message| Err(Rejection::new(StatusCode::UNAUTHORIZED, code, message));
        let text = given(headers);
        // A router of the cluster has asked for the key before it passed the request on.
        if origin.identity().is_some() {
            return Ok(Caller { origin, key: text.and_then(|text| keys.find(text)) });
        }
        let Some(text) = text else {
            return refused("missing_api_key", "an API key is wanted, e.g. as `Authorization: Bearer KEY`");
        };
        match keys.find(text) {
            Some(key) => Ok(Caller { origin, key: Some(key) }),
            None => refused("invalid_api_key", "this API key is not known here, or it was revoked"),
        }
    }

    /// Gives a request the class of service of its key, which goes before one that it names itself, and says whose it is.
    ///
    /// # Errors
    /// There is no such class here. A peer's request was let in where it came from.
    pub(super) fn enlist(&self, features: &mut Features, caller: &Caller<'_>) -> Result<(), Rejection> {
        if let Some(key) = &caller.key {
            features.tenant = Some(key.name.clone());
            features.class = key.class.clone().or(features.class.take());
        }
        let unknown = |class: &&Arc<str>| !features.forwarded && !self.slo.classes.contains_key(&***class);
        let Some(class) = features.class.as_ref().filter(unknown) else { return Ok(()) };
        let shown: String = class.chars().take(SHOWN).collect();
        let known: Vec<&str> = self.slo.classes.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = format!("no class of service `{shown}` is configured here; known classes: {known}");
        Err(Rejection::new(StatusCode::BAD_REQUEST, "unknown_class", message))
    }

    /// Adds the classes of the caller's key to a request; gives all that it has, that of its model among them.
    ///
    /// # Errors
    /// One of them is not configured here: nobody could tell where it allows the request to go. It is audited already.
    pub(super) fn classify(
        &self,
        request: RequestId,
        features: &mut Features,
        caller: &Caller<'_>,
    ) -> Result<Classes, Rejection> {
        for class in caller.key.iter().flat_map(|key| key.residency.iter()) {
            features.residency.insert(class);
        }
        let classes = self.residency.classes_of(features);
        let Some(unknown) = self.residency.unknown(&classes) else { return Ok(classes) };
        let shown: String = unknown.chars().take(SHOWN).collect();
        let message = format!("no residency class `{shown}` is configured here, so no region is known to be allowed");
        let rejection = Rejection::new(StatusCode::FORBIDDEN, "unknown_residency", message);
        let rejection = if features.forwarded { rejection.misdirected() } else { rejection };
        self.audit_refusal(Some(request), &rejection, (caller, &classes));
        Err(Rejection { audited: true, ..rejection })
    }

    /// The router's refusal of a request with these features. A peer learns from its status that another may serve it.
    pub(super) fn refusal(forwarded: bool, reason: Refusal, retry_after_ms: Option<f64>) -> Rejection {
        let rejection = Rejection::refused(reason, retry_after_ms);
        if forwarded && reason == Refusal::Residency { rejection.misdirected() } else { rejection }
    }

    /// Takes out of a request what was meant for us alone: where keys are wanted any, and elsewhere what is one of ours by its form, which
    /// another router of the cluster may have let in and passed on.
    pub(super) fn strip_key(&self, headers: &mut HeaderMap) {
        let ours = |text: Option<&str>| text.is_some_and(|text| token::id(text.trim()).is_some());
        if self.keys.is_some() || ours(bearer(headers)) {
            headers.remove(AUTHORIZATION);
        }
        if self.keys.is_some() || ours(headers.get(&API_KEY).and_then(|value| value.to_str().ok())) {
            headers.remove(API_KEY);
        }
    }

    /// A request goes to a replica. Where this router does not know its own place, every way may cross a border.
    pub(super) fn audit_forward(
        &self,
        request: RequestId,
        replica: &Replica,
        attempt: u32,
        (caller, classes): (&Caller<'_>, &Classes),
    ) {
        let to = &replica.config.region;
        if !self.audit.is_on() || self.region.as_ref() == Some(to) {
            return;
        }
        self.audit.log(AuditEvent::Forward {
            request: request.to_string(),
            from: self.region.as_ref().map(ToString::to_string),
            to: to.to_string(),
            replica: replica.name.to_string(),
            attempt,
            classes: names(classes),
            key: caller.key.as_ref().map(|key| key.name.to_string()),
            client: caller.origin.address().to_string(),
        });
    }

    /// A request was refused: of one with residency classes every reason counts, of others those that are about keys and classes.
    pub(super) fn audit_refusal(
        &self,
        request: Option<RequestId>,
        rejection: &Rejection,
        (caller, classes): (&Caller<'_>, &Classes),
    ) {
        let counts = !classes.is_empty() || AUDITED.contains(&rejection.code);
        if !self.audit.is_on() || rejection.audited || !counts {
            return;
        }
        self.audit.log(AuditEvent::Refused {
            request: request.map(|request| request.to_string()),
            code: rejection.code.to_owned(),
            status: rejection.status.as_u16(),
            classes: names(classes),
            key: caller.key.as_ref().map(|key| key.name.to_string()),
            client: caller.origin.address().to_string(),
        });
    }
}

fn names(classes: &Classes) -> Vec<String> {
    classes.iter().map(str::to_owned).collect()
}

/// The key in the headers of a request: a bearer token, else `x-api-key`.
fn given(headers: &HeaderMap) -> Option<&str> {
    bearer(headers).or_else(|| headers.get(&API_KEY)?.to_str().ok()).map(str::trim).filter(|text| !text.is_empty())
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750); the scheme in any case.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::given;

    #[test]
    fn a_key_stands_in_one_of_two_fields() {
        let cases = [
            (&[][..], None),
            (&[("authorization", "Bearer k")], Some("k")),
            (&[("authorization", "bearer  k ")], Some("k")),
            (&[("authorization", "Basic k")], None),
            (&[("authorization", "k")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("x-api-key", "k")], Some("k")),
            (&[("x-api-key", " ")], None),
            (&[("x-api-key", "a"), ("authorization", "Bearer b")], Some("b")),
        ];
        for (fields, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(given(&headers), expected, "{fields:?}");
        }
    }
}
