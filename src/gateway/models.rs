//! `/v1/models`: what the replicas serve, merged. Entries pass as the engines wrote them; of equal ids the first replica's stays.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::replica::Replica;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
}

/// The entries of one engine's answer; `None` if it is not such a list.
#[must_use]
pub(super) fn entries(answer: &[u8]) -> Option<Vec<Box<RawValue>>> {
    let answer: Answer<'_> = serde_json::from_slice(answer).ok()?;
    Some(answer.data.into_iter().map(ToOwned::to_owned).collect())
}

/// The merged entries with their ids, in the order of the replicas.
#[must_use]
pub(super) fn merged<'a>(replicas: impl Iterator<Item = &'a Replica>) -> Vec<(String, Box<RawValue>)> {
    let mut models: Vec<(String, Box<RawValue>)> = Vec::new();
    for replica in replicas {
        let told = replica.figures().models.clone();
        let configured = if told.is_empty() { placeholders(&replica.config.models) } else { Vec::new() };
        for entry in told.iter().chain(&configured) {
            let Ok(Identified { id }) = serde_json::from_str(entry.get()) else { continue };
            let allowed = replica.config.models.is_empty() || replica.config.models.iter().any(|model| *model == id);
            if allowed && !models.iter().any(|(known, _)| *known == id) {
                models.push((id.into_owned(), entry.clone()));
            }
        }
    }
    models
}

/// Entries for models that are configured, of an engine that has not told its own yet.
fn placeholders(models: &[String]) -> Vec<Box<RawValue>> {
    let entry = |id: &String| serde_json::json!({"id": id, "object": "model", "owned_by": "gorgo"});
    models.iter().filter_map(|id| serde_json::value::to_raw_value(&entry(id)).ok()).collect()
}

/// The body of the list.
#[must_use]
pub(super) fn list(models: &[(String, Box<RawValue>)]) -> Bytes {
    let list = List { object: "list", data: models.iter().map(|(_, entry)| entry.as_ref()).collect() };
    Bytes::from(serde_json::to_vec(&list).expect("raw values are JSON already"))
}
