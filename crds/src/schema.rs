//! What schemars emits, made fit for a CRD that behaves predictably.

use schemars::Schema;
use serde_json::{Map, Value};

/// A transform for every object of the CRDs.
///
/// - An optional field is absent or has a value, never null: `has()` is true on
///   null, and a `from:` left blank must not read as "from anywhere".
/// - Integer formats other than int32 are unknown to the API server, which
///   warns about each; the minimum and maximum say it all.
/// - Descriptions are one paragraph a line, for `kubectl explain` wraps itself.
pub(crate) fn crd_object(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    settle(object);
    if let Some(Value::Array(variants)) = object.get_mut("oneOf") {
        for variant in variants.iter_mut().filter_map(Value::as_object_mut) {
            settle(variant);
        }
    }
}

fn settle(object: &mut Map<String, Value>) {
    unwrap_description(object);
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        return;
    };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        unwrap_description(property);
        forbid_null(property);
        plain_integers(property);
    }
}

fn forbid_null(property: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            property.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = property.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    let Some(Value::Array(branches)) = property.get("anyOf") else {
        return;
    };
    let kept: Vec<&Value> = branches.iter().filter(|b| b["type"] != "null").collect();
    if let [Value::Object(only)] = kept.as_slice() {
        let only = only.clone();
        property.remove("anyOf");
        for (key, value) in only {
            property.entry(key).or_insert(value);
        }
    }
}

fn plain_integers(property: &mut Map<String, Value>) {
    if property
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        property.insert("format".into(), "int32".into());
    }
    if let Some(Value::Object(items)) = property.get_mut("items") {
        plain_integers(items);
    }
}

fn unwrap_description(object: &mut Map<String, Value>) {
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description
            .split("\n\n")
            .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n");
    }
}
