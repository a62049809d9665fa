//! Objects that tests start from.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "json! reads better without &"
)]

use headgate_crds::{Checked, Problem, check};
use serde_json::{Value, json};

/// A policy with this spec.
pub fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": "web"},
        "spec": spec,
    })
}

/// A policy with one rule: these fields beside a name and an action.
pub fn rule(fields: Value) -> Value {
    let mut rule = json!({"name": "r", "action": "Drop"});
    for (key, value) in fields.as_object().expect("fields are an object") {
        rule[key] = value.clone();
    }
    policy(json!({"rules": [rule]}))
}

/// A policy with one rule on one protocol.
pub fn protocol(protocol: Value) -> Value {
    rule(json!({"protocols": [protocol]}))
}

/// A group with this spec.
pub fn group(spec: Value) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "CidrGroup",
        "metadata": {"name": "bad-hosts", "labels": {"feed": "bad"}},
        "spec": spec,
    })
}

/// The object, which must pass.
pub fn good(object: &Value) -> Checked {
    check(object).unwrap_or_else(|problems| panic!("{object:#}\nrefused: {problems:#?}"))
}

/// The problems of the object, which must have some.
pub fn bad(object: &Value) -> Vec<Problem> {
    check(object).expect_err(&format!("{object:#}\nwas accepted"))
}
