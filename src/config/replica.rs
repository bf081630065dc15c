//! One replica as configured: a `[[replica]]` of the file, or `--replica name=a,url=…,region=…`.

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::model::spelling::nearest;

/// Kinds of engine that can be named.
pub const ENGINES: [&str; 3] = ["sglang", "vllm", "emulator"];
/// Instead of a kind of engine: the agent of a node, which answers with its own engine.
pub const AGENT: &str = "agent";
/// What a replica can be.
pub const REPLICAS: [&str; 4] = ["sglang", "vllm", "emulator", AGENT];

/// A replica as written; nothing is checked yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicaEntry {
    /// Unique name.
    pub name: Option<String>,
    /// Base URL of the engine.
    pub url: Option<String>,
    /// Where it stands.
    pub region: Option<String>,
    /// Kind of engine, one of [`ENGINES`], or [`AGENT`].
    pub engine: Option<String>,
    /// Models that it serves; empty = any.
    pub models: Option<Vec<String>>,
    /// KV capacity, tokens.
    pub kv_tokens: Option<u64>,
    /// Prefill time per uncached token, ms.
    pub prefill_ms_per_token: Option<f64>,
    /// Queueing time per queued token, ms.
    pub queue_ms_per_token: Option<f64>,
    /// File with the key that the engine wants.
    pub api_key_file: Option<String>,
}

/// Keys of `--replica`: those of the file with `-` for `_`, and `model` (repeatable) for `models`.
const FLAG_KEYS: [&str; 9] = [
    "name",
    "url",
    "region",
    "engine",
    "model",
    "kv-tokens",
    "prefill-ms-per-token",
    "queue-ms-per-token",
    "api-key-file",
];

impl ReplicaEntry {
    /// Reads `name=a,url=http://…,region=us-east-1[,key=value…]`. `place` names the flag in problems; everything wrong is added.
    pub fn from_flag(place: &str, text: &str, problems: &mut Vec<Problem>) -> Self {
        let mut entry = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split(',') {
            let Some((key, value)) = part.split_once('=') else {
                problems.push(Problem::new(place, format!("`{part}` is not KEY=VALUE; wanted e.g. `name=a`")));
                continue;
            };
            if seen.contains(&key) && key != "model" {
                problems.push(Problem::new(place, format!("`{key}` is given twice")));
            }
            seen.push(key);
            if let Err(message) = entry.set(key, value) {
                problems.push(Problem::new(place, message));
            }
        }
        entry
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = || (!value.is_empty()).then(|| value.to_owned()).ok_or_else(|| format!("`{key}=` has no value"));
        match key {
            "name" => self.name = Some(text()?),
            "url" => self.url = Some(text()?),
            "region" => self.region = Some(text()?),
            "engine" => self.engine = Some(text()?),
            "model" => self.models.get_or_insert_default().push(text()?),
            "kv-tokens" => self.kv_tokens = Some(number(key, value)?),
            "prefill-ms-per-token" => self.prefill_ms_per_token = Some(number(key, value)?),
            "api-key-file" => self.api_key_file = Some(text()?),
            "queue-ms-per-token" => self.queue_ms_per_token = Some(number(key, value)?),
            _ => return Err(unknown(key)),
        }
        Ok(())
    }

    /// What is missing or out of range. `place` tells where a key stands: its path or flag, and its line.
    pub fn check(&self, place: &dyn Fn(&str) -> (String, Option<usize>), problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: String| {
            let (path, line) = place(key);
            problems.push(Problem::new(path, message).at(line));
        };
        for (key, value) in [("name", &self.name), ("url", &self.url), ("region", &self.region)] {
            if value.as_ref().is_none_or(String::is_empty) {
                wrong(key, "is missing".to_owned());
            }
        }
        if let Some(message) = self.url.as_deref().and_then(wrong_url) {
            wrong("url", message);
        }
        if let Some(message) = self.engine.as_deref().and_then(wrong_engine) {
            wrong("engine", message);
        }
        // As an engine it would be asked without what only peers are told.
        if self.url.as_deref().is_some_and(|url| url.starts_with("mtls://")) && self.engine.as_deref() != Some(AGENT) {
            wrong("engine", format!("wanted `{AGENT}`: behind mtls:// is the port of an agent for its peers"));
        }
        if self.kv_tokens == Some(0) {
            wrong("kv_tokens", "0 would never fit anything; wanted 1 or more".to_owned());
        }
        let rates =
            [("prefill_ms_per_token", self.prefill_ms_per_token), ("queue_ms_per_token", self.queue_ms_per_token)];
        for (key, rate) in rates {
            if rate.is_some_and(|rate| !rate.is_finite() || rate < 0.0) {
                wrong(key, "wanted 0 or more, in ms per token".to_owned());
            }
        }
    }
}

/// Where the keys of a flag stand; flags have no lines.
pub fn in_flag(flag: &str) -> impl Fn(&str) -> (String, Option<usize>) + '_ {
    move |key| (format!("{flag}: {}", key.replace('_', "-")), None)
}

/// Names that occur more than once, at their second place.
pub(crate) fn check_names<'a>(
    entries: impl IntoIterator<Item = (String, Option<usize>, &'a ReplicaEntry)>,
    problems: &mut Vec<Problem>,
) {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for (place, line, entry) in entries {
        let Some(name) = entry.name.as_deref() else { continue };
        match seen.iter().find(|(other, _)| *other == name) {
            Some((_, first)) => {
                let message = format!("the name `{name}` is taken by {first}");
                problems.push(Problem::new(place, message).at(line));
            }
            None => seen.push((name, place)),
        }
    }
}

