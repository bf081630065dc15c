//! Talks to the admin API of a running proxy or agent and says what to do when nobody answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::config_file::ConfigFile;
use super::exit::{Exit, Failure};
use crate::config::exposure::private;
use crate::config::resolve::Proxy;
use crate::config::{Flags, resolve};
use crate::gateway::private_file;
use crate::model::Secret;
use crate::wire::ErrorBody;

/// Variable with the token of the admin API.
const TOKEN_VARIABLE: &str = "GORGO_ADMIN_TOKEN";

/// Longest wait for a connection: the admin API is on this machine or behind a tunnel.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for a whole answer; each is made from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where the admin API is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Admin {
    /// Admin API of the proxy, where it is not on a node that `--remote` names [default: `proxy.admin` of gorgo.toml, or http://127.0.0.1:8001]
    #[arg(long = "admin", value_name = "URL", value_parser = base_url)]
    url: Option<Url>,
    /// File with the token of an admin API that asks for one [default: variable `GORGO_ADMIN_TOKEN`, else
    /// `proxy.admin_token_file` of gorgo.toml unless `--admin` names another API]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Options of commands that read.
#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    #[command(flatten)]
    pub(crate) admin: Admin,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of commands that change something.
#[derive(Debug, clap::Args)]
pub(crate) struct Write {
    #[command(flatten)]
    pub(crate) admin: Admin,
    /// Print the request that would be sent, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A change, before it is sent. Its `Display` is the dry run.
#[derive(Debug)]
pub(crate) struct Change {
    path: &'static str,
    body: String,
}

impl Change {
    /// `POST path` with `body`.
    pub(crate) fn new(path: &'static str, body: &impl Serialize) -> Result<Self, Failure> {
        Ok(Self { path, body: serde_json::to_string(body)? })
    }
}

/// A connection-pooled client of one admin API.
pub(crate) struct Client {
    base: Url,
    token: Option<Secret>,
    http: reqwest::Client,
    /// What is at its other end, for messages.
    who: String,
    /// What to try when nobody answers.
    hint: String,
}

/// What to try where no node is named.
const START: &str = "start a proxy with `gorgo proxy start --replica …`, or name its admin API with `--admin URL`";

impl Client {
    /// A client of the API on the node that `--remote` names, of the one that `--admin` names, else of the one that the configuration
    /// names. Nothing is sent yet.
    pub(crate) fn new(admin: &Admin, context: &Context) -> Result<Self, Failure> {
        let mut token_file = None;
        let (base, who, hint) = match (&context.route, &admin.url) {
            (Some(_), Some(_)) => {
                let error = anyhow!("`--remote` names a node, `--admin` an address; wanted one of them");
                return Err(Failure::usage(error));
            }
            (Some(route), None) => (route.url.clone(), route.to_string(), route.hint()),
            (None, Some(url)) => (url.clone(), format!("the proxy at {}", trimmed(url)), START.to_owned()),
            (None, None) => {
                let (url, file) = configured(context)?;
                token_file = file;
                let who = format!("the proxy at {}", trimmed(&url));
                (url, who, START.to_owned())
            }
        };
        let token = token(admin.admin_token_file.clone(), token_file)?;
        if token.is_some() && readable(&base) {
            let error = anyhow!("strangers could read the token on its way to {base}");
            return Err(Failure::usage(error).with_hint("wanted https, or a loopback or private address"));
        }
        // A proxy from the environment must not see, nor break, what goes to this machine.
        let http =
            reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT).timeout(ANSWER_LIMIT).build()?;
        Ok(Self { base, token, http, who, hint })
    }

    /// The document at `path` (with its query, if any).
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.document(path, &self.text(path).await?)
    }

    /// The text at `path`.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a change and reads the state after it.
    pub(crate) async fn post<T: DeserializeOwned>(&self, change: &Change) -> Result<T, Failure> {
        let text = self.send(Method::POST, change.path, Some(change.body.clone())).await?;
        self.document(change.path, &text)
    }

    /// Sends a change and gives the answer as it came.
    pub(crate) async fn post_text(&self, change: &Change) -> Result<String, Failure> {
        self.send(Method::POST, change.path, Some(change.body.clone())).await
    }

    /// What `post` would send.
    pub(crate) fn describe(&self, change: &Change) -> Result<String, Failure> {
        Ok(format!("POST {}\n{}", self.url(change.path)?, change.body))
    }

    /// Whom it talks to, for messages, e.g. `the proxy at http://127.0.0.1:8001`.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    fn base(&self) -> &str {
        trimmed(&self.base)
    }

    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<String, Failure> {
        let mut request = self.http.request(method, self.url(path)?);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(error))?;
        if status.is_success() { Ok(text) } else { Err(self.refused(status, &text)) }
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        Ok(self.base.join(path).with_context(|| format!("`{path}` does not fit behind {}", self.base()))?)
    }

    fn document<T: DeserializeOwned>(&self, path: &str, text: &str) -> Result<T, Failure> {
        serde_json::from_str(text).map_err(|error| {
            let what = format!("{}{path} answered, but not with what gorgo's admin API says there", self.base());
            let hint = "is this the admin port (8001 by default) of a gorgo proxy?";
            Failure::from(anyhow::Error::new(error).context(what)).with_hint(hint)
        })
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let (refused, slow) = (error.is_connect(), error.is_timeout());
        // The URL stands in our own sentence already, and of the library's layers only the innermost tells something.
        let error = anyhow::Error::new(error.without_url());
        let cause = anyhow!("{}", error.root_cause());
        match (refused, slow) {
            (_, true) => Failure::from(cause.context(format!("{} did not answer in time", self.who))),
            (true, _) => {
                let place = self.who.strip_prefix("the proxy at ").unwrap_or(&self.who);
                Failure::from(cause.context(format!("nothing listens at {place}"))).with_hint(self.hint.clone())
            }
            _ => Failure::from(cause.context(format!("the connection to {} broke", self.who))),
        }
    }

    /// The proxy's own words where it sent an error object.
    fn refused(&self, status: StatusCode, text: &str) -> Failure {
        let error = match serde_json::from_str::<ErrorBody>(text) {
            Ok(body) => anyhow!("the proxy refused: {}", body.error.message),
            Err(_) => anyhow!("{} answered {status} instead of a document of gorgo's admin API", self.base()),
        };
        let exit = match status {
            StatusCode::NOT_FOUND => Exit::NothingSuitable,
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
            _ => Exit::Failed,
        };
        Failure { exit, error, hint: None }
    }
}

