//! `/openapi.json` is true: what the examples send and are answered is what it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::document::{self, Kind};
use crate::fleet::Replica;

/// The document, as a replica serves it.
#[derive(Clone)]
pub struct Interface(Arc<Value>);

/// One request and its answer.
pub struct Asked<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub body: &'a str,
    pub status: u16,
    pub content: &'a str,
    pub answer: &'a str,
}

impl Interface {
    pub async fn of(url: &str) -> Interface {
        let answer = reqwest::get(format!("{url}/openapi.json")).await.unwrap();
        Interface(Arc::new(answer.json().await.unwrap()))
    }

    /// What is wrong with a value, by a schema of the document.
    fn judge(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let whole = json!({"allOf": [schema], "components": self.0["components"]});
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&whole).map_err(|error| error.to_string())?;
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}\nin {value}", wrong.join("\n"))) }
    }

    fn named(&self, name: &str, value: &Value) -> Result<(), String> {
        self.judge(&json!({"$ref": format!("#/components/schemas/{name}")}), value)
    }

    /// A frame that a client was sent.
    pub fn sent(&self, text: &str) -> Result<(), String> {
        let frame = serde_json::from_str(text).map_err(|error| error.to_string())?;
        self.named("ServerFrame", &frame)
    }

    /// What is said of a request; `None` where there is no such path or method.
    fn operation(&self, method: &str, target: &str) -> Option<&Value> {
        let path = target.split('?').next().unwrap();
        let fits = |template: &str| {
            let (own, asked) = (template.split('/'), path.split('/'));
            own.clone().count() == asked.clone().count()
                && own.zip(asked).all(|(own, asked)| own == asked || own.starts_with('{'))
        };
        let paths = self.0["paths"].as_object().unwrap();
        // A path without braces counts before one with them.
        let found =
            paths.get(path).or_else(|| paths.iter().find(|(own, _)| fits(own)).map(|one| one.1));
        found?.get(method.to_lowercase())
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().and_then(|text| text.strip_prefix('#'));
        reference.map_or(value, |pointer| self.0.pointer(pointer).unwrap())
    }

    pub fn check(&self, asked: &Asked<'_>) -> Result<(), String> {
        let Some(operation) = self.operation(asked.method, asked.target) else {
            return match asked.status {
                404 | 405 => Ok(()),
                status => Err(format!("nothing is said of it, and {status} came")),
            };
        };
        let said = self.resolved(&operation["responses"][asked.status.to_string()]);
        if said.is_null() {
            return Err(format!("nothing is said of {}: {}", asked.status, asked.answer));
        }
        if (200..300).contains(&asked.status) && !asked.body.is_empty() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = serde_json::from_str(asked.body).map_err(|error| error.to_string())?;
            self.judge(schema, &body).map_err(|wrong| format!("the request: {wrong}"))?;
        }
        let content = asked.content.split(';').next().unwrap();
        if content.is_empty() {
            return if said["content"].is_null() { Ok(()) } else { Err("no content".to_owned()) };
        }
        let schema = &said["content"][content]["schema"];
        if schema.is_null() {
            return Err(format!("nothing is said of {content}"));
        }
        if !content.ends_with("json") {
            return Ok(());
        }
        let answer = serde_json::from_str(asked.answer).map_err(|error| error.to_string())?;
        self.judge(schema, &answer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paths_of_the_document_are_those_of_the_router() {
    let replica = Replica::in_memory("told", &[]).await;
    let interface = Interface::of(&replica.url).await;
    let mut told = BTreeSet::new();
    for (path, operations) in interface.0["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            told.insert((method.to_uppercase(), path.clone()));
        }
    }
    assert_eq!(told, super::endpoints());
    // Each has a name of its own, which generated clients are made of.
    let mut names = BTreeSet::new();
    for operations in interface.0["paths"].as_object().unwrap().values() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = operation["operationId"].as_str();
            assert!(method == "parameters" || names.insert(name.expect("a name")), "{name:?}");
        }
    }
}

/// What stands in braces in an example, in a form that the schemas take.
fn filled(text: &str) -> String {
    text.replace("{cursor}", "abc-1")
        .replace("{task}", "1")
        .replace("{notice}", "1")
        .replace("{1 MiB}", "\"\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_examples_send_over_sockets_is_what_the_document_says() {
    let replica = Replica::in_memory("told", &[]).await;
    let interface = Interface::of(&replica.url).await;
    let mut shown = BTreeSet::new();
    for example in document::examples().iter().filter(|one| one.kind == Kind::WebSocket) {
        for line in &example.lines {
            let Some(text) = line.text.strip_prefix("> {") else { continue };
            let frame: Value = serde_json::from_str(&filled(&format!("{{{text}"))).unwrap();
            match interface.named("ClientFrame", &frame) {
                Ok(()) => drop(shown.insert(frame["op"].as_str().unwrap().to_owned())),
                // Shown because it is refused.
                Err(_) if ["dance", "subscribe"].contains(&frame["op"].as_str().unwrap()) => {}
                Err(wrong) => panic!("docs/protocol.md:{}: {wrong}", line.number),
            }
        }
    }
    let frames = interface.0["components"]["schemas"]["ClientFrame"]["oneOf"].as_array().unwrap();
    let names = |one: &Value| match &one["properties"]["op"] {
        op if op["enum"].is_array() => op["enum"].as_array().unwrap().clone(),
        op => vec![op["const"].clone()],
    };
    let known: BTreeSet<String> =
        frames.iter().flat_map(names).map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(shown, known);
}
