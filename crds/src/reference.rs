//! The reference of all fields, for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::crd::all;

/// Every kind with its fields, as Markdown: what the definitions say, the same text for the same
/// types.
///
/// # Panics
/// Never: a definition is plain data.
#[must_use]
pub fn reference() -> String {
    let mut text =
        "# Reference of the resources\n\nGenerated from the types (`cargo xtask crds`). \
        Group `headgate.dev`, version `v1alpha1`; all kinds belong to the \
        whole cluster, but for LoadBalancerService, which belongs to a namespace.\n"
            .to_owned();
    for crd in all() {
        let names = &crd.spec.names;
        let version = serde_json::to_value(&crd.spec.versions[0]).expect("plain data");
        let schema = &version["schema"]["openAPIV3Schema"];
        let short = names.short_names.clone().unwrap_or_default().join("`, `");
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\nShort name `{short}`.\n\n",
            names.kind,
            words(schema)
        );
        text.push_str("| field | type | what it says |\n|---|---|---|\n");
        rows(&mut text, "", schema);
        let rules = rules(schema);
        if !rules.is_empty() {
            text.push_str("\nRefused besides what types and limits rule out:\n\n");
            for rule in rules {
                let _ = writeln!(text, "- {rule}");
            }
        }
    }
    text
}

fn rows(text: &mut String, path: &str, schema: &Value) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let here = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let must = if required.contains(&name.as_str()) {
            ", required"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "| `{here}` | {}{must} | {} |",
            kind(field),
            words(field)
        );
        if field["type"] == "array" {
            rows(text, &format!("{here}[]"), &field["items"]);
        } else {
            rows(text, &here, field);
        }
    }
}

fn kind(field: &Value) -> String {
    let mut kind = match field["type"].as_str() {
        Some("array") => format!("list of {}", plain(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => "map".to_owned(),
        _ => plain(field),
    };
    let mut limit = |key: &str, say: &dyn Fn(&Value) -> String| {
        if let Some(value) = field.get(key) {
            kind.push_str(&say(value));
        }
    };
    limit("maxItems", &|most| format!(", at most {most}"));
    limit("minimum", &|least| format!(", from {}", whole(least)));
    limit("maximum", &|most| format!(" to {}", whole(most)));
    limit("default", &|value| format!(", default `{value}`"));
    kind
}

fn plain(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str);
        return values
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    schema["type"].as_str().unwrap_or("any").to_owned()
}

fn whole(number: &Value) -> String {
    number
        .as_f64()
        .map(|number| format!("{number:.0}"))
        .unwrap_or_default()
}

/// A description in one line of a table.
fn words(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    description.replace('\n', " ").replace('|', "\\|")
}

/// The messages of all CEL rules, in the order of the fields.
fn rules(schema: &Value) -> Vec<String> {
    let own = schema["x-kubernetes-validations"].as_array();
    let mut messages: Vec<String> = own
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["message"].as_str().map(str::to_owned))
        .collect();
    let fields = schema["properties"].as_object().into_iter().flatten();
    messages.extend(fields.flat_map(|(_, field)| rules(field)));
    if schema["items"].is_object() {
        messages.extend(rules(&schema["items"]));
    }
    let mut seen = std::collections::BTreeSet::new();
    messages.retain(|message| seen.insert(message.clone()));
    messages
}
