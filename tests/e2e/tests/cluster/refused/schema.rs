//! What OpenAPI says of the CRDs, and the API server of every object.

use serde_json::{Value, json};

use super::{Case, assert_words};
use crate::objects::{from, group, many, policy, protocol, ranges, rule};

/// What OpenAPI can say, it says in words that no CRD can choose; the check's name a remedy.
pub(super) fn own_words() {
    let mut cases = policy_schema();
    cases.extend(rule_schema());
    cases.extend(metadata());
    assert_words(&cases);
}

fn policy_schema() -> Vec<Case> {
    let rules = many(257, |i| json!({"name": format!("r{i}"), "action": "Drop"}));
    let label = |value: Value| policy(json!({"nodeSelector": {"matchLabels": {"role": value}}}));
    vec![
        (
            "misspelt",
            policy(json!({"defaultaction": "Drop"})),
            "spec.defaultaction",
            "strict decoding error: unknown field \"spec.defaultaction\"",
        ),
        (
            "misspelt-in-a-group",
            group(json!({"cidr": ["10.0.0.0/8"], "cidrs": ["10.0.0.0/8"]})),
            "spec.cidr",
            "strict decoding error: unknown field \"spec.cidr\"",
        ),
        (
            "no-interface",
            policy(json!({"interfaces": []})),
            "spec.interfaces",
            "spec.interfaces in body should have at least 1 items",
        ),
        (
            "one-interface",
            policy(json!({"interfaces": "eth0"})),
            "spec.interfaces",
            "spec.interfaces in body must be of type array: \"string\"",
        ),
        (
            "long-interface",
            policy(json!({"interfaces": ["a-name-too-long0"]})),
            "spec.interfaces[0]",
            "spec.interfaces[0]: Too long: may not be more than 15 bytes",
        ),
        (
            "interface-with-slash",
            policy(json!({"interfaces": ["eth0/1"]})),
            "spec.interfaces[0]",
            "spec.interfaces[0] in body should match '^[A-Za-z0-9_.:@*?-]+$'",
        ),
        (
            "lower-case-mode",
            policy(json!({"attachMode": "native"})),
            "spec.attachMode",
            "Unsupported value: \"native\": supported values: \"Auto\", \"Native\", \"Generic\"",
        ),
        (
            "priority-1001",
            policy(json!({"priority": 1001})),
            "spec.priority",
            "spec.priority in body should be less than or equal to 1000",
        ),
        (
            "priority-in-quotes",
            policy(json!({"priority": "10"})),
            "spec.priority",
            "spec.priority in body must be of type integer: \"string\"",
        ),
        (
            "priority-and-a-half",
            policy(json!({"priority": 1.5})),
            "spec.priority",
            "spec.priority in body must be of type int32: \"float64\"",
        ),
        (
            "rejecting",
            policy(json!({"defaultAction": "Reject"})),
            "spec.defaultAction",
            "supported values: \"Allow\", \"Drop\"",
        ),
        (
            "too-many-rules",
            policy(json!({"rules": rules})),
            "spec.rules",
            "spec.rules: Too many: 257: must have at most 256 items",
        ),
        (
            "true-as-label",
            label(json!(true)),
            "spec.nodeSelector.matchLabels[role]",
            "spec.nodeSelector.matchLabels.role in body must be of type string: \"boolean\"",
        ),
        (
            "no-label-value",
            label(json!("-edge")),
            "spec.nodeSelector.matchLabels[role]",
            "spec.nodeSelector.matchLabels.role in body should match",
        ),
        (
            "no-operator",
            policy(json!({"nodeSelector": {"matchExpressions": [{"key": "role"}]}})),
            "spec.nodeSelector.matchExpressions[0].operator",
            "spec.nodeSelector.matchExpressions[0].operator: Required value",
        ),
        (
            "too-large-a-group",
            group(json!({"cidrs": ranges(5001)})),
            "spec.cidrs",
            "spec.cidrs: Too many: 5001: must have at most 5000 items",
        ),
        (
            "empty-group",
            group(json!({})),
            "spec.cidrs",
            "spec.cidrs: Required value",
        ),
    ]
}