fn trimmed(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

/// The admin API that `proxy start` would have here, and the file with its token.
fn configured(context: &Context) -> Result<(Url, Option<PathBuf>), Failure> {
    let file = ConfigFile::find(context.config.as_deref())?;
    let (resolved, _) = resolve(&file.document, &Flags::default());
    if !file.problems.is_empty() {
        context.printer.warn(format_args!("{} has problems; `gorgo config check` lists them", file.name()));
    }
    let Proxy { admin, face, .. } = resolved.proxy;
    Ok((Url::parse(&configured_url(admin, face.tls.is_some()))?, face.admin_token_file.map(PathBuf::from)))
}

/// Where an admin API is that listens there. What listens on all addresses is on this machine, too.
fn configured_url(admin: SocketAddr, tls: bool) -> String {
    match (admin.ip().is_unspecified(), tls && !admin.ip().is_loopback()) {
        (true, true) => format!("https://localhost:{}", admin.port()),
        (true, false) => format!("http://127.0.0.1:{}", admin.port()),
        (false, true) => format!("https://{admin}"),
        (false, false) => format!("http://{admin}"),
    }
}

/// The token: of the file that was named, of the environment, of the file in the configuration. Never of the command line.
fn token(named: Option<PathBuf>, configured: Option<PathBuf>) -> Result<Option<Secret>, Failure> {
    let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    if let (None, Some(text)) = (&named, variable) {
        return Ok(Some(Secret::new(text.trim().to_owned())));
    }
    let read = |path: PathBuf| private_file::token(&path);
    named
        .or(configured)
        .map(read)
        .transpose()
        .map_err(|error| Failure::usage(error.context("failed to take the admin token")))
}

/// Would what is sent there pass strangers in the clear? Names other than `localhost` may stand for any address.
fn readable(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let near = host == "localhost" || host.parse().is_ok_and(private);
    base.scheme() != "https" && !near
}

/// An admin URL as typed: `http://host:port`, or just `host:port`.
fn base_url(text: &str) -> Result<Url, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|error| format!("{error}; wanted something like http://127.0.0.1:8001"))?;
    match url.scheme() {
        "http" | "https" if url.host().is_some() => Ok(url),
        other => Err(format!("scheme `{other}`; wanted http or https, e.g. http://127.0.0.1:8001")),
    }
}

#[cfg(test)]
mod tests {
    use super::{base_url, configured_url, readable};

    #[test]
    fn a_configured_api_is_looked_for_where_it_listens() {
        let cases = [
            ("127.0.0.1:8001", true, "http://127.0.0.1:8001"),
            ("10.0.0.5:8001", false, "http://10.0.0.5:8001"),
            ("10.0.0.5:8001", true, "https://10.0.0.5:8001"),
            ("[2001:db8::1]:8001", true, "https://[2001:db8::1]:8001"),
            ("0.0.0.0:8001", true, "https://localhost:8001"),
            ("[::]:8001", false, "http://127.0.0.1:8001"),
        ];
        for (admin, tls, wanted) in cases {
            assert_eq!(configured_url(admin.parse().expect("an address"), tls), wanted);
        }
    }

    #[test]
    fn a_token_goes_where_strangers_cannot_read_it() {
        let cases = [
            ("http://127.0.0.1:8001", false),
            ("http://localhost:8001", false),
            ("http://[::1]:8001", false),
            ("http://10.0.0.5:8001", false),
            ("http://203.0.113.9:8001", true),
            ("http://router.example", true),
            ("https://router.example", false),
            ("https://203.0.113.9:8001", false),
        ];
        for (url, wanted) in cases {
            assert_eq!(readable(&base_url(url).expect("a URL")), wanted, "{url}");
        }
    }

    #[test]
    fn an_admin_url_may_leave_out_its_scheme() {
        let cases = [
            ("http://127.0.0.1:8001", Ok("http://127.0.0.1:8001/")),
            ("127.0.0.1:9001", Ok("http://127.0.0.1:9001/")),
            ("localhost:9001", Ok("http://localhost:9001/")),
            ("ftp://localhost", Err("scheme `ftp`; wanted http or https, e.g. http://127.0.0.1:8001")),
            ("http://", Err("empty host; wanted something like http://127.0.0.1:8001")),
        ];
        for (text, wanted) in cases {
            let url = base_url(text).map(|url| url.to_string());
            assert_eq!(url.as_deref().map_err(String::as_str), wanted, "{text}");
        }
    }
}
