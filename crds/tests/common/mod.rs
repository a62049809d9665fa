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

/// A service with all that it needs.
pub fn service() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "addresses": ["192.0.2.1"],
            "ports": [{"name": "http", "port": 80}],
            "backends": {"static": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]},
            "forwarding": "DirectReturn",
            "ringSize": 16381,
        },
    })
}

/// A pool for one tenant.
pub fn pool() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "AddressPool",
        "metadata": {"name": "shop"},
        "spec": {"cidrs": ["192.0.2.0/24"], "namespaces": ["shop"]},
    })
}

/// A peer with networks of both families.
pub fn peer() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "TunnelPeer",
        "metadata": {"name": "node-b"},
        "spec": {
            "podCIDRs": ["10.244.2.0/24", "2001:db8:2::/64"],
            "endpoint": "192.0.2.2",
            "vni": 7,
            "port": 4789,
            "mac": "02:68:c0:00:02:02",
        },
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
