//! What the gateway itself refuses or fails to do, as OpenAI-style error objects with stable codes.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::routing::{Deadline, Refusal};
use crate::wire::ErrorBody;

/// When a client is told to come back while no replica is healthy, ms: probes look about once a second.
const NONE_HEALTHY_RETRY_MS: f64 = 1000.0;

/// A refusal or a failure of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rejection {
    /// HTTP status.
    pub(super) status: StatusCode,
    /// Stable, for programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: Cow<'static, str>,
    /// When to come back, ms.
    pub(super) retry_after_ms: Option<f64>,
    /// Methods that are allowed, for 405.
    pub(super) allow: Option<&'static str>,
    /// The connection cannot be used for another request.
    pub(super) close: bool,
    /// Its line stands in the audit log already.
    pub(super) audited: bool,
}

impl Rejection {
    /// A plain one.
    #[must_use]
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), retry_after_ms: None, allow: None, close: false, audited: false }
    }

    /// The router's refusal.
    #[must_use]
    pub(super) fn refused(reason: Refusal, retry_after_ms: Option<f64>) -> Self {
        let (status, message) = match reason {
            Refusal::NoReplica => {
                (StatusCode::SERVICE_UNAVAILABLE, "no replica is registered; add one with `gorgo proxy servers add`")
            }
            Refusal::NoneHealthy => {
                (StatusCode::SERVICE_UNAVAILABLE, "no replica is healthy; see `gorgo proxy servers`")
            }
            Refusal::UnknownModel => {
                (StatusCode::NOT_FOUND, "no healthy replica serves this model; GET /v1/models lists what is served")
            }
            Refusal::Residency => (StatusCode::FORBIDDEN, "the residency class leaves no replica"),
            Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, "the router's queue is full; try again later"),
            Refusal::QueueTimeout => (
                StatusCode::SERVICE_UNAVAILABLE,
                "waited in the router's queue for as long as allowed; try again later",
            ),
            Refusal::AllTried => {
                (StatusCode::BAD_GATEWAY, "every replica that the request was tried at failed before its first byte")
            }
            Refusal::Deadline => {
                (StatusCode::TOO_MANY_REQUESTS, "the first token cannot come within the limit of the request's class")
            }
        };
        let retry_after_ms = retry_after_ms.or((reason == Refusal::NoneHealthy).then_some(NONE_HEALTHY_RETRY_MS));
        Self { retry_after_ms, ..Self::new(status, reason.as_str(), message) }
    }

    /// The same with what a decision says of the limit.
    #[must_use]
    pub(super) fn with_figures(self, deadline: Option<&Deadline>) -> Self {
        let Some(deadline) = deadline.filter(|_| self.code == Refusal::Deadline.as_str()) else { return self };
        let Deadline { limit_ms, waited_ms, ttft_ms, .. } = deadline;
        let foreseen = ttft_ms.map_or(String::new(), |ms| format!(", {ms:.0} ms more are predicted"));
        let message = format!(
            "the first token cannot come within {limit_ms:.0} ms: {waited_ms:.0} ms were waited{foreseen}; try again later"
        );
        Self { message: message.into(), ..self }
    }

    /// 404 for a path that we do not serve.
    #[must_use]
    pub(super) fn unknown_path(path: &str) -> Self {
        let shown: String = path.chars().take(200).collect();
        Self::new(StatusCode::NOT_FOUND, "unknown_path", format!("no such path: `{shown}`"))
    }

    /// 405 for a path that we serve to other methods.
    #[must_use]
    pub(super) fn method(allow: &'static str) -> Self {
        let message = format!("this path takes {allow} only");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    /// 503 while draining.
    #[must_use]
    pub(super) fn draining() -> Self {
        let message = "this router is draining and takes no new requests";
        Self { close: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message) }
    }

    /// The same for a peer that sent the request here: 421 (RFC 9110, 15.5.20), so that it tries elsewhere.
    #[must_use]
    pub(super) fn misdirected(self) -> Self {
        Self { status: StatusCode::MISDIRECTED_REQUEST, ..self }
    }

    /// OpenAI's class of the error.
    #[must_use]
    pub(super) fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => "permission_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The error object as JSON.
    #[must_use]
    pub(super) fn json(&self) -> Bytes {
        let body = ErrorBody::new(self.kind(), self.code, self.message.as_ref());
        Bytes::from(serde_json::to_vec(&body).expect("an error object is plain strings"))
    }

    /// The whole response.
    #[must_use]
    pub(super) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.json());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(ms) = self.retry_after_ms {
            // Whole seconds, rounded up: the header knows nothing finer.
            headers.insert(RETRY_AFTER, HeaderValue::from((ms / 1000.0).ceil().max(1.0) as u64));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::Rejection;
    use crate::routing::{Deadline, Refusal};

    #[test]
    fn refusals_have_a_status_a_class_and_a_code() {
        let cases = [
            (Refusal::NoReplica, 503, "server_error", "no_replica"),
            (Refusal::NoneHealthy, 503, "server_error", "none_healthy"),
            (Refusal::UnknownModel, 404, "invalid_request_error", "unknown_model"),
            (Refusal::Residency, 403, "permission_error", "residency"),
            (Refusal::QueueFull, 429, "rate_limit_error", "queue_full"),
            (Refusal::QueueTimeout, 503, "server_error", "queue_timeout"),
            (Refusal::AllTried, 502, "server_error", "all_tried"),
            (Refusal::Deadline, 429, "rate_limit_error", "deadline"),
        ];
        for (reason, status, kind, code) in cases {
            let rejection = Rejection::refused(reason, None);
            assert_eq!((rejection.status.as_u16(), rejection.kind(), rejection.code), (status, kind, code));
        }
    }

    #[test]
    fn who_is_too_late_is_told_by_how_much() {
        let deadline = Deadline { class: None, limit_ms: 10_000.0, waited_ms: 1200.0, ttft_ms: Some(9100.0) };
        let message = |reason, deadline| Rejection::refused(reason, None).with_figures(deadline).message.into_owned();
        insta::assert_snapshot!(message(Refusal::Deadline, Some(&deadline)), @"the first token cannot come within 10000 ms: 1200 ms were waited, 9100 ms more are predicted; try again later");
        let waited = Deadline { ttft_ms: None, ..deadline.clone() };
        insta::assert_snapshot!(message(Refusal::Deadline, Some(&waited)), @"the first token cannot come within 10000 ms: 1200 ms were waited; try again later");
        let plain = "the router's queue is full; try again later";
        assert_eq!(message(Refusal::QueueFull, Some(&deadline)), plain);
    }

    #[test]
    fn a_response_is_an_error_object() {
        let rejection = Rejection { retry_after_ms: Some(1200.0), ..Rejection::refused(Refusal::QueueFull, None) };
        let response = rejection.response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "2");
        insta::assert_snapshot!(
            std::str::from_utf8(response.body()).unwrap(),
            @r#"{"error":{"message":"the router's queue is full; try again later","type":"rate_limit_error","param":null,"code":"queue_full"}}"#
        );
    }
}
