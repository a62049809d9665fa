//! What every object has beside its spec. The API server knows these fields by
//! itself, so no CRD schema holds them.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

use crate::{
    check::{Kind, Problem},
    path::Path,
    remedy,
    structural::{LABEL_KEY, LABEL_VALUE, OBJECT_NAME},
};

/// The fields of Kubernetes' ObjectMeta.
const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
const LONGEST_NAME: usize = 253;
const LONGEST_KEY: usize = 317;
const LONGEST_VALUE: usize = 63;

pub(crate) fn check(
    object: &Map<String, Value>,
    kind: Kind,
    warnings: &mut Vec<Problem>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(Value::Object(metadata)) = object.get("metadata") else {
        // A metadata of another type is the schema's to refuse.
        if !object.contains_key("metadata") {
            let remedy = "add metadata: {name: ...}";
            problems.push(remedy::problem("metadata.name", "is required", remedy));
        }
        return problems;
    };
    let path = Path::ROOT.field("metadata");
    for field in metadata.keys().filter(|f| !FIELDS.contains(&f.as_str())) {
        problems.push(remedy::unknown_field(&path, field, FIELDS.into_iter()));
    }
    name(&path.field("name"), metadata.get("name"), &mut problems);
    labels(&path.field("labels"), metadata.get("labels"), &mut problems);
    let annotations = metadata.get("annotations");
    strings(&path.field("annotations"), annotations, &mut problems);
    let namespace = metadata.get("namespace").filter(|n| !n.is_null());
    if kind.is_namespaced() {
        if let Some(namespace) = namespace {
            name(&path.field("namespace"), Some(namespace), &mut problems);
        }
    } else if namespace.is_some() {
        warnings.push(remedy::problem(
            "metadata.namespace",
            "has no effect, the resource belongs to the whole cluster",
            "remove it",
        ));
    }
    problems
}

fn name(path: &Path<'_>, name: Option<&Value>, problems: &mut Vec<Problem>) {
    match name {
        None | Some(Value::Null) => {
            problems.push(remedy::problem(path, "is required", "add a name"));
        }
        Some(Value::String(name)) if name.len() > LONGEST_NAME => {
            problems.push(remedy::too_long(path, name.len(), LONGEST_NAME));
        }
        Some(Value::String(name)) if !is_object_name(name) => {
            problems.push(remedy::mismatch(path, name, OBJECT_NAME));
        }
        Some(Value::String(_)) => {}
        Some(other) => {
            let write = format!(
                "put it in quotes: \"{}\"",
                remedy::shown(&other.to_string())
            );
            problems.push(remedy::wrong_type(path, other, "a string", write));
        }
    }
}

fn labels(path: &Path<'_>, labels: Option<&Value>, problems: &mut Vec<Problem>) {
    for (key, value) in strings(path, labels, problems) {
        let path = path.key(key);
        if !is_label_key(key) {
            problems.push(remedy::mismatch(&path, key, LABEL_KEY));
        }
        if value.len() > LONGEST_VALUE {
            problems.push(remedy::too_long(&path, value.len(), LONGEST_VALUE));
        } else if !is_label_value(value) {
            problems.push(remedy::mismatch(&path, value, LABEL_VALUE));
        }
    }
}

/// The entries of a map of strings, which may be absent or null.
fn strings<'a>(
    path: &Path<'_>,
    map: Option<&'a Value>,
    problems: &mut Vec<Problem>,
) -> Vec<(&'a str, &'a str)> {
    let map = match map {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Object(map)) => map,
        Some(other) => {
            let write = "write KEY: VALUE pairs".into();
            problems.push(remedy::wrong_type(path, other, "an object", write));
            return Vec::new();
        }
    };
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map {
        if let Value::String(value) = value {
            entries.push((key.as_str(), value.as_str()));
        } else {
            let at = path.key(key);
            let write = format!(
                "put it in quotes: \"{}\"",
                remedy::shown(&value.to_string())
            );
            problems.push(remedy::wrong_type(&at, value, "a string", write));
        }
    }
    entries
}

/// Whether `key` may be a label's key.
pub(crate) fn is_label_key(key: &str) -> bool {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    key.len() <= LONGEST_KEY && matches(&PATTERN, LABEL_KEY, key)
}

fn is_label_value(value: &str) -> bool {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    matches(&PATTERN, LABEL_VALUE, value)
}

fn is_object_name(name: &str) -> bool {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    matches(&PATTERN, OBJECT_NAME, name)
}

fn matches(compiled: &OnceLock<Regex>, pattern: &str, text: &str) -> bool {
    compiled
        .get_or_init(|| Regex::new(pattern).expect("the patterns are constants of this crate"))
        .is_match(text)
}
