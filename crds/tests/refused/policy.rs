//! The fields of a policy and of its rules.

use serde_json::{Value, json};

use crate::{
    assert_each,
    common::{policy, rule},
    numbered,
};

#[test]
fn policy_fields() {
    assert_each(vec![
        (
            policy(json!({"defaultaction": "Drop"})),
            "spec.defaultaction",
            "no known field",
            "mean defaultAction?",
        ),
        (
            policy(json!({"enforcement": "Shadow"})),
            "spec.enforcement",
            "no known field",
            "attachMode",
        ),
        (
            policy(json!({"interfaces": []})),
            "spec.interfaces",
            "empty list",
            "remove",
        ),
        (
            policy(json!({"interfaces": "eth0"})),
            "spec.interfaces",
            "a string, must be a list",
            "[\"eth0\"]",
        ),
        (
            policy(json!({"interfaces": ["a-name-too-long0"]})),
            "spec.interfaces[0]",
            "16 characters",
            "shorten",
        ),
        (
            policy(json!({"interfaces": [""]})),
            "spec.interfaces[0]",
            "empty",
            "write",
        ),
        (
            policy(json!({"interfaces": ["eth0/1"]})),
            "spec.interfaces[0]",
            "\"eth0/1\"",
            "defaultRoute",
        ),
        (
            policy(json!({"interfaces": ["eth0", "eth1", "eth0"]})),
            "spec.interfaces[2]",
            "\"eth0\" is taken by spec.interfaces[0]",
            "remove",
        ),
        (
            policy(json!({"interfaces": numbered(65, |i| json!(format!("eth{i}")))})),
            "spec.interfaces",
            "65 entries, at most 64",
            "64",
        ),
        (
            policy(json!({"attachMode": "native"})),
            "spec.attachMode",
            "\"native\" is not Auto, Native or Generic",
            "Native?",
        ),
        (
            policy(json!({"attachMode": null})),
            "spec.attachMode",
            "blank",
            "remove the field",
        ),
        (
            policy(json!({"priority": 1001})),
            "spec.priority",
            "1001 is out of range",
            "0 to 1000",
        ),
        (
            policy(json!({"priority": -1})),
            "spec.priority",
            "-1 is out of range",
            "0 to 1000",
        ),
        (
            policy(json!({"priority": "10"})),
            "spec.priority",
            "a string, must be a whole number",
            "without quotes",
        ),
        (
            policy(json!({"priority": 1.5})),
            "spec.priority",
            "a fraction",
            "whole number",
        ),
        (
            policy(json!({"priority": u64::MAX})),
            "spec.priority",
            "out of range",
            "0 to 1000",
        ),
        (
            policy(json!({"defaultAction": "Reject"})),
            "spec.defaultAction",
            "\"Reject\" is not Allow or Drop",
            "write Allow or Drop",
        ),
        (
            policy(json!({"rules": []})),
            "spec.rules",
            "empty list",
            "remove",
        ),
        (
            policy(
                json!({"rules": numbered(257, |i| json!({"name": format!("r{i}"), "action": "Drop"}))}),
            ),
            "spec.rules",
            "257 entries, at most 256",
            "priority",
        ),
        (policy(json!(null)), "spec", "blank", "value"),
    ]);
}

