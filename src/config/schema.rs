//! The JSON schema of `gorgo.toml`, made from the table of keys: editors complete from it, people read it.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, SECTIONS, Section, Shape};

/// Dialect of the schema.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The whole schema.
#[must_use]
pub fn schema() -> Value {
    let sections: Map<_, _> = SECTIONS.iter().map(|it| (it.name.to_owned(), section(it))).collect();
    json!({
        "$schema": DIALECT,
        "title": "gorgo.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    })
}

fn section(it: &Section) -> Value {
    match it.shape {
        Shape::One(keys) => table(it.help, keys),
        Shape::Many(keys) => json!({ "description": it.help, "type": "array", "items": table(it.help, keys) }),
        Shape::Open(kind) => json!({ "description": it.help, "type": "object", "additionalProperties": value(kind) }),
    }
}

fn table(help: &str, keys: &[Key]) -> Value {
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let properties: Map<_, _> = keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({
        "description": help,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

fn property(key: &Key) -> Value {
    let mut property = value(key.kind);
    property["description"] = key.help.into();
    if let Ok(default) = serde_json::from_str::<Value>(key.default) {
        property["default"] = default;
    }
    property
}

fn value(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Numbers => json!({ "type": "object", "additionalProperties": { "type": "number" } }),
        Kind::Named(keys) => json!({ "type": "object", "additionalProperties": table("One of them", keys) }),
        Kind::Tables(keys) => json!({ "type": "array", "items": table("One of them", keys) }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::schema;
    use crate::config::file::{File, ProviderSection};
    use crate::config::fleet::{HostEntry, NodeEntry};
    use crate::config::keys::SECTIONS;
    use crate::config::replica::ReplicaEntry;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    }

    #[test]
    fn the_schema_has_exactly_the_keys_that_the_file_can_have() {
        let provider = ProviderSection { hosts: vec![HostEntry::default()], ..ProviderSection::default() };
        let file = File {
            provider,
            node: vec![NodeEntry::default()],
            replica: vec![ReplicaEntry::default()],
            ..File::default()
        };
        let file = serde_json::to_value(file).expect("written");
        let properties = &schema()["properties"];
        assert_eq!(keys(&file), keys(properties));
        for name in ["cluster", "provider", "engine", "routing", "proxy"] {
            assert_eq!(keys(&file[name]), keys(&properties[name]["properties"]), "[{name}]");
        }
        for name in ["node", "replica"] {
            assert_eq!(keys(&file[name][0]), keys(&properties[name]["items"]["properties"]), "[[{name}]]");
        }
        let hosts = &properties["provider"]["properties"]["hosts"]["items"];
        assert_eq!(keys(&file["provider"]["hosts"][0]), keys(&hosts["properties"]));
        assert_eq!(hosts["required"], json!(["name", "address", "region"]));
        assert_eq!(properties["replica"]["items"]["required"], json!(["name", "url", "region"]));
    }

    #[test]
    fn every_key_says_what_it_means_and_its_default() {
        for section in &SECTIONS {
            assert!(!section.help.is_empty(), "[{}]", section.name);
            for key in section.keys() {
                assert!(!key.help.is_empty() && !key.help.ends_with('.'), "{}.{}", section.name, key.name);
                let default = key.default.is_empty() || serde_json::from_str::<Value>(key.default).is_ok();
                assert!(default, "{}.{}: {}", section.name, key.name, key.default);
            }
        }
        assert_eq!(schema()["properties"]["proxy"]["properties"]["listen"]["default"], json!("127.0.0.1:8000"));
    }
}
