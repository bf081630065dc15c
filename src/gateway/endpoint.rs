//! Where an engine listens: a base URL, taken apart once.

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

/// A base URL such as `http://10.0.0.5:30000`, `https://engine.example/prefix` or `mtls://10.0.0.6:8443`. Holds no user info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    host: String,
    port: u16,
    authority: HeaderValue,
    prefix: String,
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Mtls,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Mtls];

    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Mtls => "mtls",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Mtls => 8443,
        }
    }
}

/// A URL that is not a base URL of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("replica URL `{url}`: {problem}; expected e.g. `http://10.0.0.5:30000`")]
pub struct BadEndpoint {
    /// As given.
    pub url: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Endpoint {
    /// True for `https`.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// True for `mtls`: an agent, by the certificates of the cluster.
    #[must_use]
    pub fn mutual(&self) -> bool {
        self.scheme == Scheme::Mtls
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, the scheme's own where the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Value of the `host` header.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Origin-form target of a request for `path`, behind the base URL's own path.
    ///
    /// # Errors
    /// If `path` is not a valid path.
    pub fn target(&self, path: &PathAndQuery) -> Result<Uri, http::Error> {
        if self.prefix.is_empty() {
            return Ok(Uri::from(path.clone()));
        }
        let joined = PathAndQuery::try_from(format!("{}{path}", self.prefix))?;
        Ok(Uri::from(joined))
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(url: &str) -> Result<Self, BadEndpoint> {
        let bad = |problem| BadEndpoint { url: url.to_owned(), problem };
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        let scheme = Scheme::ALL.into_iter().find(|known| uri.scheme_str() == Some(known.name()));
        let scheme =
            scheme.ok_or_else(|| bad("it must begin with `http://`, `https://` or, for an agent, `mtls://`"))?;
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("user and password in a URL are not supported"));
        }
        if uri.query().is_some() {
            return Err(bad("a base URL has no query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = authority.port_u16().unwrap_or(scheme.port());
        let header = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("its host is not printable"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { scheme, host, port, authority: header, prefix })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.name();
        let authority = self.authority.to_str().unwrap_or(&self.host);
        write!(f, "{scheme}://{authority}{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;

    use super::Endpoint;

    #[test]
    fn base_urls_are_taken_apart() {
        let cases = [
            ("http://10.0.0.5:30000", (false, "10.0.0.5", 30000, "/v1/models?x=1")),
            ("http://10.0.0.5:30000/", (false, "10.0.0.5", 30000, "/v1/models?x=1")),
            ("https://engine.example/a/b/", (true, "engine.example", 443, "/a/b/v1/models?x=1")),
            ("http://[::1]:8080", (false, "::1", 8080, "/v1/models?x=1")),
            ("http://host", (false, "host", 80, "/v1/models?x=1")),
            ("mtls://10.0.0.5", (false, "10.0.0.5", 8443, "/v1/models?x=1")),
        ];
        let path = PathAndQuery::from_static("/v1/models?x=1");
        for (url, (tls, host, port, target)) in cases {
            let endpoint: Endpoint = url.parse().expect(url);
            assert_eq!((endpoint.tls(), endpoint.host(), endpoint.port()), (tls, host, port), "{url}");
            assert_eq!(endpoint.mutual(), url.starts_with("mtls"), "{url}");
            assert_eq!(endpoint.target(&path).unwrap().to_string(), target, "{url}");
            assert_eq!(endpoint.to_string(), url.trim_end_matches('/'));
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_a_reason() {
        let cases = [
            ("10.0.0.5:30000", "it must begin with"),
            ("ftp://host", "it must begin with"),
            ("http://", "not a URL"),
            ("http://user:secret@host", "user and password"),
            ("http://host/?a=b", "no query"),
        ];
        for (url, problem) in cases {
            let error = url.parse::<Endpoint>().expect_err(url).to_string();
            assert!(error.contains(problem), "{url}: {error}");
        }
    }
}