/// What is wrong with a kind of engine, if anything.
pub(crate) fn wrong_engine(engine: &str) -> Option<String> {
    (!REPLICAS.contains(&engine)).then(|| format!("unknown engine `{engine}`; known: {}", REPLICAS.join(", ")))
}

/// What is wrong with a base URL, if anything.
fn wrong_url(text: &str) -> Option<String> {
    const SCHEMES: &[&str] = &["http", "https", "mtls"];
    let wanted = "wanted e.g. http://10.0.0.5:30000";
    let Ok(uri) = text.parse::<http::Uri>() else { return Some(format!("`{text}` is not a URL; {wanted}")) };
    match (uri.scheme_str().filter(|scheme| SCHEMES.contains(scheme)), uri.authority()) {
        (Some(_), Some(authority)) if authority.as_str().contains('@') => {
            Some(format!("user and password in a URL are not supported; {wanted}"))
        }
        (Some(_), Some(_)) if uri.query().is_some() => Some(format!("a base URL has no query; {wanted}")),
        (Some(_), Some(authority)) if !authority.host().is_empty() => None,
        _ => Some(format!("`{text}` does not begin with http:// or https:// and a host; {wanted}")),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{key}={value}`: wanted a number"))
}

fn unknown(key: &str) -> String {
    match nearest(key, FLAG_KEYS.into_iter()) {
        Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
        None => format!("unknown key `{key}`; known: {}", FLAG_KEYS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::{Problem, ReplicaEntry, check_names, in_flag};

    /// Reads flags as `proxy start` does and shows every problem.
    fn problems_of(flags: &[&str]) -> String {
        let mut problems: Vec<Problem> = Vec::new();
        let entries: Vec<_> = flags
            .iter()
            .enumerate()
            .map(|(i, flag)| {
                (
                    format!("--replica {}", i + 1),
                    ReplicaEntry::from_flag(&format!("--replica {}", i + 1), flag, &mut problems),
                )
            })
            .collect();
        for (place, entry) in &entries {
            entry.check(&in_flag(place), &mut problems);
        }
        check_names(entries.iter().map(|(place, entry)| (place.clone(), None, entry)), &mut problems);
        problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_flag_sets_every_key() {
        let flag = "name=a,url=http://127.0.0.1:30000,region=us-east-1,engine=vllm,model=m,model=n,kv-tokens=40000,\
                    prefill-ms-per-token=0.1,queue-ms-per-token=0.2,api-key-file=k";
        let mut problems = Vec::new();
        let entry = ReplicaEntry::from_flag("--replica 1", flag, &mut problems);
        entry.check(&in_flag("--replica 1"), &mut problems);
        let wanted = ReplicaEntry {
            name: Some("a".into()),
            url: Some("http://127.0.0.1:30000".into()),
            region: Some("us-east-1".into()),
            engine: Some("vllm".into()),
            models: Some(vec!["m".into(), "n".into()]),
            kv_tokens: Some(40_000),
            prefill_ms_per_token: Some(0.1),
            queue_ms_per_token: Some(0.2),
            api_key_file: Some("k".into()),
        };
        assert_eq!((entry, problems), (wanted, vec![]));
    }

    #[test]
    fn every_problem_of_every_flag_is_told_at_once() {
        let flags = [
            "name=a,url=127.0.0.1:30000,regoin=us-east-1",
            "name=a,url=http://u:p@host,region=eu,engine=tgi,kv-tokens=0",
            "east",
            "name=m,url=mtls://10.0.0.5:8443,region=eu",
            "name=b,name=c,url=http://h/?q=1,region=,kv-tokens=many,queue-ms-per-token=-1,colour=red",
        ];
        assert_snapshot!(problems_of(&flags), @"
        --replica 1: unknown key `regoin`; did you mean `region`?
        --replica 3: `east` is not KEY=VALUE; wanted e.g. `name=a`
        --replica 5: `name` is given twice
        --replica 5: `region=` has no value
        --replica 5: `kv-tokens=many`: wanted a number
        --replica 5: unknown key `colour`; known: name, url, region, engine, model, kv-tokens, prefill-ms-per-token, queue-ms-per-token, api-key-file
        --replica 1: region: is missing
        --replica 1: url: `127.0.0.1:30000` does not begin with http:// or https:// and a host; wanted e.g. http://10.0.0.5:30000
        --replica 2: url: user and password in a URL are not supported; wanted e.g. http://10.0.0.5:30000
        --replica 2: engine: unknown engine `tgi`; known: sglang, vllm, emulator, agent
        --replica 2: kv-tokens: 0 would never fit anything; wanted 1 or more
        --replica 3: name: is missing
        --replica 3: url: is missing
        --replica 3: region: is missing
        --replica 4: engine: wanted `agent`: behind mtls:// is the port of an agent for its peers
        --replica 5: region: is missing
        --replica 5: url: a base URL has no query; wanted e.g. http://10.0.0.5:30000
        --replica 5: queue-ms-per-token: wanted 0 or more, in ms per token
        --replica 2: the name `a` is taken by --replica 1
        ");
    }
}
