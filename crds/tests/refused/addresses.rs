//! Addresses, inline and in groups.

use serde_json::{Value, json};

use crate::{
    assert_each,
    common::{group, rule},
    numbered,
};

#[test]
fn addresses() {
    let from = |e: Value| rule(json!({"from": e}));
    let cidr = |c: &str| from(json!({"cidrs": [c]}));
    let not_cidr = |c: &str| (cidr(c), "spec.rules[0].from.cidrs[0]", "is no CIDR", "/32");
    assert_each(
        [
            "10.0.0.1",
            "2001:db8::1",
            "010.0.0.0/8",
            "10.00.0.0/8",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0/8",
            "10.0.0.0/255.0.0.0",
            "2001:db8::/129",
            "::ffff:192.0.2.0/120",
            "fe80::1%eth0/64",
            " 10.0.0.0/8",
            "",
            "example.com",
        ]
        .map(not_cidr)
        .into(),
    );
    assert_each(vec![
        (
            cidr(&"1".repeat(50)),
            "spec.rules[0].from.cidrs[0]",
            "50 characters",
            "shorten",
        ),
        (
            from(json!({"cidrs": [10]})),
            "spec.rules[0].from.cidrs[0]",
            "a number",
            "quotes",
        ),
        (
            from(json!({})),
            "spec.rules[0].from",
            "no addresses",
            "cidrs: [\"0.0.0.0/0\", \"::/0\"]",
        ),
        (
            from(json!({"except": ["10.0.0.0/8"]})),
            "spec.rules[0].from",
            "no addresses",
            "cidrs: [\"0.0.0.0/0\", \"::/0\"]",
        ),
        (
            from(json!({"cidrs": []})),
            "spec.rules[0].from.cidrs",
            "empty list",
            "remove",
        ),
        (
            from(json!({"cidrs": numbered(257, |i| json!(format!("10.0.{}.0/24", i % 256)))})),
            "spec.rules[0].from.cidrs",
            "257 entries, at most 256",
            "CidrGroup",
        ),
        (
            from(json!({"cidrs": ["10.0.0.0/8"], "except": ["10.0.0.1"]})),
            "spec.rules[0].from.except[0]",
            "no CIDR",
            "/32",
        ),
        (
            from(json!({"cidrs": ["10.0.0.0/8"], "except": []})),
            "spec.rules[0].from.except",
            "empty list",
            "remove",
        ),
        (
            from(json!({"cidrGroups": {}})),
            "spec.rules[0].from.cidrGroups",
            "no group is named or selected",
            "selector: {}",
        ),
        (
            from(json!({"cidrGroups": ["a"]})),
            "spec.rules[0].from.cidrGroups",
            "a list, must be an object",
            "names",
        ),
        (
            from(json!({"cidrGroups": {"names": []}})),
            "spec.rules[0].from.cidrGroups.names",
            "empty list",
            "remove",
        ),
        (
            from(json!({"cidrGroups": {"names": ["Bad Hosts"]}})),
            "spec.rules[0].from.cidrGroups.names[0]",
            "\"Bad Hosts\"",
            "lower-case",
        ),
        (
            from(json!({"cidrGroups": {"selector": {"matchLabels": {"a b": "c"}}}})),
            "spec.rules[0].from.cidrGroups.selector.matchLabels[a b]",
            "label key",
            "NAME",
        ),
    ]);
}

#[test]
fn groups() {
    let many = numbered(5001, |i| json!(format!("10.{}.{}.0/24", i / 256, i % 256)));
    assert_each(vec![
        (group(json!({})), "spec.cidrs", "required", "add cidrs"),
        (
            group(json!({"cidrs": []})),
            "spec.cidrs",
            "empty list",
            "at least one",
        ),
        (
            group(json!({"cidrs": many})),
            "spec.cidrs",
            "5001 entries, at most 5000",
            "several CidrGroups with a common label",
        ),
        (
            group(json!({"cidrs": ["10.0.0.0/8", "10.0.0.1"]})),
            "spec.cidrs[1]",
            "\"10.0.0.1\" is no CIDR",
            "/32",
        ),
        (
            group(json!({"cidr": ["10.0.0.0/8"], "cidrs": ["10.0.0.0/8"]})),
            "spec.cidr",
            "no known field",
            "cidrs?",
        ),
    ]);
}
