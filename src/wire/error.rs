//! The error object of both APIs, in the shape that OpenAI clients already parse.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The body of every refusal and failure of ours: `{"error": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorObject,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// For people: what was found, what was wanted, what to try.
    pub message: String,
    /// OpenAI's class: `invalid_request_error`, `server_error`, `rate_limit_error`, …
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// The offending parameter, if one can be named.
    #[serde(default)]
    pub param: Option<String>,
    /// Stable and made for programs, e.g. `no_replica`, `queue_timeout`, `body_too_large`.
    #[serde(default)]
    pub code: Option<Cow<'static, str>>,
}

impl ErrorBody {
    /// An error object without a parameter.
    #[must_use]
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let error = ErrorObject { message: message.into(), kind: kind.into(), param: None, code: Some(code.into()) };
        Self { error }
    }

    /// The same error, with the parameter that caused it.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.error.param = Some(param.into());
        self
    }
}
