//! Rules of the CRDs, in CEL.

use headgate_crds::Problem;
use serde_json::{Value, json};

use super::{assert_words, problem, refusals};
use crate::{
    objects::{from, group, peer, policy, protocol, rule},
    submit::named,
};

/// Rules of the CRD that the check runs too: same place, same reason, same remedy.
pub(super) fn same_words() {
    let expression = |e: Value| policy(json!({"nodeSelector": {"matchExpressions": [e]}}));
    let tcp = |t: Value| protocol(json!({"tcp": t}));
    let later = |p: Value| rule(json!({"fragments": "Later", "protocols": [{"number": 50}, p]}));
    let port = json!([{"port": 80}]);
    let native = |field: &str, value: Value| {
        let mut spec =
            json!({"mode": "Native", "podCIDRs": ["10.244.2.0/24"], "endpoint": "192.0.2.2"});
        spec[field] = value;
        peer(spec)
    };
    let vxlan = json!({"podCIDRs": ["10.244.2.0/24"], "endpoint": "192.0.2.2"});
    let objects = named([
        ("no-addresses", rule(json!({"from": {}}))),
        (
            "only-except",
            rule(json!({"to": {"except": ["10.0.0.0/8"]}})),
        ),
        ("no-group", rule(json!({"from": {"cidrGroups": {}}}))),
        ("later-port", later(json!({"tcp": {"ports": port}}))),
        (
            "later-source-port",
            later(json!({"udp": {"sourcePorts": port}})),
        ),
        (
            "later-flags",
            later(json!({"tcp": {"flags": {"set": ["Syn"]}}})),
        ),
        (
            "later-established",
            later(json!({"tcp": {"established": false}})),
        ),
        ("later-sctp", later(json!({"sctp": {"ports": port}}))),
        ("later-type", later(json!({"icmpv6": {"types": [128]}}))),
        (
            "in-without-values",
            expression(json!({"key": "role", "operator": "In"})),
        ),
        (
            "exists-with-values",
            expression(json!({"key": "role", "operator": "Exists", "values": ["a"]})),
        ),
        (
            "reversed",
            tcp(json!({"ports": [{"port": 90, "endPort": 80}]})),
        ),
        (
            "reversed-source",
            protocol(json!({"sctp": {"sourcePorts": [{"port": 9, "endPort": 3}]}})),
        ),
        ("no-flag", tcp(json!({"flags": {}}))),
        (
            "flag-twice",
            tcp(json!({"flags": {"set": ["Syn", "Ack"], "unset": ["Ack"]}})),
        ),
        ("hop-by-hop", protocol(json!({"number": 0}))),
        ("routing-header", protocol(json!({"number": 43}))),
        ("vxlan-without-vni", peer(vxlan)),
        ("native-with-vni", native("vni", json!(7))),
        ("native-with-port", native("port", json!(8472))),
        ("native-with-mac", native("mac", json!("02:68:c0:00:02:02"))),
        (
            "native-with-delivery",
            native("localDelivery", json!("Direct")),
        ),
        (
            "native-of-two-families",
            native("podCIDRs", json!(["10.244.2.0/24", "fd00::/64"])),
        ),
    ]);
    let outcome = refusals(&objects);
    for (name, object) in &objects {
        let Problem {
            path,
            reason,
            remedy,
            ..
        } = problem(object);
        let said = &outcome.refused[*name];
        for words in [
            format!("{path}: Invalid value: "),
            format!("{reason}; {remedy}"),
        ] {
            assert!(said.contains(&words), "{name}: {words:?} is not in: {said}");
        }
    }
}

/// A CEL rule has one message for all that breaks it. The check answers these by itself: it says
/// what ails a CIDR, and which of two entries is which.
pub(super) fn own_words() {
    let no_cidr = "is no CIDR; write ADDRESS/LENGTH without leading zeros";
    let first = "spec.rules[0].from.cidrs[0]";
    let twice = json!([{"name": "a", "action": "Drop"}, {"name": "a", "action": "Allow"}]);
    assert_words(&[
        ("address", from("10.0.0.1"), first, no_cidr),
        ("v6-address", from("2001:db8::1"), first, no_cidr),
        ("octal", from("010.0.0.0/8"), first, no_cidr),
        ("two-zeros", from("10.00.0.0/8"), first, no_cidr),
        ("length-33", from("10.0.0.0/33"), first, no_cidr),
        ("length-129", from("2001:db8::/129"), first, no_cidr),
        ("length-08", from("10.0.0.0/08"), first, no_cidr),
        ("length-plus", from("10.0.0.0/+8"), first, no_cidr),
        ("no-length", from("10.0.0.0/"), first, no_cidr),
        ("three-bytes", from("10.0.0/8"), first, no_cidr),
        ("netmask", from("10.0.0.0/255.0.0.0"), first, no_cidr),
        ("mapped", from("::ffff:192.0.2.0/120"), first, no_cidr),
        ("zone", from("fe80::1%eth0/64"), first, no_cidr),
        ("blank-before", from(" 10.0.0.0/8"), first, no_cidr),
        ("nothing", from(""), first, no_cidr),
        ("host-name", from("example.com"), first, no_cidr),
        (
            "in-a-group",
            group(json!({"cidrs": ["10.0.0.0/8", "10.0.0.1"]})),
            "spec.cidrs[1]",
            "spec.cidrs[1]: Invalid value: \"10.0.0.1\": \"10.0.0.1\" is no CIDR; write",
        ),
        (
            "in-except",
            rule(json!({"to": {"cidrs": ["10.0.0.0/8"], "except": ["10.0.0.1"]}})),
            "spec.rules[0].to.except[0]",
            "spec.rules[0].to.except[0]: Invalid value: \"10.0.0.1\"",
        ),
        (
            "interface-twice",
            policy(json!({"interfaces": ["eth0", "eth1", "eth0"]})),
            "spec.interfaces[2]",
            "spec.interfaces: Invalid value: an interface is listed twice; remove one of the two",
        ),
        (
            "rule-twice",
            policy(json!({"rules": twice})),
            "spec.rules[1].name",
            "spec.rules: Invalid value: two rules have one name; give every rule a name of its own",
        ),
    ]);
}
