//! Rules that no packet can match.

use serde_json::json;

use crate::{assert_each, common::rule};

#[test]
fn later_fragments_with_qualifiers() {
    let port = json!([{"port": 80}]);
    for qualified in [
        json!({"tcp": {"ports": port}}),
        json!({"tcp": {"sourcePorts": port}}),
        json!({"tcp": {"flags": {"set": ["Syn"]}}}),
        json!({"tcp": {"established": false}}),
        json!({"udp": {"ports": port}}),
        json!({"udp": {"sourcePorts": port}}),
        json!({"sctp": {"ports": port}}),
        json!({"sctp": {"sourcePorts": port}}),
        json!({"icmp": {"types": [8]}}),
        json!({"icmpv6": {"types": [128]}}),
    ] {
        assert_each(vec![(
            rule(json!({"fragments": "Later", "protocols": [{"number": 50}, qualified]})),
            "spec.rules[0]",
            "would never match",
            "fragments: Later",
        )]);
    }
}

#[test]
fn families_that_cannot_match() {
    let v4 = json!({"cidrs": ["10.0.0.0/8"]});
    let v6 = json!({"cidrs": ["2001:db8::/32"]});
    assert_each(vec![
        (
            rule(json!({"from": v4, "to": v6})),
            "spec.rules[0].to",
            "only IPv6 and from only IPv4",
            "one family",
        ),
        (
            rule(json!({"from": v4, "protocols": [{"icmpv6": {}}]})),
            "spec.rules[0].protocols[0].icmpv6",
            "IPv4 only",
            "icmp",
        ),
        (
            rule(json!({"to": v6, "protocols": [{"tcp": {}}, {"icmp": {}}]})),
            "spec.rules[0].protocols[1].icmp",
            "IPv6 only",
            "icmpv6",
        ),
        (
            rule(
                json!({"from": {"cidrs": ["10.1.0.0/16"], "except": ["10.0.0.0/9", "10.128.0.0/9"]}}),
            ),
            "spec.rules[0].from.except",
            "every address",
            "narrow",
        ),
        (
            rule(json!({
                "from": {"cidrs": ["10.0.0.0/8", "2001:db8::/32"], "except": ["::/0"]},
                "to": v6,
            })),
            "spec.rules[0].to",
            "no packet has both",
            "one family",
        ),
        (
            rule(json!({
                "from": {"cidrGroups": {"names": ["a"]}, "except": ["::/1", "8000::/1"]},
                "protocols": [{"icmpv6": {}}],
            })),
            "spec.rules[0].protocols[0].icmpv6",
            "IPv4 only",
            "icmp",
        ),
    ]);
}