fn rule_schema() -> Vec<Case> {
    let ports = |ports: Value| protocol(json!({"udp": {"ports": ports}}));
    vec![
        (
            "nameless",
            policy(json!({"rules": [{"action": "Drop"}]})),
            "spec.rules[0].name",
            "spec.rules[0].name: Required value",
        ),
        (
            "rule-with-capitals",
            rule(json!({"name": "Block SSH"})),
            "spec.rules[0].name",
            "spec.rules[0].name in body should match",
        ),
        (
            "limiting",
            rule(json!({"action": "RateLimit"})),
            "spec.rules[0].action",
            "spec.rules[0].action: Unsupported value: \"RateLimit\"",
        ),
        (
            "misspelt-in-a-rule",
            rule(json!({"form": {"cidrs": ["10.0.0.0/8"]}})),
            "spec.rules[0].form",
            "strict decoding error: unknown field \"spec.rules[0].form\"",
        ),
        (
            "too-many-ranges",
            rule(json!({"from": {"cidrs": ranges(257)}})),
            "spec.rules[0].from.cidrs",
            "spec.rules[0].from.cidrs: Too many: 257: must have at most 256 items",
        ),
        (
            "long-range",
            from(&"1".repeat(50)),
            "spec.rules[0].from.cidrs[0]",
            "spec.rules[0].from.cidrs[0]: Too long: may not be more than 49 bytes",
        ),
        (
            "group-with-capitals",
            rule(json!({"from": {"cidrGroups": {"names": ["Bad Hosts"]}}})),
            "spec.rules[0].from.cidrGroups.names[0]",
            "spec.rules[0].from.cidrGroups.names[0] in body should match",
        ),
        (
            "no-protocol",
            protocol(json!({})),
            "spec.rules[0].protocols[0]",
            "must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            "two-protocols",
            protocol(json!({"tcp": {}, "udp": {}})),
            "spec.rules[0].protocols[0]",
            "must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            "protocol-as-a-word",
            protocol(json!("TCP")),
            "spec.rules[0].protocols[0]",
            "spec.rules[0].protocols[0] in body must be of type object: \"string\"",
        ),
        (
            "protocol-256",
            protocol(json!({"number": 256})),
            "spec.rules[0].protocols[0].number",
            "spec.rules[0].protocols[0].number in body should be less than or equal to 255",
        ),
        (
            "port-65536",
            ports(json!([{"port": 65536}])),
            "spec.rules[0].protocols[0].udp.ports[0].port",
            "udp.ports[0].port in body should be less than or equal to 65535",
        ),
        (
            "port-by-name",
            ports(json!([{"port": "http"}])),
            "spec.rules[0].protocols[0].udp.ports[0].port",
            "udp.ports[0].port in body must be of type integer: \"string\"",
        ),
        (
            "only-an-end-port",
            ports(json!([{"endPort": 80}])),
            "spec.rules[0].protocols[0].udp.ports[0].port",
            "spec.rules[0].protocols[0].udp.ports[0].port: Required value",
        ),
        (
            "type-256",
            protocol(json!({"icmp": {"types": [256]}})),
            "spec.rules[0].protocols[0].icmp.types[0]",
            "icmp.types[0] in body should be less than or equal to 255",
        ),
        (
            "flag-in-capitals",
            protocol(json!({"tcp": {"flags": {"set": ["SYN"]}}})),
            "spec.rules[0].protocols[0].tcp.flags.set[0]",
            "tcp.flags.set[0]: Unsupported value: \"SYN\"",
        ),
        (
            "all-fragments",
            rule(json!({"fragments": "All"})),
            "spec.rules[0].fragments",
            "spec.rules[0].fragments: Unsupported value: \"All\"",
        ),
    ]
}

/// What every kind has is no CRD's to describe.
fn metadata() -> Vec<Case> {
    let with = |metadata: Value| {
        let mut object = policy(json!({}));
        object["metadata"] = metadata;
        object
    };
    vec![
        (
            "name-with-capitals",
            with(json!({"name": "Web_1"})),
            "metadata.name",
            "metadata.name: Invalid value: \"Web_1\"",
        ),
        (
            "misspelt-labels",
            with(json!({"label": {}})),
            "metadata.label",
            "strict decoding error: unknown field \"metadata.label\"",
        ),
        (
            "bad-label",
            with(json!({"labels": {"feed": "a b"}})),
            "metadata.labels[feed]",
            "metadata.labels: Invalid value: \"a b\"",
        ),
    ]
}