#[test]
fn selectors() {
    let selector = |s: Value| policy(json!({"nodeSelector": s}));
    let expression = |e: Value| selector(json!({"matchExpressions": [e]}));
    assert_each(vec![
        (
            selector(json!({"matchlabels": {}})),
            "spec.nodeSelector.matchlabels",
            "no known field",
            "matchLabels?",
        ),
        (
            selector(json!({"matchLabels": {"role": true}})),
            "spec.nodeSelector.matchLabels[role]",
            "a boolean, must be a string",
            "\"true\"",
        ),
        (
            selector(json!({"matchLabels": {"role": "-edge"}})),
            "spec.nodeSelector.matchLabels[role]",
            "\"-edge\" is not a label value",
            "letters",
        ),
        (
            selector(json!({"matchLabels": {"a role": "edge"}})),
            "spec.nodeSelector.matchLabels[a role]",
            "not a label key",
            "NAME",
        ),
        (
            selector(json!({"matchExpressions": []})),
            "spec.nodeSelector.matchExpressions",
            "empty list",
            "remove",
        ),
        (
            expression(json!({"operator": "Exists"})),
            "spec.nodeSelector.matchExpressions[0].key",
            "required",
            "add key",
        ),
        (
            expression(json!({"key": "a/b/c", "operator": "Exists"})),
            "spec.nodeSelector.matchExpressions[0].key",
            "not a label key",
            "NAME",
        ),
        (
            expression(json!({"key": "role"})),
            "spec.nodeSelector.matchExpressions[0].operator",
            "required",
            "In, NotIn, Exists or DoesNotExist",
        ),
        (
            expression(json!({"key": "role", "operator": "Equals"})),
            "spec.nodeSelector.matchExpressions[0].operator",
            "\"Equals\"",
            "In, NotIn",
        ),
        (
            expression(json!({"key": "role", "operator": "In"})),
            "spec.nodeSelector.matchExpressions[0]",
            "In and NotIn need values",
            "add values",
        ),
        (
            expression(json!({"key": "role", "operator": "Exists", "values": ["a"]})),
            "spec.nodeSelector.matchExpressions[0]",
            "Exists and DoesNotExist take none",
            "remove",
        ),
        (
            expression(json!({"key": "role", "operator": "In", "values": []})),
            "spec.nodeSelector.matchExpressions[0].values",
            "empty list",
            "list at least one",
        ),
        (
            expression(json!({"key": "role", "operator": "In", "values": ["a b"]})),
            "spec.nodeSelector.matchExpressions[0].values[0]",
            "not a label value",
            "letters",
        ),
    ]);
}

#[test]
fn rule_fields() {
    let twice = json!([{"name": "a", "action": "Drop"}, {"name": "a", "action": "Allow"}]);
    assert_each(vec![
        (
            policy(json!({"rules": [{"action": "Drop"}]})),
            "spec.rules[0].name",
            "required",
            "add name",
        ),
        (
            policy(json!({"rules": [{"name": "a"}]})),
            "spec.rules[0].action",
            "required",
            "Allow or Drop",
        ),
        (
            policy(json!({"rules": twice})),
            "spec.rules[1].name",
            "\"a\" is taken by spec.rules[0]",
            "rename",
        ),
        (
            rule(json!({"name": "Block SSH"})),
            "spec.rules[0].name",
            "\"Block SSH\"",
            "lower-case",
        ),
        (
            rule(json!({"name": "a".repeat(64)})),
            "spec.rules[0].name",
            "64 characters",
            "shorten",
        ),
        (
            rule(json!({"name": ""})),
            "spec.rules[0].name",
            "empty",
            "write",
        ),
        (
            rule(json!({"action": "RateLimit"})),
            "spec.rules[0].action",
            "\"RateLimit\" is not Allow or Drop",
            "write",
        ),
        (
            rule(json!({"form": {"cidrs": ["10.0.0.0/8"]}})),
            "spec.rules[0].form",
            "no known field",
            "from?",
        ),
        (
            rule(json!({"from": null})),
            "spec.rules[0].from",
            "blank",
            "remove the field",
        ),
        (
            rule(json!({"to": []})),
            "spec.rules[0].to",
            "a list, must be an object",
            "cidrs",
        ),
        (
            rule(json!({"protocols": []})),
            "spec.rules[0].protocols",
            "empty list",
            "remove",
        ),
        (
            rule(json!({"protocols": numbered(17, |i| json!({"number": 100 + i}))})),
            "spec.rules[0].protocols",
            "17 entries, at most 16",
            "16",
        ),
        (
            rule(json!({"fragments": "All"})),
            "spec.rules[0].fragments",
            "\"All\" is not First or Later",
            "First or Later",
        ),
    ]);
}
