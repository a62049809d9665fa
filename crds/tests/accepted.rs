//! What passes: with its defaults, its warnings, and otherwise as written.

mod common;

use common::{good, group, policy, protocol, rule, service};
use headgate_crds::{
    Action, AttachMode, Protocol, Resource, TcpFlag, XdpPolicy, check, parse_cidr,
};
use serde_json::{Value, json};

fn as_policy(object: &Value) -> XdpPolicy {
    match good(object).resource {
        Resource::XdpPolicy(policy) => policy,
        other => panic!("{other:?} is no policy"),
    }
}

#[test]
fn an_empty_spec_has_defaults() {
    let spec = as_policy(&policy(json!({}))).spec;
    assert_eq!(spec.node_selector, None);
    assert_eq!(spec.interfaces, ["defaultRoute"]);
    assert_eq!(spec.attach_mode, AttachMode::Auto);
    assert_eq!(spec.priority, 500);
    assert_eq!(spec.default_action, Action::Allow);
    assert!(spec.rules.is_empty());
}

#[test]
fn every_field_together() {
    let object = policy(json!({
        "nodeSelector": {
            "matchLabels": {"role": "edge", "empty": ""},
            "matchExpressions": [
                {"key": "example.org/zone", "operator": "NotIn", "values": ["a", ""]},
                {"key": "gpu", "operator": "DoesNotExist"},
            ],
        },
        "interfaces": ["eth*", "bond0.7", "wg?", "defaultRoute"],
        "attachMode": "Native",
        "priority": 0,
        "defaultAction": "Drop",
        "rules": [
            {
                "name": "replies",
                "action": "Allow",
                "from": {"cidrs": ["0.0.0.0/0", "::/0"], "except": ["192.0.2.0/24"]},
                "to": {"cidrGroups": {"names": ["ours"], "selector": {}}},
                "protocols": [
                    {"tcp": {
                        "ports": [{"port": 0, "endPort": 65535}, {"port": 22, "endPort": 22}],
                        "sourcePorts": [{"port": 443}],
                        "flags": {"set": ["Ack"], "unset": ["Syn", "Fin"]},
                        "established": true,
                    }},
                    {"udp": {"sourcePorts": [{"port": 53}]}},
                    {"sctp": {}},
                    {"icmp": {"types": [0, 255]}},
                    {"icmpv6": {}},
                    {"number": 47},
                ],
                "fragments": "First",
            },
            {"name": "later", "action": "Drop", "fragments": "Later",
             "protocols": [{"udp": {}}, {"number": 50}]},
            {"name": "rest", "action": "Drop"},
        ],
    }));
    let policy = as_policy(&object);
    let Some([Protocol::Tcp(tcp), ..]) = policy.spec.rules[0].protocols.as_deref() else {
        panic!("tcp was first");
    };
    let flags = tcp.flags.as_ref().expect("flags were given");
    assert_eq!(flags.unset, [TcpFlag::Syn, TcpFlag::Fin]);
    assert_eq!(tcp.ports.as_ref().map(|p| p[1].last()), Some(22));
    // Nothing is dropped, added or rewritten on the way back.
    assert_eq!(serde_json::to_value(&policy).expect("plain data"), object);
}

#[test]
fn cidrs_stay_as_written_with_a_warning() {
    let checked = good(&group(json!({"cidrs": [
        "10.0.0.0/8", "10.0.0.1/8", "2001:DB8::/32", "2001:db8::1/32",
    ]})));
    let [warning] = checked.warnings.as_slice() else {
        panic!("one warning a list: {:?}", checked.warnings);
    };
    assert_eq!(
        warning.to_string(),
        "spec.cidrs[1]: 10.0.0.1/8 has bits set beyond its prefix length and means 10.0.0.0/8, \
         and 1 more in this list; write 10.0.0.0/8"
    );
    let Resource::CidrGroup(group) = checked.resource else {
        panic!("it is a group");
    };
    assert_eq!(group.spec.cidrs[3], "2001:db8::1/32");
    assert_eq!(group.metadata.labels.map(|l| l.len()), Some(1));
}

