//! Who may use the admin API: with a token file whoever has the token, without one whoever is on this machine; web pages never.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::ensure;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::gateway::access::bearer;
use crate::gateway::keys::token::Hash;
use crate::gateway::private_file::{self, Look, follow};
use crate::gateway::reject::Rejection;
use crate::wire::paths;

/// Shortest token that is taken: 128 bits in hexadecimal digits. The admin API can send every prompt anywhere.
const SHORTEST: usize = 32;

/// The token of the admin API, as its hash: comparing hashes tells nothing about the token by its time.
#[derive(Debug)]
pub(in crate::gateway) struct Token {
    path: PathBuf,
    hash: RwLock<Hash>,
}

impl Token {
    /// Reads the token and follows its file until `stopped`.
    ///
    /// # Errors
    /// The file cannot be read, others have rights to it, or it holds no token that is long enough.
    pub(in crate::gateway) fn open(path: &Path, stopped: CancellationToken) -> anyhow::Result<Arc<Self>> {
        let paths = vec![path.to_owned()];
        let look = Look::at(&paths);
        let token = Arc::new(Self { path: path.to_owned(), hash: RwLock::new(read(path)?) });
        let followed = token.clone();
        tokio::spawn(follow(paths, look, stopped, move || followed.reload()));
        Ok(token)
    }

    fn reload(&self) {
        match read(&self.path) {
            Ok(hash) => *self.hash.write().unwrap_or_else(PoisonError::into_inner) = hash,
            Err(error) => tracing::error!("the admin token stays as it was: {error:#}"),
        }
    }

    fn is(&self, text: &str) -> bool {
        self.hash.read().unwrap_or_else(PoisonError::into_inner).matches(&Hash::of(text))
    }
}

fn read(path: &Path) -> anyhow::Result<Hash> {
    let token = private_file::token(path)?;
    let length = token.reveal().len();
    let shown = path.display();
    ensure!(
        length >= SHORTEST,
        "the token in `{shown}` has {length} characters, wanted {SHORTEST} or more, e.g. of `openssl rand -hex 32`"
    );
    Ok(Hash::of(token.reveal()))
}

/// Lets a request in, or not. Health checks need no token: they tell nothing but yes or no.
///
/// # Errors
/// It has no token or a wrong one; it comes from a web page, or under a foreign name that resolves to this machine.
pub(super) fn guard(headers: &HeaderMap, path: &str, token: Option<&Token>) -> Result<(), Rejection> {
    let refused = |message| Err(Rejection::new(StatusCode::FORBIDDEN, "not_for_browsers", message));
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        return refused("the admin API takes no requests from web pages");
    }
    if let Some(token) = token {
        // No page can send it, so that the name under which it came does not matter.
        let open = path == paths::HEALTHZ || path == paths::READYZ;
        let known = open || bearer(headers).is_some_and(|text| token.is(text));
        let message = "the admin token is wanted, as `Authorization: Bearer TOKEN`";
        return if known { Ok(()) } else { Err(Rejection::new(StatusCode::UNAUTHORIZED, "invalid_token", message)) };
    }
    let Some(host) = headers.get(HOST) else { return Ok(()) };
    let host = host.to_str().ok().and_then(|text| text.parse::<http::uri::Authority>().ok());
    let local = host.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
    });
    if local { Ok(()) } else { refused("the admin API answers under an IP address or `localhost` only") }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use http::HeaderMap;

    use super::{Hash, Token, guard};

    fn code(fields: &[(&str, &str)], path: &str, token: Option<&Token>) -> &'static str {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        guard(&headers, path, token).map_or_else(|rejection| rejection.code, |()| "ok")
    }

    #[test]
    fn browsers_and_foreign_names_are_refused() {
        let cases = [
            (&[("host", "127.0.0.1:8001")][..], "ok"),
            (&[("host", "localhost")], "ok"),
            (&[("host", "[::1]:8001")], "ok"),
            (&[], "ok"),
            (&[("host", "evil.example")], "not_for_browsers"),
            (&[("host", "127.0.0.1"), ("origin", "http://127.0.0.1")], "not_for_browsers"),
            (&[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")], "not_for_browsers"),
        ];
        for (fields, expected) in cases {
            assert_eq!(code(fields, "/metrics", None), expected, "{fields:?}");
        }
    }

    #[test]
    fn with_a_token_it_counts_and_the_name_does_not() {
        let token = Token { path: "t".into(), hash: RwLock::new(Hash::of("secret")) };
        let right = ("authorization", "Bearer secret");
        let cases = [
            (&[][..], "/metrics", "invalid_token"),
            (&[("host", "127.0.0.1")], "/admin/v1/status", "invalid_token"),
            (&[("authorization", "Bearer secre")], "/admin/v1/status", "invalid_token"),
            (&[("authorization", "secret")], "/admin/v1/status", "invalid_token"),
            (&[right, ("host", "router.example")], "/admin/v1/status", "ok"),
            (&[right, ("origin", "https://router.example")], "/admin/v1/status", "not_for_browsers"),
            (&[("host", "router.example")], "/healthz", "ok"),
            (&[], "/readyz", "ok"),
            (&[], "/healthz/", "invalid_token"),
        ];
        for (fields, path, expected) in cases {
            assert_eq!(code(fields, path, Some(&token)), expected, "{fields:?} {path}");
        }
    }
}
