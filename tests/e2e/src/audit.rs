//! What an API server tells of those who write.

use std::{fs, path::Path};

use serde_json::{Deserializer, Value, json};

/// A write that was done.
#[derive(Clone, Debug)]
pub struct Written {
    /// When, by the API server's clock.
    pub at: String,
    /// The address that it came from.
    pub from: String,
    /// What was written.
    pub what: String,
}

/// An audit policy that has what a user writes told, and nothing else.
pub(crate) fn writes_of(user: &str) -> String {
    let verbs = ["create", "update", "patch", "delete", "deletecollection"];
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "users": [user], "verbs": verbs},
            {"level": "None"},
        ],
    });
    policy.to_string()
}

/// The writes that an audit log tells of; those that were refused are left out.
pub(crate) fn read(log: &Path) -> Vec<Written> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let events = Deserializer::from_str(&log).into_iter::<Value>();
    let events = events.map(|event| event.expect("an audit log is lines of JSON"));
    let done = events.filter(|event| {
        let code = event["responseStatus"]["code"].as_u64();
        code.is_some_and(|code| code < 300)
    });
    let mut written: Vec<Written> = done.map(|event| written(&event)).collect();
    written.sort_by(|one, other| one.at.cmp(&other.at));
    written
}

fn written(event: &Value) -> Written {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let parts = ["resource", "name", "subresource"].map(|field| text(&object[field]));
    Written {
        at: text(&event["stageTimestamp"]),
        from: text(&event["sourceIPs"][0]),
        what: format!("{} {}", text(&event["verb"]), parts.join("/")),
    }
}
