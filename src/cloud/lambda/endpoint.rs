//! Where the API is.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::cloud::{CloudError, CloudErrorKind};

/// The service; the older host name `cloud.lambdalabs.com` is deprecated (lambda-api-1.8.3, `servers`).
pub const DEFAULT_URL: &str = "https://cloud.lambda.ai";
/// Variable that names another one, for tests and proxies.
pub const URL_VARIABLE: &str = "LAMBDA_API_URL";

/// Base address of the API without `/api/v1`. Plain http is only accepted to loopback, because every request carries the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Default for Endpoint {
    fn default() -> Self {
        Self(Url::parse(DEFAULT_URL).expect("a constant that parses"))
    }
}

impl Endpoint {
    /// Reads a base address such as `https://cloud.lambda.ai` or `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// Not an http(s) address, plain http to another machine, or one with a user, query, fragment or `/api/v1`.
    pub fn parse(text: &str) -> Result<Self, CloudError> {
        let wrong = |what: &str| {
            // The text is not quoted: somebody may have put a key into it.
            let hint =
                format!("set `{URL_VARIABLE}` to something like {DEFAULT_URL} or http://127.0.0.1:8080, or unset it");
            CloudError {
                kind: CloudErrorKind::Invalid,
                code: None,
                message: format!("the address of the Lambda API {what}"),
                hint: Some(hint),
            }
        };
        let url = Url::parse(text.trim()).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("may only have a scheme, a host, a port and a path"));
        }
        if url.path().trim_end_matches('/').ends_with("/api/v1") {
            return Err(wrong("must not end in `/api/v1`, which is added to it"));
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => {
                Err(wrong("is plain http to another machine, which would show the API key to everybody on the way"))
            }
            _ => Err(wrong("is neither https nor http")),
        }
    }

    /// On this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The address of `path` (with its leading slash) below `/api/v1`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/api/v1{path}"));
        url
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || literal.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn addresses_are_taken_or_refused_with_a_reason() {
        let cases = [
            ("https://cloud.lambda.ai", Ok("https://cloud.lambda.ai/api/v1/images")),
            ("https://cloud.lambda.ai/", Ok("https://cloud.lambda.ai/api/v1/images")),
            (" http://127.0.0.1:8080 ", Ok("http://127.0.0.1:8080/api/v1/images")),
            ("http://[::1]:8080/fake/", Ok("http://[::1]:8080/fake/api/v1/images")),
            ("http://localhost:1", Ok("http://localhost:1/api/v1/images")),
            ("http://cloud.lambda.ai", Err("plain http to another machine")),
            ("http://127.0.0.1.example.com", Err("plain http to another machine")),
            ("http://localhost.example.com", Err("plain http to another machine")),
            ("ftp://127.0.0.1", Err("neither https nor http")),
            ("https://key:@cloud.lambda.ai", Err("may only have a scheme")),
            ("https://cloud.lambda.ai?key=x", Err("may only have a scheme")),
            ("https://cloud.lambda.ai/api/v1", Err("must not end in `/api/v1`")),
            ("cloud.lambda.ai", Err("is not a URL")),
            ("", Err("is not a URL")),
        ];
        for (text, expected) in cases {
            match (Endpoint::parse(text), expected) {
                (Ok(endpoint), Ok(url)) => assert_eq!(endpoint.url("/images").as_str(), url, "{text}"),
                (Err(error), Err(reason)) => assert!(error.message.contains(reason), "{text}: {error}"),
                (found, expected) => panic!("{text}: found {found:?}, wanted {expected:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_what_may_hold_a_key() {
        let error = Endpoint::parse("https://sekrit:@cloud.lambda.ai").unwrap_err();
        assert!(!format!("{error:?}").contains("sekrit"));
    }

    #[test]
    fn the_default_is_the_service_itself() {
        assert_eq!(Endpoint::default().to_string(), "https://cloud.lambda.ai");
        assert!(Endpoint::default().is_https() && !Endpoint::default().is_loopback());
    }
}
