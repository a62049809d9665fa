//! The CRDs as files.
#![allow(clippy::disallowed_methods, reason = "the files are the subject")]

use headgate_crds::{all, files, reference};
use serde_json::Value;

#[test]
fn the_files_are_those_of_the_types() {
    for (name, yaml) in files() {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == yaml,
            "crds/{name} differs from the types; run: cargo xtask crds"
        );
        assert!(yaml.len() < 200_000, "{name} has {} bytes", yaml.len());
    }
}

#[test]
fn the_reference_is_that_of_the_types() {
    let path = format!("{}/../docs/reference.md", env!("CARGO_MANIFEST_DIR"));
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == reference(),
        "docs/reference.md differs from the types; run: cargo xtask crds"
    );
}

/// Every field has a description; null is no value. What users write has limits, every list and
/// string: the cost of CEL rules is reckoned from them.
#[test]
fn every_field_is_described_and_bounded() {
    fn walk(path: &str, schema: &Value, is_field: bool) {
        let by_users = path.starts_with(".spec");
        if is_field {
            assert!(
                schema["description"].is_string(),
                "{path} has no description"
            );
        }
        assert!(schema.get("nullable").is_none(), "{path} may be null");
        match schema["type"].as_str() {
            Some("array") if !by_users => walk(&format!("{path}[]"), &schema["items"], false),
            Some("array") => {
                assert!(schema["maxItems"].is_u64(), "{path} has no maxItems");
                assert_eq!(schema["minItems"], 1, "{path} may be empty");
                assert_eq!(schema["x-kubernetes-list-type"], "atomic", "{path}");
                walk(&format!("{path}[]"), &schema["items"], false);
            }
            Some("string") => assert!(
                !by_users || schema["maxLength"].is_u64() || schema["enum"].is_array(),
                "{path} has no limit"
            ),
            Some("integer") if !by_users => {}
            Some("integer") => {
                assert!(schema["maximum"].is_number(), "{path} has no maximum");
                assert_eq!(schema["format"], "int32", "{path}");
            }
            Some("object" | "boolean") => {}
            other => panic!("{path} has type {other:?}"),
        }
        if let Some(values) = schema.get("additionalProperties") {
            assert!(schema["maxProperties"].is_u64(), "{path} has no limit");
            walk(&format!("{path}{{}}"), values, false);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), field, true);
        }
    }
    for crd in all() {
        let schema = crd.spec.versions[0]
            .schema
            .as_ref()
            .and_then(|s| s.open_api_v3_schema.as_ref());
        let schema = serde_json::to_value(schema).expect("plain data");
        walk("", &schema, false);
    }
}
