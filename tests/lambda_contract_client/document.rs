//! The vendor's OpenAPI document: schemas to validate with, and samples made from its own examples.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// The document.
pub(crate) struct Document(Value);

/// One call that the document describes.
pub(crate) struct Operation {
    /// E.g. `GET /api/v1/instances/{id}`.
    pub(crate) name: String,
    /// The schema of the body that it wants.
    pub(crate) request: Option<Value>,
    /// Query parameters.
    pub(crate) parameters: Vec<String>,
    /// Schemas of answers by status.
    pub(crate) answers: Vec<(u16, Value)>,
}

impl Document {
    /// The document from the shared data, or `None` after a line that says why not.
    pub(crate) fn load() -> Option<Self> {
        let folder = std::env::var_os("GORGO_TEST_DATA").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
        let path = folder.join("facts/lambda-api-1.8.3.json");
        match std::fs::read(&path) {
            Ok(text) => Some(Self(serde_json::from_slice(&text).unwrap())),
            Err(error) => {
                println!(
                    "skipped: the contract with Lambda is not checked, because {} cannot be read: {error}",
                    path.display()
                );
                None
            }
        }
    }

    /// All calls.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut found = Vec::new();
        for (path, methods) in self.0["paths"].as_object().unwrap() {
            for (method, call) in methods.as_object().unwrap().iter().filter(|(_, call)| call["responses"].is_object())
            {
                let content = |place: &Value| place["content"]["application/json"]["schema"].clone();
                let answers = call["responses"].as_object().unwrap();
                let parameters =
                    call["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "query");
                found.push(Operation {
                    name: format!("{} {path}", method.to_uppercase()),
                    request: call.get("requestBody").map(content),
                    parameters: parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect(),
                    answers: answers
                        .iter()
                        .map(|(status, answer)| (status.parse().unwrap(), content(answer)))
                        .collect(),
                });
            }
        }
        found
    }

    /// The call that a request is.
    pub(crate) fn operation(&self, method: &str, path: &str) -> Option<Operation> {
        let fits = |name: &str| {
            let (wanted, template) = name.split_once(' ').unwrap();
            let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            let same = |(t, p): (&&str, &&str)| t == p || (t.starts_with('{') && !p.is_empty());
            wanted == method && template.len() == path.len() && template.iter().zip(&path).all(same)
        };
        let mut fitting: Vec<Operation> = self.operations().into_iter().filter(|call| fits(&call.name)).collect();
        // `…/global` is closer than `…/{id}`.
        fitting.sort_by_key(|call| call.name.contains('{'));
        fitting.into_iter().next()
    }

    /// A schema by its name.
    pub(crate) fn schema(&self, name: &str) -> Value {
        assert!(self.0["components"]["schemas"][name].is_object(), "the document has no schema `{name}`");
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// Complaints about `value`; none = it is what the schema asks for.
    pub(crate) fn complaints(&self, schema: &Value, value: &Value) -> Vec<String> {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.0["components"],
        });
        let validator = jsonschema::validator_for(&whole).unwrap();
        validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect()
    }

    /// A value of the schema, made from the document's examples: with all properties, or only with the required ones.
    pub(crate) fn sample(&self, schema: &Value, full: bool) -> Value {
        if let Some(example) =
            schema["examples"].get(0).or_else(|| schema.get("const")).or_else(|| schema["enum"].get(0))
        {
            return example.clone();
        }
        if let Some(pointer) = schema["$ref"].as_str() {
            return self.sample(self.0.pointer(pointer.trim_start_matches('#')).unwrap(), full);
        }
        if let Some(branch) = schema["anyOf"].get(0) {
            return self.sample(branch, full);
        }
        if let Some(default) = schema.get("default") {
            return default.clone();
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, full),
            Some("array") => json!([self.sample(&schema["items"], full)]),
            Some("integer") => json!(1),
            Some("boolean") => json!(true),
            Some("string") if schema["format"] == "date-time" => json!("2026-11-20T07:00:00Z"),
            Some("string") => json!("text"),
            other => panic!("no sample for type {other:?} in {schema}"),
        }
    }

    fn object(&self, schema: &Value, full: bool) -> Value {
        let required =
            |name: &str| schema["required"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
        let mut object = Map::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if full || required(name) {
                object.insert(name.clone(), self.sample(property, full));
            }
        }
        if schema["additionalProperties"].is_object() {
            object.insert("some-key".to_owned(), self.sample(&schema["additionalProperties"], full));
        }
        Value::Object(object)
    }

    /// The error objects that an answer's schema allows.
    pub(crate) fn errors(&self, answer: &Value) -> Vec<Value> {
        let error = &answer["properties"]["error"];
        let branches = error["anyOf"].as_array().cloned().unwrap_or_else(|| vec![error.clone()]);
        branches.iter().map(|branch| json!({"error": self.sample(branch, true)})).collect()
    }
}
