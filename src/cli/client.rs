//! Talks to the admin API of a running proxy or agent and says what to do when nobody answers.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::config_file::ConfigFile;
use super::exit::{Exit, Failure};
use crate::config::{Flags, resolve};
use crate::wire::ErrorBody;

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
        let (base, who, hint) = match (&context.route, &admin.url) {
            (Some(_), Some(_)) => {
                let error = anyhow!("`--remote` names a node, `--admin` an address; wanted one of them");
                return Err(Failure::usage(error));
            }
            (Some(route), None) => (route.url.clone(), route.to_string(), route.hint()),
            (None, Some(url)) => (url.clone(), format!("the proxy at {}", trimmed(url)), START.to_owned()),
            (None, None) => {
                let url = configured(context)?;
                let who = format!("the proxy at {}", trimmed(&url));
                (url, who, START.to_owned())
            }
        };
        // A proxy from the environment must not see, nor break, what goes to this machine.
        let http =
            reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT).timeout(ANSWER_LIMIT).build()?;
        Ok(Self { base, http, who, hint })
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

/// The admin address that `proxy start` would take here.
fn configured(context: &Context) -> Result<Url, Failure> {
    let file = ConfigFile::find(context.config.as_deref())?;
    let (resolved, _) = resolve(&file.document, &Flags::default());
    if !file.problems.is_empty() {
        context.printer.warn(format_args!("{} has problems; `gorgo config check` lists them", file.name()));
    }
    Ok(Url::parse(&format!("http://{}", resolved.proxy.admin))?)
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
    use super::base_url;

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
