//! Objects that tests submit.
#![allow(
    clippy::needless_pass_by_value,
    reason = "json! reads better without &"
)]

use serde_json::{Value, json};

/// A policy with this spec.
pub(crate) fn policy(spec: Value) -> Value {
    object("XdpPolicy", spec)
}

/// A policy with one rule: these fields beside a name and an action.
pub(crate) fn rule(fields: Value) -> Value {
    let mut rule = json!({"name": "r", "action": "Drop"});
    for (key, value) in fields.as_object().expect("fields are an object") {
        rule[key] = value.clone();
    }
    policy(json!({"rules": [rule]}))
}

/// A policy with one rule from one range.
pub(crate) fn from(cidr: &str) -> Value {
    rule(json!({"from": {"cidrs": [cidr]}}))
}

/// A policy with one rule on one protocol.
pub(crate) fn protocol(protocol: Value) -> Value {
    rule(json!({"protocols": [protocol]}))
}

/// A group with this spec.
pub(crate) fn group(spec: Value) -> Value {
    object("CidrGroup", spec)
}

/// A service in the namespace `default` with these fields in place of usual ones.
pub(crate) fn service(fields: Value) -> Value {
    let mut spec = json!({
        "addresses": ["203.0.113.10"],
        "ports": [{"name": "http", "port": 80}],
        "backends": {"static": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]},
        "forwarding": "DirectReturn",
    });
    for (key, value) in fields.as_object().expect("fields are an object") {
        spec[key] = value.clone();
    }
    object("LoadBalancerService", spec)
}

/// A peer of the tunnel with this spec.
pub(crate) fn peer(spec: Value) -> Value {
    object("TunnelPeer", spec)
}

/// A pool with this spec.
pub(crate) fn pool(spec: Value) -> Value {
    object("AddressPool", spec)
}

/// As many of something.
pub(crate) fn many(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

/// As many ranges, all different.
pub(crate) fn ranges(count: usize) -> Value {
    many(count, |i| json!(format!("10.{}.{}.0/24", i / 256, i % 256)))
}

fn object(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "headgate.dev/v1alpha1", "kind": kind, "metadata": {}, "spec": spec})
}