#[test]
fn source_ranges_that_hardly_mean_what_they_say_get_a_warning() {
    let warnings = |addresses: Value, ranges: Value| -> Vec<String> {
        let mut object = service();
        object["spec"]["addresses"] = addresses;
        object["spec"]["backends"]["static"] =
            json!([{"address": "10.0.0.1"}, {"address": "fd00::1"}]);
        object["spec"]["sourceRanges"] = ranges;
        let warnings = good(&object).warnings;
        warnings.iter().map(ToString::to_string).collect()
    };
    let both = json!(["192.0.2.1", "2001:db8::1"]);
    assert_eq!(
        warnings(both.clone(), json!(["10.0.0.1/8", "::/0"])),
        [
            "spec.sourceRanges[0]: 10.0.0.1/8 has bits set beyond its prefix length and means 10.0.0.0/8; \
             write 10.0.0.0/8"
        ]
    );
    assert_eq!(
        warnings(both, json!(["10.0.0.0/8"])),
        [
            "spec.sourceRanges: no range is IPv6, so no client may use 2001:db8::1; \
             add one, such as ::/0 for all, or remove the address"
        ]
    );
    assert_eq!(
        warnings(json!(["192.0.2.1"]), json!(["10.0.0.0/8", "fd00::/8"])),
        [
            "spec.sourceRanges[1]: fd00::/8 admits nobody: no address is IPv6; \
             remove it, or add an address of its family"
        ]
    );
}

#[test]
fn rules_that_may_match_are_left_alone() {
    let v4 = json!({"cidrs": ["10.0.0.0/8"]});
    for fields in [
        json!({"from": v4, "to": {"cidrGroups": {"names": ["unknown-families"]}}}),
        json!({"from": v4, "protocols": [{"icmp": {}}]}),
        json!({"from": {"cidrs": ["10.0.0.0/8"], "except": ["10.0.0.0/9"]}}),
        json!({"from": {"cidrGroups": {"selector": {}}, "except": ["0.0.0.0/0"]}}),
        json!({"fragments": "Later", "protocols": [{"tcp": {}}, {"icmp": {}}, {"number": 6}]}),
        json!({"fragments": "First", "protocols": [{"udp": {"ports": [{"port": 53}]}}]}),
    ] {
        good(&rule(fields));
    }
    for protocol_item in [
        json!({"number": 255}),
        json!({"tcp": {"established": true, "flags": {"unset": ["Ack"]}}}),
        json!({"tcp": {"established": false, "flags": {"set": ["Syn"]}}}),
    ] {
        good(&protocol(protocol_item));
    }
}

#[test]
fn metadata_of_a_live_object_is_taken() {
    let mut object = policy(json!({}));
    object["metadata"] = json!({
        "name": "web.v2",
        "namespace": "default",
        "uid": "0a1b",
        "generation": 3,
        "resourceVersion": "17",
        "creationTimestamp": null,
        "labels": null,
        "annotations": {"any key": "any value"},
    });
    let warnings = good(&object).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].path, "metadata.namespace");
}

#[test]
fn limits_are_inclusive() {
    let cidrs: Value = (0..5000)
        .map(|i| json!(format!("10.{}.{}.0/24", i / 256, i % 256)))
        .collect();
    good(&group(json!({"cidrs": cidrs})));
    let ports: Value = (0..64).map(|i| json!({"port": i})).collect();
    let protocols: Value = (0..16).map(|_| json!({"udp": {"ports": ports}})).collect();
    let cidrs: Value = (0..256).map(|i| json!(format!("10.0.{i}.0/24"))).collect();
    let rules: Value = (0..256)
        .map(|i| json!({"name": format!("r{i}"), "action": "Drop", "from": {"cidrs": cidrs}}))
        .collect();
    good(&policy(json!({"priority": 1000, "rules": rules})));
    good(&rule(
        json!({"name": "a".repeat(63), "protocols": protocols}),
    ));
}

#[test]
fn the_same_object_twice_gives_the_same_result() {
    let object = rule(json!({"from": {"cidrs": ["10.0.0.1/8"]}}));
    assert_eq!(check(&object), check(&object));
}

#[test]
fn cidrs_parse_as_the_api_server_reads_them() {
    for text in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.1/32",
        "::1.2.3.4/128",
        "2001:DB8::/32",
    ] {
        assert!(parse_cidr(text).is_ok(), "{text}");
    }
    assert_eq!(
        parse_cidr("10.0.0.1/8").map(|net| (net.to_string(), net.trunc().to_string())),
        Ok(("10.0.0.1/8".into(), "10.0.0.0/8".into()))
    );
}
